"""Objectives of training: cross-entropy on single images, or CCSA on pairs of images.

An objective has a sampler, a loader of batches, and the terms of its loss for a batch. The loop does not know which
objective it trains.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn

from fastccsa.images import ImageLoader, PairLoader, Transforms
from fastccsa.losses import CCSATerms, PairMemory, distributed
from fastccsa.losses.functional import weighted_cross_entropy
from fastccsa.losses.terms import total_loss, unit_features
from fastccsa.models import Classifier
from fastccsa.ops.choices import Reduction
from fastccsa.ops.profiling import stage
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.images import RunImages
from fastccsa.runs.sampling_record import SamplingRecord
from fastccsa.sampling import BalancedSampler, ImageSampler, PairSampler
from fastccsa.training.ranks import ALONE, Ranks, sum_over_ranks

Two = tuple[Tensor, Tensor]  # one of each stream
Forward = Callable[[Tensor], tuple[Tensor, Tensor]]


class Objective(Protocol):
    """One way to train.

    Attributes:
        terms: names of what ``__call__`` returns; the first is the loss, the others are its terms.
        images_per_sample: images per row of a batch, 1 or 2.
        memory: the state that is kept from step to step; an empty module if there is none.
        joint_forward: whether both images of a row pass through the network in one batch.
        sees_all_ranks: whether every rank computes the terms over the rows of all ranks, instead of only its own.
        record: what is sampled, and how it is weighted.
    """

    terms: tuple[str, ...]
    images_per_sample: int
    memory: nn.Module
    record: SamplingRecord
    joint_forward: bool
    sees_all_ranks: bool

    @property
    def loader(self) -> ImageLoader | PairLoader:
        """The loader of the training batches."""

    def attach(self, model: Classifier) -> None:
        """Take what the loss needs of the model that is going to be trained; called once, before `calibrate`."""

    def calibrate(self, measure: Callable[[], float]) -> None:
        """Adapt the loss to the model before the first step, and again when the run is resumed.

        ``measure`` returns the median distance between the features of the model. What depends on it is kept in
        ``memory``, so that a resumed run uses the distance that the run started with.
        """

    def __call__(self, forward: Forward, batch: dict[str, Tensor]) -> Tensor:
        """Compute the terms [len(terms)], float32; ``forward`` maps images to (logits, features)."""


class Baseline:
    """Weighted cross-entropy on single images (Table 2, rows A-E): empirical risk minimisation, ERM.

    Other algorithms on single images are its subclasses: see `fastccsa.training.algorithms`.
    """

    terms: tuple[str, ...] = ("loss",)
    images_per_sample = 1
    joint_forward = False
    sees_all_ranks = False
    combines_images = False  # before they are rounded to the type of the network's first layer

    def __init__(
        self,
        config: TrainConfig,
        images: RunImages,
        device: torch.device,
        width: int,
        ranks: Ranks = ALONE,
        pixels: torch.dtype = torch.float32,
    ) -> None:
        self.memory = nn.Module()
        self.ranks = ranks
        self.domains = len(images.training.domains)
        self.strength = config.strength or 0.0
        sampler = self.make_sampler(
            images,
            batch_size=ranks.share(config.batch_size),
            seed=config.seed,
            rank=ranks.rank,
            world_size=ranks.world,
            drop_last=_leaves_too_few(len(images.training), config, ranks, images_per_row=1),
        )
        probabilities = sampler.probabilities()
        balance = config.balance
        self.reduction = balance.classification_reduction
        self.class_weight: Tensor | None = None
        if config.classification_weight == "w":
            self.class_weight = torch.as_tensor(balance.class_weight(probabilities), dtype=torch.float32, device=device)
        self.prepare(probabilities, device)
        self.record = _record(images, first=probabilities, class_weight1=self.class_weight)
        self.loader = ImageLoader(
            images.training,
            sampler,
            augment=True,
            device=device,
            cache=config.image_cache,
            transforms=Transforms(size=config.size),
            dtype=torch.float32 if self.combines_images else pixels,
            backend=config.image_backend,
            on_error="raise" if config.broken_images == "stop" else "replace",
            num_threads=config.workers or None,
        )

    def make_sampler(self, images: RunImages, **options: Any) -> ImageSampler | BalancedSampler:
        """Make the sampler of the training images."""
        return ImageSampler(images.training.labels, num_classes=len(images.training.classes), **options)

    def prepare(self, probabilities: NDArray[np.float64], device: torch.device) -> None:
        """Make what depends on the probability of each class, [C], before the first step; by default nothing."""

    def attach(self, model: Classifier) -> None:
        """Do nothing: the loss needs only the outputs of the model."""

    def calibrate(self, measure: Callable[[], float]) -> None:
        """Do nothing: cross-entropy does not depend on the scale of the features."""

    def __call__(self, forward: Forward, batch: dict[str, Tensor]) -> Tensor:
        """Compute the loss and its terms, [len(terms)]."""
        logits, features = forward(batch["images"])
        with stage("loss"):
            return self.loss(logits, features, batch["target"], batch["domain"])

    def loss(self, logits: Tensor, features: Tensor, target: Tensor, domain: Tensor) -> Tensor:
        """Compute the loss and its terms, float32 [len(terms)].

        Args:
            logits: [B, C].
            features: [B, D].
            target: int64 [B].
            domain: int64 [B].
        """
        return self.cross_entropy(logits, target).unsqueeze(0)

    def cross_entropy(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the weighted cross-entropy of a batch, a float32 scalar."""
        return weighted_cross_entropy(logits, target, self.class_weight, self.reduction).float()


