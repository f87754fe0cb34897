"""The loss over all pairs against its definition, which computes the whole matrix of pairs."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest
import torch

import fastccsa
from fastccsa import functional, reference

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
ISAS = ("portable", "avx2", "avx512")
SIZES = [(1, 1, 1, 1), (1, 9, 2, 3), (37, 53, 7, 65), (130, 31, 3, 512), (300, 200, 1000, 16), (64, 64, 1, 8)]


def assert_same(sets, reduction="mean", margin=12.0, rtol=1e-12):
    exact = sets.to(torch.float64)
    mine, true = sets.loss(reduction, margin), exact.reference(reduction, margin)
    torch.testing.assert_close(mine.double(), true, rtol=rtol, atol=rtol)
    gradients = torch.autograd.grad(mine, sets.leaves)
    expected = torch.autograd.grad(true, exact.leaves)
    for a, b in zip(gradients, expected, strict=True):
        assert a.dtype == sets.z1.dtype
        eps = torch.finfo(a.dtype).eps if a.dtype.itemsize < 4 else rtol
        torch.testing.assert_close(a.double(), b, rtol=max(rtol, eps), atol=max(rtol, eps) * b.abs().max().item())


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_and_gradients(make_sets, device, dtype, reduction):
    assert_same(make_sets(dtype=dtype, device=device), reduction, rtol=1e-12 if dtype == torch.float64 else 2e-6)


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("weighted", [True, False], ids=["weighted", "unweighted"])
def test_ragged_sizes(make_sets, device, size, weighted):
    assert_same(make_sets(*size, dtype=torch.float64, device=device, weighted=weighted))


@pytest.mark.parametrize("margin", [0.0, 1e-3, 5.0, 1e4])
def test_margins(make_sets, device, margin):
    assert_same(make_sets(dtype=torch.float64, device=device), margin=margin)


# The numbers of rows of each class on both sides: large classes, which are divided; small ones, which share strips;
# classes of either kind that occur on only one side; more rows than a panel has.
CLASS_SIZES = {
    "large and small": ([130, 3, 70, 5, 5, 300], [2, 90, 65, 40, 1, 3]),
    "small between large": ([64, 63, 64, 1, 64], [63, 64, 1, 64, 63]),
    "absent on a side": ([0, 200, 10, 0, 70], [100, 0, 90, 30, 0]),
    "one row of each": ([1] * 150, [1] * 150),
    "panels": ([700, 30, 600], [900, 1300, 60]),
    "one class": ([100], [600]),
}


@pytest.mark.parametrize("sizes", CLASS_SIZES.values(), ids=CLASS_SIZES.keys())
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_classes_of_any_size(make_sets, device, sizes, dtype):
    sets = make_sets(*map(sum, sizes), len(sizes[0]), 5, dtype=dtype, device=device)
    random = torch.Generator().manual_seed(1)
    for labels, counts in zip((sets.y1, sets.y2), sizes, strict=True):
        of_class = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        labels.copy_(of_class[torch.randperm(len(labels), generator=random)])
    assert_same(sets, rtol=1e-12 if dtype == torch.float64 else 2e-6)


@pytest.mark.parametrize("gap", [4.0, 11.0, 30.0])
def test_distant_classes(make_sets, device, gap):
    """Classes that are entirely, partly or not at all beyond the margin. NaN is not beyond it."""
    sets = make_sets(260, 300, 3, 6, dtype=torch.float64, device=device)
    with torch.no_grad():
        for z, y in ((sets.z1, sets.y1), (sets.z2, sets.y2)):
            z.mul_(0.1)
            z[:, 0] += gap * y
    assert_same(sets)
    with torch.no_grad():
        sets.z2[0] = torch.nan
    loss = sets.loss()
    assert loss.isnan()
    assert torch.autograd.grad(loss, sets.z1)[0].isnan().all()


def test_the_number_of_threads_changes_no_bit(make_sets, use_method):
    use_method("products")
    sets = make_sets(300, 700, 5, 140)
    threads = torch.get_num_threads()
    try:
        found = []
        for torch_threads in (1, 2, 5):
            torch.set_num_threads(torch_threads)
            loss = sets.loss()
            found.append((loss, *torch.autograd.grad(loss, sets.leaves)))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        assert all(map(torch.equal, found[0], other))


def test_classes_missing_on_a_side(make_sets, device):
    sets = make_sets(20, 30, 6, 5, dtype=torch.float64, device=device)
    sets.y1.clamp_(max=2), sets.y2.clamp_(min=2)
    assert_same(sets)
    sets.y1.fill_(0), sets.y2.fill_(1)
    assert_same(sets)
    sets.y2.fill_(0)
    assert_same(sets)


def test_features_without_columns(make_sets, device):
    """All distances are 0, so the gradient of pairs of different classes has no direction."""
    sets = make_sets(200, 300, 3, 0, dtype=torch.float64, device=device, weighted=False)
    different = (sets.y1[:, None] != sets.y2).double().mean().item()
    loss = sets.loss(margin=2.0)
    assert loss.item() == pytest.approx(4 * different)
    assert [g.shape for g in torch.autograd.grad(loss, sets.leaves)] == [(200, 0), (300, 0)]


def test_labels_may_be_any_numbers_without_weights():
    z = torch.eye(3, dtype=torch.float64)
    labels = torch.tensor([-5, 10**12, 7])
    expected = reference.contrastive_alignment(z, z, labels, labels, margin=2.0, pairs="all")
    assert functional.contrastive_alignment(z, z, labels, labels, margin=2.0, pairs="all") == pytest.approx(expected)


@pytest.mark.parametrize("rows", [(0, 4), (4, 0), (0, 0)], ids=str)
def test_empty_sides(make_sets, device, rows):
    sets = make_sets(*rows, device=device)
    assert sets.loss("mean").isnan()
    assert sets.loss("sum") == 0
    for gradient, z in zip(torch.autograd.grad(sets.loss("sum"), sets.leaves), sets.leaves, strict=True):
        assert gradient.shape == z.shape
        assert (gradient == 0).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.t().contiguous().t(),
        lambda x: torch.cat([x, x], 1)[:, : x.shape[1]],
        lambda x: torch.stack([x, x], 2)[..., 1],
        lambda x: x.repeat_interleave(2, 0)[::2],
        lambda x: torch.cat([x.flatten()[:1], x.flatten()])[1:].view_as(x),
    ],
    ids=["transposed", "columns of a wider matrix", "every second column", "every second row", "misaligned"],
)
def test_views(make_sets, device, dtype, view):
    sets = make_sets(dtype=dtype, device=device)
    with torch.no_grad():
        sets.z2[:5] = sets.z1[:5] + 1e-3  # near pairs read the views themselves
    expected = sets.loss()
    gradients = torch.autograd.grad(expected, sets.leaves)
    leaves = [z.detach().clone().requires_grad_() for z in sets.leaves]
    labels = [torch.stack([y, y], 1)[:, 0] for y in (sets.y1, sets.y2)]
    weight = torch.stack([sets.weight, sets.weight], -1)[..., 0]
    loss = functional.contrastive_alignment(*map(view, leaves), *labels, weight, 12.0, "all")
    torch.testing.assert_close(loss, expected)
    for a, b in zip(torch.autograd.grad(loss, leaves), gradients, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("reduction", ["mean", "sum", "weighted_mean"])
@pytest.mark.parametrize("rows", [(20, 20), (20, 33)], ids=str)
def test_whole_loss_and_its_terms(make_sets, device, rows, reduction):
    sets = make_sets(*rows, dtype=torch.float64, device=device)
    logits = [torch.randn(n, 7, dtype=torch.float64, device=device).requires_grad_() for n in rows]
    class_weights = [torch.rand(7, dtype=torch.float64, device=device) for _ in "12"]
    inputs = (*logits, *sets.leaves)
    arguments = (*inputs, sets.y1, sets.y2, *class_weights, sets.weight, 12.0, 0.3, "all", reduction)
    mine, true = (f.weighted_ccsa_loss_terms(*arguments) for f in (functional, reference))
    for name, a, b in zip(mine._fields, mine, true, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14, msg=name)
        options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
        gradients = torch.autograd.grad(a, inputs, **options)
        for x, y in zip(gradients, torch.autograd.grad(b, inputs, **options), strict=True):
            torch.testing.assert_close(x, y, rtol=1e-11, atol=1e-14)
    loss_fn = fastccsa.WeightedCCSALoss(
        *class_weights, sets.weight, margin=12.0, alpha=0.3, pairs="all", reduction=reduction
    )
    loss = loss_fn(*inputs, sets.y1, sets.y2)
    torch.testing.assert_close(loss, true.loss, rtol=1e-12, atol=0)
    for x, y in zip(torch.autograd.grad(loss, inputs), torch.autograd.grad(true.loss, inputs), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("pairs", ["zipped", "all"])
def test_terms_that_are_only_logged(make_sets, device, pairs):
    sets = make_sets(20, 20, dtype=torch.float64, device=device)
    logits = [torch.randn(20, 7, dtype=torch.float64, device=device).requires_grad_() for _ in range(2)]
    inputs = (*logits, *sets.leaves)
    options = {"pair_weight": sets.weight, "margin": 12.0, "alpha": 0.3, "pairs": pairs}
    arguments = (*inputs, sets.y1, sets.y2)
    true = reference.weighted_ccsa_loss_terms(*arguments, **options)
    for mine in (
        functional.weighted_ccsa_loss_terms(*arguments, **options, term_gradients=False),
        fastccsa.WeightedCCSALoss(**options).terms(*arguments, term_gradients=False),
    ):
        differentiable = pairs == "zipped"
        assert [term.requires_grad for term in mine] == [True, True, True, differentiable, differentiable]
        for a, b in zip(mine, true, strict=True):
            torch.testing.assert_close(a.detach(), b.detach(), rtol=1e-12, atol=1e-14)
        expected = torch.autograd.grad(true.loss, inputs, retain_graph=True)
        for x, y in zip(torch.autograd.grad(mine.loss, inputs), expected, strict=True):
            torch.testing.assert_close(x, y, rtol=1e-11, atol=1e-14)


def test_nan_propagates_to_the_loss(make_sets, device):
    for k in range(2):
        sets = make_sets(device=device)
        with torch.no_grad():
            sets.leaves[k][3, 2] = float("nan")
        assert sets.loss().isnan()


def test_same_bits_every_time(make_sets, device):
    sets = make_sets(2100, 1500, 5, 33, device=device)
    first = (sets.loss().detach(), *torch.autograd.grad(sets.loss(), sets.leaves))
    threads = torch.get_num_threads()
    for count in (1, 2, threads):
        torch.set_num_threads(count)
        again = (sets.loss().detach(), *torch.autograd.grad(sets.loss(), sets.leaves))
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


EVERY_METHOD = """
from functools import partial
import torch
from fastccsa import functional, reference
from fastccsa.ops import all_pairs as _all_pairs
torch.manual_seed(0)
op = _all_pairs._op
# Ragged sizes; classes with and without their own strips; near pairs, which are computed from their rows.
for sizes, width, classes in (((29, 43), 39, 4), ((150, 260), 9, 3), ((70, 90), 130, 40)):
    y = [torch.randint(classes, (n,)) for n in sizes]
    points = [torch.randn(n, width, dtype=torch.float64) for n in sizes]
    points[1][:20] = points[0][:20] + 10.0 ** -(torch.arange(20) % 5)[:, None] * torch.randn(20, width)
    weight = torch.rand(classes, classes, dtype=torch.float64)
    margin = 1.5 * width**0.5
    tolerances = {torch.float64: 1e-11, torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 1e-3}
    for dtype, tolerance in tolerances.items():
        z = [x.to(dtype).requires_grad_() for x in points]
        exact = [x.detach().double().requires_grad_() for x in z]
        true = reference.contrastive_alignment(*exact, *y, weight, margin, "all")
        want = torch.autograd.grad(true, exact)
        for method in ("direct", "products"):
            _all_pairs._op = partial(op, method=method)
            loss = functional.contrastive_alignment(*z, *y, weight, margin, "all")
            torch.testing.assert_close(loss.double(), true, rtol=min(tolerance, 1e-5), atol=0)
            for mine, gradient in zip(torch.autograd.grad(loss, z), want):
                limits = {"rtol": tolerance, "atol": tolerance * gradient.abs().max().item()}
                torch.testing.assert_close(mine.double(), gradient, **limits)
print(torch.ops.fastccsa.instruction_set())
"""


@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512"])
def test_every_instruction_set(isa):
    """Pair by pair and in panels. All other tests use the best instruction set."""
    environment = os.environ | {"FASTCCSA_ISA": isa}
    done = subprocess.run([sys.executable, "-c", EVERY_METHOD], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    if platform.machine() in ("x86_64", "AMD64"):
        # An older processor falls back to a lesser instruction set.
        assert done.stdout.strip() in {"portable": ("portable",), "avx2": ("avx2", "portable")}.get(isa, ISAS)
