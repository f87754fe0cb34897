"""The whole state of a pruning in one file: after each layer, everything needed to continue with the next."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from fastccsa.models import Classifier
from fastccsa.pruning.config import PruneConfig
from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically

STATE_FILE = "selection.safetensors"
PARTS = ("model", "baseline", "head")


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
    channels: int
    kept: tuple[int, ...]
    losses: tuple[float, ...]
    reconstruction: tuple[float, ...]
    seconds: float

    @staticmethod
    def from_json(values: dict[str, Any]) -> LayerRecord:
        """Restore a record from JSON, which turns tuples into lists.

        Raises:
            TypeError, KeyError: ``values`` does not have the fields of a record.
        """
        tuples = {name: tuple(values[name]) for name in ("kept", "losses", "reconstruction")}
        return LayerRecord(**(values | tuples))


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
        f"{part}/{name}": value.detach().cpu().contiguous()
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
    with write_atomically(folder / STATE_FILE) as file:
        safetensors.torch.save_file(tensors, file, metadata={"progress": json.dumps(progress)})


@dataclass(frozen=True)
class SavedState:
    """What `save_state` wrote, not yet loaded into networks."""

    stage: int
    layers: dict[str, dict[str, Any]]
    records: list[LayerRecord]
    tensors: dict[str, Tensor]

    def fill(self, state: PruneState) -> None:
        """Load the weights into the networks of ``state``, on their device."""
        state.model.narrow(self.layers["model"])
        state.baseline.narrow(self.layers["baseline"])
        for part in PARTS:
            if (network := getattr(state, part)) is not None:
                prefix = f"{part}/"
                own = {name.removeprefix(prefix): v for name, v in self.tensors.items() if name.startswith(prefix)}
                device = state.model.head.weight.device
                network.load_state_dict(own)
                network.to(device).eval()


def load_state(folder: Path, config: PruneConfig) -> SavedState | None:
    """Read what `save_state` wrote; None if there is no such file.

    Raises:
        InputError: the file is broken, or belongs to a pruning with other settings.
    """
    file = folder / STATE_FILE
    if not file.exists():
        return None
    try:
        with safe_open(file, framework="pt") as content:
            progress = json.loads(content.metadata()["progress"])
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118  (not a mapping)
        records = [LayerRecord.from_json(record) for record in progress["records"]]
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{file} cannot be resumed from ({error}): remove it to choose the channels again") from error
    check_same(config, progress["config"], folder)
    return SavedState(progress["stage"], progress["layers"], records, tensors)


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
