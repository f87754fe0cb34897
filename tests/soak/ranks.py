"""torchrun test: the same training with 1, 2 and 4 gloo processes, with a killed rank, and resumed with fewer.

    python tests/soak/ranks.py --processes 2 4

Each training records every batch with its images and its loss, and the gradient of each update. The table shows, for
each training, the relative difference from one process in the loss of the first step, in the norm of its gradient, and
the largest in the loss of any step; and how many images an epoch showed twice or not at all.

The network computes in float64, so that rounding cannot hide a mistake: AdamW divides by the size of the gradients, and
amplifies float32's rounding to a hundredth of the loss within an epoch. What remains in float32 bounds the differences;
see `ROUNDING`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

from runs import render, small_run

from fastccsa.training import TrainConfig

BATCH_SIZE = 12  # of 57 images: the last step has 9, which gives each of four processes two rows
# The terms of the loss are float32, and are multiplied in float32 by the process's share of the rows. This rounds each
# by at most 2^-24, in either training, and every step adds one such rounding.
ROUNDING = 2.0**-23


@dataclass(frozen=True)
class Seen:
    """The record of a training: loss and first images of all ranks by epoch and step; norm of the first gradient."""

    losses: dict[tuple[int, int], float]
    images: dict[tuple[int, int], list[int]]
    norm: float


def worker(config: TrainConfig, journal: Path, die_at: int) -> None:
    """Train as one of torchrun's processes; before its first restart, the last one dies at batch ``die_at``."""
    import torch

    from fastccsa.training import loop
    from fastccsa.training.meter import Meter
    from fastccsa.training.step import Step

    torch.set_num_threads(1)
    rank, world = (int(os.environ.get(name, default)) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    life = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    learn, update, apply = Step.learn, Meter.update, Step.update
    learnt = 0

    def noted_learn(self: Step, batch: dict, share: float) -> None:
        nonlocal learnt
        learnt += 1
        if learnt == die_at and life == 0 and rank == world - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        self.meter.about = self._state.epoch, batch.get("index1", batch.get("index")).tolist()
        learn(self, batch, share)

    def noted_update(self: Meter, values: torch.Tensor, samples: int) -> None:
        (epoch, images), loss = self.about, values[0].item()
        line = {
            "epoch": epoch,
            "step": int(self.step),
            "loss": loss,
            "rank": rank,
            "world": world,
            "images": images,
        }
        with open(journal, "a") as file:  # appending whole lines is atomic
            file.write(json.dumps(line) + "\n")
        update(self, values, samples)

    def noted_apply(self: Step) -> None:
        norm = torch.nn.utils.get_total_norm([value.grad for value in self._parameters]).item()
        with open(journal, "a") as file:
            file.write(json.dumps({"norm": norm}) + "\n")
        apply(self)

    def in_float64(*args: object) -> torch.nn.Module:
        model = start(*args).double()
        model.register_forward_pre_hook(lambda module, inputs: (inputs[0].double(),))
        return model

    start, loop.start_model = loop.start_model, in_float64
    Step.learn, Meter.update, Step.update = noted_learn, noted_update, noted_apply
    loop.train(config, progress=False)


def launch(config: TrainConfig, journal: Path, processes: int, die_at: int = 0, restarts: int = 0) -> int:
    """Train with several processes under torchrun, or with one process without it; return the exit status."""
    command = [__file__, "--worker", config.to_json(), "--journal", str(journal), "--die-at", str(die_at)]
    if processes > 1:
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        command = [*torchrun, "--max-restarts", str(restarts), *command]
    return subprocess.run([sys.executable, *command], stderr=subprocess.DEVNULL if die_at else None).returncode


def read(journal: Path) -> Seen:
    """Read the record; a step that was repeated, because a process died before saving it, counts the second time."""
    parts: dict[tuple[int, int], dict[int, dict]] = defaultdict(dict)
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    norm = next(line["norm"] for line in lines if "norm" in line)
    for line in lines:
        if "norm" in line:
            continue
        step = parts[line["epoch"], line["step"]]
        if any(part["world"] != line["world"] for part in step.values()):
            step.clear()  # left over from a different number of processes
        step[line["rank"]] = line
    losses, images = {}, {}
    for where, ranks in parts.items():
        rows = [len(part["images"]) for part in ranks.values()]
        losses[where] = sum(part["loss"] * n for part, n in zip(ranks.values(), rows, strict=True)) / sum(rows)
        images[where] = [image for part in ranks.values() for image in part["images"]]
    return Seen(losses, images, norm)


def compare(name: str, seen: Seen, alone: Seen) -> bool:
    """Print how a training differs from the one with one process; return whether they agree within rounding."""
    missed = twice = 0
    everything = len({image for images in alone.images.values() for image in images})
    for epoch in {epoch for epoch, _ in alone.losses}:
        counts = Counter(image for (e, _), images in seen.images.items() if e == epoch for image in images)
        twice += sum(count > 1 for count in counts.values())
        missed += everything - len(counts)
    same_steps = seen.losses.keys() == alone.losses.keys()
    off = {w: abs(seen.losses.get(w, math.nan) - loss) / abs(loss) for w, loss in alone.losses.items()}
    first, largest, gradient = off[0, 0], max(off.values()), abs(seen.norm - alone.norm) / alone.norm
    print(f"{name:<30}{len(seen.losses):>6}{first:>12.1e}{gradient:>12.1e}{largest:>12.1e}{twice:>7}{missed:>8}")
    within = first <= ROUNDING and gradient <= ROUNDING and largest <= len(off) * ROUNDING
    return same_steps and within and not twice and not missed


def main() -> None:
    """Run the trainings and print their table; the exit status says whether all agree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4], help="numbers of processes (default 2 4)")
    parser.add_argument("--quick", action="store_true", help="only the training with a killed rank")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--journal", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--die-at", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        worker(TrainConfig.from_json(options.worker), options.journal, options.die_at)
        return
    with tempfile.TemporaryDirectory() as temporary:
        raise SystemExit(0 if compare_all(Path(temporary), options.processes, options.quick) else 1)


def compare_all(folder: Path, processes: list[int], quick: bool) -> bool:
    """Train in every way; return whether all agree."""
    manifest = render(folder / "images")

    def trained(name: str, *lives: tuple[int, int, int], ends: tuple[int, ...] = (0,)) -> Seen:
        config = small_run(
            manifest, folder / name, 1 if quick else 2, batch_size=BATCH_SIZE, sync_batchnorm=True, ema=0.0, lr=1e-4
        )  # fmt: skip
        journal = folder / f"{name}.jsonl"
        for (count, die_at, restarts), expected in zip(lives, ends, strict=True):
            status = launch(config, journal, count, die_at, restarts)
            if (status == 0) != (expected == 0):
                raise SystemExit(f"{name}: status {status}")
        return read(journal)

    alone = trained("alone", (1, 0, 0))
    print(f"{'training':<30}{'steps':>6}{'first loss':>12}{'gradient':>12}{'any loss':>12}{'twice':>7}{'missed':>8}")
    good = [compare("1 process", alone, alone)]
    for count in processes:
        if not quick:
            good.append(compare(f"{count} processes", trained(f"{count}", (count, 0, 0)), alone))
        name = f"{count} processes, one killed"
        good.append(compare(name, trained(f"{count} killed", (count, 4, 1)), alone))
    if not quick:
        seen = trained("shrunk", (processes[0], 4, 0), (1, 0, 0), ends=(1, 0))
        good.append(compare(f"{processes[0]} processes, then 1", seen, alone))
    return all(good)


if __name__ == "__main__":
    main()
