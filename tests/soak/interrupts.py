"""Interrupt test: a training is killed and resumed many times, and must end with the bits of an uninterrupted one.

    python tests/soak/interrupts.py --kills 100

A process that has imported everything forks a child for each attempt, so that an attempt costs tens of milliseconds
instead of seconds of imports. A child is killed

* by SIGKILL, SIGTERM, SIGINT or SIGHUP, after a random number of steps and a random delay, or
* by SIGKILL at a random point while files are written: with half of the bytes of any file of the run written, before or
  after any sync or rename.

Attempts are repeated until the training is finished. Its weights, optimiser, moving average and random state are then
compared bit for bit with those of the uninterrupted run, and the next training begins, until there were enough kills.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import stat
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import torch
from runs import differences, render, small_run

import fastccsa.images.dali  # noqa: F401  (imported once, before the forks)
from fastccsa.system.errors import Interrupted
from fastccsa.training import TrainConfig
from fastccsa.training.loop import train
from fastccsa.training.step import Step

SIGNALS = {
    "SIGKILL between writes": signal.SIGKILL,
    "SIGTERM": signal.SIGTERM,
    "SIGINT": signal.SIGINT,
    "SIGHUP": signal.SIGHUP,
}
INSIDE = "SIGKILL inside a write"
STATUS = {"SIGTERM": 143, "SIGINT": 130, "SIGHUP": 129}


def die() -> None:
    """End this process as a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


def die_while_writing(point: int) -> None:
    """Make this process die at the ``point``-th of its syncs, renames and half-written files."""
    left = [point]

    def counted(function: Callable, before: Callable | None = None) -> Callable:
        def call(*args: object, **kwargs: object) -> object:
            left[0] -= 1
            if left[0] == 0:
                if before is not None:
                    before(*args)
                die()
            return function(*args, **kwargs)

        return call

    def half(handle: int) -> None:
        if stat.S_ISREG(os.fstat(handle).st_mode):
            os.truncate(f"/proc/self/fd/{handle}", os.fstat(handle).st_size // 2)

    os.fsync = counted(counted(os.fsync), half)
    os.replace = counted(os.replace)


def attempt(config: TrainConfig, kind: str, chance: random.Random) -> bool:
    """Train in a child and kill it; return True if it was killed, False if it finished first."""
    steps, delay, point = chance.randrange(1, 9), chance.uniform(0, 0.08), chance.randrange(1, 25)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        status = 99
        try:
            tell_each_step(writer)
            if kind == INSIDE:
                die_while_writing(point)
            train(config, progress=False)
            status = 0
        except Interrupted as stop:
            status = stop.status
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    os.close(writer)
    with open(reader, "rb", buffering=0) as progress:
        if kind in SIGNALS:
            if len(read_exactly(progress, steps)) == steps:
                time.sleep(delay)
            os.kill(child, SIGNALS[kind])
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if ended not in (0, -signal.SIGKILL, STATUS.get(kind)):
        raise SystemExit(f"an attempt ({kind}) ended with status {ended}")
    return ended != 0


def tell_each_step(pipe: int) -> None:
    """Write a byte into ``pipe`` when a step begins."""
    learn = Step.learn

    def told(self: Step, *args: object) -> None:
        os.write(pipe, b".")
        learn(self, *args)

    Step.learn = told


def read_exactly(file: object, count: int) -> bytes:
    """Read ``count`` bytes, or fewer if the writer ends first."""
    found = b""
    while len(found) < count and (more := file.read(count - len(found))):
        found += more
    return found


def main() -> None:
    """Run the test and print its table; the exit status says whether all trainings agree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="total number of kills (default 100)")
    parser.add_argument("--epochs", type=int, default=4, help="epochs of a training (default 4)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the kills")
    parser.add_argument("--folder", type=Path, help="folder to work in (default: a temporary one)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chance, started = random.Random(options.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        manifest = render(folder / "images")
        reference = small_run(manifest, folder / "uninterrupted", options.epochs)
        if attempt_undisturbed(reference) != 0:
            raise SystemExit("the uninterrupted training failed")
        kills: Counter[str] = Counter()
        bad: list[str] = []
        trainings = 0
        while kills.total() < options.kills:
            trainings += 1
            # Every other training saves whenever the time since the last checkpoint has paid for one.
            changes = {} if trainings % 2 else {"checkpoint_every": 0, "checkpoint_share": 1.0}
            config = small_run(manifest, folder / f"interrupted{trainings}", options.epochs, **changes)
            for _ in range(1000):
                kind = chance.choice([*SIGNALS, INSIDE, INSIDE])
                if kills.total() >= options.kills:
                    if attempt_undisturbed(config) != 0:
                        raise SystemExit("a training could not be finished")
                    break
                if not attempt(config, kind, chance):
                    break
                kills[kind] += 1
            else:
                raise SystemExit("a training does not finish")
            bad += differences(Path(reference.out), Path(config.out))
        report(kills, trainings, bad, time.monotonic() - started)
    raise SystemExit(1 if bad else 0)


def attempt_undisturbed(config: TrainConfig) -> int:
    """Train in a child; return its exit status."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            train(config, progress=False)
            status = 0
        except BaseException:
            traceback.print_exc()
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def report(kills: Counter[str], trainings: int, bad: list[str], seconds: float) -> None:
    """Print the table."""
    for kind in (*SIGNALS, INSIDE):
        print(f"{kind:<24}{kills[kind]:>5}")
    print(f"{'kills':<24}{kills.total():>5}")
    print(f"{'trainings':<24}{trainings:>5}")
    print(f"{'not bit-identical':<24}{len(bad):>5}  {', '.join(bad[:5])}")
    print(f"{'seconds':<24}{seconds:>5.0f}")


if __name__ == "__main__":
    main()
