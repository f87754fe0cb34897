"""The scale of experiments relative to the paper's, and the run configuration that follows from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fastccsa.experiments.rows import Experiment
from fastccsa.images.choices import Cache
from fastccsa.runs.config import BASELINE_EPOCHS, BASELINE_LR_STEP, CCSA_EPOCHS, CCSA_LR_STEP, TrainConfig
from fastccsa.system.errors import InputError
from fastccsa.system.ranges import COUNTS, SIZES, Range, check_ranges

# Fields that the command sets, and `device`, which --jobs assigns.
_NOT_TO_SET = ("manifest", "out", "init", "seed", "device", "manifest_sha256")


# Checked although a training checks them too: a plan may have no row that uses one of them.
_RANGES = {
    "size": SIZES,
    "batch_size": Range(1, 2**20),
    "fraction": Range(0, 1, low_excluded=True),
    "lr": Range(0, 1000, low_excluded=True),
    "baseline_lr": Range(0, 1000, low_excluded=True),
    "prune_images": Range(2, 10**6),
}


@dataclass(frozen=True)
class Scale:
    """The settings that all experiments share and that depend on the machine; the defaults are the paper's.

    Attributes:
        size: side length of the images in pixels.
        epochs, baseline_epochs: epochs of CCSA and of the baselines: a whole number, or a share of the paper's below 1.
        fraction: share of the training images.
        batch_size: images or pairs per step.
        lr, baseline_lr: learning rates of CCSA and of the baselines.
        weights: initial weights of the baselines.
        cache: where decoded images are cached.
        prune_images: number of training images on which pruning chooses channels.
    """

    size: int = 224
    epochs: float = CCSA_EPOCHS
    baseline_epochs: float = BASELINE_EPOCHS
    fraction: float = 1.0
    batch_size: int = 32
    lr: float = 1e-4
    baseline_lr: float = 1e-4
    weights: str = "auto"
    cache: Cache = "auto"
    prune_images: int = 512

    def __post_init__(self) -> None:
        check_ranges(self, _RANGES)
        for name in ("epochs", "baseline_epochs"):
            value = getattr(self, name)
            if not (0 < value < 1 or (1 <= value <= COUNTS.high and value == math.floor(value))):
                raise InputError(
                    f"scale: {name} is {value:g}: give a whole number up to {COUNTS.high:,}, or a share of the paper's "
                    "below 1"
                )


# Without ImageNet weights, networks need larger learning rates to learn anything in so few epochs.
_FROM_RANDOM_WEIGHTS = Scale(weights="none", cache="disk", lr=3e-4, baseline_lr=1e-3)
PRESETS: dict[str, Scale] = {
    "paper": Scale(),
    "small": replace(_FROM_RANDOM_WEIGHTS, size=64, epochs=12, baseline_epochs=24, prune_images=6272),
    "tiny": replace(_FROM_RANDOM_WEIGHTS, size=32, epochs=2, baseline_epochs=4, prune_images=64),
}


def parse_scale(text: str) -> Scale:
    """Parse ``preset``, ``key=value,...`` or ``preset,key=value,...``; the default preset is the paper's.

    ``epochs`` and ``lr`` also apply to the baselines, unless ``baseline_epochs`` and ``baseline_lr`` are given.

    Raises:
        InputError: an unknown preset or key, or an invalid value.
    """
    first, *rest = text.split(",")
    if "=" in first:
        first, rest = "paper", [first, *rest]
    if first not in PRESETS:
        raise InputError(f"there is no scale {first!r}: use {', '.join(PRESETS)}, or key=value")
    values = _parse_all(rest, get_type_hints(Scale), "scale")
    for name in ("epochs", "lr"):
        if name in values:
            values.setdefault(f"baseline_{name}", values[name])
    return replace(PRESETS[first], **values)


def parse_settings(settings: Sequence[str]) -> dict[str, Any]:
    """Parse ``field=value`` texts into values of `TrainConfig`'s fields.

    Raises:
        InputError: an unknown field, a field that the experiments set themselves, or a value of another type.
    """
    types = {name: kind for name, kind in get_type_hints(TrainConfig).items() if name not in _NOT_TO_SET}
    return _parse_all(settings, types, "set")


def train_config(row: Experiment, scale: Scale, settings: Mapping[str, Any], **where: Any) -> TrainConfig:
    """Return the configuration of an experiment at a scale; ``settings`` take precedence.

    The learning rate is reduced after the same share of the epochs as in the paper, unless ``settings`` say otherwise.
    The domain that an experiment excludes stays excluded, in addition to those that ``settings`` exclude.

    Args:
        row: the experiment.
        scale: size, epochs and so on.
        settings: values of `TrainConfig` fields.
        where: manifest, out, init, seed and other fields that do not belong to the experiment.

    Raises:
        InputError: a value is out of range.
    """
    is_baseline = row.alignment == "-"
    values: dict[str, Any] = {
        "n_sec": row.n_sec,
        "backbone": row.backbone,
        "classification_weight": row.classification,
        "alignment": row.alignment,
        "size": scale.size,
        "epochs": _epochs(scale, is_baseline),
        "fraction": scale.fraction,
        "batch_size": scale.batch_size,
        "lr": scale.baseline_lr if is_baseline else scale.lr,
        "weights": scale.weights,
        "cache": scale.cache,
        **row.settings,
        **settings,
        **where,
    }
    without = (row.without,) if row.without else ()
    excluded = (*without, *row.settings.get("exclude", ()), *settings.get("exclude", ()))
    values["exclude"] = tuple(dict.fromkeys(excluded))
    share = BASELINE_LR_STEP / BASELINE_EPOCHS if is_baseline else CCSA_LR_STEP / CCSA_EPOCHS
    values.setdefault("lr_step", math.ceil(values["epochs"] * share))
    return TrainConfig(**values)


def _epochs(scale: Scale, is_baseline: bool) -> int:
    given, paper = (scale.baseline_epochs, BASELINE_EPOCHS) if is_baseline else (scale.epochs, CCSA_EPOCHS)
    return math.ceil(given * paper) if given < 1 else int(given)


def _parse_all(texts: Sequence[str], types: Mapping[str, Any], option: str) -> dict[str, Any]:
    values = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or name not in types:
            raise InputError(f"{option}: {text!r} is not key=value with a key of {', '.join(types)}")
        if not value.strip():
            raise InputError(f"{option}: {name} is empty: give a value, or omit it")
        try:
            values[name] = _parse(value, types[name])
        except ValueError as error:
            raise InputError(f"{option}: {name} cannot be {value!r}") from error
    return values


def _parse(text: str, kind: Any) -> Any:
    """Parse ``text`` as a value of the annotation ``kind``, or raise ValueError."""
    if get_origin(kind) is tuple:
        return tuple(filter(None, text.split(",")))
    if get_origin(kind) is Literal:
        return text  # TrainConfig checks the choices
    if kind is bool:
        return bool(("false", "true").index(text.lower()))
    if get_args(kind):  # a union: none, all, or a value of its first alternative
        if text in ("none", "all"):
            return None if text == "none" else text
        return _parse(text, get_args(kind)[0])
    return kind(text)
