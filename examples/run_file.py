"""An example's results: a JSON file that grows run by run, so that repeating the command does the remaining runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

import fastccsa
from fastccsa.system.files import write_atomically


class RunFile:
    """The file at `path`; if that is None, the runs are kept only in memory.

    Raises:
        fastccsa.InputError: the file was made with other settings.
    """

    def __init__(self, path: Path | None, settings: dict[str, Any]) -> None:
        self.path = path
        self.content: dict[str, Any] = {"settings": settings, "runs": []}
        if path is not None and path.exists():
            self.content = json.loads(path.read_text(encoding="utf-8"))
            if self.content["settings"] != settings:
                raise fastccsa.InputError(f"{path} was made with {self.content['settings']}; choose another --out")
        self.content |= {
            "torch": torch.__version__,
            "fastccsa": fastccsa.__version__,
            "threads": torch.get_num_threads(),
        }

    @property
    def runs(self) -> list[dict[str, Any]]:
        """The runs that are finished."""
        return self.content["runs"]

    def add(self, run: dict[str, Any]) -> None:
        """Add a finished run, and write the file."""
        self.runs.append(run)
        if self.path is not None:
            with write_atomically(self.path) as file:
                file.write_text(to_json(self.content), encoding="utf-8")


def to_json(content: dict[str, Any]) -> str:
    """Format one field per line, and one run per line, so that files of results stay short and diffs stay readable."""
    runs = ",\n".join(map(json.dumps, content["runs"]))
    fields = {name: json.dumps(value) for name, value in content.items()} | {"runs": f"[\n{runs}\n]"}
    return "{\n" + ",\n".join(f'"{name}": {value}' for name, value in fields.items()) + "\n}\n"
