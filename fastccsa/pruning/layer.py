"""Pruning of one layer, and the inputs of its block that this needs."""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
from torch import Tensor
from tqdm import tqdm

from fastccsa.models import Classifier
from fastccsa.pruning.config import PruneConfig
from fastccsa.pruning.criteria import rank_channels
from fastccsa.pruning.discrimination import Discrimination
from fastccsa.pruning.gram import Gram, accumulate
from fastccsa.pruning.remove import keep_channels
from fastccsa.pruning.resnet import PrunableLayer, Stage, after_layer, convolution, layer_inputs, run_blocks, run_stem
from fastccsa.pruning.select import Selection
from fastccsa.pruning.state import LayerRecord, PruneState
from fastccsa.pruning.stop import kept_by_threshold
from fastccsa.pruning.subset import Part, Subset

CHUNK = 16  # images per chunk


class BlockInputs:
    """The inputs of the current block for all images of the subset, in the pruned and in the baseline network.

    They need ``2 n c h w`` float32 values, most at the first blocks: 0.8 GB for 512 images in a ResNet-18 at 224 px.
    """

    def __init__(self, model: Classifier, baseline: Classifier, images: Tensor) -> None:
        self._networks = (model, baseline)
        self._block = 0
        self._values = [[run_stem(network, part) for part in images.split(CHUNK)] for network in self._networks]

    def go_to(self, block: int) -> None:
        """Run both networks up to ``block``."""
        for network, values in zip(self._networks, self._values, strict=True):
            for place, value in enumerate(values):
                values[place] = run_blocks(network, value, self._block, block)
        self._block = block

    def chunks(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over chunks of images: their inputs in the pruned and in the baseline network."""
        return zip(*self._values, strict=True)

    def some(self, begin: int, end: int) -> Tensor:
        """Return the inputs of the images ``begin`` to ``end`` (exclusive) in the pruned network."""
        first = begin // CHUNK
        values = torch.cat(self._values[0][first : -(-end // CHUNK)])
        return values[begin - first * CHUNK : end - first * CHUNK]


@torch.no_grad()
def prune_layer(
    state: PruneState,
    stage: Stage,
    layer: PrunableLayer,
    inputs: BlockInputs,
    subset: Subset,
    config: PruneConfig,
    progress: bool,
) -> LayerRecord:
    """Choose the input channels of ``layer``, and remove the others from ``state.model``."""
    started = time.perf_counter()
    inputs.go_to(layer.block)
    model, conv = state.model, convolution(state.model, layer)
    gram = gram_of(state, layer, inputs)
    parts = (subset.discrimination, subset.check)
    discrimination, check = (discrimination_of(state, stage, layer, inputs, part) for part in parts)
    with torch.enable_grad():
        ranking = rank_channels(config.criterion, model, layer, discrimination, config.seed or 0)
        # A threshold needs the whole path: "gap" compares with its end, and the rest shows what others would keep.
        steps = gram.channels if config.rate is None else channels_by_rate(config, gram.channels)
        selection = Selection(
            gram,
            conv,
            discrimination,
            check,
            loss_weight=config.loss_weight,
            ranking=ranking,
            steps=steps,
            descend=config.refit == "joint",
        )
        with tqdm(desc=layer.name, total=steps, unit="channel", leave=False, disable=None if progress else True) as bar:
            path = selection.walk(bar.update)
        count = steps
        if config.threshold is not None:
            count = kept_by_threshold(config.stop, path.losses, path.reconstruction, config.threshold)
        count = round_up(count, config.round_to, gram.channels)
        weight = selection.weight(count)
    kept = path.order[:count]
    keep_channels(model, layer, sorted(kept), weight, subset.images.shape[-1])
    return LayerRecord(layer.name, gram.channels, kept, path.losses, path.reconstruction, time.perf_counter() - started)


@torch.no_grad()
def gram_of(state: PruneState, layer: PrunableLayer, inputs: BlockInputs) -> Gram:
    """Compute the Gram matrix of ``layer`` over all images; ``inputs`` must be at its block."""
    conv, base = convolution(state.model, layer), convolution(state.baseline, layer)
    chunks = (
        (layer_inputs(state.model, layer, mine), base(layer_inputs(state.baseline, layer, theirs)))
        for mine, theirs in inputs.chunks()
    )
    return accumulate(conv, chunks)


@torch.no_grad()
def discrimination_of(
    state: PruneState, stage: Stage, layer: PrunableLayer, inputs: BlockInputs, part: Part
) -> Discrimination:
    """Make L_S as a function of the weight of ``layer``, on some images; ``inputs`` must be at its block."""
    block_inputs = inputs.some(part.begin, part.end)
    own = torch.cat([layer_inputs(state.model, layer, chunk) for chunk in block_inputs.split(CHUNK)])
    rest = after_layer(state.model, layer, stage, state.head)
    return Discrimination(convolution(state.model, layer), own, block_inputs, rest, part.loss)


def channels_by_rate(config: PruneConfig, channels: int) -> int:
    """Return how many of ``channels`` the rate keeps; the caller must check for 0."""
    assert config.rate is not None
    return round_up(round((1 - config.rate) * channels), config.round_to, channels)


def round_up(count: int, multiple: int, most: int) -> int:
    """Round ``count`` up to a multiple, but at most to ``most``."""
    return min(most, -(-count // multiple) * multiple)
