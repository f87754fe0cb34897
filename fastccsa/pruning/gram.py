"""The Gram matrix of a convolution's inputs, which is all that its reconstruction loss needs.

The outputs of a convolution are linear in the patches of its inputs. So with patches x and baseline outputs o

    L_M(W) = 1/(2Q) sum ||o - W x||^2 = 1/(2Q) (sum ||o||^2 - 2 <sum x o', W'> + <W', (sum x x') W'>),

for every W on any set of kept channels. One pass over the data is enough.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PATCH_BYTES = 64 << 20  # memory for the patches that are laid out at a time


@dataclass(frozen=True)
class Gram:
    """Sums over the patches x [p] of a layer's inputs and its baseline outputs o [m]; float64.

    The p entries of a patch are ordered like a convolution's weights: by channel, then by position in the kernel.

    Attributes:
        inputs: sum of x x', [p, p].
        cross: sum of x o', [p, m].
        energy: sum of ||o||^2.
        elements: Q, the number of output elements.
        taps: number of entries of a patch per channel.
    """

    inputs: Tensor
    cross: Tensor
    energy: float
    elements: int
    taps: int

    @property
    def channels(self) -> int:
        """Number of input channels."""
        return len(self.inputs) // self.taps


def accumulate(conv: nn.Conv2d, chunks: Iterable[tuple[Tensor, Tensor]]) -> Gram:
    """Sum over chunks of inputs [n, c, h, w] and baseline outputs [n, m, h', w'] of ``conv``.

    The products for a few images are computed in float32, and added up over all images in float64.
    """
    taps = conv.kernel_size[0] * conv.kernel_size[1]
    size, outputs_width = conv.in_channels * taps, conv.out_channels
    device = conv.weight.device
    inputs_sum = torch.zeros(size, size, dtype=torch.float64, device=device)
    cross = torch.zeros(size, outputs_width, dtype=torch.float64, device=device)
    energy, elements = 0.0, 0
    for inputs, outputs in chunks:
        places = outputs.shape[2] * outputs.shape[3]
        images = max(1, PATCH_BYTES // (4 * size * places))
        for some_inputs, some_outputs in zip(inputs.split(images), outputs.split(images), strict=True):
            patches = patches_of(conv, some_inputs)
            inputs_sum += patches @ patches.T
            cross += patches @ _rows(some_outputs).T
        energy += float(outputs.double().square().sum())
        elements += outputs.numel()
    return Gram(inputs_sum, cross, energy, elements, taps)


def patches_of(conv: nn.Conv2d, inputs: Tensor) -> Tensor:
    """Lay out the patches of ``inputs`` [n, c, h, w] that ``conv`` reads as columns [p, n h' w']."""
    if conv.kernel_size == (1, 1) and conv.stride == (1, 1):
        return _rows(inputs)
    unfolded = F.unfold(inputs, conv.kernel_size, conv.dilation, conv.padding, conv.stride)  # type: ignore[arg-type]
    return unfolded.transpose(0, 1).flatten(1)


def _rows(values: Tensor) -> Tensor:
    """Reshape [n, c, h, w] to [c, n h w]."""
    return values.transpose(0, 1).flatten(1)
