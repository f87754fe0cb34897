"""The selection as one would write it first: passes over the data for everything, nothing cached, nothing clever."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastccsa.pruning.factor import RIDGE


def select(
    model, baseline, conv_name: str, images: Tensor, discrimination_images: Tensor, loss, loss_weight=1.0, steps=None
):
    """Choose input channels of a convolution of ``model``: the order, the joint losses, and the last weight.

    ``loss`` maps a model and images to L_S. Each step runs the whole network on all images for the gradient of the
    joint loss by autograd, and solves the least squares on the kept channels' patches anew. Everything is float64.
    """
    model, baseline = model.double(), baseline.double()
    images, discrimination_images = images.double(), discrimination_images.double()
    conv, base = model.get_submodule(conv_name), baseline.get_submodule(conv_name)
    channels, taps = conv.in_channels, conv.weight[0, 0].numel()
    original = conv.weight.detach().clone()
    order: list[int] = []
    losses: list[float] = []

    def joint_loss() -> Tensor:
        target, output = _output(baseline, base, images), _output(model, conv, images)
        reconstruction = (output - target.detach()).square().sum() / (2 * output.numel())
        return reconstruction + loss_weight * loss(model, discrimination_images)

    def ridge_loss() -> float:
        inputs = _patches(model, conv, images)
        squares = inputs.square().sum(1).view(channels, taps).mean(1)
        ridge = (RIDGE * squares.repeat_interleave(taps) * conv.weight.flatten(1).square()).sum()
        return float(ridge) / (2 * _output(model, conv, images).numel())

    with torch.no_grad():
        conv.weight.zero_()
    for _ in range(channels if steps is None else steps):
        model.zero_grad()
        value = joint_loss()
        value.backward()
        losses.append(float(value.detach()) + ridge_loss())
        norms = conv.weight.grad.square().sum((0, 2, 3))
        norms[order] = -1
        order.append(int(norms.argmax()))
        with torch.no_grad():
            conv.weight.copy_(_least_squares(model, conv, baseline, base, images, order, taps))
    losses.append(float(joint_loss().detach()) + ridge_loss())
    weight = conv.weight.detach().clone()
    with torch.no_grad():
        conv.weight.copy_(original)
    model.float(), baseline.float()
    return order, losses, weight


def _least_squares(model, conv, baseline, base, images, order, taps) -> Tensor:
    entries = torch.tensor([channel * taps + tap for channel in sorted(order) for tap in range(taps)])
    patches = _patches(model, conv, images)[entries]
    target = _output(baseline, base, images).transpose(0, 1).flatten(1)
    squares = patches.square().sum(1).view(-1, taps).mean(1).clamp_min(1e-9).repeat_interleave(taps)
    solution = torch.linalg.solve(patches @ patches.T + torch.diag(RIDGE * squares), patches @ target.T)
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
