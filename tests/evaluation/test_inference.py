"""What predictions hold about images, besides their classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastccsa.evaluation.inference import Predictions, mean_loss, pack, unpack


def test_losses_survive_the_way_through_whole_numbers() -> None:
    logits = torch.tensor([[2.1, -1.3, 0.7], [0.0, 300.0, -300.0], [float("nan"), 0.0, 1.0]])
    batch = {"target": torch.tensor([0, 2, 1]), "domain": torch.tensor([1, 0, 1])}
    packed = torch.cat([pack(batch, logits), pack(batch, logits.bfloat16())], dim=1)
    found = unpack(packed)
    assert found.targets.tolist() == [0, 2, 1] * 2
    assert found.predictions[:2].tolist() == [0, 1]
    assert found.domains.tolist() == [1, 0, 1] * 2
    for losses, used in ((found.losses[:3], logits), (found.losses[3:], logits.bfloat16())):
        expected = -used.double().log_softmax(1)[torch.arange(3), batch["target"]].numpy()
        np.testing.assert_allclose(losses, expected, rtol=1e-6)


def test_the_mean_loss_counts_domains_equally_in_any_order_of_images() -> None:
    random = np.random.default_rng(0)
    losses, domains = random.lognormal(size=500), np.array([0] * 30 + [2] * 400 + [5] * 70)
    labels = np.zeros(500, np.int64)
    expected = np.mean([losses[domains == domain].mean() for domain in (0, 2, 5)])
    found = mean_loss(Predictions(labels, labels, domains, losses))
    assert found == pytest.approx(expected, rel=1e-12)
    for _ in range(20):
        order = random.permutation(500)
        assert mean_loss(Predictions(labels, labels, domains[order], losses[order])) == found
    losses[4] = np.inf
    assert mean_loss(Predictions(labels, labels, domains, losses)) == np.inf
    losses[5] = np.nan
    assert np.isnan(mean_loss(Predictions(labels, labels, domains, losses)))
