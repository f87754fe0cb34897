"""What an exported file's outputs were compared with, and the record of it beside the file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from fastccsa._version import __version__
from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically

RECORD_ENDING = ".json"
_PACKAGES = ("torch", "onnx", "onnxruntime", "executorch")


class DisagreementError(InputError):
    """An exported model computes something else than the run's model, so that it was not written."""


@dataclass(frozen=True)
class DomainAgreement:
    """How the outputs of an exported file compare with PyTorch's on the images of one domain.

    Attributes:
        images: number of images.
        difference: largest difference between two logits.
        changed: number of images whose predicted class is not that of the run's own evaluation.
        recall: macro-average recall of the run's own evaluation, in [0, 1]; None for noise.
        exported_recall: that of the file.
    """

    images: int
    difference: float
    changed: int
    recall: float | None
    exported_recall: float | None


@dataclass(frozen=True)
class Agreement:
    """How the outputs of an exported file compare with PyTorch's. Differences are those of logits, not relative.

    Attributes:
        compared_on: name of the split, or "noise".
        rounding: largest error of PyTorch's float32 logits, from the same model in float64.
        bound: the largest difference that rounding explains; see `fastccsa.export.Reference`.
        grey_levels: largest difference between the images that the model's own preprocessing makes and Pillow's; None
            if resizing and cropping are not part of the model.
        domains: by domain.
    """

    compared_on: str
    rounding: float
    bound: float
    grey_levels: float | None
    domains: Mapping[str, DomainAgreement]

    @property
    def difference(self) -> float:
        """Largest difference in any domain."""
        return max(domain.difference for domain in self.domains.values())

    def __str__(self) -> str:
        """Return a table with one row per domain."""
        lines = [f"{'':>8} {'images':>7} {'difference':>11} {'changed':>8} {'recall':>7} {'exported':>9}"]
        for name, domain in self.domains.items():
            recalls = (_percent(value) for value in (domain.recall, domain.exported_recall))
            lines.append(
                f"{name:>8} {domain.images:7d} {domain.difference:11.1e} {domain.changed:8d} "
                + "{:>7} {:>9}".format(*recalls)
            )
        return "\n".join(lines)


def write_record(path: Path, about: Mapping[str, Any], content: Path) -> None:
    """Write the record of an exported file beside it, as ``<file>.json``.

    Args:
        path: name of the exported file.
        about: what the record says, beside the name, size and checksum of the file and the versions of the packages.
        content: where the file's content is now.

    Raises:
        InputError: the folder cannot be written.
    """
    data = content.read_bytes()
    facts = {
        "file": path.name,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "versions": {"fastccsa": __version__} | _versions(),
    }
    with write_atomically(path.with_name(path.name + RECORD_ENDING)) as file:
        file.write_text(json.dumps(facts | dict(about), indent=2) + "\n", encoding="utf-8")


def as_record(agreement: Agreement) -> dict[str, Any]:
    """Return an agreement as it is recorded."""
    return {"agreement": asdict(agreement)}


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
