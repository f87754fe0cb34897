"""The balance of the loss: weights, caps, recipes, and the loss made from them."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch

import fastccsa
from fastccsa import reference
from fastccsa.sampling import RECIPES, Balance, PairSampler, Recipe, balanced_loss
from fastccsa.sampling.balance import capped
from fastccsa.system.errors import InputError

CLASSES, WIDTH, PAIRS = 4, 6, 9


@pytest.fixture
def sampler() -> PairSampler:
    rng = np.random.default_rng(0)
    labels = rng.choice(CLASSES, 300, p=[0.7, 0.2, 0.08, 0.02])
    return PairSampler(labels, rng.integers(0, 3, 300), num_classes=CLASSES)


def batch(dtype: torch.dtype = torch.float64) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    values = [torch.randn(PAIRS, n, generator=generator, dtype=dtype) for n in (CLASSES, CLASSES, WIDTH, WIDTH)]
    targets = [torch.randint(CLASSES, (PAIRS,), generator=generator) for _ in range(2)]
    return (*values, *targets)


def slowly_capped(weights: np.ndarray, p: np.ndarray, cap: float) -> np.ndarray:
    """Find the factor k for which min(k w, limit) has the expected weight of w, by bisection."""
    expected = (p * weights).sum()
    low, high = 1.0, 1e12
    for _ in range(200):
        middle = (low + high) / 2
        if (p * np.minimum(middle * weights, cap * expected)).sum() < expected:
            low = middle
        else:
            high = middle
    return np.minimum(high * weights, cap * expected)


@pytest.mark.parametrize("cap", [1.0, 1.2, 2.0, 10.0, 1e6])
@pytest.mark.parametrize("seed", range(4))
def test_a_cap_limits_the_weights_and_keeps_their_mean(cap, seed) -> None:
    p = np.random.default_rng(seed).dirichlet(np.full(49, 0.1)).reshape(7, 7)
    p[0, :3] = 0
    p /= p.sum()
    weights = np.divide(1, p, out=np.zeros_like(p), where=p > 0)
    found = capped(weights, p, cap)
    np.testing.assert_allclose((p * found).sum(), (p * weights).sum(), rtol=1e-9)
    assert found.max() <= cap * (p * weights).sum() * (1 + 1e-12)
    assert (found[p == 0] == 0).all()
    np.testing.assert_allclose(found, slowly_capped(weights, p, cap), rtol=1e-6)


def test_weights_are_scaled_as_said(sampler) -> None:
    first, _, joint = sampler.probabilities()
    balance = Balance(alpha=0.5, margin=1.0, class_weight_scale="plain", pair_weight_scale="max")
    np.testing.assert_allclose(balance.class_weight(first), 1 / first)
    np.testing.assert_allclose(balance.pair_weight(joint), joint.min() / joint)
    assert (joint * replace(balance, pair_weight_scale="mean").pair_weight(joint)).sum() == pytest.approx(1)


@pytest.mark.parametrize("pairs", ["zipped", "all"])
@pytest.mark.parametrize("recipe", get_args(Recipe))
def test_the_loss_is_the_reference_with_the_recipes_values(sampler, recipe, pairs) -> None:
    balance, probabilities = RECIPES[recipe], sampler.probabilities(pairs)
    logits1, logits2, z1, z2, y1, y2 = batch()
    distance = np.median([(a - b).norm().item() for a in z1 for b in z2])
    margin = balance.margin * (distance if balance.margin_unit == "median" else 1)
    if balance.normalize_features:
        z1, z2 = z1 / z1.norm(dim=1, keepdim=True), z2 / z2.norm(dim=1, keepdim=True)
    first, second, joint = (torch.from_numpy(table).double() for table in (
        balance.class_weight(probabilities.first), balance.class_weight(probabilities.second),
        balance.pair_weight(probabilities.joint),
    ))  # fmt: skip
    ones = [
        reference.weighted_cross_entropy(logits, y, weight, balance.classification_reduction)
        for logits, y, weight in ((logits1, y1, first), (logits2, y2, second))
    ]
    unit = margin**2 if balance.distance_unit == "margin" else 1
    align = reference.contrastive_alignment(z1, z2, y1, y2, joint, margin, pairs) / unit
    expected = (1 - balance.alpha) * sum(ones) + balance.alpha * align
    loss = balanced_loss(probabilities, distance, recipe, pairs)(*batch())
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)  # the module's weights are float32


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_median_distance_is_over_every_pair_of_rows(dtype) -> None:
    generator = torch.Generator().manual_seed(3)
    z1, z2 = (torch.randn(n, WIDTH, generator=generator, dtype=torch.float64).to(dtype) for n in (5, 7))
    expected = np.median(
        [(a.double() - b.double()).norm().item() for a in z1 for b in z2]
    )  # 35 pairs: one in the middle
    assert fastccsa.median_distance(z1, z2) == pytest.approx(expected, rel=1e-5)


def test_unit_distances_do_not_depend_on_the_margin(sampler) -> None:
    """Features and their distance at the start scaled together leave the loss as it is."""
    probabilities = sampler.probabilities()
    logits1, logits2, z1, z2, y1, y2 = batch()
    losses = [
        balanced_loss(probabilities, scale, margin=3.0)(logits1, logits2, scale * z1, scale * z2, y1, y2)
        for scale in (1, 40)
    ]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-6, atol=0)


def test_normalised_features_make_the_loss_independent_of_their_scale(sampler) -> None:
    loss_fn = balanced_loss(sampler.probabilities(), 1.0, normalize_features=True)
    logits1, logits2, z1, z2, y1, y2 = batch()
    z1.requires_grad_()
    one = loss_fn(logits1, logits2, z1, z2, y1, y2)
    torch.testing.assert_close(one, loss_fn(logits1, logits2, 50 * z1, z2 / 50, y1, y2))
    (gradient,) = torch.autograd.grad(one, z1)
    assert gradient.abs().max() > 0
    torch.testing.assert_close((gradient * z1).sum(1), torch.zeros(PAIRS, dtype=torch.float64), atol=1e-12, rtol=0)


@pytest.mark.parametrize("pairs", ["zipped", "all"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_features_are_normalised_in_float32(sampler, dtype, pairs) -> None:
    loss_fn = balanced_loss(sampler.probabilities(pairs), 1.0, pairs=pairs, normalize_features=True)
    tensors = [tensor.to(dtype) if tensor.is_floating_point() else tensor for tensor in batch()]
    exact = [tensor.double() if tensor.is_floating_point() else tensor for tensor in tensors]
    found = loss_fn(*tensors)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), loss_fn(*exact), rtol=1e-5, atol=0)


def test_unweighted_parts_count_all_classes_and_pairs_the_same(sampler) -> None:
    balance, probabilities = Balance(alpha=0.5, margin=2.0), sampler.probabilities()
    loss = balance.loss(probabilities, weighted_classes=False, weighted_pairs=False)
    assert (loss.class_weight1, loss.class_weight2, loss.pair_weight) == (None, None, None)
    scaled = replace(balance, distance_unit="margin").loss(probabilities, weighted_pairs=False)
    assert scaled.pair_weight.tolist() == [[0.25] * CLASSES] * CLASSES


def test_the_facade_has_it_and_changes_are_checked(sampler) -> None:
    assert fastccsa.balanced_loss is balanced_loss
    assert balanced_loss(sampler.probabilities(), 3.0, alpha=0.2).alpha == 0.2
    for changes, message in (
        ({"recipe": "secret"}, "recipe is 'secret'; choose one of 'balanced', 'paper', 'authors'"),
        ({"temperature": 1}, "temperature is not part of the balance; its fields are alpha, margin"),
        ({"alpha": 2}, "alpha is 2: it must lie between 0 and 1"),
        ({"margin": 0, "distance_unit": "margin"}, "margin is 0: it cannot be the unit"),
        ({"margin_unit": "median"}, "distance is None: the margin is a multiple of the median distance"),
        ({"margin_unit": "median", "distance": 0.0}, "distance is 0.0"),
        ({"margin_unit": "median", "distance": float("nan")}, "distance is nan"),
        ({"margin": float("inf")}, "margin is inf"),
        ({"pair_weight_cap": 0.5}, "pair_weight_cap is 0.5: it must be 0 .no limit. or at least 1"),
        ({"distance_unit": "metre"}, "distance_unit is 'metre'"),
    ):
        with pytest.raises(InputError, match=message):
            balanced_loss(sampler.probabilities(), **changes)
