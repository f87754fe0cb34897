"""Soak test: thousands of steps under random faults; nothing may be lost, changed, or left behind.

    python tests/soak/soak.py --steps 3000

A training reads its images from files in every epoch. A process trains until a fault stops it, and then calls `train`
again in the same process; after SIGKILL a new process continues. The faults are listed in `FAULTS`. A full disk is a
real limit on the size of files (RLIMIT_FSIZE), set at one step and lifted some steps later.

Checked: each fault ends as it should; the final weights, optimiser, average and random state are those of an
uninterrupted run, bit for bit; every epoch showed each image once; no process leaks memory, open files, threads or
child processes.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from runs import differences, render, small_run

from fastccsa.images.loaders import PairLoader
from fastccsa.runs.images import open_manifest, select_images
from fastccsa.system.errors import InputError, Interrupted
from fastccsa.training import TrainConfig
from fastccsa.training.loop import train
from fastccsa.training.step import Step

# How each fault may end. "goes on" means that the run may survive it; any other fault stops it.
FAULTS = {
    "SIGTERM": {"Interrupted"},
    "SIGINT": {"Interrupted"},
    "SIGKILL": {"killed"},
    "full disk": {"goes on", "InputError"},
    "vanished image": {"InputError"},
    "broken image": {"InputError"},
    "reader dies": {"RuntimeError"},
    "loss NaN": {"InputError"},
}
SMALL_FILES = 64 << 10  # largest file on a "full disk", in bytes; a checkpoint has 4 MB
# Bytes of memory that a step may add. A batch of 16 images at 32 px has 196608, a checkpoint 4 million. Even without a
# leak the memory varies by a few MB, which over a thousand steps is a few thousand bytes per step.
LEAK = 16384
STEADY_STEPS = 500  # of one process; with fewer, variations of the allocator outweigh a leak
SOON = 20  # steps within which a fault must be noticed: two epochs
WARM_CALLS = 3  # calls of `train` in a process before its memory is measured


@dataclass
class Life:
    """The reports of one process at the start of each call of `train`."""

    steps: list[int] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    children: list[int] = field(default_factory=list)

    def leaks(self) -> list[str]:
        """Name what leaked."""
        found = []
        for name in ("files", "threads", "children"):
            counts = getattr(self, name)[1:]  # the first call opens things that stay open
            if counts and max(counts) > counts[0]:
                found.append(f"{name}: {counts}")
        slope = self.bytes_a_step()
        if slope is not None and slope > LEAK:
            found.append(f"memory: {slope:.0f} bytes per step")
        return found

    def bytes_a_step(self) -> float | None:
        """Slope of the resident memory; None if the process took too few steps."""
        steps, memory = self.steps[WARM_CALLS:], self.memory[WARM_CALLS:]
        if len(steps) < 3 or steps[-1] - steps[0] < STEADY_STEPS:
            return None
        return float(np.polyfit(steps, memory, 1)[0])


@dataclass
class Fault:
    """A fault that strikes after ``after`` steps and lasts ``lasts`` steps."""

    kind: str
    after: int
    lasts: int
    image: Path
    kept: bytes = b""
    steps: int = 0
    poison: bool = False

    def step(self) -> None:
        """Count a step of this process; start or end the fault when it is due."""
        self.steps += 1
        if self.steps == self.after:
            self.strike()
        elif self.kind == "full disk" and self.steps == self.after + self.lasts:
            limit_files(resource.RLIM_INFINITY)

    def strike(self) -> None:
        """Start the fault."""
        if self.kind.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, self.kind))
        elif self.kind == "full disk":
            limit_files(SMALL_FILES)
        elif self.kind == "vanished image":
            self.kept = self.image.read_bytes()
            self.image.unlink()
        elif self.kind == "broken image":
            self.kept = self.image.read_bytes()
            self.image.write_bytes(self.kept[: len(self.kept) // 2])
        else:
            self.poison = True

    @property
    def got_over(self) -> bool:
        """Whether the fault is over and the run survived it."""
        return self.kind == "full disk" and self.steps > self.after + self.lasts

    def mend(self) -> None:
        """Undo the fault."""
        limit_files(resource.RLIM_INFINITY)
        self.poison = False
        if self.kept:
            self.image.write_bytes(self.kept)

    def spoil(self, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Return a batch of training images, spoilt once if the fault demands it."""
        if self.poison:
            self.poison = False
            if self.kind == "reader dies":
                raise RuntimeError("the reader is gone")
            batch["images1"].fill_(float("nan"))
        return batch


