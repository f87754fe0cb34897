"""The JSON file next to a manifest that records how the manifest was made."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from fastccsa._version import __version__
from fastccsa.collections.duplicates import Pair
from fastccsa.collections.prepare_report import PrepareReport
from fastccsa.system.files import write_atomically


def provenance_path(manifest: str | os.PathLike[str]) -> Path:
    """Return the path of a manifest's provenance file: ``NAME.prepare.json`` for ``NAME.csv``."""
    return Path(manifest).with_suffix(".prepare.json")


def write_provenance(
    out: Path,
    report: PrepareReport,
    sources: Sequence[tuple[str, str, str | os.PathLike[str]]],
    seed: int,
    labels: Mapping[str, Mapping[str, str]],
) -> None:
    """Record how the manifest ``out`` was made. The same manifest from the same sources gives the same bytes.

    Args:
        out: path of the manifest, which has already been written.
        report: the findings of ``prepare``.
        sources: as passed to ``prepare``.
        seed: seed of the splits.
        labels: the label map of each kind of source.

    Raises:
        InputError: the file cannot be written.
    """
    provenance = {
        "manifest": {
            "file": out.name,
            "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
            "images": len(report.images),
        },
        "fastccsa": __version__,
        "sources": [{"domain": domain, "kind": kind, "path": os.fspath(path)} for domain, kind, path in sources],
        "seed": seed,
        "labels": labels,
        "counts": _rows_as_dicts(report.found),
        "splits": _rows_as_dicts(report.splits),
        "tables": report.tables,
        "group_by": list(report.unknown),
        "left_out": {domain: _names_by_reason(entries) for domain, entries in report.left_out.items()},
        "duplicates": _duplicates(report),
    }
    with write_atomically(provenance_path(out)) as temporary:
        temporary.write_text(json.dumps(provenance, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _rows_as_dicts(table: pd.DataFrame) -> dict[str, dict[str, int]]:
    return {str(row): {str(name): int(count) for name, count in counts.items()} for row, counts in table.iterrows()}


def _names_by_reason(entries: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for reason, name in entries:
        reasons.setdefault(reason, []).append(name)
    return reasons


def _duplicates(report: PrepareReport) -> dict[str, Any]:
    images = report.images["image"].tolist()

    def image_pairs(pairs: Sequence[Pair]) -> list[list[str]]:
        return [[images[i], images[j]] for i, j in pairs]

    section: dict[str, Any] = {"looked_for": report.duplicates_mode}
    if report.duplicates is not None:
        section["same_bytes"] = image_pairs(report.duplicates.exact)
        section["same_bytes_another_label"] = image_pairs(report.contradictions(report.duplicates.exact))
        section["same_look"] = image_pairs(report.duplicates.near)
        section["same_look_another_label"] = image_pairs(report.contradictions(report.duplicates.near))
        section["parted_by_given_splits"] = image_pairs(report.duplicates.separated)
    return section
