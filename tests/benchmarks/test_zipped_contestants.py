"""The contestants compute the same loss, and the errors show it if one does not."""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import pytest
import torch

from benchmarks.harness.benchmark import CannotRun
from benchmarks.losses import zipped
from benchmarks.losses.common import Contestant, call_of, squared_contrastive_loss
from benchmarks.losses.zipped import BACKWARD, FORWARD, QUICK, SWEEP, Cell, make_problem, nothing, product, stream
from benchmarks.losses.zipped_contestants import CONTESTANTS, FORMULATIONS, rows_of
from fastccsa import reference

EAGER = [one for one in CONTESTANTS if not one.compiled]  # compiled ones are run in test_commands.py
LARGEST_ERROR = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 3e-2}


def by_name(name: str) -> Contestant:
    return next(one for one in CONTESTANTS if one.name == name)


@pytest.mark.parametrize("dtype", LARGEST_ERROR)
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("rival", EAGER, ids=lambda rival: rival.name)
def test_all_compute_the_same(rival: Contestant, weighted: bool, dtype: str) -> None:
    cell = Cell(50, 33, 7, dtype, BACKWARD, weighted)
    problem = make_problem(cell)
    try:
        function = rival.build(problem, cell)
    except CannotRun as reason:
        pytest.skip(str(reason))
    loss = function.call(*problem.arguments)
    assert problem.loss_error(loss) < LARGEST_ERROR[dtype]
    assert problem.gradient_error(torch.autograd.grad(loss, problem.inputs)) < LARGEST_ERROR[dtype]


@pytest.mark.parametrize("name", FORMULATIONS)
def test_each_eager_formulation_is_right_also_at_distance_zero(name: str) -> None:
    problem = make_problem(Cell(50, 33, dtype="float64"))
    with torch.no_grad():
        problem.inputs[2][:10] = problem.inputs[3][:10]
    loss = FORMULATIONS[name](*problem.arguments)
    assert problem.loss_error(loss) < 1e-12
    assert problem.gradient_error(torch.autograd.grad(loss, problem.inputs)) < 1e-12


def test_metric_learning_says_what_it_cannot_express() -> None:
    cell = Cell(4, 3)
    with pytest.raises(CannotRun, match="no weights per pair"):
        by_name("pytorch-metric-learning").build(make_problem(cell), cell)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    squared_contrastive_loss.cache_clear()
    monkeypatch.setitem(sys.modules, "pytorch_metric_learning.losses", None)
    monkeypatch.setitem(sys.modules, "pytorch_metric_learning.distances", None)
    cell = Cell(4, 3, weighted=False)
    with pytest.raises(CannotRun, match="not installed: pip install pytorch-metric-learning"):
        by_name("pytorch-metric-learning").build(make_problem(cell), cell)


def test_the_data_are_the_same_every_time_and_exercise_every_branch() -> None:
    cell = Cell(400, 64)
    one, two = make_problem(cell), make_problem(cell)
    assert all(torch.equal(a, b) for a, b in zip(one.inputs, two.inputs, strict=True))
    same = one.arguments[4] == one.arguments[5]
    within = (one.inputs[2] - one.inputs[3]).norm(dim=1) < zipped.MARGIN
    for share in (same, within[~same]):
        assert 0.2 < share.double().mean() < 0.8


@pytest.mark.parametrize(("chunk_bytes", "rows"), [(1, 10**6), (10**9, 7)])
def test_the_expectation_is_the_reference_in_float64(
    monkeypatch: pytest.MonkeyPatch, chunk_bytes: int, rows: int
) -> None:
    monkeypatch.setattr(zipped, "CHUNK_BYTES", chunk_bytes)
    monkeypatch.setattr(zipped, "GRADIENT_ROWS", rows)
    problem = make_problem(Cell(23, 5, dtype="bfloat16"))
    exact = rows_of(problem.arguments, slice(None), torch.float64)
    loss = reference.weighted_ccsa_loss(*exact)
    expected = problem.expected
    assert expected.loss == pytest.approx(loss.item(), rel=1e-12)
    for (which, got), true in zip(expected.gradients, torch.autograd.grad(loss, exact[:4]), strict=True):
        assert len(which) == (23 if rows > 23 else 6)
        torch.testing.assert_close(got, true[which], rtol=1e-12, atol=0)


