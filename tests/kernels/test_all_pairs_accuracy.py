"""The promise of precision "ieee" for the loss over all pairs on CUDA, in the emulator: errors are at most twice those
of differences in float32. The emulated products cut off sums as tensor cores do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastccsa import functional, reference

from .emulated_all_pairs import PRODUCTS, Limits, emulated
from .programs import Builder

EPS = torch.finfo(torch.float32).eps
Points = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]


@pytest.fixture(scope="module")
def program(builder: Builder) -> Path:
    return builder.emulated("run_all_pairs_kernels", builder.memory_or_plain())


def randn(like: Tensor, random: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=random, dtype=torch.float64)


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=1, keepdim=True)


def far_from_the_origin(x: Tensor, y: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return points of norm 1e3, and points of the other side at distance 1e-3 from them."""
    near = 1e3 * unit(x)
    return near, near + 1e-3 * unit(randn(x, random))


def one_cluster(x: Tensor, y: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return points within about 1e-3 of one point of norm 1e3."""
    return 1e3 * unit(x[:1]) + 1e-4 * x, 1e3 * unit(x[:1]) + 1e-4 * y


def two_clusters(x: Tensor, y: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return pairs at distance 1 around two distant places, so that no common centre is near both."""
    place = torch.zeros_like(x)
    place[::2, 0] = 1e3
    return place + 0.1 * x, place + 0.1 * x + unit(randn(x, random))


def equal(x: Tensor, y: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    return x, x.clone()


def independent(x: Tensor, y: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    return x, y


def in_a_plane(x: Tensor, y: Tensor, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return points of which many pairs are near, at every scale."""
    basis = torch.randn(2, x.shape[1], generator=random, dtype=torch.float64)
    return x[:, :2] @ basis, y[:, :2] @ basis


def gradients(z: list[Tensor], y: list[Tensor], margin: float, module=functional) -> list[Tensor]:
    leaves = [x.clone().requires_grad_() for x in z]
    loss = module.contrastive_alignment(*leaves, *y, None, margin, "all")
    return [g.double() for g in (loss.detach(), *torch.autograd.grad(loss, leaves))]


def assert_promise(found: list[list[Tensor]], plain: list[list[Tensor]], exact: list[list[Tensor]]) -> None:
    """Compare root mean squares over several draws. An error of one rounding of the values is always allowed."""
    for k, name in enumerate(("loss", "gradient 1", "gradient 2")):
        mine, theirs, true = (torch.stack([draw[k] for draw in draws]) for draws in (found, plain, exact))
        ours, by_differences, size = (x.square().mean().sqrt().item() for x in (mine - true, theirs - true, true))
        assert ours <= 2 * max(by_differences, EPS * size), f"{name}: {ours:.3g}, of differences {by_differences:.3g}"


POINTS = [far_from_the_origin, one_cluster, two_clusters, equal, independent, in_a_plane]


@pytest.mark.parametrize("points", POINTS, ids=lambda points: points.__name__)
def test_near_and_far_points(program: Path, points: Points) -> None:
    found, plain, exact = [], [], []
    with emulated(program) as loss:
        for seed in range(3):
            random = torch.Generator().manual_seed(seed)
            x, other = torch.randn(2, 60, 48, generator=random, dtype=torch.float64)
            z = [part.float() for part in points(x, other, random)]
            y = [torch.randint(4, (60,), generator=random) for _ in "12"]
            with loss.replaces_op(PRODUCTS):
                found.append(gradients(z, y, 12.0))
            plain.append(gradients(z, y, 12.0, reference))
            exact.append(gradients([part.double() for part in z], y, 12.0, reference))
    assert_promise(found, plain, exact)


def test_sums_of_many_terms_of_one_sign(program: Path) -> None:
    """Both sides have a class at each of two places, so that dot products and gradients are sums of terms of one sign.

    Tensor cores cut off each partial sum. The errors show if products are not divided.
    """
    rows, columns, width = 4, 3200, 320
    random = torch.Generator().manual_seed(0)
    places = torch.randn(2, 1, width, generator=random, dtype=torch.float64).sign()
    z, y = [], []
    for count in (rows, columns):
        labels = torch.arange(count) * 2 // count
        noise = 0.1 * torch.randn(count, width, generator=random, dtype=torch.float64)
        z.append((places[labels, 0] + noise).float())
        y.append(labels)
    margin = 50.0
    with emulated(program) as loss, loss.replaces_op(Limits(tile=(rows, columns))):
        found = gradients(z, y, margin)
    exact = gradients([part.double() for part in z], y, margin, reference)
    assert_promise([found], [gradients(z, y, margin, reference)], [exact])