def limit_files(size: int) -> None:
    """Limit the files of this process to ``size`` bytes; longer writes fail with EFBIG."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))


def live(config: TrainConfig, images: list[Path], plan: list[tuple[str, int, int, int]], pipe: int) -> None:
    """Train in this process under one fault after the other, reporting to ``pipe``; never returns."""

    def tell(**facts: object) -> None:
        os.write(pipe, (json.dumps(facts) + "\n").encode())

    upcoming = iter([Fault(kind, after, lasts, images[image]) for kind, after, lasts, image in plan])

    def next_fault() -> Fault:
        fault = next(upcoming, Fault("none", 0, 0, images[0]))
        if fault.kind != "none":
            tell(fault=fault.kind)
        return fault

    fault = Fault("none", 0, 0, images[0])
    learn, assemble, taken = Step.learn, PairLoader._assemble, 0

    def told_learn(self: Step, batch: dict, share: float) -> None:
        nonlocal taken, fault
        taken += 1
        tell(epoch=self._state.epoch, step=self._state.step, images=batch["index1"].tolist())
        if fault.got_over:
            tell(ended="goes on", why="", struck=True)
            fault = next_fault()
        fault.step()
        learn(self, batch, share)

    def spoilt(self: PairLoader, *args: object) -> dict[str, torch.Tensor]:
        return fault.spoil(assemble(self, *args))

    Step.learn, PairLoader._assemble = told_learn, spoilt
    while True:
        gc.collect()
        tell(steps=taken, **about_process())
        fault = next_fault()
        try:
            train(config, progress=False)
            tell(ended="finished", why="", struck=fault.steps > fault.after + SOON)
            os._exit(0)
        except (Interrupted, InputError, RuntimeError) as error:
            tell(ended=type(error).__name__, why=str(error).splitlines()[0], struck=fault.steps >= fault.after)
        finally:
            fault.mend()
        if fault.kind == "none":
            os._exit(0)


def about_process() -> dict[str, int]:
    """Return the memory in bytes, and the numbers of open files, threads and child processes, of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    tasks = list(Path("/proc/self/task").iterdir())
    children = sum(len((task / "children").read_text().split()) for task in tasks)
    files = len(os.listdir("/proc/self/fd"))
    return {"memory": pages * os.sysconf("SC_PAGESIZE"), "files": files, "threads": len(tasks), "children": children}


@dataclass
class Soak:
    """The observations of all processes."""

    lives: list[Life] = field(default_factory=list)
    shown: dict[int, dict[int, list[int]]] = field(default_factory=lambda: defaultdict(dict))
    faults: Counter[tuple[str, str]] = field(default_factory=Counter)
    steps: int = 0
    wrong: list[str] = field(default_factory=list)

    def hear(self, lines: list[dict]) -> bool:
        """Process the reports of a process that has ended; return whether the training is finished."""
        life, kind, finished = Life(), "none", False
        self.lives.append(life)
        for line in lines:
            if "images" in line:
                self.shown[line["epoch"]][line["step"]] = line["images"]  # a lost step is repeated
                self.steps += 1
            elif "memory" in line:
                for name, value in line.items():
                    getattr(life, name).append(value)
            elif "fault" in line:
                kind = line["fault"]
            elif line["ended"] == "finished":
                finished = True
                self.count(kind, "goes on", line["struck"])
            else:
                self.count(kind, line["ended"], line["struck"], line["why"])
                kind = "none"
        if not finished and kind != "none":
            self.count(kind, "killed", struck=True)
        self.wrong += life.leaks()
        return finished

    def count(self, kind: str, ended: str, struck: bool, why: str = "") -> None:
        """Count how a fault ended; it must be one of the ways in `FAULTS`."""
        if kind == "none" and ended == "goes on":
            return
        if kind == "none" or (struck and ended not in FAULTS[kind]) or (not struck and ended != "goes on"):
            self.wrong.append(f"{kind} ended in {ended}: {why}")
        self.faults[kind, ended] += 1

    def check_images(self, epochs: int) -> None:
        """Check that every epoch showed each image once."""
        everything = sorted(image for images in self.shown[0].values() for image in images)
        for epoch in range(epochs):
            shown = sorted(image for images in self.shown[epoch].values() for image in images)
            if shown != everything or len(set(shown)) != len(shown):
                self.wrong.append(f"epoch {epoch} did not show each image once")


