"""Runs the image benchmark: in each round every contestant makes batches for a while, and another one begins."""

from __future__ import annotations

import itertools
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import torch

from fastccsa.benchmarking.images import ours, rivals
from fastccsa.benchmarking.images.files import SHAPES, Files, find, render
from fastccsa.benchmarking.images.rivals import CannotRun, Stream
from fastccsa.benchmarking.results import FLOOR, OURS, RIVAL, CellResult, Measurement, Results
from fastccsa.system import machine
from fastccsa.system.errors import InputError

__all__ = ["CONTESTANTS", "Settings", "collections", "run"]

Start = Callable[[Files, int, int, torch.device], Stream]
# Name: kind, batches not counted at a turn's beginning (what was made ahead must not count), how to start it.
CONTESTANTS: dict[str, tuple[str, int, Start]] = {
    "fused": (OURS, 4, ours.loader(mode="fused")),
    "fused, DALI": (OURS, 4, ours.loader(mode="fused", backend="dali")),
    "exact": (OURS, 4, ours.loader(mode="exact")),
    "disk": (OURS, 8, ours.loader(cache="disk")),
    "ram": (OURS, 8, ours.loader(cache="ram")),
    "gpu": (OURS, 8, ours.loader(cache="gpu")),
    "DALI, literal": (RIVAL, 3, rivals.dali),
    "torchvision, PIL": (RIVAL, 3, rivals.torchvision_pil),
    "torchvision, tensors": (RIVAL, 3, rivals.torchvision_tensors),
    "kornia": (RIVAL, 3, rivals.kornia),
    "codes read": (FLOOR, 1, ours.codes),
    "bytes copied": (FLOOR, 8, ours.copy),
}


@dataclass(frozen=True)
class Settings:
    """How it is measured.

    Attributes:
        images: folder of the user's JPEGs; None renders some.
        shapes: WIDTHxHEIGHT of those.
        files: how many of each.
        contestants: which to measure; None is all.
        batch: images of a batch.
        threads: threads, or worker processes, of each contestant; None is the usable CPUs.
        rounds: turns of each contestant.
        seconds: of a turn.
        device: where batches end.
        machine: what to call the machine; None is the name it has in its network.
    """

    images: Path | None = None
    shapes: tuple[str, ...] = SHAPES
    files: int = 128
    contestants: tuple[str, ...] | None = None
    batch: int = 64
    threads: int | None = None
    rounds: int = 5
    seconds: float = 4.0
    device: str = "cpu"
    machine: str | None = None


def run(
    settings: Settings,
    command: str = "",
    after_turn: Callable[[str], None] = lambda title: None,
    after_cell: Callable[[Results], None] = lambda results: None,
) -> Results:
    """Measure every collection of files.

    Args:
        settings: what and how.
        command: what was typed, for the record.
        after_turn: called with the next turn's name before each turn.
        after_cell: called with the results so far after each collection.

    Raises:
        InputError: no such contestant, or the folder has no JPEG.
    """
    names = settings.contestants or tuple(CONTESTANTS)
    for name in names:
        if name not in CONTESTANTS:
            raise InputError(f"no contestant is called {name!r}; there are {', '.join(CONTESTANTS)}")
    threads = settings.threads or machine.usable_cpus()
    device = torch.device(settings.device)
    torch.set_num_threads(threads)
    results = Results(
        benchmark="images",
        machine=machine.describe(device, settings.machine),
        versions=machine.versions(),
        commit=machine.commit(),
        date=machine.now(),
        command=command,
        settings={
            "device": settings.device,
            "threads": threads,
            "batch": settings.batch,
            "rounds": settings.rounds,
            "seconds": settings.seconds,
        },
    )
    with tempfile.TemporaryDirectory() as folder:
        for files in collections(settings, Path(folder)):
            results.cells.append(_measure(files, names, settings, threads, device, after_turn))
            after_cell(results)
    return results


def collections(settings: Settings, folder: Path) -> list[Files]:
    """The files to decode; rendered ones, and stores, lie in ``folder``."""
    if settings.images is not None:
        return [find(settings.images, settings.files, folder)]
    return [render(folder, shape, settings.files) for shape in settings.shapes]


def _measure(
    files: Files,
    names: Sequence[str],
    settings: Settings,
    threads: int,
    device: torch.device,
    after_turn: Callable[[str], None],
) -> CellResult:
    rows = {name: Measurement(name, CONTESTANTS[name][0], calls=settings.batch) for name in names}
    for number in range(settings.rounds):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            row = rows[name]
            after_turn(f"{files.title}: {name}")
            if row.not_measured is not None:
                continue
            try:
                stream = CONTESTANTS[name][2](files, settings.batch, threads, device)
                wall, cpu = _turn(stream, settings.seconds, CONTESTANTS[name][1])
            except CannotRun as reason:
                row.not_measured = str(reason)
            else:
                row.seconds.append(wall)
                row.cpu_seconds.append(cpu)
    cell = {"title": f"{files.title}, {files.bits_per_pixel / 8:.2f} bytes a pixel", "images": files.title}
    return CellResult(cell, bytes_moved=0, input_bytes=0, measurements=list(rows.values()))


def _turn(stream: Stream, seconds: float, warm_up: int) -> tuple[float, float]:
    """Wall and CPU seconds an image, once the stream flows; two batches at least."""
    with closing(stream):  # type: ignore[type-var]
        for _ in itertools.islice(stream, warm_up):
            pass
        _finish()
        cpu, begun, images = _cpu_seconds(), time.perf_counter(), 0
        for number, batch in enumerate(stream, 1):
            images += len(batch)
            if number >= 2 and time.perf_counter() - begun > seconds:
                break
        _finish()
        wall = time.perf_counter() - begun
        here = _cpu_seconds()[0] - cpu[0]
    # Worker processes are counted when they have ended, with all that they did: also before the first batch.
    ended = _cpu_seconds()[1] - cpu[1]
    total = images + warm_up * len(batch)
    return wall / images, here / images + ended / total


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _cpu_seconds() -> tuple[float, float]:
    """CPU time of this process, and of those it has waited for."""
    own, ended = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime, ended.ru_utime + ended.ru_stime
