"""The fast selection beside the naive one: the same channels, losses and weights."""

from __future__ import annotations

import copy
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fastccsa.pruning.discrimination import Discrimination
from fastccsa.pruning.gram import accumulate
from fastccsa.pruning.resnet import (
    AuxiliaryHead,
    after_layer,
    block_of,
    block_width,
    convolution,
    layer_inputs,
    prunable_layers,
    run_blocks,
    run_stem,
    stages_of,
)
from fastccsa.pruning.select import Selection, joint_losses

_SPEC = importlib.util.spec_from_file_location("naive", Path(__file__).with_name("naive.py"))
naive = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(naive)


def make_problem(model, number: int, images: int = 12):
    """The parts of selecting in layer ``number``, and its loss as a function of a model and images."""
    torch.manual_seed(1)
    layer = prunable_layers(model)[number]
    stage = next(stage for stage in stages_of(model, None) if layer in stage.layers)
    head = None if stage.is_last else AuxiliaryHead(block_width(block_of(model, stage.end)), 3).eval()
    pixels, labels = torch.randn(images, 3, 32, 32), torch.arange(images) % 3

    def loss(network, images):
        if head is None:
            return F.cross_entropy(network(images)[0], labels[: len(images)])
        outputs = run_blocks(network, run_stem(network, images), 0, stage.end + 1)
        return F.cross_entropy(head.to(images.dtype)(outputs)[0], labels[: len(images)])

    baseline = copy.deepcopy(model)
    with torch.no_grad():  # what was pruned before has moved the inputs of the layer
        convolution(model, prunable_layers(model)[0]).weight.mul_(0.9)
    return layer, stage, head, pixels, labels, loss, baseline


def select_fast(model, layer, stage, head, pixels, labels, baseline, **options):
    conv, base = convolution(model, layer), convolution(baseline, layer)
    with torch.no_grad():
        mine, theirs = (run_blocks(network, run_stem(network, pixels), 0, layer.block) for network in (model, baseline))
        inputs, outputs = layer_inputs(model, layer, mine), base(layer_inputs(baseline, layer, theirs))
    gram = accumulate(conv, [(inputs[:5], outputs[:5]), (inputs[5:], outputs[5:])])
    rest = after_layer(model, layer, stage, None if head is None else head.float())
    discrimination = Discrimination(conv, inputs, mine, rest, lambda logits, features: F.cross_entropy(logits, labels))
    return Selection(gram, conv, discrimination, **options)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize("loss_weight", [0.0, 1.0])
def test_both_choose_the_same_channels_in_the_same_order(model, number, loss_weight) -> None:
    layer, stage, head, pixels, labels, loss, baseline = make_problem(model, number)
    steps = min(16, convolution(model, layer).in_channels)
    order, losses, weight = naive.select(
        model, baseline, f"backbone.{layer.name}", pixels, pixels, loss, loss_weight, steps
    )
    selection = select_fast(
        model, layer, stage, head, pixels, labels, baseline, loss_weight=loss_weight, steps=steps, refreshes=32
    )
    path = selection.walk()
    assert list(path.order) == order
    np.testing.assert_allclose(path.losses, losses, rtol=1e-4, atol=1e-6)
    kept = sorted(order)
    torch.testing.assert_close(selection.weight(steps), weight[:, kept].float(), rtol=1e-2, atol=1e-2)


def test_the_default_renews_the_gradient_often_enough_for_a_wide_layer(model) -> None:
    """The last layer has 32 channels, twice as many as there are refreshes."""
    layer, stage, head, pixels, labels, loss, baseline = make_problem(model, -1)
    order, *_ = naive.select(model, baseline, f"backbone.{layer.name}", pixels, pixels, loss, steps=16)
    path = select_fast(model, layer, stage, head, pixels, labels, baseline, steps=16).walk()
    assert len(set(order) & set(path.order)) >= 14


def test_losses_between_two_evaluations_follow_the_reconstruction() -> None:
    found = joint_losses([4.0, 2.0, 1.0, 1.0], {0: 10.0, 2: 7.0, 3: 6.0})
    assert found == pytest.approx([14.0, 2.0 + 8.0, 1.0 + 7.0, 1.0 + 6.0])


def test_dead_channels_are_taken_last(model) -> None:
    layer, stage, head, pixels, labels, _, baseline = make_problem(model, 1)
    for network in (model, baseline):
        norm = block_of(network, layer.block).get_submodule(layer.norm)
        with torch.no_grad():
            norm.weight[[1, 3]] = 0.0
            norm.bias[[1, 3]] = -1.0
    path = select_fast(model, layer, stage, head, pixels, labels, baseline).walk()
    assert set(path.order[-2:]) == {1, 3}
    assert np.isfinite(path.losses).all()