class CCSA:
    """Cross-entropy on both images of a pair and contrastive alignment between them (equations 1 to 8)."""

    terms: tuple[str, ...] = CCSATerms._fields
    images_per_sample = 2

    def __init__(
        self,
        config: TrainConfig,
        images: RunImages,
        device: torch.device,
        width: int,
        ranks: Ranks = ALONE,
        pixels: torch.dtype = torch.float32,
    ) -> None:
        self.memory = PairMemory(config.memory, width).to(device) if config.memory else nn.Module()
        self.ranks = ranks
        balance = config.balance
        # All pairs combine the rows of all ranks. The two rows of a zipped pair are on the same rank, and with
        # memories, which all ranks share, each rank only needs the pairs of its own rows.
        self.sees_all_ranks = config.pairs == "all" and not config.memory
        sampler = PairSampler(
            images.training.labels,
            images.training.domain_indices,
            primary=images.training.domains.index(images.primary),
            num_classes=len(images.training.classes),
            match_probability=config.match_probability,
            negatives=balance.negatives,
            batch_size=ranks.share(config.batch_size),
            seed=config.seed,
            rank=ranks.rank,
            world_size=ranks.world,
            # With a joint forward pass, a single pair is a batch of two images.
            drop_last=_leaves_too_few(
                len(images.training), config, ranks, images_per_row=2 if balance.joint_forward else 1
            ),
        )
        probabilities = sampler.probabilities(pairs=config.pairs)
        self.joint_forward = balance.joint_forward
        self._images, self._probabilities, self._device = images, probabilities, device
        self._weighted = {
            "weighted_classes": config.classification_weight == "w",
            "weighted_pairs": config.alignment == "w",
        }
        self._balance, self._pairs = balance, config.pairs
        if balance.margin_unit == "median":
            self.memory.register_buffer("distance", torch.full((), torch.nan, dtype=torch.float64, device=device))
        self._use_distance(1.0)  # until it is measured
        self.loader = PairLoader(
            images.training,
            sampler,
            device=device,
            cache=config.image_cache,
            transforms=Transforms(size=config.size),
            dtype=pixels,
            backend=config.image_backend,
            on_error="raise" if config.broken_images == "stop" else "replace",
            num_threads=config.workers or None,
        )

    def attach(self, model: Classifier) -> None:
        """Do nothing: the loss needs only the outputs of the model."""

    def calibrate(self, measure: Callable[[], float]) -> None:
        """Measure the distance that the margin refers to, unless a resumed run has already done so."""
        if self._balance.margin_unit == "median":
            distance = self.memory.get_buffer("distance")
            if distance.isnan():
                distance.fill_(measure())
            self._use_distance(distance.item())

    def _use_distance(self, distance: float) -> None:
        """Make the loss, and the record of its weights."""
        loss = self._balance.loss(self._probabilities, distance=distance, pairs=self._pairs, **self._weighted)
        self.loss = loss.to(self._device)
        self._class_weights = self.loss.class_weight1, self.loss.class_weight2
        self.record = _record(
            self._images,
            margin=self.loss.margin,
            **self._probabilities._asdict(),
            class_weight1=self.loss.class_weight1,
            class_weight2=self.loss.class_weight2,
            pair_weight=self.loss.pair_weight,
        )

    def __call__(self, forward: Forward, batch: dict[str, Tensor]) -> Tensor:
        """Compute the loss and its terms, [5]."""
        images1, images2 = batch["images1"], batch["images2"]
        if self.joint_forward:
            both = forward(joined(images1, images2))
            (logits1, logits2), (features1, features2) = (output.chunk(2) for output in both)
        else:
            (logits1, features1), (logits2, features2) = forward(images1), forward(images2)
        logits, features, targets = (logits1, logits2), (features1, features2), (batch["target1"], batch["target2"])
        with stage("loss"):
            if isinstance(self.memory, PairMemory):
                domains = (batch["domain1"], batch["domain2"])
                terms = self._with_memory(self.memory, logits, self._compared(features), targets, domains)
            elif self.sees_all_ranks and not self.ranks.is_alone:
                terms = self._of_all_ranks(logits, self._compared(features), targets)
            else:
                terms = self.loss.terms(*logits, *features, *targets, term_gradients=False)
            return torch.stack([term.float() for term in terms])

    def _compared(self, features: Two) -> Two:
        """Return the features as the pair terms compare them."""
        return (unit_features(features[0]), unit_features(features[1])) if self.loss.normalize_features else features

    def _of_all_ranks(self, logits: Two, features: Two, targets: Two) -> CCSATerms:
        """Compute the terms over the rows of all ranks, on every rank; features travel around the ranks in a ring."""
        sums = torch.stack(self._classification(logits, targets, "sum"))
        divisors = torch.stack([self._divisor(*stream) for stream in zip(self._class_weights, targets, strict=True)])
        sums, divisors = sum_over_ranks(torch.stack([sums, divisors.to(sums)]))
        one, two = sums / divisors
        classification = one, two
        pairs = distributed.contrastive_alignment_terms(
            *features, *targets, pair_weight=self.loss.pair_weight, margin=self.loss.margin
        )
        loss = total_loss(*classification, pairs.loss, self.loss.alpha)
        return CCSATerms(loss, *classification, pairs.alignment, pairs.separation)

    def _with_memory(self, memory: PairMemory, logits: Two, features: Two, targets: Two, domains: Two) -> CCSATerms:
        """Compute the terms of this rank's rows, paired with the memories, which hold rows of all ranks."""
        alignment, separation = memory.terms(
            features,
            targets,
            domains,
            pair_weight=self.loss.pair_weight,
            margin=self.loss.margin,
            group=None if self.ranks.is_alone else dist.group.WORLD,
        )
        classification = self._classification(logits, targets, self.loss.reduction)
        loss = total_loss(*classification, alignment + separation, self.loss.alpha)
        return CCSATerms(loss, *classification, alignment, separation)

    def _classification(self, logits: Two, targets: Two, reduction: Reduction) -> Two:
        one, two = (
            weighted_cross_entropy(*stream, reduction)
            for stream in zip(logits, targets, self._class_weights, strict=True)
        )
        return one, two

    def _divisor(self, class_weight: Tensor | None, target: Tensor) -> Tensor:
        """Return what the classification of these images is divided by: their number, or the sum of their weights."""
        if class_weight is None or self.loss.reduction == "mean":
            return torch.full((), len(target), dtype=torch.float32, device=target.device)
        return class_weight[target].sum()


