"""The long-tail example: the tail itself, the probabilities of uniform pairs, and the table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

Example = Callable[[str], ModuleType]


@pytest.fixture
def problem(example: Example):
    return example("imbalance").bundled(seed=3)


def test_only_the_second_domain_is_long_tailed(problem) -> None:
    counts = torch.stack([problem.labels[problem.domains == d].bincount(minlength=10) for d in (0, 1)])
    assert int(counts[0].min()) > 40
    assert int(counts[1].max()) == 60
    assert int(counts[1].min()) == 1
    assert set(problem.rare.tolist()) == set(counts[1].argsort()[:5].tolist())
    assert int(problem.test_labels.bincount(minlength=10).min()) > 40  # all classes can be scored


def test_no_training_image_is_a_test_image(problem) -> None:
    train, test = (x.flatten(1) for x in (problem.images[problem.domains == 1], problem.test))
    assert not bool((test[:, None] == train[None]).all(-1).any())


@pytest.mark.parametrize("pairs", ["dynamic_pairs", "uniform_pairs"])
def test_probabilities_are_those_of_the_batches(example: Example, problem, pairs: str) -> None:
    batch, (first, second, joint) = getattr(example("imbalance"), pairs)(problem, 0)
    drawn = [torch.cat(index) for index in zip(*(batch(step) for step in range(300)), strict=True)]
    y1, y2 = (problem.labels[index] for index in drawn)
    assert bool((problem.domains[drawn[1]] == 1).float().mean() > 0.98)  # the first domain's, if it lacks a class
    for expected, seen in ((first, y1), (second, y2)):
        frequency = seen.bincount(minlength=10) / len(seen)
        torch.testing.assert_close(frequency, torch.as_tensor(expected).float(), atol=0.015, rtol=0)
    same = float(torch.as_tensor(joint).diagonal().sum())
    assert float((y1 == y2).float().mean()) == pytest.approx(same, abs=0.015)


def test_recall_by_class(example: Example) -> None:
    class Constant(torch.nn.Module):
        def forward(self, images, index):
            return torch.eye(10)[torch.full((len(index),), 4)], None

    recall = example("imbalance").recalls(Constant(), torch.zeros(20, 1, 16, 16), torch.arange(20) % 10)
    assert recall.tolist() == [0, 0, 0, 0, 100, 0, 0, 0, 0, 0]


def test_table_and_resuming(example: Example, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "imbalance.json"
    example("imbalance").main(["--seeds", "0", "--steps", "2", "--out", str(out)])
    first = json.loads(out.read_text())["runs"]
    assert len(first) == 4
    capsys.readouterr()
    example("imbalance").main(["--seeds", "0", "1", "--steps", "2", "--out", str(out)])
    runs = json.loads(out.read_text())["runs"]
    assert runs[:4] == first  # not run again
    assert [run["seed"] for run in runs[4:]] == [1] * 4
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert lines[2].startswith("| none | uniform | ")
    macro = [[run["macro"] for run in runs if run["weighted"] and run["sampled"] and run["seed"] == s] for s in (0, 1)]
    assert f"| {(macro[0][0] + macro[1][0]) / 2:.1f} ± " in lines[5]


def test_missing_arrays_are_reported(example: Example, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        example("imbalance").main(["--row-data", "nowhere"])
    assert "does not exist" in capsys.readouterr().err
