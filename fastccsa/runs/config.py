"""Everything a training run is told, as one frozen value."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from fastccsa.system.errors import InputError

CONFIG_FILE = "config.json"

BASELINE_EPOCHS, BASELINE_LR_STEP = 135, 45
CCSA_EPOCHS, CCSA_LR_STEP = 20, 10
FRACTION_KEEPS = 5  # so that Table 2's n_sec, 1 to 5, mean the same whatever the fraction


def _setting(default: Any) -> Any:
    """Make a field about where and how fast a run goes: it may change when the run is resumed."""
    return field(default=default, metadata={"changes_result": False})


@dataclass(frozen=True)
class TrainConfig:
    """A training run: the paper's section 3 unless told otherwise.

    With ``alignment`` ``"-"`` it is a baseline (Table 2, A-E): single images, cross-entropy only. With
    ``"w"`` or ``"u"`` it is CCSA: pairs of images, cross-entropy and contrastive alignment, the alignment
    weighted by the inverse joint class probability or not. ``classification_weight`` says the same of
    the cross-entropy.

    Attributes:
        manifest: CSV of the images.
        out: run folder.
        n_sec: training images per class and secondary domain; 0 is the primary domain alone.
        primary: the domain that holds every class; None is HAM where there is one, else the first.
        fraction: share of the training images to train on, of each class and domain alike, drawn by the seed; a
            class keeps at least `FRACTION_KEEPS` images of a domain that has them, and n_sec counts what is left.
        exclude: domains left out of training and of model selection; they are still tested.
        backbone: a torchvision classification network.
        weights: where the backbone starts: auto, imagenet, none or a path (see `build_model`).
        init: run folder or checkpoint to warm-start the whole model from, head included.
        size: side of the images in pixels; the transforms scale with it.
        epochs, lr_step: 0 takes the paper's, 135 and 45 for a baseline, 20 and 10 for CCSA.
        batch_size: images a step, or pairs a step.
        lr, weight_decay: AdamW's.
        lr_gamma: what the learning rate is multiplied by every ``lr_step`` epochs.
        margin, alpha: the loss's m, and its share of alignment (CCSA only).
        pairs: zipped: the pairs as they are drawn; all: every first image of a batch with every second, at no
            more passes through the network (CCSA only).
        memory: past images of each stream whose features the other stream's batch meets as well, 0 for none (with
            pairs all; see `fastccsa.PairMemory`). It starts empty and is kept from epoch to epoch; pairs are
            weighted, as always over all pairs, by 1/(P(y1) P(y2)), of independent draws.
        match_probability, negatives: the pair sampler's (CCSA only).
        joint_forward: both images of the pairs go through the network as one batch, which shares
            BatchNorm's statistics between domains; else as two batches (CCSA only).
        image_backend: what decodes and transforms the images: native, dali, torchvision, or auto; see `PairLoader`.
        cache: what is decoded once and kept, beside the manifest on the disk: none, or the images' crops, used
            from the disk, from memory (ram) or from the GPU's. Test images, seen once, are not kept.
        amp: auto, none, bfloat16 or float16; auto is none on the CPU.
        seed: of the weights, the sampling and the augmentation.
        accumulate: batches whose gradients are added up for one step; it is the gradient of one batch as large.
        clip: the norm that a step's gradient is cut down to; 0 leaves it.
        ema: share that stays, a step, in a moving average of the weights, which is then what is validated and saved
            as the model; 0 for none. 0.999 remembers a thousand steps.
        patience: epochs without a higher validation recall after which training ends; 0 for none.
        sync_batchnorm: under torchrun, BatchNorm takes its statistics from the batches of all processes; else each
            has its own, and the first process's are saved.
        broken_images: what happens when an image cannot be read: replace it by another of its class and domain and
            say so, or stop.
        device: auto, cpu or cuda[:N].
        workers: threads that decode images; 0 leaves the number to the image pipeline.
        checkpoint_every: batches between checkpoints within an epoch; 0 saves at the end of epochs only.
        time_limit: minutes after which the run saves and stops, to be gone on with by the same call; 0 for none.
        compile: compile the network with torch.compile.
        deterministic: let GPUs compute the same bits each time, as CPUs do anyway; slower, and not every network can.
        cuda_graph: capture the whole step as a CUDA graph, with cache gpu: for a GPU that is done before the host has
            told it what to do next.
        profile: write a trace of a few steps into the run folder.
        manifest_sha256: checksum of the manifest's bytes, filled in when the run starts.

    Raises:
        InputError: a value outside its range, naming the field.
    """

    manifest: str = _setting("")
    out: str = _setting("")
    n_sec: int | Literal["all"] = "all"
    fraction: float = 1.0
    primary: str | None = None
    exclude: tuple[str, ...] = ()
    backbone: str = "resnet18"
    weights: str = "auto"
    init: str | None = None
    size: int = 224
    epochs: int = 0
    batch_size: int = 32
    lr: float = 1e-4
    lr_step: int = 0
    lr_gamma: float = 0.1
    weight_decay: float = 1e-3
    classification_weight: Literal["w", "u"] = "w"
    alignment: Literal["w", "u", "-"] = "w"
    margin: float = 50.0
    alpha: float = 0.5
    pairs: Literal["zipped", "all"] = "zipped"
    memory: int = 0
    match_probability: float = 0.25
    negatives: Literal["different", "any"] = "different"
    joint_forward: bool = True
    image_backend: Literal["auto", "native", "dali", "torchvision"] = "auto"
    cache: Literal["none", "disk", "ram", "gpu"] = "none"
    amp: Literal["auto", "none", "bfloat16", "float16"] = "auto"
    seed: int = 0
    accumulate: int = 1
    clip: float = 0.0
    ema: float = 0.0
    patience: int = 0
    sync_batchnorm: bool = False
    broken_images: Literal["replace", "stop"] = _setting("replace")
    device: str = _setting("auto")
    workers: int = _setting(0)
    checkpoint_every: int = _setting(0)
    time_limit: float = _setting(0.0)
    compile: bool = _setting(False)
    deterministic: bool = _setting(False)
    cuda_graph: bool = _setting(False)
    profile: bool = _setting(False)
    manifest_sha256: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "exclude", tuple(self.exclude))
        self._check()
        paper = (BASELINE_EPOCHS, BASELINE_LR_STEP) if self.is_baseline else (CCSA_EPOCHS, CCSA_LR_STEP)
        object.__setattr__(self, "epochs", self.epochs or paper[0])
        object.__setattr__(self, "lr_step", self.lr_step or paper[1])

    @property
    def is_baseline(self) -> bool:
        """Whether the loss is cross-entropy alone, on single images."""
        return self.alignment == "-"

    @property
    def image_cache(self) -> str | None:
        """``cache`` as the loaders take it."""
        return None if self.cache == "none" else self.cache

    def _check(self) -> None:
        choices = {
            "classification_weight": ("w", "u"),
            "alignment": ("w", "u", "-"),
            "pairs": ("zipped", "all"),
            "negatives": ("different", "any"),
            "image_backend": ("auto", "native", "dali", "torchvision"),
            "cache": ("none", "disk", "ram", "gpu"),
            "amp": ("auto", "none", "bfloat16", "float16"),
            "broken_images": ("replace", "stop"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} is {getattr(self, name)!r}: use one of {', '.join(allowed)}")
        lowest = {"size": 8, "batch_size": 1, "epochs": 0, "lr_step": 0, "memory": 0, "workers": 0}
        lowest |= {"checkpoint_every": 0, "accumulate": 1, "patience": 0}
        for name, low in lowest.items():
            if getattr(self, name) < low:
                raise InputError(f"{name} is {getattr(self, name)}: it must be at least {low}")
        for name in ("lr", "lr_gamma"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}: it must be a positive number")
        for name in ("weight_decay", "margin", "clip", "time_limit"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"{name} is {getattr(self, name)}: it must be 0 or a positive number")
        for name in ("alpha", "match_probability"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}: it must lie between 0 and 1")
        if not 0 <= self.ema < 1:
            raise InputError(f"ema is {self.ema}: it must be at least 0 and below 1")
        if not 0 < self.fraction <= 1:
            raise InputError(f"fraction is {self.fraction}: it must be above 0 and at most 1")
        if self.n_sec != "all" and (not isinstance(self.n_sec, int) or self.n_sec < 0):
            raise InputError(f"n_sec is {self.n_sec!r}: give a number of images (0 or more) or all")
        if self.n_sec == 0 and not self.is_baseline:
            raise InputError("n_sec 0 leaves no secondary domain to align: use alignment - for a baseline")
        if self.memory and (self.is_baseline or self.pairs != "all"):
            raise InputError(f"memory {self.memory} needs pairs of many images: use alignment w or u, and pairs all")
        if self.memory and self.memory < self.batch_size:
            raise InputError(f"memory {self.memory} does not hold a batch of {self.batch_size}: make it larger")

    def differences(self, other: TrainConfig) -> list[str]:
        """``field: mine, not other's`` for every field in which the two are different trainings."""
        return [
            f"{item.name}: {getattr(self, item.name)!r}, not {getattr(other, item.name)!r}"
            for item in fields(self)
            if item.metadata.get("changes_result", True) and getattr(self, item.name) != getattr(other, item.name)
        ]

    def to_json(self) -> str:
        """Write the configuration as JSON text, one field a line."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @staticmethod
    def from_json(text: str) -> TrainConfig:
        """Undo `to_json`.

        Raises:
            InputError: the text is no JSON object, or has an unknown field or a bad value.
        """
        try:
            values = json.loads(text)
        except ValueError as error:
            raise InputError(f"the configuration is no JSON: {error}") from error
        known = {item.name for item in fields(TrainConfig)}
        if not isinstance(values, dict) or not values.keys() <= known:
            unknown = sorted(values.keys() - known) if isinstance(values, dict) else "its whole content"
            raise InputError(f"the configuration has what this version does not know: {unknown}")
        try:
            return TrainConfig(**values)
        except TypeError as error:
            raise InputError(f"the configuration has a value of the wrong type: {error}") from error

    @staticmethod
    def read(folder: str | Path) -> TrainConfig:
        """Read the configuration of a run folder.

        Raises:
            InputError: it is missing or broken.
        """
        path = Path(folder) / CONFIG_FILE
        try:
            return TrainConfig.from_json(path.read_text())
        except OSError as error:
            raise InputError(f"{folder} is no run folder: {CONFIG_FILE} is missing") from error
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
