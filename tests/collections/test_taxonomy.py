from __future__ import annotations

from fastccsa.collections.taxonomy import CLASS_NAMES, CLASSES, DOMAINS, ISIC_COLLECTIONS, TABLE1, TABLE1_NOTES


def test_table_1_adds_up_to_its_printed_totals() -> None:
    printed = {"HAM": 10015, "DMF": 1212, "D7P": 1926, "MSK": 3551, "PH2": 200, "SON": 9251, "UDA": 601}
    assert TABLE1.keys() == DOMAINS.keys() == printed.keys()
    for domain, total in printed.items():
        missing = 2 if domain == "D7P" else 0  # two bcc, see the note in TABLE1_NOTES
        assert sum(TABLE1[domain].values()) == total - missing
        assert tuple(TABLE1[domain]) == CLASSES
    assert "84" in TABLE1_NOTES["D7P"]


def test_classes_and_domains_have_names() -> None:
    assert set(CLASSES) == set(CLASS_NAMES)
    assert ISIC_COLLECTIONS.keys() <= DOMAINS.keys()
