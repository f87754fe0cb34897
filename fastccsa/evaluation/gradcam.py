"""Grad-CAM (Selvaraju et al., ICCV 2017): where a convolutional network looked for its answer."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fastccsa.models import Classifier
from fastccsa.system.errors import InputError

# Their last activations with a height and a width are patches or channels-last: Grad-CAM as defined does not fit.
WITHOUT_MAPS = ("vit", "swin", "maxvit")


def grad_cam(model: Classifier, images: Tensor, classes: Tensor) -> Tensor:
    """Weight the last feature maps by how much they speak for a class, each image by itself.

    Args:
        model: a convolutional network, left in evaluation mode.
        images: [N, 3, S, S], normalised, on the model's device.
        classes: int64 [N], the class to explain for each image.

    Returns:
        float32 [N, h, w] in [0, 1], the coarse maps of the last layer that has a height and a width; the
        largest value of a map is 1, or 0 where nothing speaks for the class.

    Raises:
        InputError: no layer has maps of more than one place.
    """
    model.eval()
    layer = _last_map_layer(model, images[:1])
    with torch.enable_grad(), _kept_output(layer) as kept:
        # The maps need a gradient even where no weight does.
        logits, _ = model(images.detach().requires_grad_())
        logits.gather(1, classes[:, None]).sum().backward(inputs=kept)
        maps = kept[0]
    assert maps.grad is not None
    importance = maps.grad.mean(dim=(2, 3), keepdim=True)
    cam = (importance * maps.detach()).sum(dim=1).clamp_min(0).float()
    largest = cam.amax(dim=(1, 2), keepdim=True)
    return torch.where(largest > 0, cam / largest, 0.0)


def _last_map_layer(model: Classifier, image: Tensor) -> nn.Module:
    """The layer that computes, last of all, an output [N, channels, h, w] with more than one place."""
    found: list[nn.Module] = []

    def look(module: nn.Module, _: object, output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2] * output.shape[3] > 1:
            found.append(module)

    handles = [module.register_forward_hook(look) for module in model.backbone.modules()]
    try:
        with torch.no_grad():
            model(image)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise InputError("no layer of the network has feature maps of more than one place: its images are too small")
    return found[-1]


@contextmanager
def _kept_output(layer: nn.Module) -> Iterator[list[Tensor]]:
    """A list into which the layer's next output is put, with its gradient kept."""
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: object, output: Tensor) -> Tensor:
        # A copy, lest an operation in place after the layer (ReLU often is) change what is kept.
        output = output.clone()
        output.retain_grad()
        kept.append(output)
        return output.clone()

    handle = layer.register_forward_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()
