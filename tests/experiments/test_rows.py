"""The table of experiments compared with the paper."""

from __future__ import annotations

import pytest

from fastccsa.experiments import EXPERIMENTS

DOMAINS = ("HAM", "DMF", "D7P", "MSK", "PH2", "SON", "UDA")


def test_there_are_22_rows_named_by_letter() -> None:
    assert "".join(EXPERIMENTS) == "ABCDEFGHIJKLMNOPQRSTUV"
    assert all(row.letter == letter for letter, row in EXPERIMENTS.items())


@pytest.mark.parametrize("row", EXPERIMENTS.values(), ids=EXPERIMENTS)
def test_the_printed_mean_is_that_of_the_seven_domains(row) -> None:
    assert tuple(row.paper) == (*DOMAINS, "avg")
    mean = sum(row.paper[domain] for domain in DOMAINS) / len(DOMAINS)
    assert abs(mean - row.paper["avg"]) <= 0.1  # eight rounded numbers


def test_the_rows_are_what_the_paper_varies() -> None:
    assert {letter: row.n_sec for letter, row in EXPERIMENTS.items() if row.n_sec != "all"} == {
        "A": 0, "B": 0, "C": 0, "D": 5, "F": 1, "G": 2, "H": 3, "I": 4, "J": 5,
    }  # fmt: skip
    assert {letter: row.backbone for letter, row in EXPERIMENTS.items() if row.backbone != "resnet18"} == {
        "B": "resnet50", "C": "resnet152",
    }  # fmt: skip
    assert [letter for letter, row in EXPERIMENTS.items() if row.alignment == "-"] == list("ABCDE")
    assert {letter: row.classification + row.alignment for letter, row in EXPERIMENTS.items() if letter in "KLMN"} == {
        "K": "ww", "L": "uw", "M": "wu", "N": "uu",
    }  # fmt: skip
    left_out = {letter: row.without for letter, row in EXPERIMENTS.items() if row.without}
    assert left_out == dict(zip("OPQRST", [domain for domain in DOMAINS if domain != "HAM"], strict=True))
    assert {letter: row.threshold for letter, row in EXPERIMENTS.items() if row.threshold} == {"U": 1e-4, "V": 1e-3}


def test_what_each_row_starts_from() -> None:
    starts = {letter: row.starts_from for letter, row in EXPERIMENTS.items()}
    assert {letter for letter, start in starts.items() if start is None} == set("ABCDE")
    assert {letter for letter, start in starts.items() if start == "A"} == set("FGHIJKLMNOPQRST")
    assert {letter for letter, start in starts.items() if start == "K"} == set("UV")


def test_a_few_numbers_as_printed() -> None:
    assert EXPERIMENTS["K"].paper == {
        "HAM": 72.3, "DMF": 74.3, "D7P": 44.4, "MSK": 58.9, "PH2": 82.3, "SON": 99.6, "UDA": 66.7, "avg": 71.2,
    }  # fmt: skip
    assert EXPERIMENTS["T"].paper["UDA"] == 69.0
    assert EXPERIMENTS["N"].paper["SON"] == 100.0
