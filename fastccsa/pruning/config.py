"""The configuration of a pruning, as one frozen value."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

from fastccsa.system.choices import check_choices, check_not_empty
from fastccsa.system.errors import InputError
from fastccsa.system.ranges import COUNTS, SEEDS, WORKERS, Range, check_ranges
from fastccsa.system.schema import PathText

Criterion = Literal["dcp", "magnitude", "taylor", "random"]
CRITERIA: tuple[Criterion, ...] = get_args(Criterion)
Stop = Literal["gap", "fall"]
Refit = Literal["reconstruction", "joint"]


# Fields that do not change the result of a pruning.
_NOT_COMPARED = ("run", "out", "manifest", "allow_changed_manifest", "device", "workers")
_SHARE = Range(0, 1, low_excluded=True, high_excluded=True)
_RANGES = {
    "threshold": _SHARE,
    "rate": _SHARE,
    "round_to": Range(1, 10**6),
    "discrimination_images": Range(2, 10**6),
    "stage_epochs": Range(1, 10**6),
    "workers": WORKERS,
    "images": Range(2, 10**6),
    "auxiliary": COUNTS,
    "epochs": Range(1, 10**6),
    "seed": SEEDS,
    "lr": Range(0, 1000, low_excluded=True),
    "fraction": Range(0, 1, low_excluded=True),
    "loss_weight": Range(0, 10**6),
}


@dataclass(frozen=True)
class PruneConfig:
    """A pruning of a trained run; exactly one of ``threshold`` and ``rate`` says how much to prune.

    Attributes:
        run: folder of the finished run to prune.
        out: folder of the pruned run.
        manifest: CSV file of the images; None uses the run's own.
        allow_changed_manifest: go on even if the manifest changed since the run, or if images to score were trained on.
        threshold: a layer has enough channels once the difference that ``stop`` names is at most this share of its
            loss without any channel; in (0, 1).
        stop: which difference is compared with the threshold: gap (of the reconstruction loss from its value with all
            channels) or fall (of the joint loss by the last channel).
        rate: share of the channels to remove from every layer, in (0, 1).
        criterion: how channels are ranked: dcp (by the gradient of the joint loss), magnitude, taylor or random.
        refit: what the weights of the kept channels minimise: reconstruction (that loss only; the discrimination loss
            takes part in the choice of channels) or joint (they descend the joint loss).
        round_to: the number of channels kept is rounded up to a multiple of this.
        loss_weight: lambda, the weight of the discrimination loss in the joint loss; 0 uses only reconstruction.
        images: number of training images on which outputs are reconstructed; None is as many pixels as 512 images of
            224 px. In a ResNet-18 each weight of the widest layer is then determined by 5 positions.
        discrimination_images: number of these on which the discrimination loss is computed: half for its gradient, half
            for its value.
        auxiliary: number of auxiliary losses besides the final one; None is 2 for networks of up to 8 blocks, else 3.
        stage_epochs: epochs of fine-tuning before each stage's layers are pruned.
        epochs: epochs of the fine-tuning at the end; None uses the run's. The learning rate is reduced after half of
            them.
        lr: initial learning rate of all fine-tuning; None uses the run's.
        fraction: share of the training images to use, in (0, 1]; None uses the run's.
        seed: seed of the subset, the auxiliary losses, the random criterion and the fine-tuning; None uses the run's.
        device: auto, cpu or cuda[:N].
        workers: number of threads that decode images; 0 lets the image pipeline choose.

    Raises:
        InputError: a value is out of range; the message names the field.
    """

    run: PathText
    out: PathText
    manifest: PathText | None = None
    allow_changed_manifest: bool = False
    threshold: float | None = None
    rate: float | None = None
    stop: Stop = "gap"
    criterion: Criterion = "dcp"
    refit: Refit = "reconstruction"
    round_to: int = 1
    loss_weight: float = 1.0
    images: int | None = None
    discrimination_images: int = 128
    auxiliary: int | None = None
    stage_epochs: int = 1
    epochs: int | None = None
    lr: float | None = None
    fraction: float | None = None
    seed: int | None = None
    device: str = "auto"
    workers: int = 0

    def __post_init__(self) -> None:
        if (self.threshold is None) == (self.rate is None):
            raise InputError("say how much to prune: give either a threshold or a rate")
        check_choices(self)
        check_ranges(self, _RANGES)
        check_not_empty(self, ("run", "out", "manifest", "device"))
        if Path(self.run).resolve() == Path(self.out).resolve():
            raise InputError(f"{self.out} is the run to prune: choose another folder for the pruned one")

    def differences(self, other: dict[str, object]) -> list[str]:
        """Return ``name: mine, not other's`` for every value that differs from ``other``, which is read from JSON."""
        mine = json.loads(self.to_json())
        return [
            f"{name}: {mine[name]!r}, not {other.get(name)!r}"
            for name in mine
            if name not in ("run", "out", "manifest", "allow_changed_manifest", "device", "workers")
            and mine[name] != other.get(name)
        ]

    def to_json(self) -> str:
        """Return one JSON object."""
        return json.dumps(asdict(self))
