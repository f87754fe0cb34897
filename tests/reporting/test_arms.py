"""Arms of an experiment, compared on runs with known results."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from arm_runs import NAMES, write_arm

from fastccsa.evaluation import Outputs
from fastccsa.evaluation.metrics import METRICS
from fastccsa.reporting.arms import read_arms
from fastccsa.reporting.arms_table import as_markdown, compare_arms
from fastccsa.reporting.comparison import Comparison
from fastccsa.system.errors import InputError

Runs = Callable[..., Outputs]


@pytest.fixture
def finished(tmp_path: Path) -> Runs:
    """Write a finished run: 8 test images of each class and domain, a given number of them right in each."""
    return partial(write_arm, tmp_path)


BASELINE = {"alignment": "-", "n_sec": 0}


@pytest.fixture
def study(finished: Runs, tmp_path: Path) -> Path:
    """K is better than A by one image in 8 per cell at home, and by more elsewhere; seed 1 leaves UDA out, not MSK."""
    for seed, unseen in enumerate(("MSK", "UDA")):
        finished("A", seed, {"HAM": 4, "MSK": 2, "UDA": 3, "SON": 0}, exclude=(unseen,), **BASELINE)
        finished("K", seed, {"HAM": 5, "MSK": 5, "UDA": 7, "SON": 8}, exclude=(unseen,), alpha=0.5)
    return tmp_path


def test_recalls_and_differences_by_group(study: Path) -> None:
    found = compare_arms(study, ["A"], {"A": "first", "K": "second"})
    assert found["domains"][0] == {
        "home": ["HAM"], "abroad": ["UDA"], "unseen": ["MSK"],
        "several": ["HAM", "MSK", "UDA"], "all": ["HAM", "MSK", "UDA", "SON"],
    }  # fmt: skip
    assert (found["domains"][1]["abroad"], found["domains"][1]["unseen"]) == (["MSK"], ["UDA"])
    estimates = {"home": 5, "abroad": (7 + 5) / 2, "unseen": (5 + 7) / 2, "several": 17 / 3, "all": 25 / 4}
    less = {"home": 1, "abroad": 3.5, "unseen": 3.5, "several": 8 / 3, "all": 4}
    scores, (difference,) = {row["arm"]: row for row in found["scores"]}, found["differences"]
    for group, eighths in estimates.items():
        estimate, low, high, seeds = scores["K"][group]
        assert estimate == pytest.approx(100 * eighths / 8, abs=0.01)
        assert low < estimate < high
        assert seeds == 2
        assert difference[group][0] == pytest.approx(100 * less[group] / 8, abs=0.01)
        assert difference[group][1] < difference[group][0] < difference[group][2]
    # At home 3 of 24 images differ, the same ones for both seeds: the spread of their share, 1/8, is binomial.
    spread = 100 * np.sqrt(1 / 8 * 7 / 8 / 24)
    assert difference["home"][2] - difference["home"][1] == pytest.approx(2 * 1.96 * spread, rel=0.2)


def test_facts_about_an_arm(study: Path, finished: Runs) -> None:
    outputs = [finished("K", seed, dict.fromkeys(NAMES, 5), exclude=(name,), alpha=0.5)
               for seed, name in enumerate(("MSK", "UDA"))]  # fmt: skip
    a, k = compare_arms(study, [], {"A": "first"})["arms"]
    medians = []
    for each in outputs:
        distances = {True: [], False: []}
        features = each.features.astype(float)
        for i in range(len(each)):
            for j in range(i):
                if each.domains[i] != each.domains[j]:
                    same = each.targets[i] == each.targets[j]
                    distances[bool(same)].append(np.linalg.norm(features[i] - features[j]))
        medians.append([np.median(distances[True]), np.median(distances[False])])
    assert [k["same"], k["different"]] == pytest.approx(np.mean(medians, axis=0), abs=0.01)
    assert (a["about"], a["alignment_share"]) == ("first", None)
    assert k["alignment_share"] == pytest.approx(0.5 * (1.5 + 0.5) / 4)
    assert (k["selected_epochs"], k["epochs"], k["minutes"], k["seeds"]) == ([1, 2], [2], 1.0, 2)


def test_an_arm_with_fewer_seeds_is_compared_on_those(study: Path, finished: Runs) -> None:
    """Seed 0 alone has the other arm, so that the domain abroad is UDA; the intervals say that there is one seed."""
    finished("near", 0, {"HAM": 5, "MSK": 5, "UDA": 6, "SON": 8}, exclude=("MSK",), margin=3.0, alpha=0.5)
    found = compare_arms(study, ["K", "absent"], {"A": "first", "K": "second"})
    ((near),) = [row for row in found["differences"] if row["arm"] == "near"]
    assert near["abroad"][0] == pytest.approx(-100 / 8)
    assert near["abroad"][3] == 1
    assert near["home"][:3] == [0, 0, 0]
    assert found["arms"][-1]["about"] == "margin 3.0"
    text = as_markdown(found)
    assert "| near - K | 1 | +0.0 [+0.0, +0.0] (one seed) | -12.5 [" in text
    assert "Seen abroad: UDA (seed 0); MSK (seed 1)." in text
    *_, more = compare_arms(study, ["near"], {"near": "third"})["differences"]
    assert (more["arm"], more["minus"], more["home"][3]) == ("K", "near", 1)


def test_without_a_left_out_domain_there_is_no_such_column(finished: Runs, tmp_path: Path) -> None:
    finished("A", 0, dict.fromkeys(NAMES, 4), **BASELINE)
    found = compare_arms(tmp_path, ["A"], {})
    assert found["scores"][0]["unseen"] is None
    assert found["differences"] == []
    assert "| arm | seeds | home | seen abroad | mean, several classes | mean, all domains |" in as_markdown(found)


def test_arms_that_leave_out_different_domains_cannot_be_compared(study: Path, finished: Runs) -> None:
    finished("x", 1, dict.fromkeys(NAMES, 4), exclude=("MSK",))
    with pytest.raises(InputError, match="the arms of seed 1 leave out different domains"):
        compare_arms(study, ["A"], {})


def test_runs_with_other_test_images_cannot_be_compared(study: Path, finished: Runs) -> None:
    finished("x", 1, dict.fromkeys(NAMES, 4), rows=5, exclude=("UDA",))
    with pytest.raises(InputError, match=r"A/seed0 and .*x/seed1 test different images"):
        compare_arms(study, ["A"], {"A": "first"})


def test_runs_of_different_manifests_are_not_compared(finished: Runs, tmp_path: Path) -> None:
    right = dict.fromkeys(NAMES, 4)
    finished("A", 0, right, manifest_sha256="1", **BASELINE)
    finished("K", 0, right, manifest_sha256="2")
    with pytest.raises(InputError, match=r"the manifest changed between .*seed0 and .*seed0.*report them separately"):
        compare_arms(tmp_path, (), {})


def test_a_domain_that_some_seeds_leave_out_has_a_group_of_these(study: Path) -> None:
    comparison = Comparison(read_arms(study), [METRICS["recall"]], by_domain=True)
    row = comparison.row("recall", "K", "A")
    found = {name: (cell.estimate, cell.seeds) for name, cell in row.items() if cell is not None}
    assert found["MSK unseen"] == (pytest.approx(3 / 8), 1)
    assert found["UDA unseen"] == (pytest.approx(4 / 8), 1)
    assert (found["MSK"][1], found["UDA"][1]) == (2, 2)
    assert not {"HAM unseen", "SON unseen"} & row.keys()
    assert comparison.groups["UDA unseen"] == "UDA unseen"


def test_a_domain_that_every_seed_leaves_out_needs_no_group_of_these(finished: Runs, tmp_path: Path) -> None:
    for seed in range(2):
        finished("A", seed, {"HAM": 4, "MSK": 2, "UDA": 3, "SON": 0}, exclude=("MSK",), **BASELINE)
    comparison = Comparison(read_arms(tmp_path), [METRICS["recall"]], by_domain=True)
    assert not [name for name in comparison.groups if name.endswith(" unseen")]
