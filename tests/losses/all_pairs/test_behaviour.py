"""How the loss over all pairs behaves as part of a user's program: graphs, compilation, autocast, memory, bad input."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch._dynamo.testing

import fastccsa
from fastccsa import functional, reference


def op_arguments(sets, per_term, output_mask=3):
    """Return positional and keyword arguments of the op."""
    options = {"labels": 7, "margin": 12.0, "mean": True, "precision": "ieee"}
    options |= {"output_mask": output_mask, "per_term": per_term}
    return (*sets.leaves, sets.y1, sets.y2, sets.weight), options


def test_gradcheck(make_sets, device):
    sets = make_sets(5, 4, 3, 4, dtype=torch.float64, device=device)

    def loss(z1, z2):
        return functional.contrastive_alignment(z1, z2, sets.y1, sets.y2, sets.weight[:3, :3], 30.0, "all")

    assert torch.autograd.gradcheck(loss, sets.leaves)


@pytest.mark.parametrize("per_term", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_opcheck(make_sets, device, dtype, per_term):
    sets = make_sets(6, 5, dtype=dtype, device=device)
    torch.library.opcheck(torch.ops.fastccsa.all_pairs.default, *op_arguments(sets, per_term))


@pytest.mark.parametrize("output_mask", [0, 1, 2])
def test_opcheck_with_fewer_gradients(make_sets, device, output_mask):
    sets = make_sets(6, 5, device=device)
    for k, z in enumerate(sets.leaves):
        z.requires_grad_(bool(output_mask >> k & 1))
    torch.library.opcheck(torch.ops.fastccsa.all_pairs.default, *op_arguments(sets, False, output_mask))


@pytest.mark.parametrize("side", [0, 1])
def test_only_the_gradient_that_is_needed(make_sets, device, side):
    sets = make_sets(device=device)
    with torch.no_grad():
        sets.z2[:5] = sets.z1[:5] + 1e-3
    expected = torch.autograd.grad(sets.loss(), sets.leaves)[side]
    sets.leaves[1 - side].requires_grad_(False)
    sets.loss().backward()
    assert sets.leaves[1 - side].grad is None
    assert torch.equal(sets.leaves[side].grad, expected)


def test_one_tensor_on_both_sides(make_sets, device):
    sets = make_sets(dtype=torch.float64, device=device)
    z, y = sets.z1, sets.y1
    mine = functional.contrastive_alignment(z, z, y, y, sets.weight, 12.0, "all")
    true = reference.contrastive_alignment(z, z, y, y, sets.weight, 12.0, "all")
    torch.testing.assert_close(mine, true, rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.autograd.grad(mine, z), torch.autograd.grad(true, z), rtol=1e-11, atol=1e-14)


def test_a_retained_graph_can_be_used_twice_even_after_an_input_changed(make_sets, device):
    sets = make_sets(device=device)
    copies = [z.clone() for z in sets.leaves]
    loss = functional.contrastive_alignment(*copies, sets.y1, sets.y2, margin=12.0, pairs="all")
    first = torch.autograd.grad(loss, sets.leaves, retain_graph=True)
    with torch.no_grad():
        copies[0].zero_()
    second = torch.autograd.grad(3 * loss, sets.leaves)
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(3 * a, b)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(loss, sets.leaves)


def test_second_derivative_error_names_the_reference(make_sets, device):
    sets = make_sets(device=device)
    with pytest.raises(RuntimeError, match=r"fastccsa\.reference"):
        torch.autograd.grad(sets.loss(), sets.leaves, create_graph=True)


def test_inference_and_no_grad(make_sets, device):
    sets = make_sets(device=device)
    expected = sets.loss()
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            loss = sets.loss()
        assert not loss.requires_grad
        assert torch.equal(loss, expected)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiles_without_graph_breaks(make_sets, device, backend):
    """The op is an ordinary node of the graph."""
    torch._dynamo.reset()
    sets = make_sets(device=device)
    logits = [torch.randn(len(z), 7, device=device) for z in sets.leaves]
    loss_fn = fastccsa.WeightedCCSALoss(pair_weight=sets.weight, margin=12.0, pairs="all").to(device)

    def step(z1, z2):
        terms = loss_fn.terms(*logits, z1.tanh(), z2, sets.y1, sets.y2)
        return terms.loss + 0.1 * terms.alignment + loss_fn(*logits, z1, z2 * 2, sets.y1, sets.y2)

    compiled, eager = torch.compile(step, fullgraph=True, backend=backend)(*sets.leaves), step(*sets.leaves)
    torch.testing.assert_close(compiled, eager)
    gradients = torch.autograd.grad(compiled, sets.leaves)
    for a, b in zip(gradients, torch.autograd.grad(eager, sets.leaves), strict=True):
        torch.testing.assert_close(a, b)


def test_compiles_once_for_all_sizes(make_sets, device):
    torch._dynamo.reset()
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")

    @torch.compile(backend=counter, fullgraph=True, dynamic=True)
    def step(z1, z2, y1, y2, weight):
        return functional.contrastive_alignment(z1, z2, y1, y2, weight, 12.0, "all")

    for rows in ((20, 30), (31, 17), (64, 8), (5, 90)):
        sets = make_sets(*rows, device=device)
        loss = step(*sets.leaves, sets.y1, sets.y2, sets.weight)
        torch.testing.assert_close(loss, sets.loss())
        torch.autograd.grad(loss, sets.leaves)
    assert counter.frame_count == 1


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_with_mixed_sides(make_sets, device, dtype):
    """Under autocast, one side may be in half precision; products are computed in float32."""
    sets = make_sets(device=device)
    arguments = (sets.y1, sets.y2, sets.weight, 12.0, "all")
    with torch.autocast(device, dtype=dtype):
        mixed = functional.contrastive_alignment(sets.z1.to(dtype), sets.z2, *arguments)
    expected = functional.contrastive_alignment(sets.z1.to(dtype).float(), sets.z2, *arguments)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, expected)


MEMORY = """
import resource, torch
from fastccsa import functional
torch.manual_seed(0)
z1, z2 = (torch.randn(8192, 32).requires_grad_() for _ in "12")
y1, y2 = (torch.randint(7, (8192,)) for _ in "12")
small = functional.contrastive_alignment(z1[:2048], z2[:3000], y1[:2048], y2[:3000], margin=8.0, pairs="all")
small.backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
functional.contrastive_alignment(z1, z2, y1, y2, margin=8.0, pairs="all").backward()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_memory_is_far_below_the_matrix_of_pairs():
    """The matrix would take 256 MiB, and its gradient another 256 MiB."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 48


def test_more_pairs_than_fit_into_32_bits(device):
    """There are 5 x 10^9 pairs, almost all of them in blocks that are beyond the margin."""
    z2 = torch.full((1_000_000, 1), 100.0, device=device)
    z2[-2:, 0] = 0.5
    z1 = torch.zeros(5000, 1, device=device, requires_grad=True)
    y1 = torch.zeros(5000, dtype=torch.int64, device=device)
    y2 = torch.ones(1_000_000, dtype=torch.int64, device=device)
    loss = functional.contrastive_alignment(z1, z2, y1, y2, margin=1.0, pairs="all", reduction="sum")
    assert loss.item() == pytest.approx(5000 * 2 * 0.25, rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, z1)
    torch.testing.assert_close(gradient, torch.full_like(gradient, 2 * 2 * 0.5))


WRONG = [
    ("z2", lambda x: x[:, 1:], r"features2 has shape \[53, 64\], but dimension 1 must be 65 \(the width"),
    ("z1", lambda x: x[0], r"features1 must have 2 dimensions, but its shape is \[65\]"),
    ("z1", lambda x: x.long(), "features1 must be float64, float32, bfloat16 or float16, but it is int64"),
    ("z2", lambda x: x.double(), "features2 must be float32, but it is float64"),
    ("y1", lambda x: x.int(), "target1 must be int64, but it is int32"),
    ("y2", lambda x: x[1:], r"target2 has shape \[52\], but dimension 0 must be 53 \(one label per row of features2\)"),
    ("pair_weight", lambda x: x[:, 1:], r"pair_weight has shape \[7, 6\], but dimension 1 must be 7"),
]
WRONG_VALUES = [
    ("y1", lambda x: torch.full_like(x, 7), r"target1\[0\] is 7, but labels must be in \[0, 7\)"),
    ("y2", lambda x: torch.full_like(x, -1), r"target2\[0\] is -1, but labels must be in \[0, 7\)"),
    ("pair_weight", lambda x: -x - 1, r"pair_weight\[0, 0\] is -1\.\d+; weights must be 0 or more, and finite"),
    ("pair_weight", lambda x: x / 0, r"pair_weight\[0, 0\] is inf; weights must be 0 or more, and finite"),
]


def call_with(sets, name, change):
    names = ("z1", "z2", "y1", "y2", "pair_weight")
    arguments = dict(zip(names, (*sets.leaves, sets.y1, sets.y2, sets.weight), strict=True))
    arguments[name] = change(arguments[name].detach())
    return functional.contrastive_alignment(**arguments, pairs="all")


@pytest.mark.parametrize(("name", "change", "message"), WRONG)
def test_bad_input(make_sets, device, name, change, message):
    with pytest.raises(RuntimeError, match=message):
        call_with(make_sets(device=device), name, change)


@pytest.mark.parametrize(("name", "change", "message"), WRONG_VALUES)
def test_bad_values(make_sets, device, request, name, change, message):
    sets = make_sets(device=device)
    if request.node.callspec.params["device"] in ("cuda", "cuda in tiles"):
        pytest.skip("there is no host sync: see test_on_cuda.py")
    expected = fastccsa.InputError if name == "pair_weight" else RuntimeError
    with pytest.raises(expected, match=message):
        call_with(sets, name, change)


def test_labels_beyond_the_logits(make_sets):
    sets = make_sets(10, 12)
    logits = [torch.zeros(n, 5) for n in (10, 12)]
    with pytest.raises(RuntimeError, match=r"target\d\[\d+\] is [56], but labels must be in \[0, 5\)"):
        functional.weighted_ccsa_loss(*logits, *sets.leaves, sets.y1, sets.y2, pairs="all")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pairs": "all", "reduction": "none"}, r"a matrix of N1 x N2 values; choose 'mean' or 'sum'"),
        ({"pairs": "all", "precision": "half"}, "precision is 'half'; choose one of 'ieee', 'bf16x3', 'tf32'"),
        ({"pairs": "all", "precision": "tf32x3"}, "precision 'tf32x3' no longer exists; choose 'ieee'"),
        ({"precision": "tf32"}, "precision 'tf32' concerns the matrix products of pairs='all'"),
    ],
)
def test_incompatible_options(make_sets, arguments, message):
    with pytest.raises(fastccsa.InputError, match=message):
        fastccsa.WeightedCCSALoss(**arguments)
    sets = make_sets()
    with pytest.raises(fastccsa.InputError, match=message):
        functional.contrastive_alignment(*sets.leaves, sets.y1, sets.y2, **arguments)
