"""The whole state of a pruning in one file: after each layer, everything needed to continue with the next."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from fastccsa.models import Classifier
from fastccsa.models.tensor_files import read_tensors, write_tensors
from fastccsa.models.torch_files import same_kind
from fastccsa.pruning.config import PruneConfig
from fastccsa.system.errors import InputError
from fastccsa.system.reading import load_json, reported
from fastccsa.system.schema import Count, Filled, Mismatch, Ordinal, Positive, build

STATE_FILE = "selection.safetensors"
PARTS = ("model", "baseline", "head")
_PROBLEM, _ADVICE = "cannot be resumed from", "remove it to choose the channels again"


@dataclass(frozen=True)
class LayerRecord:
    """What was chosen in one layer.

    Attributes:
        name: name of the convolution whose input channels were chosen.
        channels: number of input channels that it had.
        kept: the channels kept, in the order in which they were chosen.
        losses: the joint loss with none, one, two, ... channels.
        reconstruction: the minimum of the reconstruction loss with as many.
        seconds: duration of the selection.
    """

    name: str
    channels: Ordinal
    kept: Annotated[tuple[Count, ...], Filled()]
    losses: tuple[float, ...]
    reconstruction: tuple[float, ...]
    seconds: Positive

    def __post_init__(self) -> None:
        if len(set(self.kept)) < len(self.kept) or max(self.kept, default=0) >= self.channels:
            raise Mismatch(f"the channels kept in {self.name} are not among its {self.channels}")


@dataclass
class PruneState:
    """A pruning in progress.

    Attributes:
        model: the network, some of whose layers are pruned.
        baseline: the network before the layers of this stage were pruned.
        head: the stage's auxiliary head; None for the last stage.
        stage: number of the current stage, from 0; its fine-tuning is done.
        records: records of the finished layers.
    """

    model: Classifier
    baseline: Classifier
    head: nn.Module | None
    stage: int
    records: list[LayerRecord] = field(default_factory=list)


def save_state(folder: Path, state: PruneState, config: PruneConfig) -> None:
    """Write ``state`` into ``folder``, completely or not at all."""
    tensors = {
        f"{part}/{name}": value
        for part in PARTS
        if (network := getattr(state, part)) is not None
        for name, value in network.state_dict().items()
    }
    progress = {
        "config": json.loads(config.to_json()),
        "stage": state.stage,
        "layers": {"model": state.model.layers, "baseline": state.baseline.layers},
        "records": [asdict(record) for record in state.records],
    }
    write_tensors(folder / STATE_FILE, tensors, {"progress": json.dumps(progress)})


@dataclass(frozen=True)
class _Progress:
    """The part of the file that is not tensors."""

    config: dict[str, Any]
    stage: Count
    layers: dict[str, dict[str, dict[str, Any]]]
    records: tuple[LayerRecord, ...]


@dataclass(frozen=True)
class SavedState:
    """What `save_state` wrote, not yet loaded into networks."""

    stage: int
    layers: dict[str, dict[str, dict[str, Any]]]
    records: list[LayerRecord]
    tensors: dict[str, Tensor]
    file: Path

    def fill(self, state: PruneState) -> None:
        """Load the weights into the networks of ``state``, on their device.

        Raises:
            InputError: they are those of other networks.
        """
        with reported(self.file, _PROBLEM, _ADVICE):
            state.model.narrow(self.layers["model"])
            state.baseline.narrow(self.layers["baseline"])
            for part in PARTS:
                if (network := getattr(state, part)) is not None:
                    self._fill_network(part, network, state.model.head.weight.device)

    def _fill_network(self, part: str, network: nn.Module, device: torch.device) -> None:
        own = network.state_dict()
        saved = {name.removeprefix(f"{part}/"): v for name, v in self.tensors.items() if name.startswith(f"{part}/")}
        if saved.keys() != own.keys():
            raise Mismatch(f"{part} is of another network: they differ at {min(saved.keys() ^ own.keys())}")
        network.load_state_dict({name: same_kind(saved[name], own[name], f"{part} {name}") for name in own})
        network.to(device).eval()


def load_state(folder: Path, config: PruneConfig) -> SavedState | None:
    """Read what `save_state` wrote; None if there is no such file.

    Raises:
        InputError: the file is broken, or belongs to a pruning with other settings.
    """
    file = folder / STATE_FILE
    try:
        with reported(file, _PROBLEM, _ADVICE):
            tensors, about = read_tensors(file)
            progress = build(_Progress, load_json(about.get("progress", "")))
            build(PruneConfig, progress.config, "config")
            if progress.layers.keys() != {"model", "baseline"}:
                raise Mismatch("layers does not describe the model and its baseline")
    except FileNotFoundError:
        return None
    check_same(config, progress.config, folder)
    return SavedState(progress.stage, progress.layers, list(progress.records), tensors, file)


def check_same(config: PruneConfig, other: dict[str, object], folder: Path) -> None:
    """Check that the pruning in ``folder`` has these settings.

    Raises:
        InputError: settings differ; the message names them.
    """
    if differences := config.differences(other):
        raise InputError(
            f"{folder} holds a pruning with other settings ({'; '.join(differences)}): "
            "repeat its settings to resume it, or choose another folder"
        )
