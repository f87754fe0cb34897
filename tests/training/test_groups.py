"""Several steps in one CUDA graph: how steps are grouped, and that grouped runs stop and resume with the same bits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fastccsa.images.base_loader import group_steps
from fastccsa.runs.images import open_manifest, select_images
from fastccsa.training import loop as loop_module
from fastccsa.training import train
from fastccsa.training.graph import StaticStep, steps_per_graph
from fastccsa.training.objectives import build_objective, joined

CPU = torch.device("cpu")
RUN = {"cache": "ram", "batch_size": 4, "ema": 0.5, "clip": 1.0}  # 45 images: 11 full batches, and one of 1 pair


@pytest.mark.parametrize(
    ("steps", "size", "expected"),
    [
        (range(6), 1, [[0], [1], [2], [3], [4], [5]]),
        (range(6), 2, [[0, 1], [2, 3], [4], [5]]),
        (range(6), 3, [[0, 1, 2], [3], [4], [5]]),
        (range(1, 6), 2, [[1, 2], [3, 4], [5]]),
        (range(6, 6), 2, []),
        (range(3), 8, [[0], [1], [2]]),
    ],
)
def test_only_full_batches_are_grouped(steps, size, expected) -> None:
    groups = group_steps(steps, size, lambda step: step < 5)
    assert [list(group) for group in groups] == expected


@pytest.mark.parametrize(
    ("settings", "steps", "expected"),
    [
        ({"graph_steps": 5}, 100, 5),
        ({"graph_steps": 5}, 3, 3),  # of an epoch
        ({"graph_steps": 8, "checkpoint_every": 12}, 100, 6),  # so that every 12th batch ends a group
        ({"graph_steps": 8, "checkpoint_every": 7}, 100, 7),
        ({"graph_steps": 8, "checkpoint_every": 11}, 100, 1),
        ({"graph_steps": 8, "profile": True}, 100, 1),
        ({"size": 224, "batch_size": 256}, 100, 1),
    ],
)
def test_a_graph_holds_steps_as_configured(make_config, settings, steps, expected) -> None:
    assert steps_per_graph(make_config(**settings), 2, steps) == expected


def test_a_graph_holds_several_small_steps_by_default(make_config) -> None:
    assert steps_per_graph(make_config(size=64, batch_size=32), 2, 100) > 1


def test_groups_hold_the_plans_of_their_batches(make_config) -> None:
    config, manifest = open_manifest(make_config(**RUN))
    objective = build_objective(config, select_images(config, manifest), CPU, 8)
    with objective.loader as loader:
        expected = list(loader.plans(1, 2))
        groups = list(loader.plan_groups(1, 2, 4))
    assert [len(group) for group in groups] == [4, 4, 1, 1]
    found = [plan for group in groups for plan in group]
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


class Killed(BaseException):
    """Simulates the death of the process: nothing in the package catches it."""


def last(config) -> dict:
    return torch.load(Path(config.out) / "last.pt", weights_only=True)


def assert_same_runs(one, other) -> None:
    first, second = last(one), last(other)
    for part in ("model", "average"):
        assert all(torch.equal(value, second[part][key]) for key, value in first[part].items())
    for number, state in first["optimizer"]["state"].items():
        assert all(torch.equal(value, second["optimizer"]["state"][number][key]) for key, value in state.items())
    losses = [
        [json.loads(line)["loss"] for line in (Path(config.out) / "metrics.jsonl").read_text().splitlines()]
        for config in (one, other)
    ]
    assert losses[0] == losses[1]


def test_a_grouped_run_that_is_killed_resumes_to_the_bits_of_an_ordinary_one(make_config, monkeypatch) -> None:
    ordinary = make_config("ordinary", **RUN)
    grouped = make_config("grouped", **RUN, graph_steps=3, checkpoint_every=6)
    expected = train(ordinary, progress=False)
    monkeypatch.setattr(loop_module, "Step", StaticStep)
    with monkeypatch.context() as patch:
        steps = []
        take = StaticStep.take

        def mortal(self, plans) -> None:
            steps.extend(plans)
            if len(steps) > 9:  # in the group after the first checkpoint
                raise Killed
            take(self, plans)

        patch.setattr(StaticStep, "take", mortal)
        with pytest.raises(Killed):
            train(grouped, progress=False)
    assert (last(grouped)["epoch"], last(grouped)["step"]) == (0, 6)
    assert train(replace(grouped, graph_steps=2), progress=False) == expected
    assert_same_runs(ordinary, grouped)


def test_a_stop_comes_between_groups(make_config, monkeypatch) -> None:
    ordinary = make_config("ordinary", **RUN)
    limited = make_config("limited", **RUN, graph_steps=5, time_limit=1e-6)
    expected = train(ordinary, progress=False)
    monkeypatch.setattr(loop_module, "Step", StaticStep)
    # The limit has passed before the first step, where a run would stop at once.
    monkeypatch.setattr(loop_module, "stop_if_requested", lambda *_: None)
    with pytest.raises(KeyboardInterrupt):
        train(limited, progress=False)
    assert (last(limited)["epoch"], last(limited)["step"]) == (0, 5)
    assert train(replace(limited, time_limit=0.0), progress=False) == expected
    assert_same_runs(ordinary, limited)


def test_progress_is_reported_once_per_twenty_steps(make_config, monkeypatch) -> None:
    reported: list[int] = []
    monkeypatch.setattr(loop_module, "REPORT_EVERY", 4)
    monkeypatch.setattr(loop_module, "report_progress", lambda state, run, *_: reported.append(state.step))
    monkeypatch.setattr(loop_module, "Step", StaticStep)
    train(make_config(**RUN, graph_steps=3, epochs=1), progress=False)
    assert reported == [6, 9]  # groups end at 3, 6, 9; then come batches 10, 11 and 12, the last one


@pytest.mark.parametrize("channels_last", [False, True])
def test_halves_of_a_batch_are_joined_without_a_copy(channels_last) -> None:
    images = torch.rand(6, 3, 4, 4)
    if channels_last:
        images = images.contiguous(memory_format=torch.channels_last)
    halves = images.chunk(2)
    both = joined(*halves)
    assert both.data_ptr() == images.data_ptr()
    assert both.stride() == images.stride()
    assert torch.equal(both, torch.cat(halves))


@pytest.mark.parametrize("name", ["swapped", "apart", "other memory", "same half", "unequal"])
def test_other_batches_are_concatenated(name) -> None:
    images = torch.rand(9, 3, 4, 4)
    first, second = {
        "swapped": (images[3:6], images[:3]),
        "apart": (images[:3], images[6:]),
        "other memory": (images[:3], images[3:6].clone()),
        "same half": (images[:3], images[:3]),
        "unequal": (images[:3], images[3:]),
    }[name]
    assert torch.equal(joined(first, second), torch.cat([first, second]))
