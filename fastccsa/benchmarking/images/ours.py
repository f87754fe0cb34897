"""fastccsa's ways, and the floors: what they must at least read, copy or decode."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from PIL import Image

from fastccsa._build_info import CUDA_VERSION
from fastccsa.benchmarking.images.files import Files
from fastccsa.benchmarking.images.rivals import CannotRun, Stream, T
from fastccsa.images import ImageLoader
from fastccsa.images.jpeg import read_codes
from fastccsa.images.transforms import find_regions, find_scales
from fastccsa.sampling import ImageSampler

__all__ = ["codes", "copy", "loader"]

_BEYOND_CACHES = 1 << 28  # bytes


def loader(**settings: Any) -> Callable[[Files, int, int, torch.device], Stream]:
    """`ImageLoader` with some settings; stores are kept beside the files, and making them is not timed."""

    def stream(files: Files, batch: int, threads: int, device: torch.device) -> Stream:
        if settings.get("cache") == "gpu" and (device.type != "cuda" or not CUDA_VERSION):
            raise CannotRun("needs a GPU and a build with CUDA code")
        manifest = files.manifest()
        sampler = ImageSampler(manifest.labels, num_classes=1, batch_size=batch)
        folder = files.folder / "stores"
        with ImageLoader(
            manifest, sampler, True, device=device, num_threads=threads, cache_dir=folder, **settings
        ) as images:
            for epoch in itertools.count():
                for made in images.epoch(epoch):
                    yield made["images"]

    return stream


def copy(files: Files, batch: int, threads: int, device: torch.device) -> Stream:
    """The floor of the store: a copy of as many bytes as it reads and writes, beyond the processor's caches."""
    windows = T.draw(0, 0, np.arange(4096), 1).window
    read = round(3 * np.prod(windows[:, 2:], axis=1).mean())
    part = batch * (read + 4 * 3 * T.size**2) // 2  # a copy both reads and writes
    source = torch.zeros(max(_BEYOND_CACHES, 2 * part), dtype=torch.uint8, device=device)
    to, counted, start = source.clone(), torch.empty(batch, device=device), 0
    while True:
        start = start + part if start + 2 * part <= len(source) else 0
        to[start : start + part].copy_(source[start : start + part])
        yield counted


def codes(files: Files, batch: int, threads: int, device: torch.device) -> Stream:
    """The floor of decoding on the CPU: a JPEG's codes read down to the region's last row, and nothing made of them."""
    contents = [np.fromfile(path, np.uint8) for path in files.paths]
    shapes = np.array([Image.open(path).size[::-1] for path in files.paths], np.int64)

    def one(arguments: tuple[int, list[int], int]) -> None:
        number, region, scale = arguments
        if not read_codes(contents[number], region, scale):
            raise CannotRun(f"{files.paths[number]} is not a JPEG of the kind that fastccsa decodes itself")

    counted = torch.empty(batch)
    with ThreadPoolExecutor(threads) as workers:
        for start in itertools.count(0, batch):
            which = np.arange(start, start + batch) % len(contents)
            views = T.draw(0, 0, np.arange(start, start + batch), 1)
            scales = find_scales(T, views, shapes[which])
            regions = find_regions(T, views, shapes[which], np.array([T.size, T.size]), scales).decode
            list(workers.map(one, zip(which.tolist(), regions.tolist(), scales.tolist(), strict=True)))
            yield counted
