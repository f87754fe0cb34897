"""Making the crops of all runs before several of them start at once, each of which would wait for the others' crops."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from fastccsa.collections import Manifest
from fastccsa.experiments.plan import PlannedRun
from fastccsa.images import Transforms
from fastccsa.images.source import ImageSource
from fastccsa.images.store_choice import default_folder, open_store_of
from fastccsa.runs.images import open_manifest, select_images, watched_images
from fastccsa.system.errors import InputError
from fastccsa.system.progress import Say

Group = tuple[str, int, str]  # manifest, size, image backend: what runs share a store by


def make_crops(runs: Sequence[PlannedRun], device: str, say: Say) -> None:
    """Make the crops of the images that ``runs`` will cache, each once.

    Crops that cannot be made are left to the runs, which report the error.

    Args:
        runs: the runs of a plan.
        device: where they will train: on the CPU, only those that ask for a cache have one.
        say: called with one line for each store.
    """
    groups: dict[Group, list[PlannedRun]] = {}
    for run in runs:
        config = run.config
        caches = config.cache != "none" and not (config.cache == "auto" and torch.device(device).type == "cpu")
        if caches and run.row.threshold is None and not run.is_finished:
            groups.setdefault((config.manifest, config.size, config.image_backend), []).append(run)
    for (_, size, backend), members in groups.items():
        try:
            images = _images(members)
            say(f"crops of {len(images)} images of {size} px, for {len(members)} runs")
            _make(images, Transforms(size=size), backend, device)
        except InputError as error:
            say(f"the crops are left to the runs: {error}")


def _images(runs: Sequence[PlannedRun]) -> Manifest:
    """Return the images that runs on one manifest train on, select by, and score after each epoch."""
    _, manifest = open_manifest(runs[0].config)
    used: set[str] = set()
    for run in runs:
        images = select_images(run.config, manifest)
        watched = watched_images(run.config, manifest, images.domains).values()
        used.update(path for part in (images.training, images.validation, *watched) for path in part.paths)
    return manifest.take(np.flatnonzero([path in used for path in manifest.paths]))


def _make(images: Manifest, transforms: Transforms, backend: str, device: str) -> None:
    source = ImageSource(images.paths, images.labels, images.domain_indices)
    folder = default_folder(images.folder, images.paths, transforms, backend)
    _, store = open_store_of(backend, source, transforms, folder, device=torch.device(device))
    store.array.close()