def build_objective(
    config: TrainConfig,
    images: RunImages,
    device: torch.device,
    width: int,
    ranks: Ranks = ALONE,
    pixels: torch.dtype = torch.float32,
) -> Objective:
    """Build the objective of ``config``; ``width`` is the width of the features, D, and ``pixels`` images' dtype.

    Raises:
        InputError: its images cannot be loaded, or the ranks cannot share its batches evenly.
    """
    from fastccsa.training.algorithms import ALGORITHMS  # which are subclasses of what is defined here

    return ALGORITHMS[config.named_algorithm](config, images, device, width, ranks, pixels)


def joined(first: Tensor, second: Tensor) -> Tensor:
    """Concatenate two batches of images, without a copy if they are the halves of one tensor, as loaders make them."""
    adjacent = first.storage_offset() + len(first) * first.stride(0) == second.storage_offset()
    one_memory = first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()
    if adjacent and one_memory and first.shape == second.shape and first.stride() == second.stride():
        return first.as_strided((2 * len(first), *first.shape[1:]), first.stride())
    return torch.cat([first, second])


def _record(images: RunImages, margin: float | None = None, **tables: np.ndarray | Tensor | None) -> SamplingRecord:
    counts = images.training.summary().loc[list(images.domains)]
    plain = {name: _rows(table) for name, table in tables.items() if table is not None}
    return SamplingRecord(
        classes=images.training.classes,
        domains=images.domains,
        counts=_rows(counts.to_numpy()),
        margin=margin,
        **plain,
    )


def _rows(table: Any) -> Any:
    """Return a vector or matrix as nested tuples."""
    values = table.tolist()
    return tuple(tuple(value) if isinstance(value, list) else value for value in values)


def _leaves_too_few(rows: int, config: TrainConfig, ranks: Ranks, images_per_row: int) -> bool:
    """Whether the last step of an epoch would leave a rank without rows, or compute BatchNorm over a single image."""
    left = rows % config.batch_size
    least = left // ranks.world
    if left == 0:
        return False
    shared = config.sync_batchnorm and not ranks.is_alone
    together = left if shared else least
    return least == 0 or (together * images_per_row == 1 and config.batch_size > ranks.world)
