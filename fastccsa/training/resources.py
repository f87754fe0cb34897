"""What a run uses of its machine where the configuration leaves it open: the cache of images, and the CUDA graph."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import torch

from fastccsa._build_info import CUDA_VERSION
from fastccsa.collections import Manifest
from fastccsa.images import ImageLoader, PairLoader, Transforms
from fastccsa.images.backend import say_again
from fastccsa.images.choices import Cache
from fastccsa.images.crop_file import CacheError
from fastccsa.images.store import stored_images
from fastccsa.images.store_choice import default_folder, makers_of
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.folder import has_trained
from fastccsa.runs.images import RunImages
from fastccsa.system.files import writable_place
from fastccsa.system.machine import available_bytes
from fastccsa.training.graph import obstacle
from fastccsa.training.memory import IN_GPU
from fastccsa.training.ranks import Ranks

_NAMES = {"gpu": "GPU memory", "sharded": "the memory of all GPUs", "ram": "memory", "disk": "disk"}
# A cache in memory is chosen if it takes at most this share of what is available; the rest is the training's.
_SHARE = 0.5

logger = logging.getLogger("fastccsa.training")


def choose_caches(
    config: TrainConfig,
    images: RunImages,
    watched: Sequence[Manifest],
    device: torch.device,
    ranks: Ranks,
    tell: Callable[[str], None],
) -> tuple[Cache, ...]:
    """Return the caches that a run may use, the best one first; they are the same on all ranks.

    There is more than one if the configuration says auto. A run that goes on from a checkpoint caches its images if it
    did so before, because cached and decoded images differ a little.

    Args:
        config: the run.
        images: the images that it trains on and selects by.
        watched: other images that it caches.
        device: the device of the model.
        ranks: the processes that train together.
        tell: called with the reason, in a few words, why a better cache than the first one is not among them.
    """
    if config.cache != "auto":
        return (config.cache,)
    before = TrainConfig.read(config.out).cache if has_trained(Path(config.out)) else "auto"
    if before == "none":
        tell("as the run began")
        return ("none",)
    if before == "auto" and device.type == "cpu":
        return ("none",)
    paths = [path for part in (images.training, images.validation, *watched) for path in part.paths]
    room = Room(config, tuple(dict.fromkeys(paths)), images.training.folder, device, ranks.world)
    found: list[Cache] = []
    reasons: list[str] = []
    for cache in _possible(device, ranks):
        reason = room.lack(cache)
        if not ranks.highest(reason is not None):
            found.append(cache)
        elif not found:
            reasons.append(reason or f"{_NAMES[cache]}: another process has no room")
    for reason in dict.fromkeys(reasons):
        tell(reason)
    if before == "auto":
        return tuple(found)
    return tuple(found[:-1]) or ("disk",)  # which has been made, or its error says what to do


def _possible(device: torch.device, ranks: Ranks) -> Iterator[Cache]:
    """Yield the caches that there are for this device and number of processes, the best one first."""
    if device.type == "cuda":
        yield "gpu"
        if not ranks.is_alone:
            yield "sharded"
    yield from ("ram", "disk", "none")


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

    def lack(self, cache: Cache) -> str | None:
        """Return in a few words why a cache, or their store on the disk, has no room for the crops; None if it has."""
        if cache == "none":
            return None
        needed = len(self.paths) * self._image_bytes
        if self._no_store is not None or cache == "disk":
            return self._no_store
        if cache == "ram":
            processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            return _too_small(cache, needed, _SHARE * available_bytes(torch.device("cpu")) / processes)
        if not CUDA_VERSION:
            return f"{_NAMES['gpu']}: fastccsa was built without CUDA code"
        part = needed / self.world if cache == "sharded" else needed
        return _too_small(cache, part, _SHARE * available_bytes(self.device))

    @property
    def _image_bytes(self) -> int:
        return 3 * Transforms(size=self.config.size).crop ** 2

    @cached_property
    def _no_store(self) -> str | None:
        """Why there is no room for the store; None if there is."""
        backend, transforms = self.config.image_backend, Transforms(size=self.config.size)
        folder = default_folder(self.folder, self.paths, transforms, backend)
        lacking = [len(self.paths) - stored_images(self.paths, transforms, folder, each) for each in makers_of(backend)]
        if 0 in (lacking[0], lacking[-1]):  # without DALI, a store that it made is used only if it is complete
            return None
        needed, free = lacking[-1] * self._image_bytes, _free(folder)
        if free is None:
            return f"{folder} cannot be written"
        return f"{_NAMES['disk']}: needs {_amount(needed)}, {_amount(free)} free" if needed > free else None


def _free(folder: Path) -> int | None:
    """Return the free space of the disk that a folder is, or would be, on; None if it cannot be written."""
    place = writable_place(folder)
    try:
        return None if place is None else shutil.disk_usage(place).free
    except OSError:
        return None


def _too_small(cache: Cache, needed: float, room: float) -> str | None:
    return f"{_NAMES[cache]}: needs {_amount(needed)}, {_amount(room)} free for crops" if needed > room else None


def _amount(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.1f} MB"


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
    say_again()
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


def describe_resources(
    config: TrainConfig,
    loaders: Sequence[ImageLoader | PairLoader],
    device: torch.device,
    dtype: torch.dtype | None,
    ranks: Ranks,
    reasons: Sequence[str] = (),
) -> str:
    """Say in one line what decodes, keeps and augments the images, how steps are launched, and what stood in the way.

    Args:
        config: the run, whose cache has been chosen.
        loaders: those of the training images and of the validation images.
        device, dtype: where the model is, and the dtype of autocast.
        ranks: the processes that train together.
        reasons: what `choose_caches` told.
    """
    on_gpu = device.type == "cuda"
    found = dict.fromkeys(loader.decoder for loader in loaders)  # DALI may have failed, or have made only some crops
    dali = "DALI on the GPU" if on_gpu and config.cache == "none" else "DALI"
    names = {"native": "fastccsa's decoder", "dali": dali, "torchvision": "torchvision"}
    decoders = " and ".join(names[decoder] for decoder in found)
    why = f" ({'; '.join(reasons)})" if reasons else ""
    places = {
        "gpu": "in GPU memory",
        "sharded": f"spread over the memory of the processes' {'GPUs' if on_gpu else 'CPUs'}",
        "ram": "in memory",
        "disk": "on disk",
    }
    if config.cache in places:
        images = f"crops that {decoders} made, kept {places[config.cache]}{why}"
        augmented = on_gpu and config.cache in IN_GPU
    else:
        augmented = on_gpu and loaders[0].decoder == "dali"
        images = f"decoded for each epoch by {decoders}{why}"
    line = f"images: {images}, augmented on the {'GPU' if augmented else 'CPU'}"
    if not on_gpu:
        return line
    if use_graph(config, device, dtype, ranks):
        return f"{line}; steps: a CUDA graph"
    # Of a reason such as "accumulate is 2: it captures steps of one batch", the setting is enough.
    reason = obstacle(config, device, dtype, ranks) if config.cuda_graph is None else None
    return f"{line}; steps: launched one by one" + (f" ({reason.split(':')[0]})" if reason else "")
