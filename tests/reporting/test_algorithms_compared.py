"""The comparison of algorithms on domains that they never saw, on runs with known results."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from arm_runs import write_arm
from click.testing import CliRunner
from sklearn.metrics import roc_auc_score

from benchmarks.algorithms import Difference, as_markdown, compare_algorithms, in_words
from fastccsa.cli import main
from fastccsa.evaluation.intervals import Interval
from fastccsa.system.errors import InputError

BASELINE = {"alignment": "-"}
SEEDS = range(4)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """K is far above E on domains never seen, and coral is E; even seeds leave MSK out, odd ones UDA."""
    folder = tmp_path_factory.mktemp("algorithms")
    for seed in SEEDS:
        out = ("MSK", "UDA")[seed % 2]
        plain = {"HAM": 6, "MSK": 3, "UDA": 1, "SON": 0}
        start = str(folder / "A" / f"seed{seed}")
        write_arm(folder, "A", seed, plain | {"HAM": 7}, exclude=(out,), n_sec=0, **BASELINE)
        write_arm(folder, "E", seed, plain, exclude=(out,), **BASELINE)
        write_arm(folder, "K", seed, plain | {"MSK": 8, "UDA": 7}, exclude=(out,), init=start)
        write_arm(folder, "coral", seed, plain, exclude=(out,), algorithm="coral")
        if seed < 3:
            write_arm(folder, "swad", seed, plain, exclude=(out,), average="swad", **BASELINE)
    return folder


@pytest.fixture(scope="module")
def found(runs: Path) -> dict:
    return compare_algorithms(runs, SEEDS, ["E", "K"])


def pick(records: list[dict], **values: object) -> dict:
    (record,) = [each for each in records if all(each[key] == value for key, value in values.items())]
    return record


def test_values_by_group(found: dict) -> None:
    expected = {"unseen": (8 + 7) / 2, "MSK unseen": 8, "UDA unseen": 7, "home": 6, "abroad": (8 + 7) / 2}
    assert list(found["groups"]) == list(expected)
    for group, right in expected.items():
        record = pick(found["scores"], metric="recall", arm="K", group=group)
        assert record["estimate"] == pytest.approx(100 * right / 8, abs=0.01)
        assert record["seeds"] == (2 if group.endswith(" unseen") else 4)
    assert found["left_out"] == {"swad": [0, 1, 2]}


def test_auroc_is_that_of_scikit_learn(found: dict, runs: Path) -> None:
    outputs = write_arm(runs.parent / "again", "E", 0, {"HAM": 6, "MSK": 3, "UDA": 1, "SON": 0}, **BASELINE)
    here = outputs.domains == outputs.domain_names.index("MSK")
    logits = outputs.logits[here]
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    expected = np.mean([roc_auc_score(outputs.targets[here] == c, probabilities[:, c]) for c in range(3)])
    record = pick(found["scores"], metric="auroc", arm="E", group="MSK unseen")
    assert record["estimate"] == pytest.approx(100 * expected, abs=0.01)


def test_differences_are_corrected_within_a_metric_and_group(found: dict) -> None:
    pairs = [("A", "E"), ("K", "E"), ("coral", "E"), ("A", "K"), ("coral", "K")]
    for metric in ("recall", "auroc"):
        for group in ("unseen", "home"):
            family = [each for each in found["differences"] if (each["metric"], each["group"]) == (metric, group)]
            assert [(each["arm"], each["minus"]) for each in family] == pairs
            ps = sorted(each["p"] for each in family)
            for each in family:  # Holm by its definition
                steps = [(len(ps) - rank) * p for rank, p in enumerate(ps) if p <= each["p"]]
                assert each["p_holm"] == pytest.approx(min(max(steps), 1), abs=1e-3)
    difference = pick(found["differences"], metric="recall", arm="coral", minus="K", group="UDA unseen")
    assert difference["estimate"] == pytest.approx(-75, abs=0.01)
    assert difference["low"] <= -75 <= difference["high"]


def test_what_is_said(found: dict) -> None:
    """K is above all others on unseen domains; at home A differs by three images of 24."""
    words = found["words"]["recall unseen"]
    against_e, against_k = words.split("Against ")[1:]
    assert against_e.startswith("E: above it: K +")
    assert "; not told apart from it: A, coral." in against_e
    assert against_k.startswith("K: below it: ")
    assert all(f"{arm} -" in against_k for arm in ("A", "E", "coral"))
    assert "not told" not in against_k
    assert found["words"]["recall home"].endswith("Against K: not told apart from it: E, A, coral.")


def test_sentences_turn_differences_to_the_arm_they_are_about() -> None:
    apart = Difference("K", "E", Interval(0.1, 0.05, 0.2, 5, 0.001), 0.01)
    unclear = Difference("A", "K", Interval(-0.02, -0.05, 0.01, 5, 0.2), 0.2)
    text = in_words("Recall", [apart, unclear], ["E", "K"])
    assert text == (
        "Recall (2 differences, corrected together). Against E: above it: K +10.0 [+5.0, +20.0]. "
        "Against K: below it: E -10.0 [-20.0, -5.0]; not told apart from it: A."
    )


def test_the_cost_includes_the_start(found: dict) -> None:
    """Two epochs of 30 s at 9 images/s each, and those of A for the arm that starts from it."""
    cost = {each["arm"]: each for each in found["arms"]}
    assert cost["E"]["minutes"] == 1
    assert cost["K"]["minutes"] == 2
    assert cost["K"]["thousand_images"] == pytest.approx(2 * cost["E"]["thousand_images"], abs=0.11)


def test_columns_with_few_seeds_have_no_p(found: dict) -> None:
    row = next(line for line in as_markdown(found).splitlines() if line.startswith("| K - E | +"))
    unseen, msk, uda, home, abroad = row.split(" | ")[1:]
    assert [" p " in cell for cell in (unseen, msk, uda, home, abroad)] == [True, False, False, True, True]
    assert "(two seeds)" in msk


def test_the_command_prints_tables_and_writes_the_numbers(runs: Path, found: dict) -> None:
    result = CliRunner().invoke(main, ["bench", "algorithms", "--report", str(runs), "--seeds", "4"])
    assert result.exit_code == 0, result.output
    assert result.stdout == as_markdown(found) + "\n"
    assert "Left out, because a seed is missing: swad (seeds 0, 1, 2)." in result.stdout
    assert json.loads((runs / "algorithms.json").read_text())["differences"] == found["differences"]


@pytest.mark.parametrize(
    ("seeds", "against", "message"),
    [
        (range(9), ["E"], "fewer than two arms have the seeds 0, 1, .*: give fewer --seeds"),
        (SEEDS, ["E", "swad"], "--against: swad is not among the arms with all seeds: A, E, K, coral"),
    ],
)
def test_bad_input(runs: Path, seeds: range, against: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        compare_algorithms(runs, seeds, against)


def test_the_folder_is_needed() -> None:
    result = CliRunner().invoke(main, ["bench", "algorithms"])
    assert result.exit_code == 2
    assert "give --report, the folder of the runs" in result.output
