"""Physical removal of channels from a network, with torch-pruning's dependency graph."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from fastccsa.models import Classifier, describe_layer
from fastccsa.pruning.resnet import PrunableLayer, block_of, convolution
from fastccsa.system.extras import require


def require_torch_pruning() -> None:
    """Check that torch-pruning is installed.

    Raises:
        InputError: it is not; the message has the pip command.
    """
    require("torch_pruning")


def keep_channels(model: Classifier, layer: PrunableLayer, kept: Sequence[int], weight: Tensor, size: int) -> None:
    """Keep only the input channels ``kept`` of ``layer``, with the weights ``weight``.

    The filters and the normalisation that compute the other channels are removed too.

    Args:
        model: the network, changed in place.
        layer: the layer.
        kept: channel numbers in ascending order.
        weight: [m, len(kept), kh, kw].
        size: side length of the images in pixels.
    """
    import torch_pruning

    block, conv = block_of(model, layer.block), convolution(model, layer)
    source = block.get_submodule(layer.source)
    removed = sorted(set(range(conv.in_channels)) - set(kept))
    if removed:
        example = torch.zeros(1, 3, size, size, device=conv.weight.device)
        with torch.enable_grad():  # the dependency graph is derived from autograd's
            graph = torch_pruning.DependencyGraph().build_dependency(model.backbone, example_inputs=example)
        graph.get_pruning_group(source, torch_pruning.prune_conv_out_channels, idxs=removed).prune()
    with torch.no_grad():
        conv.weight.copy_(weight)
    if removed:
        names = (layer.source, layer.norm, layer.conv)
        prefix = layer.name.removesuffix(layer.conv)
        model.layers |= {prefix + name: describe_layer(block.get_submodule(name)) for name in names}
