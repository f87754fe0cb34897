"""Bad input to the loss: the error names the argument, the expected value and the given one."""

from __future__ import annotations

import pytest
import torch

import fastccsa
from fastccsa import functional

NAMES = ("logits1", "logits2", "features1", "features2", "target1", "target2")
NAMES += ("class_weight1", "class_weight2", "pair_weight")


def call_with(case, name, change):
    arguments = dict(zip(NAMES, (*case.inputs, *case.targets, *case.weights), strict=True))
    arguments[name] = change(arguments[name].detach())
    return functional.weighted_ccsa_loss(**arguments)


WRONG = [
    ("logits2", lambda x: x[:-1], r"logits2 has shape \[36, 7\], but dimension 0 must be 37 \(one row per pair\)"),
    ("logits2", lambda x: x[:, :5], r"logits2 has shape \[37, 5\], but dimension 1 must be 7"),
    ("logits1", lambda x: x[0], r"logits1 must have 2 dimensions, but its shape is \[7\]"),
    ("logits1", lambda x: x.sum(), r"logits1 must have 2 dimensions, but its shape is \[\]"),
    ("logits1", lambda x: x.long(), "logits1 must be float64, float32, bfloat16 or float16, but it is int64"),
    ("logits2", lambda x: x.double(), "logits2 must be float32, but it is float64"),
    ("features1", lambda x: x[:, :, None], r"features1 must have 2 dimensions, but its shape is \[37, 129, 1\]"),
    ("features1", lambda x: x.to(torch.bfloat16), "features1 must be float32, but it is bfloat16"),
    ("features2", lambda x: x[:, 1:], r"features2 has shape \[37, 128\], but dimension 1 must be 129"),
    ("target1", lambda x: x.int(), "target1 must be int64, but it is int32"),
    ("target1", lambda x: x[:, None], r"target1 must have 1 dimension, but its shape is \[37, 1\]"),
    ("target2", lambda x: x[1:], r"target2 has shape \[36\], but dimension 0 must be 37"),
    ("class_weight1", lambda x: x[1:], r"class_weight1 has shape \[6\], but dimension 0 must be 7"),
    ("class_weight2", lambda x: x[None], r"class_weight2 must have 1 dimension, but its shape is \[1, 7\]"),
    ("pair_weight", lambda x: x[:, 1:], r"pair_weight has shape \[7, 6\], but dimension 1 must be 7"),
]


@pytest.mark.parametrize(("name", "change", "message"), WRONG)
def test_shapes_and_dtypes(make_case, device, name, change, message):
    with pytest.raises(RuntimeError, match=message):
        call_with(make_case(device=device), name, change)


def set_at(index, value):
    def change(tensor):
        tensor = tensor.clone()
        tensor[index] = value
        return tensor

    return change


VALUES = [
    ("target1", set_at(5, 7), r"target1\[5\] is 7, but labels must be in \[0, 7\)"),
    ("target2", set_at(36, -1), r"target2\[36\] is -1, but labels must be in \[0, 7\)"),
    ("class_weight1", set_at(slice(None), -1.0), r"class_weight1\[0\] is -1\.0; weights must be 0 or more, and finite"),
    ("class_weight2", set_at(slice(None), float("nan")), r"class_weight2\[0\] is nan; weights must be 0 or more"),
    ("class_weight2", set_at(slice(None), float("inf")), r"class_weight2\[0\] is inf; weights must be 0 or more"),
    ("pair_weight", set_at(slice(None), -0.5), r"pair_weight\[0, 0\] is -0\.5; weights must be 0 or more, and finite"),
    ("pair_weight", set_at(slice(None), float("inf")), r"pair_weight\[0, 0\] is inf; weights must be 0 or more"),
]


@pytest.mark.parametrize(("name", "change", "message"), VALUES)
def test_values(make_case, name, change, message):
    expected = fastccsa.InputError if "weight" in name else RuntimeError
    with pytest.raises(expected, match=message):
        call_with(make_case(), name, change)


def test_the_first_bad_label_is_named_for_any_number_of_threads(make_case):
    case = make_case(50_000, 3, 2)
    case.targets[0][[123, 456, 40_000]] = 3
    for _ in range(5):
        with pytest.raises(RuntimeError, match=r"target1\[123\] is 3"):
            case.call(functional.weighted_ccsa_loss)


@pytest.mark.cuda
@pytest.mark.parametrize(("name", "change", "message"), VALUES)
def test_values_on_cuda_are_reported_at_the_next_call(make_case, name, change, message):
    case = make_case(device="cuda")
    assert call_with(case, name, change).isnan()
    with pytest.raises(RuntimeError, match="in an earlier call on this GPU"):
        case.call(functional.weighted_ccsa_loss)
    assert case.call(functional.weighted_ccsa_loss).isfinite()


@pytest.mark.cuda
def test_devices_that_differ(make_case):
    case = make_case(device="cuda")
    with pytest.raises(RuntimeError, match="features2 is on cpu, but the other tensors are on cuda:0; move it there"):
        call_with(case, "features2", torch.Tensor.cpu)


def test_alignment_labels_beyond_the_pair_weights():
    z, y = torch.zeros(2, 3), torch.tensor([0, 2])
    with pytest.raises(RuntimeError, match=r"target1\[1\] is 2, but labels must be in \[0, 2\)"):
        functional.contrastive_alignment(z, z, y, y, torch.ones(2, 2))


def test_logits_and_features_of_different_lengths_over_all_pairs(make_case):
    case = make_case()
    logits1, logits2, *features = case.inputs
    message = r"logits2 has shape \[36, 7\], but dimension 0 must be 37 \(one row of logits per row of features2\)"
    with pytest.raises(RuntimeError, match=message):
        functional.weighted_ccsa_loss(logits1, logits2[1:], *features, *case.targets, pairs="all")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"class_weight1": torch.tensor([1.0, -1.0])}, "class_weight1 holds a negative"),
        ({"class_weight2": torch.ones(2, 2)}, r"class_weight2 must have shape \[C\]"),
        ({"pair_weight": torch.ones(2, 3)}, r"pair_weight must have shape \[C, C\], but its shape is \[2, 3\]"),
        ({"pair_weight": torch.full((2, 2), float("inf"))}, "pair_weight holds a negative or non-finite value"),
        ({"margin": -1.0}, "margin is -1.0"),
        ({"margin": float("nan")}, "margin is nan"),
        ({"alpha": 1.5}, "alpha is 1.5"),
        ({"pairs": "some"}, "pairs is 'some'"),
        ({"reduction": "average"}, "reduction is 'average'; choose one of 'none', 'mean', 'sum', 'weighted_mean'"),
    ],
)
def test_module_arguments(arguments, message):
    with pytest.raises(fastccsa.InputError, match=message):
        fastccsa.WeightedCCSALoss(**arguments)


def test_function_arguments(make_case):
    case = make_case()
    with pytest.raises(fastccsa.InputError, match="reduction is 'average'"):
        case.call(functional.weighted_ccsa_loss, "average")
    with pytest.raises(fastccsa.InputError, match="pairs is 'some'"):
        functional.weighted_ccsa_loss(*case.inputs, *case.targets, pairs="some")
    with pytest.raises(fastccsa.InputError, match="weighted_mean"):
        functional.contrastive_alignment(*case.inputs[2:], *case.targets, reduction="weighted_mean")
