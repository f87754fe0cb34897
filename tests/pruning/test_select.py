"""The fast selection compared with the naive one: the same channels, losses and weights."""

from __future__ import annotations

import copy
import importlib.util
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fastccsa.pruning.discrimination import Discrimination
from fastccsa.pruning.layer import BlockInputs, discrimination_of, gram_of
from fastccsa.pruning.resnet import AuxiliaryHead, block_of, block_width, convolution, prunable_layers, stages_of
from fastccsa.pruning.select import Selection, joint_losses
from fastccsa.pruning.state import PruneState
from fastccsa.pruning.subset import Part

_SPEC = importlib.util.spec_from_file_location("naive", Path(__file__).with_name("naive.py"))
naive = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(naive)


def make_problem(model, number: int, images: int = 18):
    """Return what the selection in layer ``number`` needs; L_S is the cross-entropy of the stage's head."""
    torch.manual_seed(1)
    layer = prunable_layers(model)[number]
    stage = next(stage for stage in stages_of(model, None) if layer in stage.layers)
    head = None if stage.is_last else AuxiliaryHead(block_width(block_of(model, stage.end)), 3).eval()
    state = PruneState(model, copy.deepcopy(model), head, 0)
    with torch.no_grad():  # earlier pruning has changed the inputs of the layer
        convolution(model, prunable_layers(model)[0]).weight.mul_(0.9)
    return state, stage, layer, torch.randn(images, 3, 32, 32), torch.arange(images) % 3


def select_fast(state, stage, layer, pixels, labels, cuts=(0, None), **options) -> Selection:
    """L_S uses the images between the first two of ``cuts``; its value uses those up to the third, if there is one."""
    with torch.no_grad():
        inputs = BlockInputs(state.model, state.baseline, pixels)
        inputs.go_to(layer.block)

    def loss_of(begin: int, end: int) -> Discrimination:
        part = Part(begin, end, lambda logits, features: F.cross_entropy(logits, labels[begin:end]))
        return discrimination_of(state, stage, layer, inputs, part)

    parts = [loss_of(begin, end or len(pixels)) for begin, end in pairwise(cuts)]
    return Selection(gram_of(state, layer, inputs), convolution(state.model, layer), *parts, **options)


def select_naively(state, stage, layer, pixels, labels, few=None, **options):
    loss = naive.stage_loss(stage, state.head, labels)
    name = f"backbone.{layer.name}"
    return naive.select(state.model, state.baseline, name, pixels, pixels[:few], loss, **options)


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize(("loss_weight", "descend"), [(0.0, True), (1.0, True), (1.0, False)])
def test_both_algorithms_choose_the_same_channels_in_the_same_order(model, number, loss_weight, descend) -> None:
    problem = make_problem(model, number)
    steps = min(6, convolution(model, problem[2]).in_channels)
    options = {"loss_weight": loss_weight, "steps": steps, "descend": descend}
    order, losses, weight = select_naively(*problem, **options)
    selection = select_fast(*problem, **options, growth=1)
    path = selection.walk()
    assert list(path.order) == order
    np.testing.assert_allclose(path.losses, losses, rtol=1e-4, atol=1e-6)
    kept = sorted(order)
    torch.testing.assert_close(selection.weight(steps), weight[:, kept].float(), rtol=1e-2, atol=1e-2)


def test_both_algorithms_evaluate_the_loss_on_images_that_the_gradient_does_not_use(model) -> None:
    problem = make_problem(model, -1)
    state, stage, _, pixels, labels = problem
    unseen = naive.stage_loss(stage, state.head, labels[10:])
    check = lambda network: unseen(network, pixels[10:].double())  # noqa: E731
    order, losses, _ = select_naively(*problem, few=10, steps=6, check=check)
    path = select_fast(*problem, cuts=(0, 10, None), steps=6, growth=1).walk()
    assert list(path.order) == order
    np.testing.assert_allclose(path.losses, losses, rtol=1e-4, atol=1e-6)


class Tilt:
    """A loss that is proportional to the sum of the weights."""

    def __init__(self, slope: float) -> None:
        self._slope = slope

    def loss(self, weight: torch.Tensor) -> float:
        return self._slope * float(weight.sum())

    def gradient(self, weight: torch.Tensor) -> tuple[float, torch.Tensor]:
        return self.loss(weight), torch.full_like(weight, self._slope)


@pytest.mark.parametrize(("other", "moves"), [(1.0, True), (-1.0, False)])
def test_weights_follow_a_gradient_only_if_other_images_benefit_too(model, other, moves) -> None:
    state, _, layer, pixels, _ = make_problem(model, 1)
    with torch.no_grad():
        inputs = BlockInputs(state.model, state.baseline, pixels)
        inputs.go_to(layer.block)
    gram, conv = gram_of(state, layer, inputs), convolution(model, layer)
    ranking = list(range(conv.in_channels))
    squares = Selection(gram, conv, ranking=ranking)
    tilted = Selection(gram, conv, Tilt(1.0), Tilt(other), ranking=ranking)
    squares.walk(), tilted.walk()
    same = torch.equal(tilted.weight(len(ranking)), squares.weight(len(ranking)))
    assert same is not moves


def test_the_default_updates_the_gradient_often_enough_for_a_wide_layer(model) -> None:
    problem = make_problem(model, -1)
    order, *_ = select_naively(*problem, steps=8)
    path = select_fast(*problem, steps=8).walk()
    assert len(set(order) & set(path.order)) >= 7


def test_losses_between_two_evaluations_fall_in_proportion_to_the_minimised_function() -> None:
    found = joint_losses({0: 14.0, 2: 8.0, 3: 7.0, 5: 7.5}, [2.0, 1.0, 1.0, 0.0, 0.0])
    assert found == pytest.approx([14.0, 10.0, 8.0, 7.0, 7.25, 7.5])


def test_the_loss_only_takes_part_in_the_choice_if_the_weights_do_not_descend(model) -> None:
    problem = make_problem(model, -1)
    chosen = select_fast(*problem, steps=6, descend=False)
    order = chosen.walk().order
    assert order != select_fast(*problem, steps=6, loss_weight=0).walk().order
    squares, joint = (select_fast(*problem, steps=6, ranking=order, loss_weight=weight) for weight in (0, 1))
    squares.walk(), joint.walk()
    torch.testing.assert_close(chosen.weight(6), squares.weight(6), rtol=0, atol=0)
    assert not torch.allclose(chosen.weight(6), joint.weight(6), rtol=1e-3)


def test_dead_channels_are_chosen_last(model) -> None:
    state, stage, layer, pixels, labels = make_problem(model, 1)
    for network in (state.model, state.baseline):
        norm = block_of(network, layer.block).get_submodule(layer.norm)
        with torch.no_grad():
            norm.weight[[1, 3]] = 0.0
            norm.bias[[1, 3]] = -1.0
    path = select_fast(state, stage, layer, pixels, labels).walk()
    assert set(path.order[-2:]) == {1, 3}
    assert np.isfinite(path.losses).all()
