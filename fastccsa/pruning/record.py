"""``prune.json``: what a pruning chose, and what it made of the network."""

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
from fastccsa.pruning.select import Path as LossPath
from fastccsa.pruning.select import kept_by_threshold
from fastccsa.pruning.state import LayerRecord
from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically

PRUNE_FILE = "prune.json"


@dataclass(frozen=True)
class Size:
    """How large a network is: its parameters, and the multiply-adds of its convolutions and products for one image."""

    parameters: int
    multiply_adds: int

    @staticmethod
    def of(model: Classifier, size: int) -> Size:
        """Count; ``size`` is the side of the image in pixels."""
        counter = FlopCounterMode(display=False)
        image = torch.zeros(1, 3, size, size, device=model.head.weight.device)
        with torch.no_grad(), counter:
            model.eval()(image)
        parameters = sum(parameter.numel() for parameter in model.parameters())
        return Size(parameters, counter.get_total_flops() // 2)


@dataclass(frozen=True)
class PruneRecord:
    """A pruning, done.

    Attributes:
        config: what it was told (the fields of `PruneConfig`).
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
        """Tell what became of the network in a line."""
        kept = sum(len(layer.kept) for layer in self.layers)
        channels = sum(layer.channels for layer in self.layers)
        before, after = self.before, self.after
        return (
            f"{kept} of {channels} channels stay ({100 * kept / channels:.0f} %): "
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
            InputError: it is missing or broken.
        """
        file = folder / PRUNE_FILE
        try:
            values = json.loads(file.read_text())
            layers = tuple(LayerRecord.from_json(layer) for layer in values["layers"])
            return PruneRecord(values["config"], layers, Size(**values["before"]), Size(**values["after"]))
        except OSError as error:
            raise InputError(f"{folder} is no pruned run: {PRUNE_FILE} is missing") from error
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"{file} is no record of a pruning: {type(error).__name__} {error}") from error

    def kept_at(self, threshold: float) -> dict[str, int]:
        """Count the channels each layer would keep at another threshold, along the path it took.

        The paths are those of this pruning, whose layers saw inputs pruned at its own threshold or rate. Where it
        did not follow a path to the end (by rate), the count is at most what it followed.
        """
        return {layer.name: kept_by_threshold(LossPath((), layer.losses), threshold) for layer in self.layers}
