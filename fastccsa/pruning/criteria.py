"""Other criteria to rank a layer's input channels, for comparison with the joint gradient at the same budget."""

from __future__ import annotations

import zlib

import numpy as np
import torch
from torch import nn

from fastccsa.models import Classifier
from fastccsa.pruning.discrimination import Discrimination
from fastccsa.pruning.resnet import PrunableLayer, block_of, convolution


def rank_channels(
    criterion: str,
    model: Classifier,
    layer: PrunableLayer,
    discrimination: Discrimination,
    seed: int,
) -> list[int] | None:
    """Rank the input channels of ``layer``, most important first; None for dcp, which ranks during the selection.

    magnitude is the L1 norm of the filter that computes the channel (Li et al., ICLR 2017), taylor the first-order
    change of the discrimination loss without it (Molchanov et al., ICLR 2017), random a seeded permutation.
    """
    if criterion == "dcp":
        return None
    conv = convolution(model, layer)
    if criterion == "random":
        generator = np.random.default_rng([seed, zlib.crc32(layer.name.encode())])
        return [int(channel) for channel in generator.permutation(conv.in_channels)]
    if criterion == "magnitude":
        source = block_of(model, layer.block).get_submodule(layer.source)
        assert isinstance(source, nn.Conv2d)
        importance = source.weight.detach().abs().sum((1, 2, 3))
    else:
        importance = discrimination.channel_sensitivity(conv.weight.detach())
    return [int(channel) for channel in torch.argsort(importance, descending=True, stable=True)]
