"""The discrimination loss of a stage as a function of one layer's weight, on cached inputs of that layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastccsa.pruning.resnet import Result

Loss = Callable[[Tensor, Tensor], Tensor]
CHUNK = 16  # images per chunk


class Discrimination:
    """The discrimination loss L_S as a function of one layer's weight.

    Nothing before the layer is computed again. The rest of the network is computed in chunks of images, although the
    loss depends on all images together (it compares images): first its gradient with respect to logits and features is
    computed, then that gradient is propagated back through the network chunk by chunk.

    Args:
        conv: the layer.
        inputs: its inputs [n, c, h, w].
        block_inputs: the inputs of its block, which the shortcut needs.
        rest: maps the layer's outputs and the block's inputs to logits and features.
        loss: maps logits [n, C] and features [n, D] to L_S.
    """

    def __init__(
        self, conv: nn.Conv2d, inputs: Tensor, block_inputs: Tensor, rest: Callable[..., Result], loss: Loss
    ) -> None:
        self._conv = conv
        self._chunks = list(zip(inputs.split(CHUNK), block_inputs.split(CHUNK), strict=True))
        self._rest = rest
        self._loss = loss

    @torch.no_grad()
    def loss(self, weight: Tensor) -> float:
        """Compute L_S at ``weight``."""
        return float(self._loss(*self._results(weight)))

    def gradient(self, weight: Tensor) -> tuple[float, Tensor]:
        """Compute L_S and its gradient at ``weight``, for kept and for missing channels."""
        loss, result_gradients = self._at_results(weight)
        weight = weight.detach().requires_grad_()
        gradient = torch.zeros_like(weight)
        for (inputs, block_inputs), *of_chunk in zip(self._chunks, *result_gradients, strict=True):
            result = self._rest(self._outputs(inputs, weight), block_inputs)
            gradient += torch.autograd.grad(result, weight, of_chunk)[0]
        return loss, gradient

    def channel_sensitivity(self, weight: Tensor) -> Tensor:
        """Compute the Taylor criterion of each input channel, [c]: the mean over images of |<input, dL_S/dinput>|.

        It is the first-order change of the loss when the channel is removed (Molchanov et al., ICLR 2017).
        """
        _, result_gradients = self._at_results(weight)
        total = torch.zeros(self._conv.in_channels, device=weight.device)
        for (inputs, block_inputs), *of_chunk in zip(self._chunks, *result_gradients, strict=True):
            inputs = inputs.detach().requires_grad_()
            result = self._rest(self._outputs(inputs, weight.detach()), block_inputs)
            gradient = torch.autograd.grad(result, inputs, of_chunk)[0]
            total += (inputs * gradient).sum((2, 3)).abs().sum(0).detach()
        return total / sum(len(inputs) for inputs, _ in self._chunks)

    def _at_results(self, weight: Tensor) -> tuple[float, list[tuple[Tensor, ...]]]:
        """Compute L_S and its gradients with respect to logits and features, each split into chunks."""
        with torch.no_grad():
            results = self._results(weight)
        results = [result.requires_grad_() for result in results]
        loss = self._loss(*results)
        # Cross-entropy does not depend on the features.
        gradients = torch.autograd.grad(loss, results, allow_unused=True, materialize_grads=True)
        return float(loss.detach()), [gradient.split(CHUNK) for gradient in gradients]

    def _results(self, weight: Tensor) -> list[Tensor]:
        results = [self._rest(self._outputs(inputs, weight), block_inputs) for inputs, block_inputs in self._chunks]
        return [torch.cat(parts) for parts in zip(*results, strict=True)]

    def _outputs(self, inputs: Tensor, weight: Tensor) -> Tensor:
        conv = self._conv
        return F.conv2d(inputs, weight, conv.bias, conv.stride, conv.padding, conv.dilation)