def in_child(work: object, *arguments: object) -> list[dict]:
    """Run ``work(*arguments, pipe)`` in a fork of this process, and collect its reports."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            work(*arguments, writer)
        except BaseException:
            traceback.print_exc()
        os._exit(99)
    os.close(writer)
    with open(reader) as told:
        lines = [json.loads(line) for line in told]
    ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if ended not in (0, -signal.SIGKILL):
        raise SystemExit(f"a process ended with status {ended}")
    return lines


def main() -> None:
    """Run the test and print its tables; the exit status says whether anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000, help="approximate number of steps (default 3000)")
    parser.add_argument("--every", type=int, default=30, help="average steps between faults (default 30)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the faults")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chance, started = random.Random(options.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        manifest = render(folder / "images")
        epochs = max(1, options.steps // 8)
        settings = {"cache": "none", "broken_images": "stop", "lr_step": epochs, "checkpoint_every": 5}
        reference, config = (
            small_run(manifest, folder / name, epochs, **settings) for name in ("uninterrupted", "soaked")
        )
        if not Soak().hear(in_child(live, reference, [Path()], [])):
            raise SystemExit("the uninterrupted training failed")
        soak, kinds = Soak(), []
        images = training_images(config)
        while True:
            # A process gets its faults before it starts, up to and including the one that kills it.
            plan = []
            while not plan or (plan[-1][0] != "SIGKILL" and len(plan) < 200):
                kinds = kinds or chance.sample([*FAULTS], len(FAULTS))  # all kinds in turn, in random order
                # SIGKILL only in every other turn, so that some processes live long enough to show leaks
                kind = kinds.pop()
                if kind == "SIGKILL" and chance.random() < 0.5:
                    continue
                after = chance.randrange(1, 2 * options.every)
                plan.append((kind, after, chance.randrange(1, 20), chance.randrange(len(images))))
            if soak.hear(in_child(live, config, images, plan)):
                break
        soak.check_images(epochs)
        soak.wrong += differences(Path(reference.out), Path(config.out))
        soak.wrong += [f"left behind: {file.name}" for file in Path(config.out).glob(".*")]
        report(soak, epochs, time.monotonic() - started)
    raise SystemExit(1 if soak.wrong else 0)


def training_images(config: TrainConfig) -> list[Path]:
    """The training files of the primary domain, all of which every epoch shows."""
    images = select_images(*open_manifest(config))
    return [Path(path) for path in images.training.select(domains=[images.primary]).paths]


def report(soak: Soak, epochs: int, seconds: float) -> None:
    """Print the tables."""
    for (kind, ended), count in sorted(soak.faults.items()):
        print(f"{kind:<16}{ended:<16}{count:>6}")
    slopes = [slope for life in soak.lives if (slope := life.bytes_a_step()) is not None]
    print(f"{'faults':<32}{soak.faults.total():>6}")
    print(f"{'epochs':<32}{epochs:>6}")
    print(f"{'steps taken':<32}{soak.steps:>6}")
    print(f"{'processes':<32}{len(soak.lives):>6}")
    print(f"{'memory, bytes per step':<32}{f'{max(slopes):.0f}' if slopes else 'not measured':>6}")
    print(f"{'wrong':<32}{len(soak.wrong):>6}  {'; '.join(soak.wrong[:5])}")
    print(f"{'seconds':<32}{seconds:>6.0f}")


if __name__ == "__main__":
    main()
