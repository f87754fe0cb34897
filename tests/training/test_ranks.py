"""Two processes take the steps of one: with pairs over all ranks, with a memory, with rows that do not divide."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fastccsa.runs.images import open_manifest, select_images
from fastccsa.system.devices import pick_device
from fastccsa.system.errors import InputError, Interrupted
from fastccsa.training import TrainConfig, train
from fastccsa.training.batchnorm import share_batchnorm
from fastccsa.training.meter import Meter
from fastccsa.training.objectives import build_objective
from fastccsa.training.optimizer import build_optimizer
from fastccsa.training.ranks import ALONE, Ranks, _report_lost_contact, open_ranks
from fastccsa.training.step import Step, wrap_model

WIDTH, SIZE = 8, 16
# 45 images in steps of 10 or 14: the last step has 5 rows, 3 and 2 of two ranks, or 3 rows, 2 and 1.
WAYS: dict[str, dict[str, Any]] = {
    "zipped": {"batch_size": 10},
    "all pairs": {"batch_size": 10, "pairs": "all"},
    "memory": {"batch_size": 10, "pairs": "all", "memory": 23},
    "accumulated": {"batch_size": 14, "pairs": "all", "accumulate": 3},
    "shared BatchNorm": {"batch_size": 10, "sync_batchnorm": True},
}


class Network(nn.Module):
    """A small network in float64, so that only a mistake can make a difference between one process and two."""

    def __init__(self, batchnorm: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3) if batchnorm else nn.Identity()
        self.body, self.head = nn.Linear(3 * SIZE**2, WIDTH), nn.Linear(WIDTH, 7)
        self.feature_width = WIDTH

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.body(self.norm(images.double()).flatten(1)).tanh()
        return self.head(features), features


class State:
    """The part of a run's state that a step needs."""

    def __init__(self, config: TrainConfig, device: torch.device, ranks: Ranks) -> None:
        torch.manual_seed(0)
        self.model = Network(config.sync_batchnorm).double()
        if config.sync_batchnorm and not ranks.is_alone:
            share_batchnorm(self.model, device)
        self.model.to(device)
        self.optimizer, _ = build_optimizer(config, self.model)
        self.scaler = torch.amp.GradScaler(device.type, enabled=False)
        self.average = nn.Module()


def gradients(config: TrainConfig, ranks: Ranks) -> dict[str, Any]:
    """Return the gradient of every update of an epoch, and the means of the loss terms."""
    config, manifest = open_manifest(config)
    device = pick_device(config.device, None if ranks.is_alone else ranks.local_rank)
    objective = build_objective(config, select_images(config, manifest), device, WIDTH, ranks)
    objective.memory.double()
    state, meter, found = State(config, device, ranks), Meter(objective.terms, device), []
    with objective.loader:
        network = wrap_model(state, config, device, ranks)
        step = Step(state, network, objective, config, meter, device, None, ranks)
        for number, batch in enumerate(objective.loader.epoch(0)):
            if step(batch, number):
                found.append(torch.cat([value.grad.flatten() for value in state.model.parameters()]).cpu())
        return {"gradients": found, "means": meter.summary(ranks).means}


def configs(manifest: str, device: str) -> dict[str, TrainConfig]:
    shared = {"weights": "none", "size": SIZE, "margin": 2.0, "lr": 1e-2, "device": device, "workers": 1}
    shared |= {"cache": "none", "image_backend": "native"}  # the same images on each device
    return {way: TrainConfig(manifest=manifest, **shared, **changes) for way, changes in WAYS.items()}


@pytest.fixture(scope="module")
def two_ranks(manifest_csv, tmp_path_factory, run_ranks) -> list[dict[str, Any]]:
    """The results of each of two processes."""
    folder = tmp_path_factory.mktemp("ranks")
    run_ranks(__file__, str(manifest_csv), str(folder))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("way", WAYS)
