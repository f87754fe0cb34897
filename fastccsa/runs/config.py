"""The configuration of a training run."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Literal, get_args

from fastccsa.images.choices import BrokenImages, Cache, ImageBackend
from fastccsa.ops.choices import Pairs
from fastccsa.runs.selection import SelectionRule
from fastccsa.sampling import RECIPES, Balance, Negatives, Recipe
from fastccsa.sampling.balance import ClassificationReduction, DistanceUnit, MarginUnit, WeightScale
from fastccsa.system.choices import check_choice, check_choices, check_not_empty
from fastccsa.system.devices import Amp
from fastccsa.system.errors import InputError
from fastccsa.system.ranges import COUNTS, SEEDS, SIZES, WORKERS, Range, check_ranges
from fastccsa.system.reading import load_json, read_text, reported
from fastccsa.system.schema import PathText, build

CONFIG_FILE = "config.json"

BASELINE_EPOCHS, BASELINE_LR_STEP = 135, 45
CCSA_EPOCHS, CCSA_LR_STEP = 20, 10
FRACTION_KEEPS = 5  # so that every n_sec of Table 2, 1 to 5, gives the same number of images for every fraction

# "w" weights by the inverse probability of the class, or of the pair of classes; "u" does not; "-" omits the term.
ClassificationWeight = Literal["w", "u"]
Alignment = Literal["w", "u", "-"]

# How to train; `fastccsa.training.algorithms` defines them. With auto, ``alignment`` decides between ccsa and erm.
Algorithm = Literal[
    "auto",
    "ccsa",
    "erm",
    "balanced",
    "focal",
    "logit_adjusted",
    "mixup",
    "coral",
    "mmd",
    "irm",
    "group_dro",
    "rsc",
    "ermpp",
]
# The mean of the weights that becomes the model, beside `ema`; `fastccsa.training.average` defines them.
Average = Literal["none", "uniform", "swad"]
# What is trained: the whole network, or only its head.
Tune = Literal["all", "head"]
# Whether BatchNorm's statistics follow the training images.
BatchNorm = Literal["trained", "frozen"]
# Where scalars are logged while a run trains.
Tracker = Literal["tensorboard", "mlflow", "wandb"]
# Default strength of the algorithms that have one.
STRENGTHS = {
    "focal": 2.0, "logit_adjusted": 1.0, "mixup": 0.2, "coral": 1.0, "mmd": 1.0, "irm": 1.0, "group_dro": 0.01,
    "rsc": 1 / 3,
}  # fmt: skip

# Balance of the runs whose config.json does not name a recipe.
_BEFORE_RECIPES = {"recipe": "paper", "class_weight_scale": "mean", "pair_weight_scale": "mean"}

_MOST_IMAGES = 10**9
_RANGES = {
    "size": SIZES,
    "batch_size": Range(1, 2**20),
    "epochs": COUNTS,
    "lr_step": COUNTS,
    "memory": Range(0, 10**7),
    "workers": WORKERS,
    "checkpoint_every": Range(0, 10**9),
    "graph_steps": Range(0, 1000),
    "checkpoint_share": Range(0, 1),
    "accumulate": Range(1, 10**6),
    "patience": COUNTS,
    "seed": SEEDS,
    "lr": Range(0, 1000, low_excluded=True),
    "lr_gamma": Range(0, 10, low_excluded=True),
    "weight_decay": Range(0, 1000),
    "clip": Range(0, 10**6),
    "time_limit": Range(0, 10**6),
    "match_probability": Range(0, 1),
    "ema": Range(0, 1, high_excluded=True),
    "head_epochs": Range(0, 10**9),
    "layer_decay": Range(0, 1, low_excluded=True),
    "fraction": Range(0, 1, low_excluded=True),
    "strength": Range(0, 10**6, low_excluded=True),
}

# Metadata of the fields that control where and how fast a run trains; they may change when the run is resumed.
_SETTING = {"changes_result": False}
# Metadata of the fields that do not concern a baseline, which has no pairs.
_OF_PAIRS = {"of_pairs": True}


@dataclass(frozen=True)
class TrainConfig:
    """The configuration of a training run; the defaults are from section 3 of the paper.

    With ``alignment`` ``"-"`` the run is a baseline (Table 2, A-E): single images, and only cross-entropy. With ``"w"``
    or ``"u"`` it is CCSA: pairs of images, cross-entropy and contrastive alignment. ``"w"`` weights the alignment by
    the inverse joint class probability, ``"u"`` does not. ``classification_weight`` selects the same for the
    cross-entropy.

    Attributes:
        manifest: CSV file that lists the images.
        out: run folder.
        n_sec: training images per class and secondary domain; 0 trains on the primary domain only.
        primary: the domain that contains every class; None is HAM if the manifest has it, else the first domain.
        fraction: share of the training images to train on, drawn with the seed from each class and domain. Each class
            keeps at least `FRACTION_KEEPS` images per domain that has them; n_sec applies to what is left.
        exclude: domains that are excluded from training and model selection, but still tested.
        backbone: a torchvision classification network.
        weights: initial weights of the backbone: auto, imagenet, none or a path (see `build_model`).
        init: run folder or checkpoint from which to warm-start the whole model, head included.
        size: side length of the images in pixels; the transforms scale with it.
        epochs, lr_step: 0 uses the paper's values: 135 and 45 for a baseline, 20 and 10 for CCSA.
        batch_size: images per step, or pairs per step.
        lr, weight_decay: learning rate and weight decay of AdamW.
        lr_gamma: factor by which the learning rate is multiplied every ``lr_step`` epochs.
        algorithm: ccsa; erm, the baseline; or another algorithm on single images, which `fastccsa.training.algorithms`
            describes. auto is erm if ``alignment`` is ``"-"`` and otherwise ccsa; any other name sets ``alignment``.
        strength: weight of the algorithm's penalty, or its one parameter; None is its default.
        recipe: how the parts of the loss are balanced: ``"balanced"``, ``"paper"`` (its text as printed) or
            ``"authors"`` (their released code); see `fastccsa.sampling.balance`. It gives each of the following
            fields that is None its value (CCSA only).
        alpha, margin, margin_unit, normalize_features, distance_unit, class_weight_scale, pair_weight_scale,
            pair_weight_cap, classification_reduction, negatives, joint_forward: see `fastccsa.sampling.Balance`.
        pairs: zipped: the pairs as they are drawn; all: every first image of a batch with every second image, without
            additional passes through the network (CCSA only).
        memory: number of past images of each stream whose features are also compared with the other stream's batch; 0
            for none. Needs pairs all; see `fastccsa.PairMemory`. The memory starts empty and persists from epoch to
            epoch. Pairs are weighted by 1/(P(y1) P(y2)), as for independent draws, like always with pairs all.
        match_probability: probability that the second image of a pair is drawn to have the class of the first (CCSA
            only).
        image_backend: what decodes and transforms the images: native, dali, torchvision, or auto; see `PairLoader`.
        cache: decode each image once and keep its crop on disk, next to the manifest; the crops are used from disk,
            from memory (ram) or from GPU memory (gpu), of which each process may keep a part (sharded). none decodes
            every time. auto is none on the CPU; on a GPU it is the first of gpu, sharded, ram and disk that has room
            and can be opened, else none. The test at the end of a run, which uses each image once,
            decodes them.
        amp: auto, none, bfloat16 or float16; auto is none on the CPU.
        seed: seed of the weights, the sampling and the augmentation.
        accumulate: number of batches whose gradients are added up for each update; the gradient is that of one batch
            of the combined size.
        clip: maximum norm of a step's gradient; 0 does not clip.
        ema: decay per step of a moving average of the weights; the average is then validated and saved as the model.
            0 for none; 0.999 averages over about a thousand steps.
        average: another mean of the weights that becomes the model. uniform: over all steps after the first quarter of
            the epochs; like ``ema``, it is validated after each epoch. swad: over all steps on the flat stretch of the
            validation loss (`fastccsa.training.swad`), without a selection of an epoch. None: as the algorithm says,
            uniform for ermpp and otherwise none.
        head_epochs: first epochs, in which only the head learns and all other weights keep their values. None: as the
            algorithm says, 1 for ermpp unless it starts from random weights, and otherwise 0.
        layer_decay: factor by which the learning rate falls from each layer to the one before it; the head has ``lr``.
            1 trains all layers with it.
        tune: all; or head: a linear probe, in which the backbone stays as it is, in evaluation mode.
        batchnorm: trained, or frozen: its statistics stay those of the first weights.
        selection: which epoch's model is kept. informative: the latest within one standard error of the highest
            validation recall, where domains are weighted by what their validation images can tell; paper: the highest
            mean over the domains. See `fastccsa.runs.selection`.
        score_epochs: after each epoch, also score the test images, and the validation images of the domains left out.
            They decide nothing; ``metrics.jsonl`` has them, so that rules of selection can be compared.
        patience: number of epochs without a higher validation recall, averaged over the domains as ``selection`` does,
            after which training ends; 0 for none.
        sync_batchnorm: under torchrun, compute BatchNorm's statistics over the batches of all processes; otherwise each
            process has its own, and the first process's are saved.
        broken_images: what happens when an image cannot be read: replace it by another one of its class and domain and
            log a warning, or stop.
        device: auto, cpu or cuda[:N].
        workers: number of threads that decode images; 0 lets the image pipeline choose.
        checkpoint_every: number of batches between checkpoints within an epoch; the ends of epochs are then saved too.
            0 saves as often as ``checkpoint_share`` allows.
        checkpoint_share: largest share of the run's time that checkpoints may cost; 0 saves only when the run is
            stopped and after the last epoch. ``checkpoint_every`` takes precedence.
        time_limit: minutes after which the run saves and stops; the same call resumes it. 0 for none.
        compile: compile the network with torch.compile.
        deterministic: make GPUs compute the same bits every time, as CPUs do anyway; slower, and not supported by
            every network.
        cuda_graph: capture the whole step as a CUDA graph (needs cache gpu), for GPUs that finish their work faster
            than the host can issue it. None captures it where that is possible.
        graph_steps: number of steps in a CUDA graph. Stops and checkpoints come between graphs. 0 chooses by the size
            of a batch; see docs/training.md.
        track: where the scalars of the training are logged; see `fastccsa.training.trackers`.
        profile: write a trace of a few steps into the run folder.
        manifest_sha256: checksum of the manifest file, filled in when the run starts.

    Raises:
        InputError: a value is out of range; the message names the field.
    """

    manifest: PathText = field(default="", metadata=_SETTING)
    out: PathText = field(default="", metadata=_SETTING)
    n_sec: int | Literal["all"] = "all"
    fraction: float = 1.0
    primary: str | None = None
    exclude: tuple[str, ...] = ()
    backbone: str = "resnet18"
    weights: PathText = "auto"
    init: PathText | None = None
    size: int = 224
    epochs: int = 0
    batch_size: int = 32
    lr: float = 1e-4
    lr_step: int = 0
    lr_gamma: float = 0.1
    weight_decay: float = 1e-3
    classification_weight: ClassificationWeight = "w"
    alignment: Alignment = "w"
    algorithm: Algorithm = "auto"
    strength: float | None = None
    recipe: Recipe = field(default="balanced", metadata=_OF_PAIRS)
    alpha: float | None = field(default=None, metadata=_OF_PAIRS)
    margin: float | None = field(default=None, metadata=_OF_PAIRS)
    margin_unit: MarginUnit | None = field(default=None, metadata=_OF_PAIRS)
    normalize_features: bool | None = field(default=None, metadata=_OF_PAIRS)
    distance_unit: DistanceUnit | None = field(default=None, metadata=_OF_PAIRS)
    class_weight_scale: WeightScale | None = None
    pair_weight_scale: WeightScale | None = field(default=None, metadata=_OF_PAIRS)
    pair_weight_cap: float | None = field(default=None, metadata=_OF_PAIRS)
    classification_reduction: ClassificationReduction | None = None
    negatives: Negatives | None = field(default=None, metadata=_OF_PAIRS)
    joint_forward: bool | None = field(default=None, metadata=_OF_PAIRS)
    pairs: Pairs = field(default="zipped", metadata=_OF_PAIRS)
    memory: int = field(default=0, metadata=_OF_PAIRS)
    match_probability: float = field(default=0.25, metadata=_OF_PAIRS)
    image_backend: ImageBackend = "auto"
    cache: Cache = "auto"
    amp: Amp = "auto"
    seed: int = 0
    accumulate: int = 1
    clip: float = 0.0
    ema: float = 0.0
    average: Average | None = None
    head_epochs: int | None = None
    layer_decay: float = 1.0
    tune: Tune = "all"
    batchnorm: BatchNorm = "trained"
    selection: SelectionRule = "informative"
    score_epochs: bool = field(default=False, metadata=_SETTING)
    patience: int = 0
    sync_batchnorm: bool = False
    broken_images: BrokenImages = field(default="replace", metadata=_SETTING)
    device: str = field(default="auto", metadata=_SETTING)
    workers: int = field(default=0, metadata=_SETTING)
    checkpoint_every: int = field(default=0, metadata=_SETTING)
    checkpoint_share: float = field(default=0.02, metadata=_SETTING)
    time_limit: float = field(default=0.0, metadata=_SETTING)
    compile: bool = field(default=False, metadata=_SETTING)
    deterministic: bool = field(default=False, metadata=_SETTING)
    cuda_graph: bool | None = field(default=None, metadata=_SETTING)
    graph_steps: int = field(default=0, metadata=_SETTING)
    profile: bool = field(default=False, metadata=_SETTING)
    track: tuple[Tracker, ...] = field(default=("tensorboard",), metadata=_SETTING)
    manifest_sha256: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "exclude", tuple(self.exclude))
        object.__setattr__(self, "track", tuple(self.track))
        self._choose_algorithm()
        self._choose_parts()
        self._check()
        recipe = RECIPES[self.recipe]
        for item in fields(Balance):
            if getattr(self, item.name) is None:
                object.__setattr__(self, item.name, getattr(recipe, item.name))
        _ = self.balance  # checks the values
        paper = (BASELINE_EPOCHS, BASELINE_LR_STEP) if self.is_baseline else (CCSA_EPOCHS, CCSA_LR_STEP)
        object.__setattr__(self, "epochs", self.epochs or paper[0])
        object.__setattr__(self, "lr_step", self.lr_step or paper[1])

    def _choose_algorithm(self) -> None:
        """Make ``algorithm``, ``alignment`` and ``strength`` agree."""
        check_choices(self)
        if self.algorithm == "ccsa" and self.alignment == "-":
            raise InputError("algorithm ccsa needs alignment w or u")
        if self.algorithm not in ("auto", "ccsa"):
            object.__setattr__(self, "alignment", "-")
        if self.algorithm in ("ccsa", "erm"):  # which the alignment says, also in runs of older versions
            object.__setattr__(self, "algorithm", "auto")
        algorithm = self.named_algorithm
        default = STRENGTHS.get(algorithm)
        if self.strength is None:
            object.__setattr__(self, "strength", default)
        elif default is None:
            raise InputError(f"strength is {self.strength}, but algorithm {algorithm} has none: omit it")
        if algorithm == "rsc" and self.strength is not None and not self.strength < 1:
            raise InputError(f"strength is {self.strength}, which is a share with algorithm rsc: it must be below 1")

    def _choose_parts(self) -> None:
        """Give ``average`` and ``head_epochs`` the values of the algorithm; ERM++ is ERM with them."""
        is_bundle = self.algorithm == "ermpp"
        if self.tune == "head":
            self._check_probe()
        if self.average is None:
            object.__setattr__(self, "average", "uniform" if is_bundle and not self.ema else "none")
        if self.head_epochs is None:
            starts_trained = (self.weights != "none" or self.init is not None) and self.tune == "all"
            object.__setattr__(self, "head_epochs", 1 if is_bundle and starts_trained else 0)
        if self.ema and self.average != "none":
            raise InputError(f"ema is {self.ema} and average is {self.average}: choose one of them")

    def _check_probe(self) -> None:
        """Check that a linear probe has no setting that needs a backbone that learns."""
        if self.named_algorithm in ("ccsa", "coral", "mmd"):
            raise InputError(
                f"tune is head, which leaves the features as they are, and algorithm {self.named_algorithm} compares "
                "them: use tune all, or another algorithm, such as erm"
            )
        for name, given in {"layer_decay": self.layer_decay != 1, "head_epochs": bool(self.head_epochs)}.items():
            if given:
                raise InputError(f"{name} is {getattr(self, name)}, which has no effect with tune head: omit it")

    @property
    def named_algorithm(self) -> str:
        """The algorithm, where auto is erm or ccsa."""
        if self.algorithm != "auto":
            return self.algorithm
        return "erm" if self.alignment == "-" else "ccsa"

    @property
    def is_baseline(self) -> bool:
        """Whether it trains on single images, by cross-entropy or another algorithm without pairs."""
        return self.alignment == "-"

    @property
    def balance(self) -> Balance:
        """How strongly each part of the loss counts."""
        return Balance(**{item.name: getattr(self, item.name) for item in fields(Balance)})

    @property
    def image_cache(self) -> str | None:
        """``cache`` in the form that the loaders take; auto is none until `fastccsa.training.resources` chooses."""
        return None if self.cache in ("auto", "none") else self.cache

    def _check(self) -> None:
        check_choices(self)
        check_ranges(self, _RANGES)
        for name in self.track:
            check_choice("track", name, get_args(Tracker))
        check_not_empty(self, ("primary", "exclude", "backbone", "weights", "init", "device"))
        if self.n_sec != "all" and (not isinstance(self.n_sec, int) or not 0 <= self.n_sec <= _MOST_IMAGES):
            raise InputError(f"n_sec is {self.n_sec!r}: give a number of images (0 to {_MOST_IMAGES:,}) or all")
        if self.n_sec == 0 and not self.is_baseline:
            raise InputError("n_sec 0 leaves no secondary domain to align: use alignment - for a baseline")
        if self.memory and (self.is_baseline or self.pairs != "all"):
            raise InputError(f"memory {self.memory} needs pairs all and alignment w or u")
        if self.memory and self.memory < self.batch_size:
            raise InputError(f"memory {self.memory} does not hold a batch of {self.batch_size}: make it larger")

    def differences(self, other: TrainConfig) -> list[str]:
        """Return ``field: own value, not the other's`` for each differing field that changes the result of training.

        Wherever crops are cached, they are the same.
        """
        baselines = self.is_baseline and other.is_baseline
        return [
            f"{item.name}: {getattr(self, item.name)!r}, not {getattr(other, item.name)!r}"
            for item in fields(self)
            if getattr(self, item.name) != getattr(other, item.name)
            and item.metadata.get("changes_result", True)
            and not (baselines and item.metadata.get("of_pairs"))
            and not (item.name == "cache" and self._caches_like(other))
        ]

    def _caches_like(self, other: TrainConfig) -> bool:
        caches = {self.cache, other.cache}
        return "auto" in caches or "none" not in caches

    def to_json(self) -> str:
        """Return the configuration as JSON text, one field per line."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @staticmethod
    def from_json(text: str) -> TrainConfig:
        """Read what `to_json` returned.

        Raises:
            InputError: the text is not a JSON object, or has an unknown field or an invalid value.
        """
        values = load_json(text)
        if isinstance(values, dict):
            if "recipe" not in values:  # written before there were recipes
                values = {**_BEFORE_RECIPES, **values}
            values.setdefault("selection", "paper")  # the only rule of versions without this field
            values.setdefault("cache", "none")  # as in versions that did not choose
            # Older versions took an empty text for None.
            values |= {name: None for name in ("primary", "init") if values.get(name) == ""}
        return build(TrainConfig, values)

    @staticmethod
    def read(folder: str | Path) -> TrainConfig:
        """Read the configuration of a run folder.

        Raises:
            InputError: it is missing or invalid.
        """
        path = Path(folder) / CONFIG_FILE
        try:
            with reported(path, "is not the configuration of a run", "restore it, or train the run again"):
                return TrainConfig.from_json(read_text(path))
        except FileNotFoundError as error:
            raise InputError(f"{folder} is not a run folder: {CONFIG_FILE} is missing") from error
