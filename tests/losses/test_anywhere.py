"""The loss where people put it: in models that are copied, saved, halved; with inputs of other dtypes and devices."""

from __future__ import annotations

import copy
import io
import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from torch.autograd import forward_ad

import fastccsa
from fastccsa import functional, reference

PAIRS = ("zipped", "all")


def call(case, pairs, **changes):
    """Call the fused loss with some arguments replaced by functions of them, or by values."""
    names = ("logits1", "logits2", "features1", "features2", "target1", "target2")
    names += ("class_weight1", "class_weight2", "pair_weight")
    arguments = dict(zip(names, (*case.inputs, *case.targets, *case.weights), strict=True))
    arguments |= {"margin": case.margin, "alpha": case.alpha, "pairs": pairs}
    for name, change in changes.items():
        arguments[name] = change(arguments[name]) if callable(change) else change
    return functional.weighted_ccsa_loss(**arguments)


def exact(case, pairs, **changes):
    """Compute the same in float64 by the definition."""
    arguments = (*case.to(torch.float64).inputs, *case.targets, *(w.double() for w in case.weights))
    return reference.weighted_ccsa_loss(
        *arguments, **({"margin": case.margin, "alpha": case.alpha, "pairs": pairs} | changes)
    )


# ---- copies ----


def in_a_file(module):
    stored = io.BytesIO()
    torch.save(module, stored)
    stored.seek(0)
    return torch.load(stored, weights_only=False)


COPIES = {
    "pickle": lambda module: pickle.loads(pickle.dumps(module)),
    "deepcopy": copy.deepcopy,
    "torch.save": in_a_file,
}


@pytest.mark.parametrize("how", COPIES)
def test_a_memory_in_a_model_can_be_copied(how):
    """The copy has the rows of the original, and the two no longer share any."""
    net = torch.nn.Sequential(torch.nn.Linear(2, 2))
    net.memory, net.pairs = fastccsa.FeatureMemory(3, 2), fastccsa.PairMemory(3, 2)
    rows, ones = torch.arange(8.0).reshape(4, 2), torch.ones(4).long()
    for memory in (net.memory, net.pairs.first):
        memory.push(rows, ones, ones)
    other = COPIES[how](net)
    for old, new in ((net.memory, other.memory), (net.pairs.first, other.pairs.first)):
        assert len(new) == 3
        assert sorted(new.features[:, 0].tolist()) == [2, 4, 6]
        new.push(torch.full((1, 2), 9.0), ones[:1], ones[:1])
        assert 9 in new.features
        assert 9 not in old.features
    other.memory.load_state_dict(fastccsa.FeatureMemory(3, 2).state_dict())
    assert (len(other.memory), len(net.memory)) == (0, 3)


@pytest.mark.parametrize("how", COPIES)
@pytest.mark.parametrize("pairs", PAIRS)
def test_the_module_can_be_copied(make_case, how, pairs):
    case = make_case()
    loss_fn = fastccsa.WeightedCCSALoss(*case.weights, margin=case.margin, alpha=case.alpha, pairs=pairs)
    other = COPIES[how](loss_fn)
    assert torch.equal(other(*case.inputs, *case.targets), loss_fn(*case.inputs, *case.targets))


# ---- halved models ----


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("pairs", PAIRS)
def test_a_halved_model_keeps_its_weights(make_case, dtype, pairs):
    """1e5 is beyond float16, and 1 + 2^-12 needs more bits than either half precision has."""
    case = make_case(8, 2, 16, dtype=dtype)
    weights = torch.tensor([[1 + 2**-12, 1e5], [1e5, 1]])
    net = torch.nn.Module()
    net.loss = fastccsa.WeightedCCSALoss(weights[0], weights[0], weights, margin=case.margin, pairs=pairs)
    net.to(dtype)
    assert torch.equal(net.loss.pair_weight, weights)
    assert torch.equal(net.loss.class_weight1, weights[0])
    double = [x.detach().double() for x in (*case.inputs, weights[0], weights[0], weights)]
    true = reference.weighted_ccsa_loss(
        *double[:4], *case.targets, *double[4:], margin=case.margin, alpha=0.5, pairs=pairs
    )
    # Fewer than 2^7 float32 operations lead to each sum of positive terms.
    torch.testing.assert_close(net.loss(*case.inputs, *case.targets).double(), true, rtol=2**-16, atol=0)
    assert net.double().loss.pair_weight.dtype == torch.float64
    assert net.to("meta").loss.pair_weight.is_meta


