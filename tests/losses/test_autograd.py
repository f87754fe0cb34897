"""The fused loss within a user's graph: gradients, compilation, autocast, copies."""

from __future__ import annotations

import copy
import io

import pytest
import torch
import torch._dynamo.testing

import fastccsa
from fastccsa import functional, reference
from fastccsa.ops import zipped


def op_arguments(case, reduction=1):
    return (*case.inputs, *case.targets, *case.weights, case.margin, case.alpha, reduction)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none", "weighted_mean"])
def test_gradcheck(make_case, device, reduction):
    """Finite differences, away from the kinks at distance 0 and at the margin."""
    case = make_case(5, 3, 4, dtype=torch.float64, device=device)

    def terms(*inputs):
        return tuple(
            functional.weighted_ccsa_loss_terms(*inputs, *case.targets, *case.weights, margin=30.0, reduction=reduction)
        )

    assert torch.autograd.gradcheck(terms, case.inputs)


@pytest.mark.parametrize("code", [0, 1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_opcheck(make_case, device, dtype, code):
    """Schema, fake kernel, autograd registration and compilation of the op itself."""
    case = make_case(6, 5, 8, dtype=dtype, device=device)
    torch.library.opcheck(torch.ops.fastccsa.zipped_ccsa.default, op_arguments(case, code))


@pytest.mark.parametrize("absent", [(0, 1), (2, 3), (1, 2, 3)], ids=["features only", "logits only", "one stream"])
def test_opcheck_with_absent_parts(make_case, device, absent):
    case = make_case(6, 5, 8, device=device)
    arguments = [None if k in absent else x for k, x in enumerate(op_arguments(case))]
    torch.library.opcheck(torch.ops.fastccsa.zipped_ccsa.default, tuple(arguments))


def test_opcheck_of_the_backward(make_case, device):
    case = make_case(6, 5, 8, device=device)
    with torch.no_grad():
        loss, terms, saved = torch.ops.fastccsa.zipped_ccsa(*op_arguments(case))
    for wanted in (15, 5, 0):
        arguments = (torch.ones_like(loss), torch.ones_like(terms), saved, *op_arguments(case), wanted)
        detached = tuple(a.detach() if isinstance(a, torch.Tensor) else a for a in arguments)
        torch.library.opcheck(torch.ops.fastccsa.zipped_ccsa_backward.default, detached)


def test_each_term_is_differentiable(make_case, device):
    case = make_case(dtype=torch.float64, device=device)
    for name in fastccsa.CCSATerms._fields:
        mine = getattr(case.call(functional.weighted_ccsa_loss_terms), name)
        true = getattr(case.call(reference.weighted_ccsa_loss_terms), name)
        gradients = torch.autograd.grad(mine, case.inputs)
        expected = torch.autograd.grad(true, case.inputs, allow_unused=True, materialize_grads=True)
        for a, b in zip(gradients, expected, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("wanted", [(0,), (1,), (2,), (3,), (0, 3)])
def test_only_the_gradients_that_are_needed(make_case, device, wanted):
    case = make_case(device=device)
    expected = torch.autograd.grad(case.call(functional.weighted_ccsa_loss), case.inputs)
    inputs = [x.detach().requires_grad_(k in wanted) for k, x in enumerate(case.inputs)]
    functional.weighted_ccsa_loss(
        *inputs, *case.targets, *case.weights, margin=case.margin, alpha=case.alpha
    ).backward()
    for k, x in enumerate(inputs):
        assert (x.grad is not None) == (k in wanted)
        if k in wanted:
            assert torch.equal(x.grad, expected[k])


def test_one_tensor_in_both_streams(make_case, device):
    case = make_case(dtype=torch.float64, device=device)
    z = case.inputs[2]
    mine = functional.contrastive_alignment(z, z.flip(0), *case.targets, margin=12.0)
    true = reference.contrastive_alignment(z, z.flip(0), *case.targets, margin=12.0)
    torch.testing.assert_close(torch.autograd.grad(mine, z), torch.autograd.grad(true, z), rtol=1e-12, atol=1e-14)


def test_graph_kept_and_used_twice(make_case, device):
    case = make_case(device=device)
    loss = case.call(functional.weighted_ccsa_loss)
    first = torch.autograd.grad(loss, case.inputs, retain_graph=True)
    second = torch.autograd.grad(loss, case.inputs)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(loss, case.inputs)


@pytest.fixture
def gradients_are_left(monkeypatch, device):
    """Let the forward pass leave the gradients of the features: in large batches on CUDA, and here in small ones too.

    Returns a list with an entry for each of its calls. The CPU has no such op, so these tests compose it of others.
    """
    calls = []
    if device == "cpu":

        def forward_and_gradients(*args):
            *inputs, mask = args
            loss, terms, saved = zipped._forward(*inputs)
            _, _, *left = zipped._backward(torch.ones_like(loss), None, saved, *inputs, mask << 2)
            return loss, terms, saved, *left

        def finish(gradient1, gradient2, grad_loss, saved, *args):
            *inputs, mask = args
            left = [gradient1, gradient2]
            mask |= sum(4 << k for k, gradient in enumerate(left) if gradient is not None)
            *of_logits, first, second = zipped._backward(grad_loss, None, saved, *inputs, mask)
            if grad_loss != 1:
                for gradient, new in zip(left, (first, second), strict=True):
                    _ = gradient if gradient is None else gradient.copy_(new)
            return of_logits

        monkeypatch.setattr(zipped, "_finish", finish)
        monkeypatch.setattr(zipped, "_leaves_gradients", lambda inputs: True)
    else:
        forward_and_gradients = zipped._forward_and_gradients
        monkeypatch.setattr(zipped, "LEAVE_GRADIENTS_FROM", 600)
    monkeypatch.setattr(
        zipped, "_forward_and_gradients", lambda *args: (calls.append(args[-1]), forward_and_gradients(*args))[1]
    )
    return calls


def ordinary(case, upstream, reduction, which=slice(None)):
    """Compute the gradients with a forward pass that leaves none."""
    outputs = zipped._Zipped.apply(*op_arguments(case, zipped.REDUCTIONS[reduction]))[:2]
    total = sum((o * u).sum() for o, u in zip(outputs, upstream, strict=True) if u is not None)
    return torch.autograd.grad(total, case.inputs[which])


@pytest.mark.parametrize("reduction", ["mean", "sum", "weighted_mean"])
@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_gradients_left_by_the_forward_pass(make_case, device, gradients_are_left, reduction, factor):
    """They have the same bits for any upstream gradient, and for a second pass, whoever changed the first results."""
    case = make_case(700, width=64, device=device)
    upstream = torch.tensor(factor, device=device)
    expected = ordinary(case, (upstream, None), reduction)
    loss = case.call(functional.weighted_ccsa_loss, reduction)
    for again in (True, False):
        gradients = torch.autograd.grad(loss, case.inputs, upstream, retain_graph=again)
        assert all(torch.equal(a, b) for a, b in zip(gradients, expected, strict=True))
        for gradient in gradients:
            gradient.zero_()
    assert gradients_are_left == [3]
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        torch.autograd.grad(loss, case.inputs)


@pytest.mark.parametrize("wanted", [(0,), (2,), (3,), (0, 3)])
def test_only_some_of_the_gradients_left_by_the_forward_pass(make_case, device, gradients_are_left, wanted):
    case = make_case(700, width=64, device=device)
    expected = ordinary(case, (torch.ones((), device=device), None), "mean")
    loss = case.call(functional.weighted_ccsa_loss)
    gradients = torch.autograd.grad(loss, [case.inputs[k] for k in wanted], retain_graph=True)
    assert all(torch.equal(g, expected[k]) for g, k in zip(gradients, wanted, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(torch.autograd.grad(loss, case.inputs), expected, strict=True))
    inputs = [x.detach().requires_grad_(k in wanted) for k, x in enumerate(case.inputs)]
    loss = functional.weighted_ccsa_loss(*inputs, *case.targets, *case.weights, margin=case.margin, alpha=case.alpha)
    loss.backward()
    for k, x in enumerate(inputs):
        assert torch.equal(x.grad, expected[k]) if k in wanted else x.grad is None


def test_gradients_of_terms_where_the_forward_pass_left_others(make_case, device, gradients_are_left):
    case = make_case(700, width=64, device=device)
    factors = torch.tensor([0.5, 2.0, 0.25, 3.0], device=device)
    terms = case.call(functional.weighted_ccsa_loss_terms)
    total = terms.loss + sum(f * t for f, t in zip(factors, terms[1:], strict=True))
    expected = ordinary(case, (torch.ones((), device=device), factors), "mean")
    for a, b in zip(torch.autograd.grad(total, case.inputs), expected, strict=True):
        torch.testing.assert_close(a, b)
    assert gradients_are_left == [3]


def test_second_derivative_and_changed_inputs_where_gradients_were_left(make_case, device, gradients_are_left):
    case = make_case(700, width=64, device=device)
    with pytest.raises(RuntimeError, match=r"fastccsa\.reference"):
        torch.autograd.grad(case.call(functional.weighted_ccsa_loss), case.inputs, create_graph=True)
    copies = [x.clone() for x in case.inputs]
    loss = functional.weighted_ccsa_loss(*copies, *case.targets, *case.weights)
    with torch.no_grad():
        copies[2].add_(0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    assert gradients_are_left == [3, 3]


@pytest.mark.cuda
def test_large_batches_leave_gradients_only_where_they_are_used(make_case, monkeypatch):
    """Not without a gradient of the features, without a reduction, or where no graph is built."""
    monkeypatch.setattr(zipped, "LEAVE_GRADIENTS_FROM", 600)
    case = make_case(700, width=64, device="cuda")
    inputs = op_arguments(case)
    assert zipped._leaves_gradients(inputs)
    assert not zipped._leaves_gradients((*inputs[:-1], zipped.REDUCTIONS["none"]))
    assert not zipped._leaves_gradients((*inputs[:2], inputs[2].detach(), inputs[3].detach(), *inputs[4:]))
    with torch.no_grad():
        assert not zipped._leaves_gradients(inputs)
    monkeypatch.setattr(zipped, "LEAVE_GRADIENTS_FROM", 701)
    assert not zipped._leaves_gradients(inputs)


@pytest.mark.parametrize("changed", range(6))
def test_in_place_change_between_forward_and_backward_is_caught(make_case, device, changed):
    case = make_case(device=device)
    copies = [x.clone() for x in (*case.inputs, *case.targets)]
    loss = functional.weighted_ccsa_loss(*copies, *case.weights)
    with torch.no_grad():
        copies[changed].add_(0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_second_derivative_names_the_reference(make_case, device):
    case = make_case(device=device)
    with pytest.raises(RuntimeError, match=r"fastccsa\.reference"):
        torch.autograd.grad(case.call(functional.weighted_ccsa_loss), case.inputs, create_graph=True)


def test_reference_has_second_derivatives(make_case):
    case = make_case(3, 2, 3, dtype=torch.float64)

    def loss(*inputs):
        return reference.weighted_ccsa_loss(*inputs, *case.targets, *case.weights, margin=30.0)

    assert torch.autograd.gradgradcheck(loss, case.inputs)


def test_compiles_whole_and_once_for_all_batch_sizes(make_case, device):
    """There is no graph break, and no recompilation over ten batch sizes with dynamic shapes."""
    torch._dynamo.reset()
    loss_fn = fastccsa.WeightedCCSALoss(*make_case().weights, margin=12.0).to(device)
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(loss_fn, backend=counter, fullgraph=True, dynamic=True)
    compilations = set()
    for pairs in (32, 7, 64, 2, 100, 33, 18, 51, 12, 5):
        case = make_case(pairs, device=device)
        gradients = torch.autograd.grad(compiled(*case.inputs, *case.targets), case.inputs)
        expected = torch.autograd.grad(loss_fn(*case.inputs, *case.targets), case.inputs)
        for a, b in zip(gradients, expected, strict=True):
            torch.testing.assert_close(a, b)
        compilations.add(counter.frame_count)
    assert len(compilations) == 1  # all at the first call


def test_compiles_with_inductor_among_other_operations(make_case, device):
    torch._dynamo.reset()
    case = make_case(device=device)
    loss_fn = fastccsa.WeightedCCSALoss(*(w.to(device) for w in case.weights), margin=12.0)

    def step(l1, l2, z1, z2, y1, y2):
        terms = loss_fn.terms(l1 * 2, l2, z1.relu(), z2, y1, y2)
        return terms.loss + 0.1 * terms.alignment

    arguments = (*case.inputs, *case.targets)
    compiled = torch.compile(step, fullgraph=True)(*arguments)
    torch.testing.assert_close(compiled, step(*arguments))
    gradients = torch.autograd.grad(compiled, case.inputs)
    for a, b in zip(gradients, torch.autograd.grad(step(*arguments), case.inputs), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_with_mixed_streams(make_case, device, dtype):
    """Under autocast one stream may be in half precision and the other in single."""
    case = make_case(device=device)
    l1, l2, z1, z2 = case.inputs
    with torch.autocast(device, dtype=dtype):
        mixed = functional.weighted_ccsa_loss(l1.to(dtype), l2, z1.to(dtype), z2, *case.targets, *case.weights)
        half = functional.weighted_ccsa_loss(*(x.to(dtype) for x in case.inputs), *case.targets, *case.weights)
    expected = functional.weighted_ccsa_loss(
        l1.to(dtype).float(), l2, z1.to(dtype).float(), z2, *case.targets, *case.weights
    )
    assert mixed.dtype == half.dtype == torch.float32
    assert torch.equal(mixed, expected)
    gradients = torch.autograd.grad(mixed, case.inputs)
    for a, b in zip(gradients, torch.autograd.grad(expected, case.inputs), strict=True):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=torch.finfo(dtype).eps, atol=1e-6)


def test_autocast_is_part_of_a_compiled_step(make_case):
    torch._dynamo.reset()
    case = make_case()
    layer = torch.nn.Linear(129, 129)

    def step():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z1, z2 = layer(case.inputs[2]), case.inputs[3]
            return functional.weighted_ccsa_loss(*case.inputs[:2], z1, z2, *case.targets, *case.weights)

    torch.testing.assert_close(torch.compile(step, fullgraph=True, backend="aot_eager")(), step(), rtol=1e-2, atol=1e-2)


def test_inference_mode_and_no_grad(make_case, device):
    case = make_case(device=device)
    expected = case.call(functional.weighted_ccsa_loss)
    for context in (torch.no_grad(), torch.inference_mode()):
        with context:
            loss = case.call(functional.weighted_ccsa_loss)
        assert not loss.requires_grad
        assert torch.equal(loss, expected)


def test_module_moves_saves_and_copies(make_case, device):
    case = make_case(device=device)
    loss_fn = fastccsa.WeightedCCSALoss(*(w.cpu() for w in case.weights), margin=12.0).to(device)
    expected = loss_fn(*case.inputs, *case.targets)
    stored = io.BytesIO()
    torch.save(loss_fn.state_dict(), stored)
    stored.seek(0)
    other = fastccsa.WeightedCCSALoss(torch.ones(7), torch.ones(7), torch.ones(7, 7), margin=12.0).to(device)
    other.load_state_dict(torch.load(stored, weights_only=True))
    for same in (other, copy.deepcopy(loss_fn)):
        assert torch.equal(same(*case.inputs, *case.targets), expected)
    assert torch.equal(loss_fn.terms(*case.inputs, *case.targets).loss, expected)
    assert "margin=12" in repr(loss_fn)
    assert "pair_weight" in repr(loss_fn)


@pytest.mark.cuda
def test_cuda_graph(make_case):
    """Forward and backward can be captured, and replays see new values."""
    case = make_case(device="cuda")
    loss_fn = fastccsa.WeightedCCSALoss(*case.weights, margin=12.0).cuda()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            torch.autograd.grad(loss_fn(*case.inputs, *case.targets), case.inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = torch.autograd.grad(loss_fn(*case.inputs, *case.targets), case.inputs)
    with torch.no_grad():
        case.inputs[2].mul_(1.5)
    graph.replay()
    for a, b in zip(captured, torch.autograd.grad(loss_fn(*case.inputs, *case.targets), case.inputs), strict=True):
        assert torch.equal(a, b)


@pytest.mark.cuda
def test_no_synchronisation(make_case):
    case = make_case(device="cuda")
    loss_fn = fastccsa.WeightedCCSALoss(*case.weights, margin=12.0).cuda()
    loss_fn(*case.inputs, *case.targets).backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss_fn(*case.inputs, *case.targets).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
