"""Two processes that each keep a part of the crops train as two that each keep all, and resume where they stopped."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from fastccsa.images.sharded_backend import ShardedBackend
from fastccsa.system.errors import Interrupted
from fastccsa.training import TrainConfig, train
from fastccsa.training.ranks import Ranks, open_ranks
from fastccsa.training.step import Step

STEPS = 5  # in an epoch: 45 images in steps of 10, so that the last one has 3 and 2 rows
TIMES = ("seconds", "images_per_second")


@pytest.fixture(scope="module")
def two_ranks(manifest_csv, tmp_path_factory, run_ranks) -> list[dict[str, Any]]:
    """What each of two processes found."""
    folder = tmp_path_factory.mktemp("sharded")
    run_ranks(__file__, str(manifest_csv), str(folder))
    return [torch.load(folder / f"{rank}.pt", map_location="cpu", weights_only=True) for rank in range(2)]


def test_the_weights_are_those_of_a_run_in_which_each_process_has_all_crops(two_ranks) -> None:
    whole, stopped = two_ranks[0]["whole"], two_ranks[0]["sharded"]
    for part in ("model", "optimizer"):
        torch.testing.assert_close(stopped["saved"][part], whole["saved"][part], rtol=0, atol=0)
    assert stopped["saved"]["epoch"] == 2
    assert stopped["history"] == whole["history"]
    assert len(stopped["history"]) == 2
    for found in two_ranks:
        assert found["sharded"]["scores"] == found["whole"]["scores"] == whole["scores"]


def test_each_process_keeps_a_part_of_the_crops(two_ranks) -> None:
    """45 training images, 18 validation images, and 18 test images that are scored after each epoch."""
    assert [found["sharded"]["crops"] for found in two_ranks] == [[23, 9, 9] * 3, [22, 9, 9] * 3]
    assert [found["whole"]["crops"] for found in two_ranks] == [[], []]


def test_all_processes_stop_together_in_an_epoch_and_in_its_validation(two_ranks) -> None:
    for found in two_ranks:
        assert found["whole"]["stops"] == []
        assert found["sharded"]["stops"] == [["train_one_epoch", 143, 0, 2], ["validate", 143, 0, STEPS]]


def test_the_epoch_that_begins_before_the_validation_is_the_one_that_is_trained(two_ranks) -> None:
    """Otherwise it would be opened a second time, after the validation."""
    for found in two_ranks:
        assert found["whole"]["opened"] == [[0, 0], [1, 0]]
        # The second process was stopped while it validated, and the third one validates again before it goes on.
        assert found["sharded"]["opened"] == [[0, 0], [0, 2], [1, 0], [0, STEPS], [1, 0]]


@contextmanager
def watched(found: dict[str, Any], ranks: Ranks, stop: bool) -> Iterator[None]:
    """Note what a training does; to ``stop`` it, send the last rank SIGTERM in its second step and before it validates.

    Each signal comes once, however often the training is resumed.
    """
    learn, open_epoch, prepare, init = Step.learn, Step.open_epoch, Step.prepare, ShardedBackend.__init__
    moments = {"learn": 2, "prepare": 1} if stop else {}

    def noted_moment(name: str) -> None:
        moments[name] = moments.get(name, 0) - 1
        if moments[name] == 0 and ranks.rank == ranks.world - 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def noted_learn(self: Step, *args: Any) -> None:
        noted_moment("learn")
        learn(self, *args)

    def noted_prepare(self: Step, epoch: int) -> None:
        prepare(self, epoch)
        noted_moment("prepare")

    def noted_open(self: Step, epoch: int, start: int) -> Iterator[Any]:
        found["opened"].append([epoch, start])
        return open_epoch(self, epoch, start)

    def noted_init(self: ShardedBackend, *args: Any) -> None:
        init(self, *args)
        found["crops"].append(len(self._crops))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Step, "learn", noted_learn)
        patch.setattr(Step, "prepare", noted_prepare)
        patch.setattr(Step, "open_epoch", noted_open)
        patch.setattr(ShardedBackend, "__init__", noted_init)
        yield


def trained(config: TrainConfig, ranks: Ranks, stop: bool) -> dict[str, Any]:
    """Train to the end, resuming the run each time it stops."""
    found: dict[str, Any] = {"stops": [], "opened": [], "crops": []}
    checkpoint = Path(config.out) / "last.pt"
    with watched(found, ranks, stop):
        while "scores" not in found:
            try:
                found["scores"] = asdict(train(config, progress=False))
            except Interrupted as error:
                ranks.highest(0)  # wait until the first rank has saved
                saved = torch.load(checkpoint, weights_only=True)
                where = {frame.name for frame in traceback.extract_tb(error.__traceback__)}
                (phase,) = where & {"train_one_epoch", "validate", "record"}
                found["stops"].append([phase, error.status, saved["epoch"], saved["step"]])
                ranks.highest(0)
    found["saved"] = torch.load(checkpoint, weights_only=True)
    found["history"] = [
        {name: value for name, value in record.items() if name not in TIMES} for record in found["saved"]["history"]
    ]
    return found


def main(manifest: str, folder: str, device: str) -> None:
    torch.set_num_threads(1)
    settings: dict[str, Any] = {
        "backbone": "shufflenet_v2_x0_5", "weights": "none", "size": 32, "epochs": 2, "batch_size": 10, "lr": 1e-3,
        "device": device, "workers": 1, "score_epochs": True, "deterministic": True,
    }  # fmt: skip
    caches = {"whole": "gpu" if device == "cuda" else "ram", "sharded": "sharded"}
    with open_ranks(device) as ranks:
        found = {
            name: trained(
                TrainConfig(manifest=manifest, out=str(Path(folder) / name), cache=cache, **settings),
                ranks,
                stop=name == "sharded",
            )
            for name, cache in caches.items()
        }
        torch.save(found, Path(folder) / f"{ranks.rank}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
