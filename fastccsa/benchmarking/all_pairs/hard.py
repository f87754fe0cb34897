"""Errors where distances are small: near pairs far from the origin, duplicates, and points in one place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from fastccsa import reference
from fastccsa.benchmarking.all_pairs import rivals as contestants
from fastccsa.benchmarking.all_pairs.cells import Cell
from fastccsa.benchmarking.all_pairs.measure import rows_of, try_out
from fastccsa.benchmarking.all_pairs.problem import CLASSES, MARGIN
from fastccsa.benchmarking.results import CellResult, Results
from fastccsa.benchmarking.session import Session, Settings

__all__ = ["CASES", "HardProblem", "run_hard"]

ROWS, WIDTH = 256, 128
NORM = 1e3

Case = Callable[[torch.Generator], tuple[Tensor, Tensor]]


def _directions(random: torch.Generator, norm: float) -> Tensor:
    z = torch.randn(ROWS, WIDTH, generator=random, dtype=torch.float64)
    return norm * z / z.norm(dim=1, keepdim=True)


def _near_one_point(distance: float) -> Case:
    """All points about `distance` from one point of norm 1e3."""

    def make(random: torch.Generator) -> tuple[Tensor, Tensor]:
        place = _directions(random, NORM)[:1]
        return place + 0.7 * _directions(random, distance), place + 0.7 * _directions(random, distance)

    return make


def _near_neighbours(random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points of norm 1e3 all around the origin, each with one of the other side at distance 1e-3."""
    z = _directions(random, NORM)
    return z, z + _directions(random, 1e-3)


def _duplicates(random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each point has a duplicate on the other side, among others within the margin."""
    z = _directions(random, MARGIN / 2)
    return z, z.clone()


def _one_place(random: torch.Generator) -> tuple[Tensor, Tensor]:
    """All distances are 0: the loss of pairs of different classes is margin^2, all gradients are 0."""
    place = _directions(random, NORM)[:1].expand(ROWS, WIDTH)
    return place, place


CASES: dict[str, Case] = {
    "norm 1e3, distances 10": _near_one_point(10.0),
    "norm 1e3, distances 1e-1": _near_one_point(1e-1),
    "norm 1e3, distances 1e-3": _near_one_point(1e-3),
    "norm 1e3, nearest neighbours at 1e-3": _near_neighbours,
    "duplicates": _duplicates,
    "all distances 0": _one_place,
}


@dataclass(frozen=True)
class HardProblem:
    """A case in float32; what its results must be comes from differences in float64."""

    inputs: tuple[Tensor, Tensor]
    targets: tuple[Tensor, Tensor]

    @classmethod
    def of(cls, case: Case, device: torch.device | str = "cpu") -> HardProblem:
        """The points of a case, with labels of seven classes alike."""
        random = torch.Generator().manual_seed(0)
        z1, z2 = (z.float().contiguous().to(device).requires_grad_() for z in case(random))
        y1, y2 = (torch.randint(CLASSES, (ROWS,), generator=random).to(device) for _ in "12")
        return cls((z1, z2), (y1, y2))

    @property
    def arguments(self) -> tuple[Tensor, ...]:
        """The arguments of a loss function, in order."""
        return (*self.inputs, *self.targets)

    def _expected(self) -> tuple[float, tuple[Tensor, ...]]:
        z1, z2 = (z.detach().double().requires_grad_() for z in self.inputs)
        loss = reference.contrastive_alignment(z1, z2, *self.targets, margin=MARGIN, pairs="all")
        return loss.item(), torch.autograd.grad(loss, (z1, z2))

    def loss_error(self, loss: Tensor) -> float:
        """Relative error of a loss."""
        expected, _ = self._expected()
        return abs(loss.item() - expected) / expected

    def gradient_error(self, gradients: tuple[Tensor, ...]) -> float:
        """Largest error, relative to the largest entry; where all are 0, to what one pair can add, 2 margin / N^2."""
        _, expected = self._expected()
        largest = max(g.abs().max().item() for g in expected) or 2 * MARGIN / ROWS**2
        errors = [(a.double() - b).abs().max() / largest for a, b in zip(gradients, expected, strict=True)]
        return torch.stack(errors).max().item()  # NaN where one is


def run_hard(
    settings: Settings, command: str = "", after_case: Callable[[Results], None] = lambda results: None
) -> Results:
    """The errors of every contestant in every case; nothing is timed.

    Args:
        settings: device and rivals.
        command: what was typed, for the record.
        after_case: called with the results so far after each case.
    """
    session = Session(settings)
    results = session.results("all-pairs, hard cases", command)
    for name, case in CASES.items():
        torch.compiler.reset()
        problem, cell = HardProblem.of(case, session.device), Cell(ROWS, WIDTH)
        rows = rows_of()
        described = vars(cell) | {"case": name, "title": f"{name}; N={ROWS} D={WIDTH} float32"}
        results.cells.append(CellResult(described, 2 * cell.input_bytes, cell.input_bytes, rows))
        for rival, row in zip(contestants.RIVALS, rows, strict=True):
            try_out(rival, row, problem, cell, session)
        after_case(results)
    return results
