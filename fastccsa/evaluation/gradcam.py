"""Grad-CAM (Selvaraju et al., ICCV 2017): which parts of an image a convolutional network bases its answer on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from fastccsa.models import Classifier
from fastccsa.system.errors import InputError

# The last activations of these networks are patches, or have their channels last: Grad-CAM is not defined for them.
WITHOUT_MAPS = ("vit", "swin", "maxvit")


def grad_cam(model: Classifier, images: Tensor, classes: Tensor) -> Tensor:
    """Weight the last feature maps of each image by how much they support a class.

    Args:
        model: a convolutional network; it is set to evaluation mode.
        images: [N, 3, S, S], normalised, on the model's device.
        classes: int64 [N], the class to explain for each image.

    Returns:
        float32 [N, h, w] in [0, 1]: a map with the resolution of the last layer that has a height and a width. The
        maximum of a map is 1, or 0 if nothing supports the class.

    Raises:
        InputError: no layer has maps with more than one position.
    """
    model.eval()
    layer = _last_map_layer(model, images[:1])
    with torch.enable_grad(), _kept_output(layer) as kept:
        # The maps need a gradient even if no weight does.
        logits, _ = model(images.detach().requires_grad_())
        logits.gather(1, classes[:, None]).sum().backward(inputs=kept)
        maps = kept[0]
    assert maps.grad is not None
    importance = maps.grad.mean(dim=(2, 3), keepdim=True)
    cam = (importance * maps.detach()).sum(dim=1).clamp_min(0).float()
    largest = cam.amax(dim=(1, 2), keepdim=True)
    return torch.where(largest > 0, cam / largest, 0.0)


def _last_map_layer(model: Classifier, image: Tensor) -> nn.Module:
    """Return the last layer whose output is [N, channels, h, w] with more than one position."""
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
        raise InputError("no layer of the network has feature maps with more than one position: use larger images")
    return found[-1]


@contextmanager
def _kept_output(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Yield a list that receives the layer's next output, with its gradient retained."""
    kept: list[Tensor] = []

    def keep(_: nn.Module, __: object, output: Tensor) -> Tensor:
        # A copy, because an in-place operation after the layer (often a ReLU) would change the kept output.
        output = output.clone()
        output.retain_grad()
        kept.append(output)
        return output.clone()

    handle = layer.register_forward_hook(keep)
    try:
        yield kept
    finally:
        handle.remove()
