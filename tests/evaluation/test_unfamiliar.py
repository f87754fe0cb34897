"""Telling a domain that was never seen: the scores by scipy, the areas by scikit-learn, intervals by simulation."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp, softmax
from sklearn.metrics import roc_auc_score

from fastccsa.evaluation.metrics import METRICS
from fastccsa.evaluation.outputs import Outputs, make_outputs
from fastccsa.evaluation.samples import Samples
from fastccsa.evaluation.unfamiliar import FAMILIARITY

KEYS = {f"unseen_by_{name}": name for name in FAMILIARITY}
DOMAINS = ("HAM", "MSK", "SON", "UDA")


def outputs(shift: float = 1.0, n: int = 240, seed: int = 0) -> Outputs:
    """The logits of SON, domain 2, are smaller by a factor."""
    random = np.random.default_rng(seed)
    targets, domains = np.arange(n) % 3, np.arange(n) // 3 % 4
    logits = 3 * random.normal(size=(n, 3)) * np.where(domains == 2, np.exp(-shift), 1)[:, None]
    return make_outputs(
        targets, domains, np.arange(n), logits, logits, classes=("a", "b", "c"), domain_names=DOMAINS, split="test"
    )


def expected(found: Outputs, name: str, trained: tuple[int, ...], domain: int) -> float:
    logits = found.logits.astype(np.float64)
    score = {
        "energy": logsumexp(logits, axis=1),
        "largest_logit": logits.max(1),
        "confidence": softmax(logits, axis=1).max(1),
    }[name]
    here = np.isin(found.domains, (*trained, domain))
    return float(roc_auc_score(np.isin(found.domains[here], trained), score[here]))


@pytest.mark.parametrize("key", KEYS)
def test_areas(key: str) -> None:
    """SON and UDA were not trained on: each is compared with HAM and MSK together."""
    found = outputs()
    samples = Samples([found], list(METRICS.values()), trained=[(0, 1)], replicates=500)
    for domain in (2, 3):
        interval = samples.interval(key, [0], [[domain]])
        assert interval is not None
        assert interval.estimate == pytest.approx(expected(found, KEYS[key], (0, 1), domain), abs=1e-5)
        assert interval.low < interval.estimate < interval.high
    both = samples.interval(key, [0], [[0, 1, 2, 3]])
    assert both is not None
    assert both.estimate == pytest.approx(
        np.mean([expected(found, KEYS[key], (0, 1), domain) for domain in (2, 3)]), abs=1e-5
    )
    assert samples.interval(key, [0], [[0, 1]]) is None  # domains of the training cannot be told from themselves


def test_models_may_have_been_trained_on_different_domains() -> None:
    found = outputs()
    samples = Samples([found, found], list(METRICS.values()), trained=[(0, 1, 3), (0,)], replicates=100)
    for model, trained in enumerate([(0, 1, 3), (0,)]):
        interval = samples.interval("unseen_by_energy", [model], [[2]])
        assert interval is not None
        assert interval.estimate == pytest.approx(expected(found, "energy", trained, 2), abs=1e-5)
    assert samples.interval("unseen_by_energy", [0], [[1]]) is None
    assert samples.interval("unseen_by_energy", [1], [[1]]) is not None


def test_without_knowing_the_training_domains_nothing_is_told() -> None:
    samples = Samples([outputs()], list(METRICS.values()), replicates=100)
    assert samples.interval("unseen_by_energy", [0], [[2]]) is None
    parts = np.arange(240) % 2
    samples = Samples([outputs()], list(METRICS.values()), trained=[(0, 1)], parts=parts, replicates=100)
    assert samples.interval("unseen_by_energy", [0], [[0]]) is None  # a subgroup is no domain


def test_intervals_contain_the_true_area() -> None:
    """The area between two exponential distributions with rates 1 and r is r / (1 + r); logits are one class's."""
    rate, contained = 2.0, 0
    for seed in range(120):
        random = np.random.default_rng(seed)
        domains = np.arange(160) % 2
        size = random.exponential(np.where(domains == 1, 1 / rate, 1.0))
        found = make_outputs(
            np.zeros(160), domains, np.arange(160), size[:, None], size[:, None],
            classes=("a",), domain_names=("HAM", "SON"), split="test",
        )  # fmt: skip
        samples = Samples([found], [METRICS["unseen_by_largest_logit"]], trained=[(0,)], replicates=400)
        interval = samples.interval("unseen_by_largest_logit", [0], [[1]])
        assert interval is not None
        contained += interval.low <= rate / (1 + rate) <= interval.high
    # Binomial with 95 %: outside these bounds with a probability of less than 0.1 %.
    assert 106 <= contained <= 120
