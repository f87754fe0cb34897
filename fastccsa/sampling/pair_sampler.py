"""The dynamic pair sampler: every training image once an epoch, each with a partner of another domain."""

from __future__ import annotations

from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastccsa.sampling import _sampler
from fastccsa.sampling.probabilities import PairProbabilities, pair_probabilities
from fastccsa.sampling.sharding import EpochSampler
from fastccsa.sampling.validate import check_choice, check_indices, check_integer
from fastccsa.system.errors import InputError

MAX_GROUPS = 2**24


class PairSampler(EpochSampler[tuple[NDArray[np.int64], NDArray[np.int64]]]):
    """Pairs (x1, x2) for the alignment of domains (Yoon et al. 2019, section 2, dynamic pair sampling).

    1. x1 walks every image of every domain, each exactly once an epoch, in a seeded permutation.
    2. A secondary domain s is drawn, in proportion to its number of images.
    3. With ``match_probability``, x2 is drawn uniformly from the images of s of x1's class; where s has
       none, from the primary domain's, else from any domain's.
    4. Otherwise x2 is drawn uniformly from the images of s of another class; where s has none, from the
       primary domain's, else from any domain's. So P(y1 = y2) is exactly ``match_probability``.
       With ``negatives="any"``, x2 is any image of s, as in the authors' code.
    5. x2 is x1 itself only where x1 is the one image of its class anywhere and the pair is to match.

    Each pair is a pure function of (seed, epoch, position); see :class:`EpochSampler` for how positions
    are shared among ranks. The permutation is computed, not stored: with up to 256 domain-class groups
    and 2^32 images, 5 bytes are kept an image, labels included. Iteration yields ``(index1, index2)``.

    Args:
        labels: class of each image, integers in ``0..num_classes-1``, ``[n]`` (list, array or tensor).
        domains: domain of each image, integers from 0, ``[n]``.
        primary: the domain that holds every class (HAM10000 in the paper).
        num_classes: number of classes C.
        match_probability: probability that x2 is drawn to have x1's class.
        negatives: "different" or "any", see step 4.
        batch_size: pairs per rank and step.
        seed: 0 to 2^64 - 1.
        rank: this process's place among ``world_size``.
        world_size: number of processes that share each step.
        drop_last: leave out the last step where it is not full.

    Attributes:
        counts: images by domain and class, int64 ``[domains, C]``.

    Raises:
        InputError: an argument out of range, labels and domains of different lengths, no image in the
            primary or in any other domain, or no two classes to draw a different one from.
    """

    def __init__(
        self,
        labels: Any,
        domains: Any,
        primary: int = 0,
        num_classes: int = 7,
        match_probability: float = 0.25,
        negatives: str = "different",
        batch_size: int = 32,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
    ) -> None:
        self.num_classes = check_integer("num_classes", num_classes, 1, MAX_GROUPS)
        self.primary = check_integer("primary", primary, 0, MAX_GROUPS - 1)
        self.match_probability = _check_probability(match_probability)
        self.negatives = check_choice("negatives", negatives, ("different", "any"))
        labels = check_indices("labels", labels, self.num_classes)
        domains = check_indices("domains", domains, MAX_GROUPS // self.num_classes)
        if len(labels) != len(domains):
            raise InputError(f"labels and domains must have one entry per image, got {len(labels)} and {len(domains)}")
        super().__init__(len(labels), batch_size, seed, rank, world_size, drop_last)
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
        """Image indices of this rank's pairs, two int64 ``[B]``: a pure function of its arguments.

        Raises:
            InputError: ``epoch`` or ``step`` out of range.
        """
        epoch, begin, end = self._span(epoch, step)
        return self._core.pairs(self.seed, epoch, begin, end)

    def probabilities(self, pairs: str = "zipped") -> PairProbabilities:
        """P(y1) ``[C]``, P(y2) ``[C]`` and P(y1, y2) ``[C, C]``, float64, in closed form.

        Args:
            pairs: ``"zipped"``: the pairs as they are drawn. ``"all"``: every x1 with every x2 of a batch, for the
                loss over all pairs. Of its B * B pairs all but B were drawn apart, and P(y1, y2) is that of
                independent draws, P(y1) P(y2).

        Raises:
            InputError: an unknown ``pairs``.
        """
        if pairs not in ("zipped", "all"):
            raise InputError(f"pairs is {pairs!r}; choose 'zipped' (as drawn) or 'all' (every x1 with every x2)")
        drawn = pair_probabilities(self.counts, self.primary, self.match_probability, self.negatives)
        return drawn if pairs == "zipped" else drawn._replace(joint=np.outer(drawn.first, drawn.second))

    @property
    def nbytes(self) -> int:
        """Bytes kept for all images."""
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


def _check_probability(value: Any) -> float:
    if not isinstance(value, Real) or not 0 <= float(value) <= 1:
        raise InputError(f"match_probability must be a number from 0 to 1, got {value!r}")
    return float(value)


def _groups(labels: NDArray[np.integer], domains: NDArray[np.integer], num_classes: int) -> NDArray[np.uint32]:
    """Return the number of each image's (domain, class), uint32 ``[n]``."""
    groups = domains.astype(np.uint32)
    groups *= np.uint32(num_classes)
    groups += labels.astype(np.uint32)
    return groups
