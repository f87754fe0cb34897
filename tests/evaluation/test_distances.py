from __future__ import annotations

from itertools import combinations

import numpy as np

from fastccsa.evaluation import Outputs
from fastccsa.evaluation.distances import balanced_part, cross_domain_distances


def random_outputs(n: int, domains: int = 3, classes: int = 2) -> Outputs:
    random = np.random.default_rng(1)
    return Outputs(
        targets=random.integers(0, classes, n),
        domains=random.integers(0, domains, n),
        rows=np.arange(n),
        logits=np.zeros((n, classes), np.float32),
        features=(100 * random.normal(size=(n, 4))).astype(np.float16),
        classes=tuple("abcdefg"[:classes]),
        domain_names=tuple("XYZ"[:domains]),
        split="test",
    )


def test_every_pair_across_domains_is_measured_once() -> None:
    outputs = random_outputs(20)
    same, different = [], []
    for i, j in combinations(range(20), 2):
        if outputs.domains[i] != outputs.domains[j]:
            distance = np.linalg.norm(outputs.features[i].astype(np.float64) - outputs.features[j])
            (same if outputs.targets[i] == outputs.targets[j] else different).append(distance)
    found = cross_domain_distances(outputs)
    np.testing.assert_allclose(found.same, same, rtol=1e-9)
    np.testing.assert_allclose(found.different, different, rtol=1e-9)


def test_one_domain_has_no_pairs() -> None:
    found = cross_domain_distances(random_outputs(5, domains=1))
    assert len(found.same) == len(found.different) == 0


def test_a_balanced_part_has_all_rare_images_and_some_common_ones() -> None:
    outputs = random_outputs(200)
    part = balanced_part(outputs, per_group=7)
    groups = set(zip(outputs.domains.tolist(), outputs.targets.tolist(), strict=True))
    for domain, target in groups:
        available = ((outputs.domains == domain) & (outputs.targets == target)).sum()
        assert ((part.domains == domain) & (part.targets == target)).sum() == min(7, available)
    assert (np.diff(part.rows) > 0).all()
    np.testing.assert_array_equal(part.features, outputs.features[part.rows])
    np.testing.assert_array_equal(balanced_part(outputs, 7).rows, part.rows)
    assert len(balanced_part(outputs, 1000)) == 200
