"""From JPEG files to crops and batches on a GPU, for machines that are lent for minutes.

    python -m benchmarks.gpu_images                          # everything, about a minute and a half
    python -m benchmarks.gpu_images engine stores --out images.jsonl --seconds 30

Each figure is a line and a record of ``--out`` as soon as it is known, and a part that fails does not stop the others.
``cores`` is the number of CPU cores that were busy on average, of all threads and processes; ``jpeg`` is the share of
time in percent in which the GPU's JPEG engine worked, as far as the driver tells. Files are rendered (see
`benchmarks.images.files`): 8 distinct ones per shape under many names, read from the page cache.
"""

from __future__ import annotations

import atexit
import ctypes
import io
import itertools
import os
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image

from benchmarks.gpu_probe import Report
from benchmarks.harness.benchmark import CannotRun
from benchmarks.images.contestants import Job, Start, dali, loader, torchvision_gpu
from benchmarks.images.files import Files, render
from fastccsa.images import Transforms
from fastccsa.images.source import ImageSource
from fastccsa.images.store import open_store
from fastccsa.system.machine import usable_cpus

DEVICE = "cuda:0"
SHAPES = ("600x450", "1024x768", "3000x2000")
STORED = {"600x450": 12_288, "1024x768": 4096, "3000x2000": 512}  # files of a store; CPU decoders get an eighth
STREAMED = 256  # files of a stream
BATCH = 128
SECONDS = 0.8  # of a turn, after its warm-up
SIZES = (112, 224)
HARDWARE = 3  # NVJPEG_BACKEND_HARDWARE

# Each stream, and the threads it gets. DALI on the GPU gets few, as the JPEG engine needs none, and many too.
STREAMS: dict[str, tuple[int | None, Start]] = {
    "fused, DALI on the GPU": (2, loader(mode="fused", backend="dali")),
    "exact, DALI on the GPU": (2, loader(mode="exact", backend="dali")),
    "DALI, as documented": (2, dali),
    "fused, DALI on the GPU, all threads": (None, loader(mode="fused", backend="dali")),
    "DALI, as documented, all threads": (None, dali),
    "torchvision's GPU decoder": (4, torchvision_gpu),
    "fused, own decoder on the CPU": (None, loader(mode="fused", backend="native")),
    "from a store, on the GPU": (None, loader(cache="gpu")),
}
SHORT = tuple(STREAMS)[:3]  # measured for every shape; the others for the first
KINDS = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2, "grey": None}  # of JPEGs, and Pillow's argument


class Budget:
    """Skips what would begin too late."""

    def __init__(self, seconds: float) -> None:
        self._end = time.perf_counter() + seconds

    @contextmanager
    def attempt(self, report: Report, part: str, name: str) -> Iterator[bool]:
        """Report an error with its traceback instead of ending the run; yields whether there is time left."""
        in_time = time.perf_counter() < self._end
        if not in_time:
            report(part, name, skipped="no time left")
        try:
            yield in_time
        except Exception as error:
            traceback.print_exc()
            report(part, name, failed=f"{type(error).__name__}: {error}"[:1000])


class Meter:
    """Measures wall and CPU time, and how busy the JPEG engine is, since it was made."""

    def __init__(self) -> None:
        synchronize()
        self._cpu, self._wall = cpu_seconds(), time.perf_counter()
        jpeg_utilisation()  # begins a new period of the driver's average

    def figures(self, images: int) -> dict[str, Any]:
        """Return images per second, CPU cores busy, and the engine's utilisation."""
        synchronize()
        wall, cpu = time.perf_counter() - self._wall, cpu_seconds() - self._cpu
        return {"per_second": images / wall, "cores": cpu / wall, "jpeg": jpeg_utilisation(), "images": images}


def cpu_seconds() -> float:
    """Return the CPU time of this process and of the ended ones that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def synchronize() -> None:
    if torch.device(DEVICE).type == "cuda":
        torch.cuda.synchronize()


def jpeg_utilisation() -> int | None:
    """Return how busy the JPEG engine was in the driver's last period of averaging, in percent; None if not known."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return int(pynvml.nvmlDeviceGetJpgUtilization(pynvml.nvmlDeviceGetHandleByIndex(0))[0])
    except Exception:
        return None


# ---- what is there ----


def engine(report: Report, budget: Budget) -> None:
    """Say whether nvJPEG finds a JPEG engine, and which libraries are loaded."""
    with budget.attempt(report, "engine", "libraries"):
        import nvidia.dali
        import torchvision

        report(
            "engine", "versions", dali=nvidia.dali.__version__, torchvision=torchvision.__version__, cpus=usable_cpus()
        )
    found = [path for base in sys.path for path in Path(base or ".").glob("nvidia/*/lib/libnvjpeg.so*")]
    for path in found:
        with budget.attempt(report, "engine", str(path)):
            library, handle = ctypes.CDLL(str(path)), ctypes.c_void_p()
            status = library.nvjpegCreateEx(HARDWARE, None, None, 0, ctypes.byref(handle))
            engines, cores = ctypes.c_uint(), ctypes.c_uint()
            if status == 0:
                library.nvjpegGetHardwareDecoderInfo(handle, ctypes.byref(engines), ctypes.byref(cores))
            report("engine", str(path), status=status, engines=engines.value, cores_of_each=cores.value)


