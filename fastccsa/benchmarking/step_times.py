"""What `fastccsa bench step` measured: its table, and the JSON file it is kept in."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically

__all__ = ["StepTimes"]


@dataclass
class StepTimes:
    """Seconds of a step of training, one for each turn.

    Attributes:
        images: of a step.
        loop: fastccsa's training loop.
        plain: the plain PyTorch implementation's; empty where it was not asked for.
        bare: the bare network's: forward and backward on one batch that is there already, and the update.
        parts: of fastccsa's step as it is without a CUDA graph, waiting for the device after each, which the loop
            does not.
    """

    images: int
    loop: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    bare: list[float] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=dict)

    def table(self) -> str:
        """Print medians."""
        bare, lines = statistics.median(self.bare), []
        names = {"fastccsa's loop": self.loop, "plain PyTorch": self.plain, "bare network (floor)": self.bare}
        for name, seconds in names.items():
            if seconds:
                step = statistics.median(seconds)
                lines.append(f"{name:<22}{1e3 * step:>11.2f}{self.images / step:>11.0f}{step / bare:>9.3f}")
        total = sum(statistics.median(seconds) for seconds in self.parts.values())
        for name, seconds in self.parts.items():
            part = statistics.median(seconds)
            lines.append(f"  {name:<20}{1e3 * part:>11.2f}{'':>11}{100 * part / total:>8.1f}%")
        return "\n".join([f"{'':<22}{'ms a step':>11}{'images/s':>11}{'x floor':>9}", *lines])

    def write(self, path: str | os.PathLike[str], about: Mapping[str, Any]) -> None:
        """Write JSON, with ``about`` (machine, versions, command, ...) in front."""
        with write_atomically(path) as file:
            file.write_text(json.dumps({**about, **asdict(self)}, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: str | os.PathLike[str]) -> tuple[StepTimes, dict[str, Any]]:
        """Read what :meth:`write` wrote: the times, and what they are about.

        Raises:
            InputError: the file is not such a file.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            times = cls(**{item.name: content.pop(item.name) for item in fields(cls)})
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise InputError(f"{path} holds no times of a step: give what `fastccsa bench step --out` wrote") from error
        return times, content
