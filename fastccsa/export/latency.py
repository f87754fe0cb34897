"""How long an exported model takes for a call, on the machine where it will run. Needs only the file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from fastccsa.export.runners import Runner, open_exported

WARM_UP = 3  # calls that are not timed, because they allocate memory
PHOTOGRAPH = (450, 600)  # HAM10000's


@dataclass(frozen=True)
class Latency:
    """Durations of the calls of an exported model.

    Attributes:
        file: name of the file.
        shape: shape of the images of a call.
        dtype: dtype of the images.
        calls: number of calls that were timed.
        median, p90, fastest: in milliseconds.
    """

    file: str
    shape: tuple[int, ...]
    dtype: str
    calls: int
    median: float
    p90: float
    fastest: float


def measure(
    path: str | os.PathLike[str],
    *,
    batch: int = 1,
    photograph: tuple[int, int] = PHOTOGRAPH,
    threads: int = 0,
    seconds: float = 5.0,
) -> Latency:
    """Time an exported model on random images: all of its preprocessing, but not the decoding of a file.

    Args:
        path: file of `export_onnx`, `export_program`, `export_executorch` or `quantize`.
        batch: number of images per call.
        photograph: height and width of the photographs, if resizing is part of the model.
        threads: number of threads of a call; 0 lets the runtime choose.
        seconds: how long to repeat the call; at least once.

    Raises:
        InputError: the file is missing or is not an exported model, a package is missing, or the runtime cannot do what
            was asked.
    """
    runner = open_exported(path, threads)
    shape = _shape(runner, batch, photograph)
    generator = torch.Generator().manual_seed(0)
    if runner.dtype == torch.uint8:
        images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    else:
        images = torch.randn(shape, generator=generator)
    with torch.no_grad():
        for _ in range(WARM_UP):
            runner(images)
        durations = _durations(lambda: runner(images), seconds)
    median, p90 = np.percentile(durations, (50, 90))
    return Latency(
        Path(path).name,
        shape,
        str(runner.dtype).removeprefix("torch."),
        len(durations),
        float(median),
        float(p90),
        min(durations),
    )


def _shape(runner: Runner, batch: int, photograph: tuple[int, int]) -> tuple[int, ...]:
    """Return the shape of the images of a call: the sizes that the model leaves open are those of photographs."""
    _, *sizes = runner.shape
    open_sizes = iter(photograph)
    return (batch, *(next(open_sizes) if size is None else size for size in sizes))


def _durations(call: Callable[[], object], seconds: float) -> list[float]:
    """Repeat a call, and return its durations in milliseconds."""
    durations: list[float] = []
    end = time.perf_counter() + seconds
    while not durations or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        durations.append(1000 * (time.perf_counter() - start))
    return durations
