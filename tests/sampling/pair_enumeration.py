"""The pair sampler's policy by brute force: every outcome with its exact probability.

Written from the description of the policy alone, over lists of images; it shares no code with the package.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from fractions import Fraction


def enumerate_pairs(
    labels: Sequence[int],
    domains: Sequence[int],
    primary: int = 0,
    match_probability: Fraction = Fraction(1, 4),
    negatives: str = "different",
) -> dict[tuple[int, int], Fraction]:
    """P(x1, x2) of every pair of images that can occur."""
    images = range(len(labels))
    secondary = [image for image in images if domains[image] != primary]
    outcomes: dict[tuple[int, int], Fraction] = defaultdict(Fraction)

    def others(x1: int, wanted: Callable[[int], bool]) -> list[int]:
        return [x2 for x2 in images if x2 != x1 and wanted(x2)]

    def first_nonempty(*sets: list[int]) -> list[int]:
        return next(candidates for candidates in sets if candidates)

    for x1 in images:
        for witness in secondary:  # drawing a secondary image draws its domain in proportion to size
            s = domains[witness]
            weight = Fraction(1, len(labels) * len(secondary))

            def same(x2: int, x1: int = x1) -> bool:
                return labels[x2] == labels[x1]

            matches = first_nonempty(
                others(x1, lambda x2, s=s, same=same: domains[x2] == s and same(x2)),
                others(x1, lambda x2, same=same: domains[x2] == primary and same(x2)),
                others(x1, same),
                [x1],
            )
            for x2 in matches:
                outcomes[x1, x2] += weight * match_probability / len(matches)

            if match_probability == 1:
                continue
            if negatives == "different":
                rest = first_nonempty(
                    others(x1, lambda x2, s=s, same=same: domains[x2] == s and not same(x2)),
                    others(x1, lambda x2, same=same: domains[x2] == primary and not same(x2)),
                    others(x1, lambda x2, same=same: not same(x2)),
                )
            else:
                rest = first_nonempty(
                    others(x1, lambda x2, s=s: domains[x2] == s),
                    others(x1, lambda x2: domains[x2] == primary),
                )
            for x2 in rest:
                outcomes[x1, x2] += weight * (1 - match_probability) / len(rest)

    assert sum(outcomes.values()) == 1
    return dict(outcomes)


# (labels, domains, primary) with every fall-back of the policy among them; three classes.
SMALL_CASES = {
    "all classes in all domains": ([0, 1, 2, 0, 1, 2, 0, 0, 1, 2], [0, 0, 0, 1, 1, 1, 2, 2, 2, 2], 0),
    "a secondary domain of one class": ([0, 0, 1, 2, 0, 0, 0], [0, 0, 0, 0, 1, 1, 1], 0),
    "a secondary domain of one image": ([0, 1, 2, 2, 1, 0, 1], [0, 0, 0, 0, 1, 2, 2], 0),
    "a class absent everywhere": ([0, 2, 2, 0, 2, 0], [0, 0, 0, 1, 1, 1], 0),
    "a class of one image": ([0, 0, 1, 0, 0, 2], [0, 0, 0, 1, 1, 1], 0),
    "a class the primary domain lacks": ([0, 0, 2, 0, 2, 2, 1], [0, 0, 1, 1, 2, 2, 2], 0),
    "a primary domain of one class": ([0, 0, 0, 0, 1, 1], [0, 0, 1, 1, 2, 2], 0),
    "a primary domain that is not the first": ([0, 1, 2, 0, 1, 2, 1], [0, 0, 1, 2, 2, 2, 2], 2),
    "a domain number without images": ([0, 1, 2, 0, 1], [3, 3, 3, 1, 1], 3),
    "two images": ([0, 1], [0, 1], 0),
}
