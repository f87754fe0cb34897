"""Which layers of a torchvision ResNet can be pruned, and how to run the network from one point to another.

Only channels inside the blocks are pruned: the inputs of conv2 in a basic block, and of conv2 and conv3 in a
bottleneck, with the convolution and normalisation that compute them. The stem, block outputs, shortcuts and the head
keep their widths.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torchvision.models
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck

from fastccsa.models import Classifier
from fastccsa.system.errors import InputError

Result = tuple[Tensor, Tensor]  # logits [n, C] and features [n, D]


@dataclass(frozen=True)
class PrunableLayer:
    """A convolution whose input channels are chosen.

    Attributes:
        name: its name in the backbone, e.g. ``layer1.0.conv2``.
        block: number of its block, from 0.
        conv: its name in the block.
        source, norm: names in the block of the convolution and the normalisation that compute its inputs.
    """

    name: str
    block: int
    conv: str
    source: str
    norm: str


@dataclass(frozen=True)
class Stage:
    """Layers that are pruned with one discrimination loss, after block ``end``; the last is the network's own loss."""

    end: int
    layers: tuple[PrunableLayer, ...]
    is_last: bool


class AuxiliaryHead(nn.Module):
    """An auxiliary classifier after a block with output O: Linear(AvgPool(ReLU(BN(O)))).

    Args:
        channels: number of channels of the block's output.
        num_classes: number of logits.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, outputs: Tensor) -> Result:
        """Map a block's outputs [n, c, h, w] to logits [n, C] and pooled features [n, c]."""
        features = torch.relu(self.norm(outputs)).mean((2, 3))
        return self.linear(features), features


def check_architecture(model: Classifier) -> None:
    """Check that ``model`` can be pruned.

    Raises:
        InputError: it is not a torchvision ResNet with ungrouped convolutions.
    """
    if network_of(model).groups != 1:
        raise InputError("a ResNeXt cannot be pruned: its convolutions are grouped; use a ResNet or a Wide ResNet")


def network_of(model: Classifier) -> torchvision.models.ResNet:
    """Return the backbone.

    Raises:
        InputError: it is not a torchvision ResNet.
    """
    network = model.backbone
    if not isinstance(network, torchvision.models.ResNet):
        raise InputError(f"a {type(network).__name__} cannot be pruned: only torchvision's ResNets can")
    return network


def block_of(model: Classifier, number: int) -> BasicBlock | Bottleneck:
    """Return a residual block by its number, from 0."""
    return blocks_of(model)[number][1]


def convolution(model: Classifier, layer: PrunableLayer) -> nn.Conv2d:
    """Return the convolution of ``layer``."""
    found = block_of(model, layer.block).get_submodule(layer.conv)
    assert isinstance(found, nn.Conv2d)
    return found


def blocks_of(model: Classifier) -> list[tuple[str, BasicBlock | Bottleneck]]:
    """List the backbone's residual blocks with their names, in order."""
    network = network_of(model)
    return [
        (f"layer{group}.{number}", block)
        for group in range(1, 5)
        for number, block in enumerate(getattr(network, f"layer{group}"))
    ]


def block_width(block: BasicBlock | Bottleneck) -> int:
    """Return the number of channels of a block's output."""
    return (block.conv3 if isinstance(block, Bottleneck) else block.conv2).out_channels


def prunable_layers(model: Classifier) -> list[PrunableLayer]:
    """List the layers that can be pruned, in order."""
    found = []
    for number, (name, block) in enumerate(blocks_of(model)):
        found.append(PrunableLayer(f"{name}.conv2", number, "conv2", "conv1", "bn1"))
        if isinstance(block, Bottleneck):
            found.append(PrunableLayer(f"{name}.conv3", number, "conv3", "conv2", "bn2"))
    return found


def stages_of(model: Classifier, auxiliary: int | None) -> list[Stage]:
    """Split the network into stages with about the same number of blocks.

    The default of 2 auxiliary losses places those of a ResNet-18 after layer2.0 and layer3.1.

    Raises:
        InputError: there are more auxiliary losses than blocks before the last one.
    """
    count = len(blocks_of(model))
    if auxiliary is None:
        auxiliary = 2 if count <= 8 else 3
    if auxiliary >= count:
        raise InputError(f"auxiliary is {auxiliary}: this network has {count} blocks, so give {count - 1} at most")
    ends = [math.ceil(number * count / (auxiliary + 1)) - 1 for number in range(1, auxiliary + 2)]
    layers = prunable_layers(model)
    return [
        Stage(end, tuple(layer for layer in layers if begin < layer.block <= end), end == count - 1)
        for begin, end in zip([-1, *ends], ends, strict=False)
    ]


def run_stem(model: Classifier, images: Tensor) -> Tensor:
    """Compute the inputs of the first block."""
    network = network_of(model)
    return network.maxpool(network.relu(network.bn1(network.conv1(images))))


def run_blocks(model: Classifier, inputs: Tensor, begin: int, end: int) -> Tensor:
    """Run the blocks ``begin`` to ``end`` (exclusive)."""
    for _, block in blocks_of(model)[begin:end]:
        inputs = block(inputs)
    return inputs


def run_end(model: Classifier, outputs: Tensor) -> Result:
    """Compute logits and features from the last block's outputs."""
    features = torch.flatten(network_of(model).avgpool(outputs), 1)
    return model.head(model.dropout(features)), features


def layer_inputs(model: Classifier, layer: PrunableLayer, block_inputs: Tensor) -> Tensor:
    """Compute the inputs of ``layer`` from those of its block."""
    block = block_of(model, layer.block)
    inputs = block.relu(block.bn1(block.conv1(block_inputs)))
    if isinstance(block, Bottleneck) and layer.conv == "conv3":
        inputs = block.relu(block.bn2(block.conv2(inputs)))
    return inputs


def after_layer(model: Classifier, layer: PrunableLayer, stage: Stage, head: nn.Module | None) -> Callable[..., Result]:
    """Return the function from a layer's outputs and its block's inputs to the stage's logits and features.

    Args:
        model: the network.
        layer: where the function starts.
        stage: where it ends.
        head: the stage's auxiliary head; None for the last stage, which ends in the network's own head.
    """
    block = block_of(model, layer.block)

    def run(outputs: Tensor, block_inputs: Tensor) -> Result:
        if isinstance(block, BasicBlock):
            outputs = block.bn2(outputs)
        else:
            if layer.conv == "conv2":
                outputs = block.conv3(block.relu(block.bn2(outputs)))
            outputs = block.bn3(outputs)
        identity = block_inputs if block.downsample is None else block.downsample(block_inputs)
        outputs = run_blocks(model, block.relu(outputs + identity), layer.block + 1, stage.end + 1)
        return run_end(model, outputs) if head is None else head(outputs)

    return run
