"""The loss over few pairs on CUDA, pair by pair, in the emulator under sanitizers, against the definition."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from fastccsa import functional, reference

from .cases import DTYPES, LAYOUTS, Layout, Schedule, accumulator, as_it_is, shifted
from .emulated_all_pairs import NO_FAULT, PAIR_BY_PAIR, EmulatedLoss, Outcome, emulated, some
from .programs import Builder

MARGIN = 6.0


@dataclass(frozen=True)
class Call:
    """One call of the op. Two pairs have distance 0, and one the margin; some of these have different classes."""

    z: tuple[Tensor, Tensor]
    y: tuple[Tensor, Tensor]
    weight: Tensor | None
    per_term: bool = False
    output_mask: int = 3

    def run(self, loss: EmulatedLoss) -> Outcome:
        options = {"margin": MARGIN, "output_mask": self.output_mask, "per_term": self.per_term}
        return loss.compute(*self.z, *self.y, self.weight, **options, limits=PAIR_BY_PAIR)

    def found(self, outcome: Outcome) -> dict[str, Tensor]:
        """Return the results by name."""
        gradients = {f"gradient {k + 1}": g for k, g in enumerate(outcome.gradients) if self.output_mask >> k & 1}
        return {"loss": outcome.loss, "terms": outcome.terms, **gradients}

    def definition(self, dtype: torch.dtype) -> dict[str, Tensor]:
        """Compute the results with plain PyTorch in `dtype`."""
        leaves = [z.detach().to(dtype).requires_grad_() for z in self.z]
        weight = None if self.weight is None else self.weight.to(dtype)
        terms = torch.stack([t.mean() for t in reference.pair_terms(*leaves, *self.y, weight, MARGIN, "all")])
        planes = terms.unbind() if self.per_term else (terms.sum(),)
        options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
        found = [torch.autograd.grad(plane, leaves, **options) for plane in planes]
        sides = [side for side in range(2) if self.output_mask >> side & 1]
        gradients = {f"gradient {side + 1}": torch.stack([g[side] for g in found]) for side in sides}
        return {"loss": terms.sum().detach(), "terms": terms.detach(), **gradients}


def make(
    rows1: int, rows2: int, width: int, dtype: torch.dtype = torch.float32, layout: Layout = as_it_is,
    weighted: bool = True,
) -> Call:  # fmt: skip
    z, y = some(rows1, rows2, width, torch.float64, near=False)
    if min(rows1, rows2) > 2:
        z[1][:2] = z[0][:2]
        z[0][2], z[1][2] = 0, 0
        z[1][2, 0] = MARGIN
        y[0][:3], y[1][:3] = 0, torch.tensor([1, 0, 1])
    weight = torch.rand(3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(accumulator(dtype))
    first, second = (layout(x.to(dtype)) for x in z)
    labels = [torch.stack([labels, labels], 1)[:, 0] for labels in y]
    return Call((first, second), (labels[0], labels[1]), weight.t() if weighted else None)


@pytest.fixture(scope="module")
def program(builder: Builder) -> Path:
    return builder.emulated("run_all_pairs_kernels", builder.memory_or_plain())


def assert_as_good_as_torch(call: Call, outcome: Outcome) -> None:
    """Check that the error is at most twice that of plain PyTorch in the dtype of sums, plus one rounding."""
    assert outcome.reported == NO_FAULT
    assert outcome.tiles == []
    found = call.found(outcome)
    acc = found["loss"].dtype
    exact, plain = call.definition(torch.float64), call.definition(acc)
    assert found.keys() == exact.keys()
    roundings = sum(map(len, call.z)) + call.z[0].shape[1] if acc == torch.float64 else 1
    for name, truth in exact.items():
        unit = torch.finfo(acc).eps * max(1e-3, truth.abs().max().item())
        bound = 2 * ((plain[name].double() - truth).abs().max() + roundings * unit)
        error = (found[name].double() - truth).abs().max()
        assert error <= bound, f"{name} is off by {error:.3g}, more than {bound:.3g}"


def assert_equal(found: Outcome, expected: Outcome) -> None:
    assert torch.equal(found.loss, expected.loss)
    assert torch.equal(found.terms, expected.terms)
    assert all(map(torch.equal, found.gradients, expected.gradients))


SIZES = [(1, 1, 1), (4, 32, 16), (5, 33, 65), (33, 6, 260), (19, 70, 12), (6, 9, 512)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_results_equal_the_definition(program: Path, dtype: torch.dtype) -> None:
    """Ragged sizes, every layout, weighted or not, with one gradient or one per term."""
    with emulated(program) as loss:
        for number, (size, layout) in enumerate(zip(SIZES, LAYOUTS, strict=True)):
            call = make(*size, dtype, layout, weighted=number % 3 > 0)
            call = replace(call, per_term=number % 2 > 0)
            assert_as_good_as_torch(call, call.run(loss))


@pytest.mark.parametrize("output_mask", [0, 1, 2])
@pytest.mark.parametrize("per_term", [False, True])
def test_only_requested_gradients_are_computed(program: Path, output_mask: int, per_term: bool) -> None:
    call = replace(make(9, 35, 20), output_mask=output_mask, per_term=per_term)
    with emulated(program) as loss:
        assert_as_good_as_torch(call, call.run(loss))


@pytest.mark.parametrize("labels", [(0, 0), (0, 1)], ids=["one class", "no pair of one class"])
def test_classes_without_one_of_the_terms(program: Path, labels: tuple[int, int]) -> None:
    call = make(10, 7, 24)
    call = replace(call, y=tuple(torch.full_like(y, label) for y, label in zip(call.y, labels, strict=True)))
    with emulated(program) as loss:
        found = call.run(loss)
        assert found.terms[int(labels[0] == labels[1])] == 0
        assert_as_good_as_torch(call, found)


def test_labels_may_be_any_numbers_without_weights(program: Path) -> None:
    call = make(10, 7, 24, weighted=False)
    moved = replace(call, y=tuple(10**12 * (y - 1) for y in call.y))
    with emulated(program) as loss:
        expected, found = call.run(loss), moved.run(loss)
    assert found.reported == NO_FAULT
    assert_equal(found, expected)


@pytest.mark.parametrize("layout", [as_it_is, shifted], ids=["packed", "one by one"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_order_of_execution_changes_no_bit(program: Path, dtype: torch.dtype, layout: Layout) -> None:
    call = make(21, 70, 40, dtype, layout)
    with emulated(program) as loss:
        expected = call.run(loss)
    for schedule in (Schedule("reverse"), Schedule("random", 1), Schedule("random", 2, processors=3)):
        with emulated(program, schedule) as loss:
            assert_equal(call.run(loss), expected)


BROKEN = [("target1", 4, -3), ("target1", 4, 3), ("target2", 6, 1 << 20), ("pair_weight", 4, 2 * 3 + 1)]


@pytest.mark.parametrize(("argument", "row", "value"), BROKEN)
def test_a_bad_value_is_reported(program: Path, argument: str, row: int, value: int) -> None:
    """Nothing is read out of bounds. The loss and the gradients of the row with the bad value are NaN."""
    good = make(9, 40, 17)
    y1, y2, weight = good.y[0].clone() % 2, good.y[1].clone() % 2, good.weight.clone()
    good = replace(good, y=(y1.clone(), y2.clone()))
    if argument == "pair_weight":
        y1[row], y2[:] = 2, 0
        y2[5], weight[2, 1] = 1, float("nan")
    else:
        (y1 if argument == "target1" else y2)[row] = value
    with emulated(program) as loss:
        before = good.run(loss)
        found = replace(good, y=(y1, y2), weight=weight).run(loss)
    assert before.loss.isfinite()
    assert before.reported == NO_FAULT
    assert found.reported == (argument, row, value)
    assert found.loss.isnan()
    nan_rows = found.gradients[argument == "target2"][0].isnan().any(1)
    assert nan_rows.nonzero().flatten().tolist() == [row]


def test_the_public_functions(program: Path) -> None:
    """The loss with its gradient, and each term with its gradient, through autograd."""
    z, y = some(20, 31, 33, torch.bfloat16, near=True)
    weight = torch.rand(3, 3)
    with emulated(program) as emulator, emulator.replaces_op(PAIR_BY_PAIR):
        leaves, exact = [x.clone().requires_grad_() for x in z], [x.double().requires_grad_() for x in z]
        loss = functional.contrastive_alignment(*leaves, *y, weight, MARGIN, "all", "sum")
        terms = functional.contrastive_alignment_terms(*leaves, *y, weight, MARGIN, "all", "sum")
        true = [t.sum() for t in reference.pair_terms(*exact, *y, weight.double(), MARGIN, "all")]
        for mine, theirs in ((loss, sum(true)), *zip(terms, true, strict=True)):
            assert mine.item() == pytest.approx(theirs.item(), rel=1e-5)
            gradients = torch.autograd.grad(mine, leaves, retain_graph=True)
            for a, b in zip(gradients, torch.autograd.grad(theirs, exact, retain_graph=True), strict=True):
                assert a.dtype == torch.bfloat16
                torch.testing.assert_close(a.double(), b, rtol=2**-8, atol=1e-5 * b.abs().max().item())


def test_no_races(builder: Builder) -> None:
    program = builder.emulated("run_all_pairs_kernels", builder.races())
    with emulated(program, Schedule(processors=2)) as loss:
        for call in (make(9, 40, 33), replace(make(5, 70, 16, weighted=False), per_term=True)):
            assert_as_good_as_torch(call, call.run(loss))