# ---- dtypes ----


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize(
    ("of_logits", "of_features"),
    [
        p
        for p in itertools.product([torch.float64, torch.float32, torch.bfloat16, torch.float16], repeat=2)
        if p[0] != p[1]
    ],
    ids=str,
)
def test_logits_and_features_of_two_dtypes(make_case, pairs, of_logits, of_features):
    """Outside autocast. Every gradient has the dtype of its input."""
    case = make_case(dtype=torch.float64)
    logits1, logits2, *features = (x.detach() for x in case.inputs)
    inputs = [*(x.to(of_logits) for x in (logits1, logits2)), *(x.to(of_features) for x in features)]
    inputs = [x.requires_grad_() for x in inputs]
    weights = [w.float() for w in case.weights]
    options = {"margin": case.margin, "alpha": case.alpha, "pairs": pairs}
    loss = functional.weighted_ccsa_loss(*inputs, *case.targets, *weights, **options)
    doubles = [x.detach().double().requires_grad_() for x in inputs]
    true = reference.weighted_ccsa_loss(*doubles, *case.targets, *(w.double() for w in weights), **options)
    torch.testing.assert_close(loss.double(), true, rtol=1e-5, atol=0)
    gradients = torch.autograd.grad(loss, inputs)
    for x, mine, expected in zip(inputs, gradients, torch.autograd.grad(true, doubles), strict=True):
        assert mine.dtype == x.dtype
        # Terms in float32 at best: their error is absolute, relative to the largest.
        atol = 1e-5 * expected.abs().max().item() + 2.0**-24 * (x.dtype == torch.float16)
        torch.testing.assert_close(mine.double(), expected, rtol=torch.finfo(x.dtype).eps, atol=atol)


def test_streams_of_two_dtypes_are_named(make_case):
    case = make_case()
    with pytest.raises(RuntimeError, match="logits2 must be float16, but it is float32"):
        call(case, "zipped", logits1=torch.Tensor.half)


def test_weights_follow_promoted_features_under_autocast(make_case):
    case = make_case(dtype=torch.float64)
    with torch.autocast("cpu", torch.bfloat16):
        loss = call(case, "zipped", logits1=torch.Tensor.bfloat16)
    torch.testing.assert_close(loss, exact(case, "zipped"), rtol=2**-7, atol=0)
    assert loss.dtype == torch.float64


# ---- targets ----


@pytest.mark.parametrize("pairs", PAIRS)
def test_labels_that_torch_takes(make_case, pairs):
    """torch.nn.functional.cross_entropy takes int64 and uint8."""
    case = make_case()
    torch.testing.assert_close(call(case, pairs, target1=torch.Tensor.byte), call(case, pairs), rtol=0, atol=0)
    torch.nn.functional.cross_entropy(case.inputs[0], case.targets[0].byte())
    both = functional.contrastive_alignment(*case.inputs[2:], *(y.byte() for y in case.targets), pairs=pairs)
    assert torch.equal(both, functional.contrastive_alignment(*case.inputs[2:], *case.targets, pairs=pairs))
    single = functional.weighted_cross_entropy(case.inputs[0], case.targets[0].byte())
    torch.testing.assert_close(single, torch.nn.functional.cross_entropy(case.inputs[0], case.targets[0]))


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int16, torch.int8, torch.bool, torch.float32], ids=str)
def test_labels_that_torch_refuses(make_case, pairs, dtype):
    case = make_case()
    with pytest.raises(RuntimeError):
        torch.nn.functional.cross_entropy(case.inputs[0].detach(), case.targets[0].to(dtype))
    name = str(dtype).removeprefix("torch.")
    with pytest.raises(RuntimeError, match=rf"target2 must be int64, but it is {name}; pass target2\.long\(\)"):
        call(case, pairs, target2=lambda y: y.to(dtype))


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("convert", [torch.Tensor.tolist, torch.Tensor.numpy], ids=["list", "array"])
def test_labels_that_are_no_tensor(make_case, pairs, convert):
    with pytest.raises(
        RuntimeError, match=r"target1 must be a tensor, but it is \w+; pass torch\.as_tensor\(target1\)"
    ):
        call(make_case(), pairs, target1=convert)


def test_a_memory_takes_labels_of_uint8():
    memory, byte = fastccsa.FeatureMemory(3, 2), torch.tensor([4, 250], dtype=torch.uint8)
    memory.push(torch.zeros(2, 2), byte, byte)
    assert memory.labels.tolist() == [4, 250]


