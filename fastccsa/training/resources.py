"""What a run uses of its machine where the configuration leaves it open: the cache of images, and the CUDA graph."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import torch

from fastccsa._build_info import CUDA_VERSION
from fastccsa.images import ImageLoader, PairLoader, Transforms
from fastccsa.images.choices import Cache
from fastccsa.images.store import default_folder, stored_bytes
from fastccsa.runs.config import CONFIG_FILE, TrainConfig
from fastccsa.runs.images import RunImages
from fastccsa.system.machine import available_bytes
from fastccsa.training.graph import obstacle
from fastccsa.training.ranks import Ranks

# From the fastest to the one that needs nothing.
_ORDER: tuple[Cache, ...] = ("gpu", "sharded", "ram", "disk", "none")
# A cache in memory is chosen if it takes at most this share of what is available; the rest is the training's.
_SHARE = 0.5


def choose_cache(config: TrainConfig, images: RunImages, device: torch.device, ranks: Ranks) -> TrainConfig:
    """Return the configuration with a cache in place of auto, the same on all ranks.

    A run that is resumed caches its images if it did so before, because cached and decoded images differ a little.
    """
    if config.cache != "auto":
        return config
    before = TrainConfig.read(config.out).cache if (Path(config.out) / CONFIG_FILE).exists() else "auto"
    if before == "none" or (before == "auto" and device.type == "cpu"):
        return replace(config, cache="none")
    found = next(cache for cache in _ORDER if _has_room(cache, config, images, device, ranks.world))
    if before != "auto" and found == "none":
        found = "disk"  # it has been made, or its error says what to do
    return replace(config, cache=_ORDER[ranks.highest(_ORDER.index(found))])


def _has_room(cache: Cache, config: TrainConfig, images: RunImages, device: torch.device, world: int) -> bool:
    """Return whether there is room for the crops of all training and validation images."""
    if cache == "none":
        return True
    transforms = Transforms(size=config.size)
    needed = len({*images.training.paths, *images.validation.paths}) * 3 * transforms.crop**2
    folder = default_folder(images.training.folder)
    if needed - stored_bytes(transforms, folder) > _free(folder):
        return False
    if cache in ("gpu", "sharded"):
        if device.type == "cpu" or not CUDA_VERSION or (cache == "sharded" and world == 1):
            return False
        return (needed if cache == "gpu" else needed / world) <= _SHARE * available_bytes(device)
    if cache == "ram":
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return needed <= _SHARE * available_bytes(torch.device("cpu")) / processes
    return True


def _free(folder: Path) -> int:
    """Return the free space of the disk that a folder is, or would be, on."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def use_graph(config: TrainConfig, device: torch.device, dtype: torch.dtype | None, ranks: Ranks) -> bool:
    """Return whether to capture the steps as a CUDA graph: as configured, or else where that is possible."""
    if config.cuda_graph is None:
        return obstacle(config, device, dtype, ranks) is None
    return config.cuda_graph


def describe_resources(config: TrainConfig, loader: ImageLoader | PairLoader, device: torch.device, graph: bool) -> str:
    """Say in one line what decodes, keeps and augments the images, and how steps are launched."""
    dali = "DALI on the GPU" if device.type == "cuda" else "DALI"
    decoder = {"native": "fastccsa's decoder", "dali": dali, "torchvision": "torchvision"}[loader.decoder]
    places = {
        "gpu": "in GPU memory, augmented there",
        "sharded": "spread over the processes",
        "ram": "in memory",
        "disk": "on disk",
    }
    if config.cache in places:
        images = f"decoded once by {decoder}, crops {places[config.cache]}"
    else:
        images = f"decoded for each epoch by {decoder}"
    steps = "; steps: a CUDA graph" if graph else "; steps: launched one by one" if device.type == "cuda" else ""
    return f"images: {images}{steps}"