# ---- decoding alone ----


def decoding_pipeline(
    contents: list[np.ndarray], region: list[int] | None, device: str, threads: int, **options: Any
) -> Any:
    """Build a pipeline that decodes these files, or a region of them, and nothing else."""
    from nvidia.dali import fn
    from nvidia.dali.pipeline import pipeline_def
    from nvidia.dali.types import DALIDataType, DALIImageType

    settings: dict[str, Any] = {"batch_size": len(contents), "num_threads": threads, "exec_dynamic": True}
    settings["device_id"] = None if device == "cpu" else torch.device(DEVICE).index

    @pipeline_def(**settings)
    def pipeline() -> Any:
        encoded = fn.external_source(source=lambda: contents, dtype=DALIDataType.UINT8, ndim=1, no_copy=True)
        common = {"device": device, "output_type": DALIImageType.RGB, **options}
        if region is None:
            return fn.decoders.image(encoded, **common)
        start, shape = region[:2], region[2:]
        return fn.decoders.image_slice(encoded, start=start, shape=shape, axis_names="HW", **common)

    made = pipeline()
    made.build()
    return made


def on_gpu() -> str:
    return "mixed" if torch.device(DEVICE).type == "cuda" else "cpu"


def as_arrays(tensors: Any) -> list[np.ndarray]:
    tensors = tensors.as_cpu() if hasattr(tensors, "as_cpu") else tensors
    return [np.array(tensors.at(number)).astype(int) for number in range(len(tensors))]


def pixels(report: Report, budget: Budget) -> None:
    """Compare the pixels that the GPU decodes with the CPU's, for each kind of JPEG."""
    for kind, subsampling in KINDS.items():
        contents = [
            _jpeg(kind, subsampling, number, quality) for number, quality in enumerate((60, 75, 90, 92, 95, 100))
        ]
        for region in (None, [37, 21, 301, 299]):
            with budget.attempt(report, "pixels", f"{kind}, CPU") as in_time:
                want = as_arrays(decoding_pipeline(contents, region, "cpu", 2).run()[0]) if in_time else []
            for load, fancy in ((1.0, True), (0.0, True), (1.0, False))[: 2 if region else 3] if want else ():
                name = f"{kind}, {'region' if region else 'whole'}, engine {load:.0%}, fancy {fancy}"
                with budget.attempt(report, "pixels", name) as in_time:
                    if not in_time:
                        continue
                    options = {"hw_decoder_load": load, "jpeg_fancy_upsampling": fancy}
                    got = as_arrays(decoding_pipeline(contents, region, on_gpu(), 2, **options).run()[0])
                    difference = np.concatenate([np.abs(a - b).ravel() for a, b in zip(want, got, strict=True)])
                    shares = {f"above_{level}": float((difference > level).mean()) for level in (0, 1, 2)}
                    report("pixels", name, most=int(difference.max()), mean=float(difference.mean()), **shares)


def _jpeg(kind: str, subsampling: int | None, seed: int, quality: int) -> np.ndarray:
    """Encode smooth colours, edges and noise."""
    rng, (height, width) = np.random.default_rng(seed), (451 + seed, 601 - seed)
    smooth = Image.fromarray(rng.integers(0, 256, (5, 7, 3)).astype(np.uint8)).resize((width, height), 3)
    row, column = np.mgrid[:height, :width]
    values = np.asarray(smooth) + 30 * np.sign(np.sin(column / 7) * np.sin(row / 9))[..., None]
    values = values + rng.normal(0, 10, (height, width, 3))
    image, stream = Image.fromarray(values.clip(0, 255).astype(np.uint8)), io.BytesIO()
    if subsampling is None:
        image.convert("L").save(stream, "JPEG", quality=quality)
    else:
        image.save(stream, "JPEG", quality=quality, subsampling=subsampling)
    return np.frombuffer(stream.getvalue(), np.uint8)


def decoders(report: Report, budget: Budget) -> None:
    """Measure decoding alone: whole images and the region of a crop, by the engine and by the other decoder."""
    variants = [
        (f"{'region' if part else 'whole'}, engine {load:.0%}, {'fancy, ' if fancy else ''}{threads} threads",
         part, threads, {"hw_decoder_load": load, "jpeg_fancy_upsampling": fancy})
        for part, load, fancy, threads in (
            (True, 1.0, True, 2), (False, 1.0, True, 2), (True, 0.0, True, 16), (False, 1.0, False, 2),
            (True, 0.65, True, 16), (True, 1.0, True, 16),
        )
    ]  # fmt: skip
    for shape in SHAPES:
        width, height = (int(side) for side in shape.split("x"))
        contents = [np.fromfile(path, np.uint8) for path in files_of(shape, STREAMED).paths[:BATCH]]
        central = [int(height * 175 / 650), int(width * 175 / 650), int(height * 300 / 650), int(width * 300 / 650)]
        for name, part, threads, options in variants if shape == SHAPES[0] else variants[:3]:
            with budget.attempt(report, "decoders", f"{shape}, {name}") as in_time:
                if not in_time:
                    continue
                threads = min(threads, usable_cpus())
                made = decoding_pipeline(contents, central if part else None, on_gpu(), threads, **options)
                for _ in range(3):
                    made.run()
                meter, images, end = Meter(), 0, time.perf_counter() + SECONDS / 2
                while time.perf_counter() < end:
                    made.run()
                    images += BATCH
                report("decoders", f"{shape}, {name}", **meter.figures(images))


