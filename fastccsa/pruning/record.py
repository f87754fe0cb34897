"""``prune.json``: what a pruning chose, and the size of the network before and after."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from fastccsa.models import Classifier
from fastccsa.pruning.config import PruneConfig
from fastccsa.pruning.state import LayerRecord
from fastccsa.pruning.stop import kept_by_threshold
from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically
from fastccsa.system.reading import load_json, read_bytes, reported
from fastccsa.system.schema import Count, Ordinal, build

PRUNE_FILE = "prune.json"


@dataclass(frozen=True)
class Size:
    """The size of a network: parameters, and multiply-adds of its convolutions and matrix products for one image."""

    parameters: Ordinal
    multiply_adds: Count

    @staticmethod
    def of(model: Classifier, size: int) -> Size:
        """Measure ``model`` for an image with side length ``size`` in pixels."""
        counter = FlopCounterMode(display=False)
        image = torch.zeros(1, 3, size, size, device=model.head.weight.device)
        with torch.no_grad(), counter:
            model.eval()(image)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        return Size(parameters, counter.get_total_flops() // 2)


@dataclass(frozen=True)
class PruneRecord:
    """A finished pruning.

    Attributes:
        config: its configuration (the fields of `PruneConfig`).
        layers: what was chosen, layer by layer.
        before, after: sizes of the network.
    """

    config: dict[str, Any]
    layers: tuple[LayerRecord, ...]
    before: Size
    after: Size

    @staticmethod
    def of(
        config: PruneConfig, layers: Sequence[LayerRecord], before: Classifier, after: Classifier, size: int
    ) -> PruneRecord:
        """Record the pruning of ``before`` into ``after``."""
        return PruneRecord(json.loads(config.to_json()), tuple(layers), Size.of(before, size), Size.of(after, size))

    def summary(self) -> str:
        """Summarise the pruning in one line."""
        kept = sum(len(layer.kept) for layer in self.layers)
        channels = sum(layer.channels for layer in self.layers)
        before, after = self.before, self.after
        return (
            f"{kept} of {channels} channels kept ({100 * kept / max(channels, 1):.0f} %): "
            f"{before.parameters / 1e6:.2f}M to {after.parameters / 1e6:.2f}M parameters, "
            f"{before.multiply_adds / 1e6:.1f}M to {after.multiply_adds / 1e6:.1f}M multiply-adds, "
            f"chosen in {sum(layer.seconds for layer in self.layers):.0f} s"
        )

    def write(self, folder: Path) -> None:
        """Write ``prune.json`` into ``folder``."""
        with write_atomically(folder / PRUNE_FILE) as file:
            file.write_text(json.dumps(asdict(self)) + "\n")

    @staticmethod
    def read(folder: Path) -> PruneRecord:
        """Read ``prune.json`` of a pruned run.

        Raises:
            InputError: it is missing or invalid.
        """
        file = folder / PRUNE_FILE
        try:
            with reported(file, "is not a record of a pruning", "restore it, or prune the run again"):
                record = build(PruneRecord, load_json(read_bytes(file)))
                build(PruneConfig, record.config, "config")
                return record
        except FileNotFoundError as error:
            raise InputError(f"{folder} is not a pruned run: {PRUNE_FILE} is missing") from error

    def kept_at(self, threshold: float) -> dict[str, int]:
        """Count the channels that each layer would keep at another threshold, along its path in this pruning.

        In this pruning, a layer's inputs were already pruned at the pruning's own threshold or rate. A path that was
        not followed to the end (with a rate) limits the count to its length, and counts as the whole layer.
        """
        stop = self.config.get("stop", "gap")
        return {
            layer.name: kept_by_threshold(stop, layer.losses, layer.reconstruction, threshold) for layer in self.layers
        }
