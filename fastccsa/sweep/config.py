"""What a sweep searches, and the file that says it when the sweep is resumed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from fastccsa.runs.config import TrainConfig
from fastccsa.sweep.space import Setting, check_settings, parse_setting
from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically
from fastccsa.system.ranges import Range, check_ranges
from fastccsa.system.reading import load_json, read_bytes, reported
from fastccsa.system.schema import build

SWEEP_FILE = "sweep.json"
_RANGES = {"trials": Range(1, 10**5), "time_limit": Range(0, 10**6)}
# Settings of a run that a sweep sets itself.
_OWN = ("out", "time_limit", "manifest_sha256")


@dataclass(frozen=True)
class SweepConfig:
    """A search over settings.

    Attributes:
        out: folder of the sweep; every trial is a run folder in it.
        vary: what is varied, each as `parse_setting` takes it.
        training: all other settings of the training, by name.
        trials: number of trials, with those of earlier calls.
        time_limit: minutes after which this call ends; 0 for none.
        prune: end trials early whose validation recall is below the median of the earlier ones at the same epoch.

    Raises:
        InputError: a value is not valid.
    """

    out: str
    vary: tuple[str, ...]
    training: Mapping[str, Any] = field(default_factory=dict)
    trials: int = 20
    time_limit: float = 0.0
    prune: bool = False

    def __post_init__(self) -> None:
        check_ranges(self, _RANGES)
        if not self.out.strip():
            raise InputError("out is empty: name the folder of the sweep")
        if not self.training.get("manifest"):
            raise InputError("manifest is missing: name the CSV of the images")
        if not self.vary:
            raise InputError("nothing is varied: give at least one setting, such as lr=1e-5..1e-3:log")
        own = [name for name in _OWN if name in self.training]
        if own:
            raise InputError(f"{', '.join(own)} is set for each trial by the sweep: omit it")
        check_settings(self.settings, self.training)

    @property
    def settings(self) -> tuple[Setting, ...]:
        """What is varied."""
        return tuple(map(parse_setting, self.vary))

    def run(self, values: Mapping[str, Any], folder: Path, minutes: float = 0.0) -> TrainConfig:
        """Return the configuration of the trial with ``values`` of the varied settings.

        Raises:
            InputError: they do not go together.
        """
        return TrainConfig(**{**self.training, **values, "out": str(folder), "time_limit": minutes})

    def open(self) -> Path:
        """Open the folder of the sweep: create it, or reopen the one in which the same sweep was started.

        Raises:
            InputError: it holds another sweep, or cannot be written.
        """
        folder = Path(self.out)
        kept = _kept(self)
        file = folder / SWEEP_FILE
        try:
            with reported(file, "does not say what the sweep varies", "restore it, or choose another folder"):
                before = build(dict[str, Any], load_json(read_bytes(file)))
        except FileNotFoundError:
            with write_atomically(file) as temporary:
                temporary.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
            return folder
        now = json.loads(json.dumps(kept))
        changed = [name for name in kept if before.get(name) != now[name]]
        if changed:
            raise InputError(
                f"{folder} holds a sweep with another {', '.join(changed)}: repeat its settings to resume it, or "
                "choose another folder"
            )
        return folder


def _kept(config: SweepConfig) -> dict[str, Any]:
    """Return what has to be the same when the sweep is resumed."""
    changing = {item.name for item in fields(TrainConfig) if item.metadata.get("changes_result", True)}
    manifest = Path(config.training["manifest"])
    return {
        "vary": sorted(config.vary),
        "prune": config.prune,
        "training": {name: config.training[name] for name in sorted(config.training) if name in changing},
        "manifest_sha256": hashlib.sha256(manifest.read_bytes()).hexdigest(),
    }