# ---- weights, margin and share ----


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize(
    "convert",
    [
        torch.Tensor.tolist,
        lambda w: w.double().numpy(),
        lambda w: np.flip(np.flip(w.numpy()).copy()),
        lambda w: w.numpy().astype(">f4"),
    ],
    ids=["list", "float64", "negative strides", "big-endian"],
)
def test_weights_that_are_no_tensor(make_case, pairs, convert):
    case = make_case()
    names = ("class_weight1", "class_weight2", "pair_weight")
    loss = call(case, pairs, **dict.fromkeys(names, convert))
    assert torch.equal(loss, call(case, pairs))
    loss_fn = fastccsa.WeightedCCSALoss(*map(convert, case.weights), margin=case.margin, alpha=case.alpha, pairs=pairs)
    torch.testing.assert_close(loss_fn(*case.inputs, *case.targets), loss, rtol=0, atol=0)


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (["a"] * 7, "class_weight1 is list and cannot be read as numbers"),
        ([[1.0], [1.0, 2.0]], "class_weight1 is list and cannot be read as numbers"),
        (torch.ones(7, dtype=torch.complex64), r"class_weight1 is torch.complex64; weights are real"),
    ],
    ids=["words", "ragged", "complex"],
)
def test_weights_that_are_no_numbers(make_case, pairs, weight, message):
    with pytest.raises(fastccsa.InputError, match=message):
        call(make_case(), pairs, class_weight1=weight)
    with pytest.raises(fastccsa.InputError, match=message):
        fastccsa.WeightedCCSALoss(class_weight1=weight)


@pytest.mark.parametrize("name", ["class_weight1", "class_weight2", "pair_weight"])
@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan, -2.0])
@pytest.mark.parametrize("pairs", PAIRS)
def test_one_bad_weight_is_named_by_functions_and_module(make_case, pairs, name, value):
    """The row of class 3, of which the batch has images."""
    case = make_case(200, 7, 4)
    weights = dict(zip(("class_weight1", "class_weight2", "pair_weight"), case.weights, strict=True))
    weights[name] = weights[name].clone()
    weights[name][(3, 5) if name == "pair_weight" else 3] = value
    index = "3, 5" if name == "pair_weight" else "3"
    message = rf"{name}\[{index}\] is {value}; weights must be 0 or more, and finite"
    with pytest.raises(fastccsa.InputError, match=message):
        call(case, pairs, **{name: weights[name]})
    with pytest.raises(fastccsa.InputError, match=message):
        fastccsa.WeightedCCSALoss(**weights)


WRONG_NUMBERS = [
    ({"margin": -1}, r"margin is -1\.0; it is a distance"),
    ({"margin": math.nan}, "margin is nan"),
    ({"margin": math.inf}, "margin is inf"),
    ({"margin": torch.tensor(-2.0)}, r"margin is -2\.0"),
    ({"margin": "3"}, "margin is '3'; it must be one number"),
    ({"margin": torch.ones(2)}, r"margin is tensor\(\[1., 1.\]\); it must be one number"),
    ({"margin": torch.nn.Parameter(torch.tensor(3.0))}, "margin requires a gradient.*fastccsa.reference"),
    ({"alpha": 1.5}, r"alpha is 1\.5; it is a share"),
    ({"alpha": -0.1}, r"alpha is -0\.1"),
    ({"alpha": math.nan}, "alpha is nan"),
    ({"alpha": torch.nn.Parameter(torch.tensor(0.5))}, "alpha requires a gradient.*fastccsa.reference"),
]


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize(("arguments", "message"), WRONG_NUMBERS)
def test_wrong_margin_or_share(make_case, pairs, arguments, message):
    case = make_case()
    with pytest.raises(fastccsa.InputError, match=message):
        call(case, pairs, **arguments)
    with pytest.raises(fastccsa.InputError, match=message):
        fastccsa.WeightedCCSALoss(**arguments)
    if "margin" in arguments:
        with pytest.raises(fastccsa.InputError, match=message):
            functional.contrastive_alignment(*case.inputs[2:], *case.targets, pairs=pairs, **arguments)


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("margin", [12, np.float32(12), np.array(12), torch.tensor(12.0), torch.tensor([12])])
def test_other_numbers_as_a_margin(make_case, pairs, margin):
    case = make_case()
    assert torch.equal(call(case, pairs, margin=margin), call(case, pairs, margin=12.0))
    with torch.no_grad():
        learned = torch.nn.Parameter(torch.tensor(12.0))
        assert torch.equal(call(case, pairs, margin=learned), call(case, pairs, margin=12.0))


