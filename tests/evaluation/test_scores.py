from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from fastccsa.evaluation import Candidate, Scores, Selection, score
from fastccsa.system.errors import InputError

CLASSES = ("nv", "mel", "bcc")


def by_hand() -> Scores:
    """HAM: 2 of 3 nv correct, 1 of 1 mel, no bcc. SON: 0 of 2 nv (predicted as bcc, which does not occur)."""
    targets = np.array([0, 0, 0, 1, 0, 0])
    predictions = np.array([0, 0, 1, 1, 2, 2])
    return score(targets, predictions, np.array([0, 0, 0, 0, 2, 2]), CLASSES, ("HAM", "DMF", "SON"))


def test_numbers_by_hand() -> None:
    scores = by_hand()
    assert list(scores.domains) == ["HAM", "SON"]  # DMF has no image
    ham, son = scores.domains["HAM"], scores.domains["SON"]
    assert ham.recall == (pytest.approx(2 / 3), 1.0, None)
    assert ham.macro_recall == pytest.approx((2 / 3 + 1) / 2)
    assert ham.confusion == ((2, 1, 0), (0, 1, 0), (0, 0, 0))
    assert ham.count == 4
    assert son.recall == (0.0, None, None)
    assert son.macro_recall == 0
    assert son.confusion == ((0, 0, 2), (0, 0, 0), (0, 0, 0))
    assert scores.average == pytest.approx((2 / 3 + 1) / 4)


def test_macro_recall_is_balanced_accuracy() -> None:
    random = np.random.default_rng(0)
    targets = random.integers(0, 6, 500)  # class 6 of 7 never occurs, but may be predicted
    predictions = np.where(random.random(500) < 0.5, targets, random.integers(0, 7, 500))
    domains = random.integers(0, 2, 500)
    scores = score(targets, predictions, domains, tuple("abcdefg"), ("X", "Y"))
    for index, name in enumerate("XY"):
        here = domains == index
        with pytest.warns(UserWarning, match="classes not in y_true"):
            expected = balanced_accuracy_score(targets[here], predictions[here])
        assert scores.domains[name].macro_recall == pytest.approx(expected)
        assert np.sum(scores.domains[name].confusion) == here.sum()


def test_json_round_trip() -> None:
    scores = by_hand()
    text = scores.to_json()
    assert Scores.from_json(text) == scores
    values = json.loads(text)
    assert values["average"] == scores.average
    assert values["domains"]["HAM"]["recall"][2] is None
    selected = Scores("test", CLASSES, scores.domains, Selection("highest", 3, 0.5))
    assert Scores.from_json(selected.to_json()) == selected
    choices = {"informative": Candidate(3, 0.5), "paper": Candidate(2, 0.75)}
    compared = replace(selected, selection=Selection("highest", 3, 0.5, choices, Candidate(4, 0.25)))
    assert Scores.from_json(compared.to_json()) == compared


def test_scores_of_older_versions_are_read() -> None:
    values = json.loads(by_hand().to_json())
    values["selection"] = {"rule": "highest", "epoch": 3, "recall": 0.5}
    assert Scores.from_json(json.dumps(values)).selection == Selection("highest", 3, 0.5, {}, None)


def test_table_is_in_percent() -> None:
    table = by_hand().table()
    assert table.loc["HAM", "recall"] == pytest.approx(250 / 3)
    assert table.loc["avg", "recall"] == pytest.approx(125 / 3)
    assert table["images"].tolist() == [4, 2, 6]
    assert np.isnan(table.loc["HAM", "bcc"])
    lines = str(by_hand()).splitlines()
    assert lines[1].split() == ["HAM", "4", "83.3", "66.7", "100.0", "-"]
    assert lines[3].split() == ["avg", "6", "41.7", "-", "-", "-"]


def test_nothing_to_score_is_an_error() -> None:
    empty = np.array([], dtype=np.int64)
    with pytest.raises(InputError, match="no image to score in split 'test'"):
        score(empty, empty, empty, CLASSES, ("HAM",))


@pytest.mark.parametrize("text", ["no json", "[]", "{}", '{"domains": {"HAM": {}}}'])
def test_bad_files_are_named(text, tmp_path) -> None:
    path = tmp_path / "scores.json"
    path.write_text(text)
    with pytest.raises(InputError, match=r"scores\.json: not valid scores"):
        Scores.read(path)
    with pytest.raises(InputError, match="no scores at"):
        Scores.read(tmp_path / "absent.json")
