"""Images a second, and CPU-seconds an image, of each way from image files to finished training batches.

    python benchmarks/bench_images.py                                  JPEGs of three sizes, rendered for it
    python benchmarks/bench_images.py --images FOLDER                  JPEGs of one's own
    python benchmarks/bench_images.py --contenders disk ram --seconds 10

Contenders, each given ``--threads`` threads or worker processes, taken in turn within each round:
    torchvision   the paper's steps with torchvision, in a torch DataLoader with a worker process a thread
    literal       the paper's steps in DALI, written as in its documentation's ImageNet example: the whole image
                  is decoded and resized to 650 x 650, and the random crop is taken from that
    exact         ImageLoader(mode="exact"): the same images as `literal`, without the work that no pixel needs
    fused         ImageLoader(mode="fused"), the default: one resampling
    disk, ram     ImageLoader(cache=...), from the store of crops (its making is not timed)
    gpu           ImageLoader(cache="gpu"); exact, fused, disk and ram then also end on the GPU
    copy          the floor of disk and ram: copying the bytes that they read and write, no more, through buffers
                  beyond the processor's caches (few files in small batches may stay within, and go below)

One line of JSON a contender and image size, the best of the rounds: images a second of wall time, milliseconds of
CPU an image (all threads and processes together), which other work on the machine disturbs less, and how many
times the images a second of `literal`.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from fastccsa.data.manifest import Manifest
from fastccsa.pipeline import ImageLoader, Transforms
from fastccsa.sampling import ImageSampler

SHAPES = ("600x450", "1024x768", "3000x2000")
ROWS = 1 << 14  # of the manifest, so that an epoch lasts
DISTINCT = 8  # rendered images; the other files are copies, decoded all the same
T = Transforms()


def render(folder: Path, width: int, height: int, count: int) -> list[Path]:
    """JPEGs of quality 92 with a camera's share of detail and noise."""
    rng = np.random.default_rng(0)
    contents = []
    for _ in range(min(count, DISTINCT)):
        smooth = Image.fromarray(rng.integers(60, 220, (9, 12, 3)).astype(np.uint8))
        pixels = np.asarray(smooth.resize((width, height), Image.Resampling.BICUBIC)).astype(np.float32)
        pixels += rng.normal(0, 6, (height, width, 1)).astype(np.float32)
        buffer = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=92)
        contents.append(buffer.getvalue())
    paths = [folder / f"{width}x{height}-{number:04d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        path.write_bytes(contents[number % len(contents)])
    return paths


# ---- contenders: each an endless stream of batches ----


class Files(Dataset[torch.Tensor]):
    """The paper's steps as torchvision's documentation composes them."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        self.transform = v2.Compose(
            [
                v2.Resize((T.resize, T.resize)),
                v2.CenterCrop(T.crop),
                v2.RandomResizedCrop(T.size, T.scale, T.ratio),
                v2.RandomHorizontalFlip(),
                v2.RandomVerticalFlip(),
                v2.RandomChoice([v2.RandomRotation((angle, angle)) for angle in (0, 90, 180, 270)]),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(T.mean, T.std),
                v2.RandomErasing(1.0, scale=((T.cutout / T.size) ** 2,) * 2, ratio=(1.0, 1.0)),
            ]
        )

    def __len__(self) -> int:
        return ROWS

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(Image.open(self.paths[index % len(self.paths)]).convert("RGB"))


def torchvision(paths: list[Path], options: argparse.Namespace) -> Iterator[torch.Tensor]:
    loader = DataLoader(Files(paths), options.batch, num_workers=options.threads)
    while True:
        yield from loader


def literal(paths: list[Path], options: argparse.Namespace) -> Iterator[torch.Tensor]:
    from nvidia.dali import fn, types
    from nvidia.dali.pipeline import pipeline_def

    @pipeline_def(batch_size=options.batch, num_threads=options.threads, device_id=None, exec_dynamic=True)
    def pipeline():  # type: ignore[no-untyped-def]
        encoded, _ = fn.readers.file(files=[str(path) for path in paths], random_shuffle=True)
        image = fn.decoders.image(encoded, device="cpu", output_type=types.RGB)
        image = fn.resize(image, size=[T.resize, T.resize])
        image = fn.crop(image, crop=[T.crop, T.crop])
        image = fn.random_resized_crop(image, size=[T.size, T.size], random_area=T.scale, random_aspect_ratio=T.ratio)
        flips = [fn.random.coin_flip() for _ in range(2)]
        image = fn.flip(image, horizontal=flips[0], vertical=flips[1])
        image = fn.rotate(image, angle=90.0 * fn.random.uniform(range=(0, 4), dtype=types.INT32), keep_size=True)
        anchor = fn.random.uniform(range=(0.0, 1.0 - T.cutout / T.size), shape=2)
        image = fn.erase(
            image, anchor=anchor, shape=[T.cutout / T.size] * 2, normalized=True, axis_names="HW", fill_value=T.fill
        )
        mean, std = ([255 * value for value in values] for values in (T.mean, T.std))
        return fn.crop_mirror_normalize(image, dtype=types.FLOAT, output_layout="CHW", mean=mean, std=std)

    made = pipeline()
    made.build()
    while True:
        (images,) = made.run()
        yield torch.from_dlpack(images.as_tensor())


def ours(**settings: str) -> Callable[[list[Path], argparse.Namespace], Iterator[torch.Tensor]]:
    def stream(paths: list[Path], options: argparse.Namespace) -> Iterator[torch.Tensor]:
        names = [str(paths[number % len(paths)]) for number in range(ROWS)]
        table = pd.DataFrame({"image": names, "label": "a", "domain": "P", "group": names, "split": "train"})
        manifest = Manifest(table, options.folder)
        sampler = ImageSampler(manifest.labels, num_classes=1, batch_size=options.batch)
        cached = {"cache_dir": options.folder / "stores"} if "cache" in settings else {}
        loader = ImageLoader(
            manifest, sampler, True, device=options.device, num_threads=options.threads, **settings, **cached
        )
        with loader:
            for epoch in itertools.count():
                for batch in loader.epoch(epoch):
                    yield batch["images"]

    return stream


def copy(paths: list[Path], options: argparse.Namespace) -> Iterator[torch.Tensor]:
    """Bytes of the crops' part that a random window has on average, and of the finished images."""
    windows = T.draw(0, 0, np.arange(4096), 1).window
    read = round(3 * np.prod(windows[:, 2:], axis=1).mean())
    written = 4 * 3 * T.size**2
    # A copy both reads and writes; a buffer larger than the caches, walked through.
    source = torch.zeros(max(1 << 28, options.batch * (read + written)), dtype=torch.uint8)
    to = source.clone()
    part, images, start = options.batch * (read + written) // 2, torch.empty(options.batch), 0
    while True:
        start = start + part if start + 2 * part <= len(source) else 0
        to[start : start + part].copy_(source[start : start + part])
        yield images


CONTENDERS: dict[str, Callable[[list[Path], argparse.Namespace], Iterator[torch.Tensor]]] = {
    "torchvision": torchvision,
    "literal": literal,
    "exact": ours(mode="exact"),
    "fused": ours(mode="fused"),
    "disk": ours(cache="disk"),
    "ram": ours(cache="ram"),
    "gpu": ours(cache="gpu"),
    "copy": copy,
}


# ---- measurement ----


def cpu_seconds() -> float:
    """CPU time of this process and of those it has waited for."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def measure(stream: Iterator[torch.Tensor], seconds: float, warm_up: int) -> tuple[float, float]:
    """Images a second and CPU-seconds an image, once the stream flows; at least two batches."""
    with closing(stream):  # type: ignore[type-var]
        for _ in itertools.islice(stream, warm_up):
            pass
        cpu, begun, images = cpu_seconds(), time.perf_counter(), 0
        for number, batch in enumerate(stream, 1):
            images += len(batch)
            if batch.is_cuda:
                torch.cuda.synchronize()
            if time.perf_counter() - begun > seconds and number >= 2:
                break
        wall = time.perf_counter() - begun
    # Worker processes are counted when they have ended, with what they did before the first batch.
    return images / wall, (cpu_seconds() - cpu) / images


def compare(paths: list[Path], name: str, options: argparse.Namespace) -> list[dict[str, object]]:
    best: dict[str, tuple[float, float]] = {}
    for _ in range(options.rounds):
        for contender in options.contenders:
            warm_up = 2 if contender in ("torchvision", "literal", "exact", "fused") else 8
            rate, cpu = measure(CONTENDERS[contender](paths, options), options.seconds, warm_up)
            before = best.get(contender, (0.0, float("inf")))
            best[contender] = max(before[0], rate), min(before[1], cpu)
    base = best.get("literal")
    return [
        {
            "images": name,
            "contender": contender,
            "images_per_second": round(rate, 1),
            "cpu_ms_per_image": round(1e3 * cpu, 3),
            "times_literal": round(rate / base[0], 1) if base else None,
            "cpu_times_literal": round(base[1] / cpu, 1) if base else None,
        }
        for contender, (rate, cpu) in best.items()
    ]


def collections(options: argparse.Namespace) -> Iterable[tuple[str, list[Path]]]:
    if options.images is not None:
        paths = sorted(path for path in options.images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
        if not paths:
            sys.exit(f"no JPEG is in {options.images}")
        yield str(options.images), paths[: options.files]
        return
    for shape in options.shapes:
        width, height = map(int, shape.split("x"))
        yield shape, render(options.folder, width, height, options.files)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    available = [name for name in CONTENDERS if name != "gpu" or torch.cuda.is_available()]
    parser.add_argument("--images", type=Path, help="folder of JPEGs, instead of rendered ones")
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="WIDTHxHEIGHT of rendered images")
    parser.add_argument("--files", type=int, default=128, help="files of each size")
    parser.add_argument("--contenders", nargs="+", choices=available, default=available)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        options.folder = Path(folder)
        for name, paths in collections(options):
            for line in compare(paths, name, options):
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