# ---- files to crops and to batches ----


@cache
def folder() -> Path:
    """Return the folder of all rendered files, which is removed at the end."""
    made = tempfile.TemporaryDirectory()
    atexit.register(made.cleanup)
    return Path(made.name)


@cache
def files_of(shape: str, count: int) -> Files:
    """Return ``count`` files; from a number on, they are links to the others."""
    place = folder() / f"{shape}-{count}"
    place.mkdir()
    originals = files_of(shape, STREAMED).paths if count > STREAMED else render(place, shape, count)
    paths = [place / f"{number:05d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        os.link(originals[number % len(originals)], path)
    return Files(place, paths)


def stores(report: Report, budget: Budget) -> None:
    """Measure making a store: by DALI on the GPU, and on the CPU."""
    for shape in SHAPES:
        files = files_of(shape, STORED[shape])
        for size, device in dict.fromkeys(itertools.product(SIZES, (DEVICE, "cpu"))):
            if device == "cpu" and (size != SIZES[0] or shape != SHAPES[0]):
                continue
            threads = 2 if device == DEVICE else None
            # The first build of a process loads DALI and starts the GPU.
            for turn in ("first", "again") if (shape, size, device) == (SHAPES[0], SIZES[0], DEVICE) else ("again",):
                name = f"{shape} to {size} px, {'GPU' if device == DEVICE else 'CPU'}, {turn}"
                with budget.attempt(report, "stores", name) as in_time:
                    if in_time:
                        report("stores", name, **_store(files, Transforms(size), device, threads))


def _store(files: Files, transforms: Transforms, device: str, threads: int | None) -> dict[str, Any]:
    paths = [str(path) for path in files.paths]
    paths = paths if torch.device(device).type == "cuda" else paths[: max(1, len(paths) // 8)]
    source = ImageSource(paths, [0] * len(paths), [0] * len(paths))
    with tempfile.TemporaryDirectory() as folder:
        meter = Meter()
        open_store(source, transforms, Path(folder), "dali", threads, device=torch.device(device)).array.close()
        figures = meter.figures(len(paths))
        return figures | {"broken": len(source.broken)}


def streams(report: Report, budget: Budget) -> None:
    """Measure files to finished batches."""
    for shape in SHAPES:
        for size, name in itertools.product(SIZES, STREAMS):
            first = shape == SHAPES[0] and size == SIZES[0]
            if not first and (name not in SHORT or (shape != SHAPES[0] and size != SIZES[0])):
                continue
            threads, start = STREAMS[name]
            with budget.attempt(report, "streams", f"{shape} to {size} px, {name}") as in_time:
                if not in_time:
                    continue
                files, device = files_of(shape, STREAMED), torch.device(DEVICE)
                job = Job(files, BATCH, threads or min(16, usable_cpus()), device, Transforms(size))
                try:
                    report("streams", f"{shape} to {size} px, {name}", **_stream(start, job))
                except CannotRun as reason:
                    report("streams", f"{shape} to {size} px, {name}", not_measured=str(reason))


def _stream(start: Start, job: Job) -> dict[str, Any]:
    with closing(start(job)) as stream:  # type: ignore[type-var]
        for _ in itertools.islice(stream, 4):
            pass
        meter, images, begun = Meter(), 0, time.perf_counter()
        for number, batch in enumerate(stream, 1):
            images += len(batch)
            if number >= 2 and time.perf_counter() - begun > SECONDS:
                break
        return meter.figures(images) | {"threads": job.threads}


PARTS: dict[str, Callable[[Report, Budget], None]] = {
    "engine": engine,
    "pixels": pixels,
    "stores": stores,
    "streams": streams,
    "decoders": decoders,
}


@click.command(help=(__doc__ or "").split("\n")[0])
@click.argument("parts", nargs=-1, type=click.Choice([*PARTS]))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File to append the records to.")
@click.option("--seconds", type=click.FloatRange(min=0), default=90.0, show_default=True, help="Nothing begins later.")
def main(parts: tuple[str, ...], out: Path | None, seconds: float) -> None:
    """Measure some parts, by default all of them."""
    if not torch.cuda.is_available():
        raise click.ClickException(f"torch {torch.__version__} sees no GPU, and everything here is measured on one")
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
    report, budget = Report(out), Budget(seconds)
    report("machine", torch.cuda.get_device_name(), torch=torch.__version__, python=sys.version.split()[0])
    for part in parts or PARTS:
        with budget.attempt(report, part, "all of it"):
            PARTS[part](report, budget)
        report("seconds", part, since_start=time.perf_counter() - report.start)


if __name__ == "__main__":
    main()
