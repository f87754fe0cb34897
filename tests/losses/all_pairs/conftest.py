"""Inputs for the loss over all pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from torch import Tensor

from fastccsa import functional, reference
from fastccsa.ops import all_pairs as _all_pairs

MARGIN = 12.0


@dataclass(frozen=True)
class Sets:
    """Two sets of features with their labels, and the weights of pairs of classes."""

    z1: Tensor
    z2: Tensor
    y1: Tensor
    y2: Tensor
    weight: Tensor | None

    @property
    def leaves(self) -> tuple[Tensor, Tensor]:
        return self.z1, self.z2

    def to(self, dtype: torch.dtype) -> Sets:
        """Return the same values in another precision, as new leaves."""
        z1, z2 = (z.detach().to(dtype).requires_grad_() for z in self.leaves)
        return replace(self, z1=z1, z2=z2, weight=None if self.weight is None else self.weight.to(dtype))

    def loss(self, reduction: str = "mean", margin: float = MARGIN) -> Tensor:
        arguments = (self.z1, self.z2, self.y1, self.y2, self.weight, margin)
        return functional.contrastive_alignment(*arguments, pairs="all", reduction=reduction)

    def terms(self, reduction: str = "mean", margin: float = MARGIN) -> tuple[Tensor, Tensor]:
        """Return alignment and separation by the definition."""
        terms = reference.pair_terms(self.z1, self.z2, self.y1, self.y2, self.weight, margin, "all")
        return tuple(t.sum() if reduction == "sum" else t.mean() for t in terms)

    def reference(self, reduction: str = "mean", margin: float = MARGIN) -> Tensor:
        return sum(self.terms(reduction, margin))


@pytest.fixture
def use_method(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """A function that makes the losses use the given method of the op, whatever the number of pairs."""

    def use(method: str) -> None:
        monkeypatch.setattr(_all_pairs, "_op", partial(torch.ops.fastccsa.all_pairs.default, method=method))

    return use


METHODS = {
    "cpu": "auto",
    "cpu in panels": "products",
    "cuda": "auto",
    "cuda in tiles": "products",
}


@pytest.fixture(params=[pytest.param(d, marks=[pytest.mark.cuda] if d.startswith("cuda") else []) for d in METHODS])
def device(request: pytest.FixtureRequest, use_method: Callable[[str], None]) -> str:
    """The device of a test. The losses use the method for the test's number of pairs, or a method for many pairs."""
    use_method(METHODS[request.param])
    return request.param.split()[0]


@pytest.fixture
def make_sets() -> Callable[..., Sets]:
    def make(
        rows1: int = 37,
        rows2: int = 53,
        classes: int = 7,
        width: int = 65,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        weighted: bool = True,
        seed: int = 0,
    ) -> Sets:
        random = torch.Generator().manual_seed(seed)

        def features(rows: int) -> Tensor:
            # With this spread, some distances are within the margin and some beyond it.
            z = MARGIN / max(2 * width, 1) ** 0.5 * torch.randn(rows, width, generator=random, dtype=torch.float64)
            return (z + 3).to(device, dtype).requires_grad_()

        z1, z2 = features(rows1), features(rows2)
        y1, y2 = (torch.randint(classes, (n,), generator=random).to(device) for n in (rows1, rows2))
        weight = torch.rand(classes, classes, generator=random, dtype=torch.float64)
        acc = torch.float64 if dtype == torch.float64 else torch.float32
        return Sets(z1, z2, y1, y2, weight.to(device, acc) if weighted else None)

    return make
