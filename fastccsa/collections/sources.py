"""The sources of a manifest: which reader reads what, and what all of them found."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from fastccsa.collections.accounting import unused_files
from fastccsa.collections.archives import is_archive, unpack
from fastccsa.collections.labels import LEFT_OUT, OWN, LabelMap, LabelMaps
from fastccsa.collections.prepare_report import describe_left_out
from fastccsa.collections.readers import (
    Collection,
    LeftOut,
    Row,
    read_bcn20000,
    read_challenge,
    read_ddi,
    read_derm7pt,
    read_dermofit,
    read_fitzpatrick17k,
    read_ham10000,
    read_isic,
    read_milk10k,
    read_own_csv,
    read_own_folders,
    read_pad_ufes_20,
    read_ph2,
)
from fastccsa.collections.taxonomy import CLASSES, DOMAINS
from fastccsa.system.errors import InputError

Source = tuple[str, str, "str | os.PathLike[str]"]  # domain key; kind; folder, .zip or table

# Kind of source -> its reader, called with the path, the domain key and the label map.
READERS: dict[str, Callable[[Path, str, LabelMap], Collection]] = {
    "ham10000": lambda folder, domain, labels: read_ham10000(folder, labels),
    "dermofit": lambda folder, domain, labels: read_dermofit(folder, labels),
    "derm7pt": lambda folder, domain, labels: read_derm7pt(folder, labels),
    "ph2": lambda folder, domain, labels: read_ph2(folder, labels),
    "isic": read_isic,
    "challenge": lambda folder, domain, labels: read_challenge(folder, labels),
    "milk10k": lambda folder, domain, labels: read_milk10k(folder, labels),
    "bcn20000": lambda folder, domain, labels: read_bcn20000(folder, labels),
    "pad-ufes-20": lambda folder, domain, labels: read_pad_ufes_20(folder, labels),
    "ddi": lambda folder, domain, labels: read_ddi(folder, labels),
    "fitzpatrick17k": lambda folder, domain, labels: read_fitzpatrick17k(folder, labels),
    "csv": read_own_csv,
    "folders": read_own_folders,
}
OWN_KINDS = ("csv", "folders")


@dataclass
class Reading:
    """What the sources of a manifest hold.

    Attributes:
        rows: the images by domain, each with the number of its source.
        left_out: what was left out, by the domain of its source.
        tables: the number of rows of each table and description that was read, by the domain of its source.
    """

    rows: dict[str, list[tuple[int, Row]]] = field(default_factory=dict)
    left_out: dict[str, list[LeftOut]] = field(default_factory=dict)
    tables: dict[str, dict[str, int]] = field(default_factory=dict)


def label_maps(sources: Sequence[Source], labels: LabelMaps) -> dict[str, LabelMap]:
    """Return the label map of each kind of source. Only a user's own data without a collection may have new classes."""
    kinds = {kind for _, kind, _ in sources}
    own_only = kinds <= set(OWN_KINDS)
    foreign = [label for label in labels.labels[OWN].values() if label not in (*CLASSES, LEFT_OUT)]
    if foreign and not own_only and kinds & set(OWN_KINDS):
        raise InputError(
            f"the label {foreign[0]!r} for your own data is not one of {', '.join(CLASSES)}; "
            "data may only have classes of its own if no collection is prepared with it"
        )
    return {
        kind: labels.of(OWN, any_label=own_only) if kind in OWN_KINDS else labels.of(kind)
        for kind in READERS
        if kind in kinds
    }


def read_sources(sources: Sequence[Source], maps: dict[str, LabelMap], unpack_to: Path, progress: bool) -> Reading:
    """Read every source.

    Args:
        sources: domain key, kind, and folder, .zip or table of each.
        maps: the label map of each kind.
        unpack_to: folder to unpack .zip files to.
        progress: show progress bars on stderr.

    Raises:
        InputError: a source cannot be read, has no usable image, or has classes that the others cannot have.
    """
    reading = Reading()
    bar = tqdm(sources, disable=not progress, leave=False, unit="collection", desc="reading")
    for number, (domain, kind, given) in enumerate(bar):
        path = Path(given)
        if kind != "csv" and is_archive(path):
            path = unpack(path, unpack_to, progress)
        collection = READERS[kind](path, domain, maps[kind])
        if kind != "csv":
            collection.left_out += list(unused_files(path, collection, own=kind == "folders"))
        _require_rows(collection, domain, given)
        for row in collection.rows:
            reading.rows.setdefault(row.domain or domain, []).append((number, row))
        reading.left_out.setdefault(domain, []).extend(collection.left_out)
        tables = reading.tables.setdefault(domain, {})
        for table, count in collection.tables.items():
            name = os.path.relpath(table, path if path.is_dir() else path.parent)
            tables[os.path.join(given, name) if name in tables else name] = count
    _check_classes(reading.rows)
    return reading


def _check_classes(rows: dict[str, list[tuple[int, Row]]]) -> None:
    """Raise InputError if some images have classes of the paper's seven and others have none of them."""
    labels = {domain: {row.label for _, row in members} for domain, members in rows.items()}
    apart = [domain for domain, found in labels.items() if found.isdisjoint(CLASSES)]
    if apart and len(apart) < len(labels) and any(domain in DOMAINS for domain in labels):
        raise InputError(
            f"the images of {apart[0]} are labelled {', '.join(sorted(labels[apart[0]]))}, which are not among the "
            f"classes of the others; map them with rows of --labels, or prepare {apart[0]} alone"
        )


def _require_rows(collection: Collection, domain: str, given: str | os.PathLike[str]) -> None:
    if not collection.rows:
        reasons = describe_left_out(collection.left_out) or "no image at all"
        raise InputError(
            f"{given} has no usable image for {domain} ({reasons}); "
            "pass the folder of this collection, with its metadata and images"
        )
