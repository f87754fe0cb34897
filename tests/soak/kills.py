"""Kills: train, store, prune, export and experiment are killed at random, and must end as if nothing had happened.

    python tests/soak/kills.py --kills 1000

A process that has imported everything forks a child for each attempt, which carries out the command. It is killed by
SIGKILL at a random moment of its work, also right after its start, or inside a write: before or after any sync or
rename, or with half of a file's bytes written. The same command is repeated until it ends by itself. Everything that it
made is then compared with what an undisturbed command made: the same files and no others, with the same bytes. Only
what says when or how fast something was done may differ.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

import torch
import torchvision.models._api
from interrupts import die_while_writing
from runs import different, render
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet
from tqdm import tqdm

# Imported once, before the forks.
import fastccsa.export
import fastccsa.images.native
import fastccsa.pruning
import fastccsa.reporting
import fastccsa.training.loop
from fastccsa.cli import main as command_line
from fastccsa.collections import Manifest
from fastccsa.images import Transforms
from fastccsa.images.source import ImageSource
from fastccsa.images.store import open_store

MOST_KILLS = 12  # before a command may end undisturbed
EVENTS = "tensorboard"  # whose files are named by time and process
TIMES = {"seconds", "images_per_second", "ended", "started", "time", "date", "array_mtime_ns"}


class NarrowResNet(ResNet):
    """A ResNet-10 with a sixteenth of the usual widths."""

    def _make_layer(self, block: Any, planes: int, *arguments: Any, **options: Any) -> nn.Sequential:
        return super()._make_layer(block, planes // 16, *arguments, **options)


def narrow_resnet(*, weights: object = None, num_classes: int = 1000) -> nn.Module:
    """Build the network."""
    network = NarrowResNet(BasicBlock, [1, 1, 1, 1])
    network.fc = nn.Linear(32, num_classes)
    return network


narrow_resnet.__module__ = "torchvision.models.resnet"
torchvision.models._api.BUILTIN_MODELS["resnet_narrow"] = narrow_resnet


@dataclass
class Command:
    """A command that is killed: ``work`` carries it out in a folder."""

    name: str
    work: Callable[[Path], None]
    reference: Path
    seconds: float = 0.0  # of CPU time, undisturbed
    kills: Counter[str] = field(default_factory=Counter)
    rounds: int = 0
    bad: list[str] = field(default_factory=list)


def fastccsa(*arguments: str, **options: object) -> None:
    """Call the command line in this process."""
    given = [f"--{name}={value}" for name, value in options.items()]
    command_line([*arguments, *given], standalone_mode=False)


def commands(folder: Path) -> Iterator[Command]:
    """Yield the commands, each of which may use what the undisturbed ones before it made."""
    manifest = render(folder / "images")
    common = {"backbone": "resnet_narrow", "weights": "none", "size": 32, "batch-size": 8, "lr": 1e-3, "n-sec": 1,
              "epochs": 3, "checkpoint-every": 2, "ema": 0.9}  # fmt: skip
    here = {"device": "cpu", "workers": 1}
    trained = folder / "undisturbed" / "train"
    scale = "tiny,size=32,epochs=1,baseline_epochs=1,fraction=0.2,batch_size=8,cache=none"
    settings = ("--set", "backbone=resnet_narrow", "--set", "workers=1", "--set", "checkpoint_every=2")
    images = Manifest.read(manifest)

    def train(out: Path) -> None:
        fastccsa("train", manifest=manifest, out=out, fraction=0.3, **common, **here)

    def store(out: Path) -> None:
        source = ImageSource(images.paths, images.labels, images.domain_indices, "replace")
        open_store(source, Transforms(64), out, "torchvision", num_threads=1)

    def prune(out: Path) -> None:
        amount = {"rate": 0.5, "images": 32, "discrimination-images": 16, "epochs": 1, "fraction": 0.3}
        fastccsa("prune", run=trained, out=out, **amount, **here)

    def export(out: Path) -> None:
        fastccsa("export", **{"run": trained, "torch-export": out / "model.pt2", "images": 16, "workers": 1})

    def experiment(out: Path) -> None:
        fastccsa("experiment", "AK", *settings, manifest=manifest, out=out, scale=scale, device="cpu")

    for work in (train, store, prune, export, experiment):
        yield Command(work.__name__, work, folder / "undisturbed" / work.__name__)


def in_child(work: Callable[[Path], None], out: Path, before: Callable[[], None] = lambda: None) -> int:
    """Carry out a command in a forked child; return its process id."""
    child = os.fork()
    if child:
        return child
    status = 99
    try:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        before()
        tqdm.set_lock(threading.RLock())  # processes share the usual one: a child may be killed while it holds it
        out.mkdir(parents=True, exist_ok=True)
        work(out)
        status = 0
    except BaseException:
        (out.parent / f"{out.name}.error").write_text(traceback.format_exc())
    os._exit(status)


def wait_for(child: int, seconds: float) -> None:
    """Wait until a child has taken this much CPU time, whatever else the machine does, or has ended."""
    while True:
        fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
        if fields[0] == "Z" or (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") >= seconds:
            return
        time.sleep(0.002)


def ended(child: int) -> int:
    """Wait for a child; return its exit status, or minus the number of the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def attempt(command: Command, out: Path, chance: random.Random) -> str | None:
    """Carry out a command and kill it; return when it was killed, or None if it ended first."""
    kind = chance.choice(("at its start", "at any moment", "inside a write"))
    if kind == "inside a write":
        point = int(2 ** chance.uniform(0, 5.5))  # a command writes several to dozens of times
        child = in_child(command.work, out, lambda: die_while_writing(point))
    else:
        child = in_child(command.work, out)
        wait_for(child, chance.uniform(0, command.seconds * (0.1 if kind == "at its start" else 1.2)))
        os.kill(child, signal.SIGKILL)
    status = ended(child)
    if status not in (0, -signal.SIGKILL):
        raise SystemExit(f"{command.name} ended with status {status} after a kill; see {out}.error")
    return kind if status else None


