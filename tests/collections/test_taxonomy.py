from __future__ import annotations

import subprocess
import sys

from fastccsa.collections.taxonomy import CLASS_NAMES, CLASSES, DOMAINS, ISIC_COLLECTIONS, TABLE1, TABLE1_NOTES


def test_table_1_adds_up_to_its_printed_totals() -> None:
    printed = {"HAM": 10015, "DMF": 1212, "D7P": 1926, "MSK": 3551, "PH2": 200, "SON": 9251, "UDA": 601}
    assert TABLE1.keys() == printed.keys() <= DOMAINS.keys()
    for domain, total in printed.items():
        missing = 2 if domain == "D7P" else 0  # two bcc, see the note in TABLE1_NOTES
        assert sum(TABLE1[domain].values()) == total - missing
        assert tuple(TABLE1[domain]) == CLASSES
    assert "84" in TABLE1_NOTES["D7P"]


def test_classes_and_domains_have_names() -> None:
    assert set(CLASSES) == set(CLASS_NAMES)
    assert ISIC_COLLECTIONS.keys() <= DOMAINS.keys()


def test_the_papers_table_has_no_domain_that_was_added() -> None:
    """This needs a new process, because the rows are made when their module is imported."""
    code = (
        "from fastccsa.collections.taxonomy import DOMAINS\n"
        "DOMAINS['NEW'] = 'a collection of your own'\n"
        "from fastccsa.experiments import EXPERIMENTS\n"
        "print(*EXPERIMENTS['K'].paper)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert ended.stdout.split() == ["HAM", "DMF", "D7P", "MSK", "PH2", "SON", "UDA", "avg"]
