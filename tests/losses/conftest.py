"""Inputs for the loss, and the bound on its errors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from fastccsa import reference


@dataclass(frozen=True)
class Case:
    """The arguments of one call of the loss: the four differentiable inputs, and all others."""

    inputs: tuple[Tensor, Tensor, Tensor, Tensor]
    targets: tuple[Tensor, Tensor]
    weights: tuple[Tensor | None, Tensor | None, Tensor | None]
    margin: float = 12.0
    alpha: float = 0.3

    def call(self, function: Callable[..., object], reduction: str = "mean") -> object:
        return function(
            *self.inputs, *self.targets, *self.weights, margin=self.margin, alpha=self.alpha, reduction=reduction
        )

    def to(self, dtype: torch.dtype) -> Case:
        """Return the same values in another dtype, as new leaves."""
        inputs = tuple(x.detach().to(dtype).requires_grad_(x.requires_grad) for x in self.inputs)
        weights = tuple(w if w is None else w.to(dtype) for w in self.weights)
        return replace(self, inputs=inputs, weights=weights)


@pytest.fixture
def make_case() -> Callable[..., Case]:
    def make(
        pairs: int = 37,
        classes: int = 7,
        width: int = 129,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        weighted: bool = True,
        seed: int = 0,
    ) -> Case:
        random = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=random, dtype=torch.float64).to(device=device, dtype=dtype)

        # At this spread some distances lie within the margin and some beyond.
        inputs = (
            *(3 * normal(pairs, classes) for _ in "12"),
            *(12 / (2 * width) ** 0.5 * normal(pairs, width) for _ in "12"),
        )
        targets = tuple(torch.randint(classes, (pairs,), generator=random).to(device) for _ in "12")
        acc = torch.float64 if dtype == torch.float64 else torch.float32
        shapes = ((classes,), (classes,), (classes, classes))
        weights = tuple(torch.rand(shape, generator=random).to(device, acc) if weighted else None for shape in shapes)
        return Case(tuple(x.requires_grad_() for x in inputs), targets, weights)

    return make


def values_and_gradients(case: Case, function: Callable[..., object], reduction: str) -> list[Tensor]:
    """Compute loss, terms and gradients of all inputs, for a fixed, non-uniform upstream gradient of each output."""
    outputs = case.call(function, reduction)
    upstream = [
        torch.linspace(0.5 + k, 1.5 + k, max(o.numel(), 1), dtype=torch.float64).to(o) for k, o in enumerate(outputs)
    ]
    total = sum((o * u.reshape(o.shape) if o.numel() else o).sum() for o, u in zip(outputs, upstream, strict=True))
    gradients = torch.autograd.grad(total, case.inputs)
    return [*(o.detach() for o in outputs), *gradients]


NAMES = ("loss", "classification1", "classification2", "alignment", "separation")
NAMES += ("logits1's gradient", "logits2's gradient", "features1's gradient", "features2's gradient")


def root_mean_square(values: list[Tensor]) -> float:
    return torch.cat([v.double().flatten() for v in values]).square().mean().sqrt().item()


@pytest.fixture
def assert_as_good_as_torch(make_case: Callable[..., Case]) -> Callable[..., None]:
    """The error against float64 is at most twice plain PyTorch's in the same dtype, or the unavoidable roundings.

    Errors are root mean squares over several draws, since a single scalar can be right by luck. So can a few: at N = 2
    about ten pairs in twelve draws are of different classes and within the margin. Two roundings are unavoidable. One
    is that of the result; in tests of float64 itself the reference has rounding errors too, and a sum of n terms is
    allowed n units. The other is that of a distance d below the margin m, by half a unit of d. It leaves m - d with
    the same absolute error, which is large relative to a small difference. Its effect on every result is at most that
    of moving the margin by a unit, since d < m, and is computed so in float64.
    """

    def check(function: Callable[..., object], reduction: str = "mean", draws: int = 12, **sizes: object) -> None:
        cases = [make_case(**sizes, seed=seed) for seed in range(draws)]
        dtype = cases[0].inputs[0].dtype
        plain_terms = reference.weighted_ccsa_loss_terms
        ours = [values_and_gradients(case, function, reduction) for case in cases]
        exact = [values_and_gradients(case.to(torch.float64), plain_terms, reduction) for case in cases]
        torchs = [values_and_gradients(case.to(dtype), plain_terms, reduction) for case in cases]
        unit = torch.finfo(ours[0][0].dtype).eps  # of the loss, and of the distances
        moved = [replace(case.to(torch.float64), margin=case.margin * (1 + unit)) for case in cases]
        shifted = [values_and_gradients(case, plain_terms, reduction) for case in moved]
        terms = sum(cases[0].inputs[2].shape) if dtype == torch.float64 else 1
        for k, name in enumerate(NAMES):
            assert ours[0][k].shape == exact[0][k].shape
            truth = [e[k] for e in exact]
            error = root_mean_square([o[k].double() - t for o, t in zip(ours, truth, strict=True)])
            plain = root_mean_square([p[k].double() - t for p, t in zip(torchs, truth, strict=True)])
            rounding = terms * torch.finfo(ours[0][k].dtype).eps * root_mean_square(truth)
            rounding += root_mean_square([s[k] - t for s, t in zip(shifted, truth, strict=True)])
            assert error <= 2 * max(plain, rounding), f"{name}: error {error:.3g}, plain PyTorch's {plain:.3g}"

    return check
