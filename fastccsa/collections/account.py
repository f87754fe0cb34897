"""The file beside a manifest that says how the manifest was made."""

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


def account_path(manifest: str | os.PathLike[str]) -> Path:
    """Return the path of a manifest's account: ``NAME.prepare.json`` for ``NAME.csv``."""
    return Path(manifest).with_suffix(".prepare.json")


def write_account(
    out: Path,
    report: PrepareReport,
    sources: Sequence[tuple[str, str, str | os.PathLike[str]]],
    seed: int,
    labels: Mapping[str, Mapping[str, str]],
) -> None:
    """Write how the manifest ``out`` was made; the same manifest from the same sources gives the same bytes.

    Args:
        out: the manifest, written already.
        report: what was found.
        sources: as given to ``prepare``.
        seed: of the splits.
        labels: the label map of each kind of source.
    """
    account = {
        "manifest": {
            "file": out.name,
            "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
            "images": len(report.images),
        },
        "fastccsa": __version__,
        "sources": [{"domain": domain, "kind": kind, "path": os.fspath(path)} for domain, kind, path in sources],
        "seed": seed,
        "labels": labels,
        "counts": _by_row(report.found),
        "splits": _by_row(report.splits),
        "left_out": {domain: _by_reason(entries) for domain, entries in report.left_out.items()},
        "duplicates": _duplicates(report),
    }
    with write_atomically(account_path(out)) as temporary:
        temporary.write_text(json.dumps(account, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _by_row(table: pd.DataFrame) -> dict[str, dict[str, int]]:
    return {str(row): {str(name): int(count) for name, count in counts.items()} for row, counts in table.iterrows()}


def _by_reason(entries: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {}
    for reason, name in entries:
        reasons.setdefault(reason, []).append(name)
    return reasons


def _duplicates(report: PrepareReport) -> dict[str, Any]:
    images = report.images["image"].tolist()

    def named(pairs: Sequence[Pair]) -> list[list[str]]:
        return [[images[i], images[j]] for i, j in pairs]

    account: dict[str, Any] = {"looked_for": report.looked_for}
    if report.duplicates is not None:
        account["same_bytes"] = named(report.duplicates.exact)
        account["same_bytes_another_label"] = named(report.contradictions(report.duplicates.exact))
        account["same_look"] = named(report.duplicates.near)
        account["same_look_another_label"] = named(report.contradictions(report.duplicates.near))
        account["parted_by_given_splits"] = named(report.duplicates.torn)
    return account
