"""The dynamic pair sampler: every training image once per epoch, each with a partner from another domain."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from fastccsa.ops.choices import Pairs
from fastccsa.sampling import _sampler
from fastccsa.sampling.probabilities import Negatives, PairProbabilities, pair_probabilities
from fastccsa.sampling.sharding import ShardedSampler
from fastccsa.sampling.validate import check_indices, check_integer, check_probability
from fastccsa.system.choices import check_choice
from fastccsa.system.errors import InputError

MAX_GROUPS = 2**24


class PairSampler(ShardedSampler[tuple[NDArray[np.int64], NDArray[np.int64]]]):
    """Samples pairs (x1, x2) for the alignment of domains (Yoon et al. 2019, section 2, dynamic pair sampling).

    1. x1 takes the value of every image of every domain, each exactly once per epoch, in a seeded permutation.
    2. A secondary domain s is drawn, with probability proportional to its number of images.
    3. With probability ``match_probability``, x2 is drawn uniformly from the images of s of x1's class; if s has none,
       from the primary domain's, else from any domain's.
    4. Otherwise x2 is drawn uniformly from the images of s of another class; if s has none, from the primary domain's,
       else from any domain's. So P(y1 = y2) is exactly ``match_probability``. With ``negatives="any"``, x2 is any image
       of s, as in the authors' code.
    5. x2 is x1 itself only if the pair is drawn to match and x1 is the only image of its class in all domains.

    Each pair is a pure function of (seed, epoch, position); `fastccsa.sampling.sharding.ShardedSampler` says how
    positions are divided among the ranks. The permutation is computed, not stored: with up to 256 domain-class groups
    and 2^32 images, 5 bytes are kept per image, labels included. Iteration yields ``(index1, index2)`` of each batch in
    the epoch given to :meth:`set_epoch`.

    Args:
        labels: class of each image, integers in ``0..num_classes-1``, ``[n]`` (list, array or tensor).
        domains: domain of each image, integers from 0, ``[n]``.
        primary: the domain that holds every class (HAM10000 in the paper).
        num_classes: number of classes C.
        match_probability: probability that x2 is drawn to have x1's class.
        negatives: ``"different"`` or ``"any"``, see step 4.
        batch_size: pairs per rank and step.
        seed: 0 to 2^64 - 1.
        rank: this process's index among ``world_size``.
        world_size: number of processes that share each step.
        drop_last: omit the last step if it is not full.

    Attributes:
        counts: images by domain and class, int64 ``[domains, C]``.

    Raises:
        InputError: an argument out of range, labels and domains of different lengths, no image in the primary or in any
            other domain, or only one class although pairs of different classes are to be drawn.
    """

    def __init__(
        self,
        labels: Any,
        domains: Any,
        primary: int = 0,
        num_classes: int = 7,
        match_probability: float = 0.25,
        negatives: Negatives = "different",
        batch_size: int = 32,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
    ) -> None:
        self.num_classes = check_integer("num_classes", num_classes, 1, MAX_GROUPS)
        self.primary = check_integer("primary", primary, 0, MAX_GROUPS - 1)
        self.match_probability = check_probability("match_probability", match_probability)
        check_choice("negatives", negatives, get_args(Negatives))
        self.negatives: Negatives = negatives
        labels = check_indices("labels", labels, self.num_classes)
        domains = check_indices("domains", domains, MAX_GROUPS // self.num_classes)
        if len(labels) != len(domains):
            raise InputError(f"labels and domains must have one entry per image, got {len(labels)} and {len(domains)}")
        super().__init__(
            size=len(labels),
            batch_size=batch_size,
            seed=seed,
            rank=rank,
            world_size=world_size,
            drop_last=drop_last,
        )
        # A primary beyond the last domain is counted too, so that _check_counts finds it empty.
        num_domains = max(int(domains.max()), self.primary) + 1
        self._core = _sampler.PairSampler(
            group_of=_groups(labels, domains, self.num_classes),
            domains=num_domains,
            classes=self.num_classes,
            primary=self.primary,
            match_probability=self.match_probability,
            different=self.negatives == "different",
        )
        self.counts = self._core.counts()
        self._check_counts()

    def batch(self, epoch: int, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the image indices of this rank's pairs, two int64 ``[B]``: a pure function of its arguments.

        Raises:
            InputError: ``epoch`` or ``step`` out of range.
        """
        epoch, begin, end = self._shard(epoch, step)
        return self._core.pairs(self.seed, epoch, begin, end)

    def probabilities(self, pairs: Pairs = "zipped") -> PairProbabilities:
        """Return P(y1) ``[C]``, P(y2) ``[C]`` and P(y1, y2) ``[C, C]``, float64, in closed form.

        Args:
            pairs: ``"zipped"``: the pairs as they are drawn. ``"all"``: every x1 with every x2 of a batch, for the
                loss over all pairs. All but B of these B * B pairs were drawn independently, so P(y1, y2) is
                P(y1) P(y2).

        Raises:
            InputError: an unknown ``pairs``.
        """
        if pairs not in get_args(Pairs):
            raise InputError(f"pairs is {pairs!r}; choose 'zipped' (as drawn) or 'all' (every x1 with every x2)")
        drawn = pair_probabilities(self.counts, self.primary, self.match_probability, self.negatives)
        return drawn if pairs == "zipped" else drawn._replace(joint=np.outer(drawn.first, drawn.second))

    @property
    def nbytes(self) -> int:
        """Size in bytes of the data that is kept for all images."""
        return self._core.nbytes

    def _check_counts(self) -> None:
        present = np.flatnonzero(self.counts.sum(axis=1))
        if len(present) == 1:
            raise InputError(
                f"domains holds one domain only ({present[0]}) and a pair needs images of two; "
                "to train on single images use fastccsa.sampling.ImageSampler"
            )
        if self.primary not in present:
            raise InputError(
                f"primary={self.primary} has no image; the domains with images are {', '.join(map(str, present))}"
            )
        classes = np.flatnonzero(self.counts.sum(axis=0))
        if len(classes) == 1 and self.negatives == "different" and self.match_probability < 1:
            raise InputError(
                f"labels holds one class only ({classes[0]}), so no pair of different classes can be drawn; "
                "give images of two classes, or match_probability=1"
            )


def _groups(labels: NDArray[np.integer], domains: NDArray[np.integer], num_classes: int) -> NDArray[np.uint32]:
    """Return the number of each image's group, which is its combination of domain and class: uint32 ``[n]``."""
    groups = domains.astype(np.uint32)
    groups *= np.uint32(num_classes)
    groups += labels.astype(np.uint32)
    return groups