def test_the_reference_learns_a_margin(make_case):
    """The message sends people there. The derivative of the separation is 2 w (m - d) for each pair within m."""
    case = make_case(dtype=torch.float64)
    margin = torch.nn.Parameter(torch.tensor(case.margin, dtype=torch.float64))
    z1, z2 = (z.detach() for z in case.inputs[2:])
    (gradient,) = torch.autograd.grad(
        reference.contrastive_alignment(z1, z2, *case.targets, case.weights[2], margin=margin), margin
    )
    y1, y2 = case.targets
    gap = (case.margin - torch.linalg.vector_norm(z1 - z2, dim=1)).clamp(min=0) * (y1 != y2)
    torch.testing.assert_close(gradient, (2 * case.weights[2][y1, y2] * gap).mean())


# ---- torch.func ----

TRANSFORMS = {
    "vmap": lambda f, z: torch.func.vmap(f)(z[None]),
    "grad": lambda f, z: torch.func.grad(f)(z),
    "jvp": lambda f, z: torch.func.jvp(f, (z,), (z,)),
    "jacrev": lambda f, z: torch.func.jacrev(f)(z),
    "hessian": lambda f, z: torch.func.hessian(f)(z),
}


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms_name_the_reference_which_has_them(make_case, pairs, transform):
    case = make_case(5, 3, 4, dtype=torch.float64)
    z, z2 = (x.detach() for x in case.inputs[2:])

    def loss(module):
        return lambda z1: module.contrastive_alignment(z1, z2, *case.targets, margin=case.margin, pairs=pairs)

    with pytest.raises(RuntimeError, match=r"torch\.func's transforms.*fastccsa\.reference"):
        TRANSFORMS[transform](loss(functional), z)
    TRANSFORMS[transform](loss(reference), z)


@pytest.mark.parametrize("pairs", PAIRS)
def test_forward_mode_names_the_reference(make_case, pairs):
    case = make_case()
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(case.inputs[2].detach(), torch.ones_like(case.inputs[2]))
        with pytest.raises(RuntimeError, match=r"forward mode.*fastccsa\.reference"):
            call(case, pairs, features1=dual)


# ---- devices ----

TENSORS = ("logits1", "logits2", "features1", "features2", "target1", "target2")
TENSORS += ("class_weight1", "class_weight2", "pair_weight")


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("pairs", PAIRS)
def test_meta_tensors_give_shapes(make_case, pairs, reduction):
    if (pairs, reduction) == ("all", "none"):
        reduction = "sum"
    case = make_case()
    to_meta = {name: (lambda x: x.detach().to("meta").requires_grad_(x.requires_grad)) for name in TENSORS}
    features = case.inputs[2].detach().to("meta").requires_grad_()
    loss = call(case, pairs, **(to_meta | {"features1": features, "reduction": reduction}))
    assert loss.is_meta
    assert loss.shape == ((37,) if reduction == "none" else ())
    assert loss.dtype == torch.float32
    loss.sum().backward()
    assert features.grad.is_meta
    assert features.grad.shape == features.shape


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("logits2", lambda x: x[1:], r"logits2 has shape \[36, 7\], but dimension 0 must be 37"),
        ("logits1", lambda x: x[0], r"logits1 (must have 2 dimensions|has shape)"),
        ("features2", lambda x: x[:, 1:], r"features2 has shape \[37, 128\], but dimension 1 must be 129"),
        ("target1", lambda x: x[1:], r"target1 has shape \[36\], but dimension 0 must be 37"),
        ("target1", lambda x: x.int(), "target1 must be int64, but it is int32"),
        ("features2", lambda x: x.double(), "features2 must be float32, but it is float64"),
        ("class_weight1", lambda x: x[1:], r"class_weight1 has shape \[6\], but dimension 0 must be 7"),
        ("pair_weight", lambda x: x[1:], r"pair_weight has shape \[6, 7\], but dimension 0 must be 7"),
    ],
)
def test_wrong_meta_tensors_are_named(make_case, pairs, name, change, message):
    to_meta = dict.fromkeys(TENSORS, lambda x: x.detach().to("meta"))
    with pytest.raises(RuntimeError, match=message):
        call(make_case(), pairs, **(to_meta | {name: lambda x: change(x.detach().to("meta"))}))


@pytest.mark.parametrize("pairs", PAIRS)
@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("others", ["cpu", "meta"])
def test_two_devices_are_both_named(make_case, pairs, name, others):
    """As torch's own losses refuse meta tensors among others."""
    case = make_case()
    one = {"cpu": "meta", "meta": "cpu"}[others]
    changes = dict.fromkeys(TENSORS, lambda x: x.detach().to(others))
    changes[name] = lambda x: x.detach().to(one)
    with pytest.raises(RuntimeError, match=r"\w+ is on (cpu|meta), but the other tensors are on (cpu|meta)") as error:
        call(case, pairs, **changes)
    assert {"cpu", "meta"} <= set(str(error.value).replace(",", "").replace(";", "").split())