def test_two_ranks_take_the_steps_of_one_process(way, two_ranks, manifest_csv, run_ranks) -> None:
    alone = gradients(configs(str(manifest_csv), run_ranks.device)[way], ALONE)
    for found in two_ranks:
        assert len(found[way]["gradients"]) == len(alone["gradients"])
        for step, expected in zip(found[way]["gradients"], alone["gradients"], strict=True):
            # The order of float64 sums differs, by about 1e-15. AdamW makes at most lr / eps = 1e6 times as much of it.
            torch.testing.assert_close(step, expected, rtol=1e-7, atol=1e-9)
        # The terms are float32.
        assert found[way]["means"] == pytest.approx(alone["means"], rel=1e-5)


def test_a_signal_to_one_rank_stops_both_at_the_same_step(two_ranks) -> None:
    assert [found["stopped"] for found in two_ranks] == [(143, (0, 2))] * 2


# The first process makes the others wait for longer than torch would.
KEEP_WAITING = """
import sys, time
from datetime import timedelta
import torch.distributed as dist
from fastccsa.training.ranks import open_ranks
dist.init_process_group("cpu:gloo,cuda:nccl" if sys.argv[1] == "cuda" else "gloo", timeout=timedelta(seconds=3))
with open_ranks(sys.argv[1]) as ranks:
    with ranks.first_before_others():
        if ranks.is_first:
            time.sleep(5)
    print(ranks.highest(ranks.rank))
dist.destroy_process_group()
"""


def test_the_first_process_may_take_longer_than_the_timeout(tmp_path: Path, run_ranks) -> None:
    script = tmp_path / "wait.py"
    script.write_text(KEEP_WAITING)
    assert run_ranks(str(script)) == ["1\n", "1\n"]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:4242", "lost contact with"),
        ("gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 1800000ms for recv operation", "waited for"),
    ],
)
def test_what_another_process_does_to_this_one_is_one_line(message: str, words: str) -> None:
    with pytest.raises(InputError, match=f"process 0 of 2 {words} another one"), _report_lost_contact(Ranks(0, 2)):
        raise RuntimeError(message)


# Imports only what opens the ranks, so that DistributedDataParallel is the first to need other modules of torch.
WRAP_A_MODEL = """
import time
from pathlib import Path
import torch
from fastccsa.training.ranks import open_ranks
with open_ranks("cpu"):
    torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(2, 2))
for _ in range(100):  # the system may list a thread for a moment after its end
    left = [name for file in Path("/proc/self/task").glob("*/comm") if "gloo" in (name := file.read_text())]
    if not left:
        break
    time.sleep(0.1)
assert not left, f"threads left: {left}"
"""


def test_no_thread_of_gloo_remains(tmp_path: Path) -> None:
    """Such a thread can abort a process that exits while it runs."""
    script = tmp_path / "wrap.py"
    script.write_text(WRAP_A_MODEL)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ended = subprocess.run([*torchrun, str(script)], capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 0, ended.stderr


def stopped(config: TrainConfig, ranks: Ranks) -> tuple[int, tuple[int, int]]:
    """Train until the last rank receives SIGTERM in its second step; return the exit status and the saved state."""
    learn, taken = Step.learn, []

    def signalled(self: Step, *args: Any) -> None:
        taken.append(self)
        if len(taken) == 2 and ranks.rank == ranks.world - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        learn(self, *args)

    Step.learn = signalled
    try:
        train(config, progress=False)
    except Interrupted as stop:
        ranks.highest(0)  # wait until the first rank has saved
        saved = torch.load(Path(config.out) / "last.pt", weights_only=True)
        return stop.status, (saved["epoch"], saved["step"])
    finally:
        Step.learn = learn
    raise AssertionError("the training was not stopped")


def main(manifest: str, folder: str, device: str) -> None:
    torch.set_num_threads(1)
    ways = configs(manifest, device)
    with open_ranks(device) as ranks:
        found: dict[str, Any] = {way: gradients(config, ranks) for way, config in ways.items()}
        run = replace(ways["zipped"], out=str(Path(folder) / "run"), backbone="shufflenet_v2_x0_5", size=32)
        found["stopped"] = stopped(run, ranks)
        torch.save(found, Path(folder) / f"{ranks.rank}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])
