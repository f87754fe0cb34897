"""What a run uses of its machine where the configuration leaves it open: the cache of images, and the CUDA graph."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch

from fastccsa._build_info import CUDA_VERSION
from fastccsa.collections import Manifest
from fastccsa.images import ImageLoader, PairLoader, Transforms
from fastccsa.images.backend import dali_is_installed
from fastccsa.images.choices import Cache
from fastccsa.images.crop_file import CacheError
from fastccsa.images.store import MAKERS, default_folder, stored_images
from fastccsa.runs.config import CONFIG_FILE, TrainConfig
from fastccsa.runs.images import RunImages
from fastccsa.system.machine import available_bytes
from fastccsa.training.graph import obstacle
from fastccsa.training.ranks import Ranks

# From the fastest to the one that needs nothing.
_ORDER: tuple[Cache, ...] = ("gpu", "sharded", "ram", "disk", "none")
# A cache in memory is chosen if it takes at most this share of what is available; the rest is the training's.
_SHARE = 0.5

logger = logging.getLogger("fastccsa.training")


def choose_caches(
    config: TrainConfig, images: RunImages, watched: Sequence[Manifest], device: torch.device, ranks: Ranks
) -> tuple[Cache, ...]:
    """Return the caches that a run may use, the best one first; they are the same on all ranks.

    There is more than one if the configuration says auto. A run that is resumed caches its images if it did so before,
    because cached and decoded images differ a little.

    Args:
        config: the run.
        images: the images that it trains on and selects by.
        watched: other images that it caches.
        device: the device of the model.
        ranks: the processes that train together.
    """
    if config.cache != "auto":
        return (config.cache,)
    before = TrainConfig.read(config.out).cache if (Path(config.out) / CONFIG_FILE).exists() else "auto"
    if before == "none" or (before == "auto" and device.type == "cpu"):
        return ("none",)
    paths = [path for part in (images.training, images.validation, *watched) for path in part.paths]
    room = Room(config, tuple(dict.fromkeys(paths)), images.training.folder, device, ranks.world)
    found = tuple(cache for cache in _ORDER if not ranks.highest(not room.has(cache)))
    if before == "auto":
        return found
    return found[:-1] or ("disk",)  # which has been made, or its error says what to do


@dataclass(frozen=True)
class Room:
    """The room that crops need, and that the machine has for them.

    Attributes:
        config: the run.
        paths: the images, each once.
        folder: the folder of the manifest.
        device: the device of the model.
        world: number of processes that train together.
    """

    config: TrainConfig
    paths: tuple[str, ...]
    folder: Path
    device: torch.device
    world: int

    def has(self, cache: Cache) -> bool:
        """Return whether there is room for the crops in a cache, and in their store on the disk."""
        if cache == "none":
            return True
        image_bytes = 3 * Transforms(size=self.config.size).crop ** 2
        needed = len(self.paths) * image_bytes
        if self._not_stored * image_bytes > _free(default_folder(self.folder)):
            return False
        if cache in ("gpu", "sharded"):
            if self.device.type == "cpu" or not CUDA_VERSION or (cache == "sharded" and self.world == 1):
                return False
            return (needed if cache == "gpu" else needed / self.world) <= _SHARE * available_bytes(self.device)
        if cache == "ram":
            processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            return needed <= _SHARE * available_bytes(torch.device("cpu")) / processes
        return True

    @cached_property
    def _not_stored(self) -> int:
        """How many images have no row yet in the store that the loaders will use."""
        backend = self.config.image_backend
        makers = (backend,) if backend in MAKERS else ("dali",) if dali_is_installed() else MAKERS
        transforms, folder = Transforms(size=self.config.size), default_folder(self.folder)
        lacking = [len(self.paths) - stored_images(self.paths, transforms, folder, maker) for maker in makers]
        # Without DALI, a store that it made is used only if it is complete.
        return 0 if lacking[0] == 0 else lacking[-1]


def _free(folder: Path) -> int:
    """Return the free space of the disk that a folder is, or would be, on; 0 if it cannot be written."""
    while not folder.exists():
        folder = folder.parent
    writable = folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)
    return shutil.disk_usage(folder).free if writable else 0


Opened = TypeVar("Opened")


def open_cached(
    caches: Sequence[Cache], ranks: Ranks, open_images: Callable[[Cache, ExitStack], Opened]
) -> tuple[Cache, Opened, ExitStack]:
    """Open the loaders of a run with the first of ``caches`` that turns out to be available on all ranks.

    Args:
        caches: what `choose_caches` returned.
        ranks: the processes that train together; the first one of a machine opens its loaders before the others.
        open_images: opens the loaders with a cache, and adds what must be closed to the stack.

    Returns:
        The cache, what ``open_images`` returned, and its stack.

    Raises:
        CacheError: none is available; the reason is that of the last one.
    """
    for cache, following in zip(caches, (*caches[1:], None), strict=True):
        opened: list[Opened] = []
        with ExitStack() as stack:
            with ranks.first_before_others():
                try:
                    opened.append(open_images(cache, stack))
                except CacheError as error:
                    if following is None:
                        raise
                    logger.warning("cache %s is not available, and %s is used: %s", cache, following, error)
            if not ranks.highest(not opened):
                return cache, opened[0], stack.pop_all()
    raise AssertionError("the last cache is opened or raises")


def use_graph(config: TrainConfig, device: torch.device, dtype: torch.dtype | None, ranks: Ranks) -> bool:
    """Return whether to capture the steps as a CUDA graph: as configured, or else where that is possible."""
    if config.cuda_graph is None:
        return obstacle(config, device, dtype, ranks) is None
    return config.cuda_graph


def describe_resources(config: TrainConfig, loader: ImageLoader | PairLoader, device: torch.device, graph: bool) -> str:
    """Say in one line what decodes, keeps and augments the images, and how steps are launched."""
    on_gpu = device.type == "cuda"
    decoder = {"native": "fastccsa's decoder", "dali": "DALI", "torchvision": "torchvision"}[loader.decoder]
    places = {
        "gpu": "in GPU memory",
        "sharded": f"spread over the memory of the processes' {'GPUs' if on_gpu else 'CPUs'}",
        "ram": "in memory",
        "disk": "on disk",
    }
    if config.cache in places:
        images = f"crops that {decoder} made, kept {places[config.cache]}"
        augmented = on_gpu and config.cache in ("gpu", "sharded")
    else:
        augmented = on_gpu and loader.decoder == "dali"
        images = f"decoded for each epoch by {decoder}{' on the GPU' if augmented else ''}"
    where = "GPU" if augmented else "CPU"
    steps = "; steps: a CUDA graph" if graph else "; steps: launched one by one" if on_gpu else ""
    return f"images: {images}, augmented on the {where}{steps}"