def kill_until_done(command: Command, out: Path, chance: random.Random, most: int) -> None:
    """Repeat a command until it ends by itself, after at most ``most`` kills; compare what it made."""
    for _ in range(min(most, MOST_KILLS)):
        kind = attempt(command, out, chance)
        if kind is None:
            break
        command.kills[kind] += 1
    else:
        if (status := ended(in_child(command.work, out))) != 0:
            raise SystemExit(f"{command.name} ended with status {status}; see {out}.error")
    command.rounds += 1
    command.bad += [f"{command.name}: {name}" for name in differences(command.reference, out)]


def differences(one: Path, other: Path) -> list[str]:
    """Name the files of two folders that differ, or are in one of them only."""
    names = [
        {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file() and file.parent.name != EVENTS}
        for folder in (one, other)
    ]
    found = [f"{name} is in one folder only" for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        first, second = (content_of(folder / name, folder) for folder in (one, other))
        if type(first) is not type(second) or different(first, second, name):
            found.append(name)
    return found


def content_of(file: Path, folder: Path) -> object:
    """Return what must be equal in two files of this kind; paths are written from ``folder`` on."""
    if file.suffix == ".md" or file.name == "model_card.json":
        return None  # a card names the folder, and says when and for how long the model was trained
    if file.suffix == ".pt":
        saved = torch.load(file, weights_only=True)
        saved.pop("digest", None)  # of all values, times among them
        return timeless(saved, folder)
    if file.suffix == ".json":
        return timeless(json.loads(file.read_text()), folder)
    if file.suffix == ".jsonl":
        return [timeless(json.loads(line), folder) for line in file.read_text().splitlines()]
    if file.suffix == ".pt2":
        program = torch.export.load(io.BytesIO(file.read_bytes()))
        return {"state": dict(program.state_dict), "code": str(program.graph)}
    return None if file.suffix == ".lock" else file.read_bytes()  # a lock says who held it


def timeless(value: Any, folder: Path) -> Any:
    """Return a value without what tells the time, and with paths from ``folder`` on."""
    if isinstance(value, dict):
        return {key: timeless(item, folder) for key, item in value.items() if key not in TIMES}
    if isinstance(value, list | tuple):
        return [timeless(item, folder) for item in value]
    return value.replace(str(folder), "OUT") if isinstance(value, str) else value


def children_seconds() -> float:
    """Return the CPU time of the children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def undisturbed(command: Command) -> None:
    """Carry out a command twice, without a kill: for comparison, and to learn how long it takes and what varies."""
    again = command.reference.with_name(f"{command.name} again")
    for out in (command.reference, again):
        started = children_seconds()
        if (status := ended(in_child(command.work, out))) != 0:
            print((out.parent / f"{out.name}.error").read_text(), file=sys.stderr)
            raise SystemExit(f"{command.name} ended with status {status}")
        command.seconds = children_seconds() - started
    if found := differences(command.reference, again):
        raise SystemExit(f"two undisturbed commands differ: {command.name}: {', '.join(found)}")
    shutil.rmtree(again)


def main() -> None:
    """Run the test and print its table; the exit status says whether all ends agree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000, help="total number of kills (default 1000)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the kills")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="end after this time, with fewer kills")
    parser.add_argument("--only", nargs="*", help="names of commands; default: all")
    parser.add_argument("--folder", type=Path, help="folder to work in, which is kept (default: a temporary one)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chance, started = random.Random(options.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        found = []
        for command in commands(folder):
            if not options.only or command.name in (*options.only, "train"):
                undisturbed(command)
                print(f"{command.name}: {command.seconds:.1f} s", file=sys.stderr, flush=True)
            if not options.only or command.name in options.only:
                found.append(command)
        # In turn, so that an early end leaves about as many kills of each.
        for number in range(options.kills):
            if time.monotonic() - started > options.seconds or sum(c.kills.total() for c in found) >= options.kills:
                break
            for place, command in enumerate(found):
                most = options.kills // len(found) + (place < options.kills % len(found))
                if command.kills.total() >= most:
                    continue
                out = folder / "killed" / f"{command.name}{number}"
                kill_until_done(command, out, chance, most - command.kills.total())
                if not command.bad:
                    shutil.rmtree(out)
                report(found, time.monotonic() - started, sys.stderr)
    report(found, time.monotonic() - started, sys.stdout)
    raise SystemExit(1 if any(command.bad for command in found) else 0)


def report(found: list[Command], seconds: float, to: Any) -> None:
    """Print the table."""
    kinds = ("at its start", "at any moment", "inside a write")
    print(
        f"{'command':<16}{'kills':>7}" + "".join(f"{kind:>16}" for kind in kinds) + f"{'ends':>7}{'differ':>8}", file=to
    )
    for command in found:
        row = "".join(f"{command.kills[kind]:>16}" for kind in kinds)
        print(f"{command.name:<16}{command.kills.total():>7}{row}{command.rounds:>7}{len(command.bad):>8}", file=to)
    bad = [name for command in found for name in command.bad]
    print(f"{'kills':<16}{sum(command.kills.total() for command in found):>7}", file=to)
    print(f"{'differ':<16}{len(bad):>7}  {'; '.join(bad[:5])}", file=to)
    print(f"{'seconds':<16}{seconds:>7.0f}", file=to, flush=True)


if __name__ == "__main__":
    main()