def test_wrong_results_have_large_errors() -> None:
    problem = make_problem(Cell(20, 8, dtype="float64"))
    loss = reference.weighted_ccsa_loss(*problem.arguments)
    gradients = list(torch.autograd.grad(loss, problem.inputs))
    assert problem.loss_error(1.01 * loss) == pytest.approx(0.01)
    largest = gradients[2].abs().max()
    gradients[2] = gradients[2].clone()
    gradients[2][3, 4] += 0.5 * largest
    assert problem.gradient_error(tuple(gradients)) == pytest.approx(0.5)
    gradients[2][3, 4] = math.nan
    assert math.isnan(problem.gradient_error(tuple(gradients)))


def test_bytes_that_have_to_be_moved() -> None:
    cell = Cell(10, 6, 2, "bfloat16", BACKWARD)
    inputs = 2 * 10 * (6 + 2) * 2 + 2 * 10 * 8
    assert cell.input_bytes == inputs
    assert cell.gradient_bytes == 2 * 10 * (6 + 2) * 2
    assert cell.bytes_moved == 2 * inputs + cell.gradient_bytes
    assert replace(cell, mode=FORWARD).bytes_moved == inputs


@pytest.mark.parametrize("mode", [FORWARD, BACKWARD])
@pytest.mark.parametrize("largest", [10**9, 1000])
def test_the_floors_move_as_many_bytes(monkeypatch: pytest.MonkeyPatch, mode: str, largest: int) -> None:
    monkeypatch.setattr(zipped, "LARGEST_ARRAY", largest)
    cell = Cell(64, 48, mode=mode)
    moved = {"copied": 0, "added": 0}

    def add(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor) -> None:
        moved["added"] += a.nbytes + b.nbytes + out.nbytes

    def copy(target: torch.Tensor, source: torch.Tensor) -> None:
        moved["copied"] += target.nbytes + source.nbytes

    calls = [stream(cell, "cpu", arrays) for arrays in (2, 3)]
    monkeypatch.setattr(torch, "add", add)
    monkeypatch.setattr(torch.Tensor, "copy_", copy)
    for call in calls:
        call()
    for count in moved.values():
        assert 0.98 * cell.bytes_moved < count <= cell.bytes_moved


def test_the_call_that_does_nothing_goes_through_autograd() -> None:
    cell = Cell(8, 4)
    problem = make_problem(cell)
    gradients = nothing(problem, cell)()
    assert [g.shape for g in gradients] == [x.shape for x in problem.inputs]


def test_each_mode_makes_the_calls_it_names() -> None:
    cell = Cell(8, 4)
    problem = make_problem(cell)
    assert len(call_of(reference.weighted_ccsa_loss, problem, cell)()) == 4
    forward = call_of(reference.weighted_ccsa_loss, problem, replace(cell, mode=FORWARD))
    with torch.no_grad():
        assert forward().shape == ()


def test_the_sweep_is_complete_and_begins_with_what_matters_most() -> None:
    assert len(set(SWEEP)) == len(SWEEP) == 5 * 3 * 2 * 2 * 2
    assert {cell.pairs for cell in SWEEP} == {32, 256, 4096, 65536, 262144}
    assert {cell.width for cell in SWEEP} == {128, 512, 2048}
    assert {cell.classes for cell in SWEEP} == {7, 1000}
    assert {cell.dtype for cell in SWEEP} == {"float32", "bfloat16"}
    assert SWEEP[0] == Cell(32, 512, 7, "float32", BACKWARD)
    assert set(QUICK[:2]) <= set(SWEEP)
    assert product([1], [2], [3], ["float64"], [FORWARD], weighted=False) == [
        Cell(1, 2, 3, "float64", FORWARD, weighted=False)
    ]
