"""A naive implementation of the selection: every value takes a pass over the data, and nothing is cached."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor

from fastccsa.pruning.factor import RIDGE
from fastccsa.pruning.resnet import run_blocks, run_stem
from fastccsa.pruning.select import STEPS


def select(
    model,
    baseline,
    conv_name: str,
    images: Tensor,
    discrimination_images: Tensor,
    loss,
    loss_weight=1.0,
    steps=None,
    dtype=torch.float64,
    check=None,
    descend=True,
):
    """Choose input channels of a convolution of ``model``: the order, the joint losses, and the last weight.

    ``loss`` maps a model and images to L_S, ``check`` a model to its value on other images. For each channel, the whole
    network is run on all images: for the gradients of both parts of the joint loss by autograd, then for L at every
    step length. The least squares problem on the patches of the chosen channels is solved again each time; without
    ``descend`` its solutions are the weights.
    """
    model, baseline = model.to(dtype), baseline.to(dtype)
    images, discrimination_images = images.to(dtype), discrimination_images.to(dtype)
    conv, base = model.get_submodule(conv_name), baseline.get_submodule(conv_name)
    channels, taps = conv.in_channels, conv.weight[0, 0].numel()
    original = conv.weight.detach().clone()
    order: list[int] = []
    losses: list[float] = []
    slope = torch.zeros_like(original)
    first = 0

    def reconstruction() -> Tensor:
        target, output = _output(baseline, base, images), _output(model, conv, images)
        patches = _patches(model, conv, images)
        squares = patches.square().sum(1).view(channels, taps).mean(1).repeat_interleave(taps)
        ridge = (RIDGE * squares * conv.weight.flatten(1).square()).sum()
        return ((output - target.detach()).square().sum() + ridge) / (2 * output.numel())

    def value_of_loss() -> Tensor:
        return loss_weight * (check(model) if check else loss(model, discrimination_images))

    def gradient(value: Tensor) -> Tensor:
        return torch.autograd.grad(value, conv.weight)[0]

    with torch.no_grad():
        conv.weight.zero_()
    for _ in range(channels if steps is None else steps):
        exact, discrimination = reconstruction(), loss_weight * loss(model, discrimination_images)
        losses.append(float((exact + value_of_loss()).detach()))
        pull = gradient(discrimination)
        norms = (gradient(exact) + pull).square().sum((0, 2, 3))
        norms[order] = -1
        order.append(int(norms.argmax()))
        found, best = float("inf"), 0
        for number in range(first, len(STEPS) if descend else 0):
            tried = torch.lerp(slope, pull, STEPS[number])
            with torch.no_grad():
                conv.weight.copy_(_least_squares(model, conv, baseline, base, images, order, taps, tried))
                value = float(reconstruction() + value_of_loss())
            if value >= found:
                break
            best, found = number, value
        first = max(best - 1, 0)
        if descend:
            slope = torch.lerp(slope, pull, STEPS[best])
        with torch.no_grad():
            conv.weight.copy_(_least_squares(model, conv, baseline, base, images, order, taps, slope))
    with torch.no_grad():
        losses.append(float(reconstruction() + value_of_loss()))
    weight = conv.weight.detach().clone()
    with torch.no_grad():
        conv.weight.copy_(original)
    model.float(), baseline.float()
    return order, losses, weight


def stage_loss(stage, head, labels: Tensor, dtype=torch.float64):
    """Return L_S: the cross-entropy of the stage's head, or of the network's own head, on the given images."""
    head = None if head is None else copy.deepcopy(head).to(dtype)

    def loss(model, images: Tensor) -> Tensor:
        if head is None:
            return F.cross_entropy(model(images)[0], labels[: len(images)])
        outputs = run_blocks(model, run_stem(model, images), 0, stage.end + 1)
        return F.cross_entropy(head(outputs)[0], labels[: len(images)])

    return loss


def _least_squares(model, conv, baseline, base, images, order, taps, slope) -> Tensor:
    """Minimise L_M + <slope, W> over the weights W of the channels in ``order``."""
    entries = torch.tensor([channel * taps + tap for channel in sorted(order) for tap in range(taps)])
    patches = _patches(model, conv, images)[entries]
    target = _output(baseline, base, images).transpose(0, 1).flatten(1)
    squares = patches.square().sum(1).view(-1, taps).mean(1).clamp_min(1e-9).repeat_interleave(taps)
    right = patches @ target.T - target.numel() * slope.flatten(1)[:, entries].T
    solution = torch.linalg.solve(patches @ patches.T + torch.diag(RIDGE * squares), right)
    weight = torch.zeros_like(conv.weight).flatten(1)
    weight[:, entries] = solution.T
    return weight.view_as(conv.weight)


def _watch(model, conv, images: Tensor, which: int) -> Tensor:
    seen = []
    handle = conv.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)[which]))
    model(images)
    handle.remove()
    return seen[0]


def _output(model, conv, images: Tensor) -> Tensor:
    return _watch(model, conv, images, 1)


@torch.no_grad()
def _patches(model, conv, images: Tensor) -> Tensor:
    inputs = _watch(model, conv, images, 0)
    return F.unfold(inputs, conv.kernel_size, conv.dilation, conv.padding, conv.stride).transpose(0, 1).flatten(1)
