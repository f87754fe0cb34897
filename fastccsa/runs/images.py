"""Selection of the images that a run trains on, of those that select its model, and of those that it only scores."""

from __future__ import annotations

import hashlib
import math
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from fastccsa.collections import Manifest, nested_subset
from fastccsa.runs.config import CONFIG_FILE, FRACTION_KEEPS, TrainConfig
from fastccsa.runs.selection import Criterion, SelectionRule, criteria
from fastccsa.system.errors import InputError

DEFAULT_PRIMARY = "HAM"


@dataclass(frozen=True)
class RunImages:
    """The images of a manifest that a run uses while it trains.

    Attributes:
        training: training images of ``domains``, reduced to the configured fraction, and to n_sec images per class in
            the secondary domains.
        validation: validation images of ``domains``, which select the model.
        primary: key of the primary domain.
        domains: keys of the training domains, the primary first.
        selection: the rule that selects the model.
    """

    training: Manifest
    validation: Manifest
    primary: str
    domains: tuple[str, ...]
    selection: SelectionRule

    @cached_property
    def criteria(self) -> dict[SelectionRule, Criterion]:
        """The criterion of each rule on the validation images."""
        counts = self.validation.summary()
        return criteria({name: counts.loc[name].tolist() for name in self.domains})

    @property
    def criterion(self) -> Criterion:
        """The criterion of the run's own rule."""
        return self.criteria[self.selection]

    @property
    def selection_rule(self) -> str:
        """How the model is selected, in words; excluded domains are not used for it."""
        weights, error = self.criterion.weights, self.criterion.error
        if error is None:
            over = f"over {', '.join(self.domains)}" if len(self.domains) > 1 else f"of {self.primary}"
            return f"highest mean validation macro-average recall {over}"
        if len(self.domains) == 1:
            recall = f"validation macro-average recall of {self.primary}"
        else:
            shares = (f"{name} {100 * weights[name] / sum(weights.values()):.0f} %" for name in self.domains)
            recall = f"weighted mean validation macro-average recall over {', '.join(shares)}"
        return f"latest epoch within one standard error ({100 * error:.1f} points) of the highest {recall}"


def open_manifest(config: TrainConfig, resumes: bool | None = None) -> tuple[TrainConfig, Manifest]:
    """Read the manifest of ``config``.

    Args:
        config: the configuration of the run.
        resumes: whether the work has begun before; None if that depends on the run folder. Image files that are missing
            are then left to ``config.broken_images``, as those that vanish during the work.

    Returns:
        The configuration with the manifest's absolute path and checksum, and the manifest.

    Raises:
        InputError: the manifest cannot be read or is invalid.
    """
    if resumes is None:
        resumes = bool(config.out) and (Path(config.out) / CONFIG_FILE).exists()
    manifest = Manifest.read(config.manifest, check_files=not resumes)
    checksum = hashlib.sha256(Path(config.manifest).read_bytes()).hexdigest()
    path = os.path.abspath(config.manifest)  # so that the run can be scored again from any folder
    return replace(config, manifest=path, manifest_sha256=checksum), manifest


def select_images(config: TrainConfig, manifest: Manifest) -> RunImages:
    """Choose the images of a run.

    Raises:
        InputError: an unknown domain, a training domain without training or validation images, no test image, or a
            class that occurs in validation but not in training.
    """
    primary = config.primary or (DEFAULT_PRIMARY if DEFAULT_PRIMARY in manifest.domains else manifest.domains[0])
    for option, names in (("primary", (primary,)), ("exclude", config.exclude)):
        for name in names:
            if name not in manifest.domains:
                raise InputError(
                    f"{option} domain {name!r} is not in {config.manifest}, which has {', '.join(manifest.domains)}"
                )
    if primary in config.exclude:
        raise InputError(f"the primary domain {primary} cannot be excluded: name another primary domain")
    secondary = tuple(name for name in manifest.domains if name != primary and name not in config.exclude)
    domains = (primary,) if config.n_sec == 0 else (primary, *secondary)
    if not config.is_baseline and len(domains) == 1:
        raise InputError(f"there is no secondary domain to align {primary} with: use alignment - for a baseline")
    n_sec = None if config.n_sec == "all" else config.n_sec
    reduced = nested_subset(training_fraction(manifest, config.fraction, config.seed), n_sec, primary, config.seed)
    images = RunImages(
        training=reduced.select("train", domains),
        validation=manifest.select("validation", domains),
        primary=primary,
        domains=domains,
        selection=config.selection,
    )
    _check(images, config)
    if len(manifest.select("test")) == 0:
        raise InputError(f"{config.manifest} has no test image: split it again")
    return images


def watched_images(config: TrainConfig, manifest: Manifest, trained: tuple[str, ...]) -> dict[str, Manifest]:
    """Return the images of ``config.score_epochs``: those of domains left out to validate on, and to test on."""
    if not config.score_epochs:
        return {}
    left_out = [name for name in manifest.domains if name not in trained]
    found = {"unseen": manifest.select("validation", left_out), "test": manifest.select("test")}
    return {name: images for name, images in found.items() if len(images)}


def training_fraction(manifest: Manifest, fraction: float, seed: int) -> Manifest:
    """Keep a random fraction of the training images of each domain and class; other splits are unchanged.

    With the same seed, a larger fraction contains every image of a smaller one. Each class keeps at least
    `FRACTION_KEEPS` images per domain, or all of them where there are fewer.
    """
    if fraction == 1:
        return manifest
    training = manifest.table[manifest.table["split"] == "train"]
    keep = np.ones(len(manifest), dtype=bool)
    for _, cell in training.sort_values(["group", "image"]).groupby(["domain", "label"]):
        count = max(math.ceil(fraction * len(cell)), FRACTION_KEEPS)
        order = np.random.default_rng(seed).permutation(len(cell))
        keep[cell.index[order[count:]]] = False
    return manifest.take(keep)


def _check(images: RunImages, config: TrainConfig) -> None:
    parts = {"train": images.training, "validation": images.validation}
    for split, part in parts.items():
        present = set(part.table["domain"])
        for name in images.domains:
            if name not in present:
                raise InputError(
                    f"domain {name} has no {split} image in {config.manifest}: exclude it, or split the manifest again"
                )
    counts = {split: part.summary().sum() for split, part in parts.items()}
    untrained = [name for name in images.training.classes if counts["validation"][name] and not counts["train"][name]]
    if untrained:
        raise InputError(
            f"no training image in {', '.join(images.domains)} shows {', '.join(untrained)}, "
            f"which the validation images do: split {config.manifest} again"
        )
    if len(images.training) < 2:
        raise InputError("there is only one training image: a batch needs two")
