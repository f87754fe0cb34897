"""``prepare``: read collections and write one manifest, with a report and a provenance file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import pandas as pd
from tqdm import tqdm

from fastccsa.collections.accounting import unused_files
from fastccsa.collections.archives import is_archive, unpack
from fastccsa.collections.choices import DuplicateSearch
from fastccsa.collections.duplicates import find_duplicates, unite_groups
from fastccsa.collections.fingerprints import UNREADABLE, Fingerprint, fingerprint
from fastccsa.collections.groups import LEVELS, join_groups
from fastccsa.collections.labels import LEFT_OUT, OWN, LabelMap, LabelMaps
from fastccsa.collections.manifest import Manifest
from fastccsa.collections.prepare_report import PrepareReport, describe_left_out
from fastccsa.collections.provenance import write_provenance
from fastccsa.collections.readers import (
    Collection,
    LeftOut,
    Row,
    read_derm7pt,
    read_dermofit,
    read_ham10000,
    read_isic,
    read_own_csv,
    read_own_folders,
    read_ph2,
)
from fastccsa.collections.readers.collection import TWICE
from fastccsa.collections.readers.dicom import add_dicom_columns
from fastccsa.collections.splits import check_seed, split
from fastccsa.collections.taxonomy import CLASSES, DOMAINS
from fastccsa.collections.unreadable import why_unreadable
from fastccsa.collections.validate import COLUMNS
from fastccsa.system.choices import check_choice
from fastccsa.system.errors import InputError

Source = tuple[str, str, "str | os.PathLike[str]"]  # domain key; kind; folder, .zip or table

# Kind of source -> its reader, called with the path, the domain key and the label map.
READERS: dict[str, Callable[[Path, str, LabelMap], Collection]] = {
    "ham10000": lambda folder, domain, labels: read_ham10000(folder, labels),
    "dermofit": lambda folder, domain, labels: read_dermofit(folder, labels),
    "derm7pt": lambda folder, domain, labels: read_derm7pt(folder, labels),
    "ph2": lambda folder, domain, labels: read_ph2(folder, labels),
    "isic": read_isic,
    "csv": read_own_csv,
    "folders": read_own_folders,
}
_OWN_KINDS = ("csv", "folders")

# A hidden file next to the manifest, so that no reader mistakes it for the table of a collection.
_CACHE = ".fastccsa-fingerprints.csv"


def prepare(
    sources: Sequence[Source],
    out: str | os.PathLike[str],
    seed: int = 0,
    progress: bool = False,
    *,
    labels: LabelMaps | None = None,
    duplicates: str = "near",
    unpack_to: str | os.PathLike[str] | None = None,
    pseudonym_key: str | os.PathLike[str] | None = None,
) -> tuple[Manifest, PrepareReport]:
    """Read collections, find duplicates, split each domain 50/20/30 and write the manifest.

    Also writes ``NAME.prepare.json`` next to the manifest ``NAME.csv``; it records how the manifest was made.

    Args:
        sources: tuples ``(domain key, kind, path)``. For the kinds "ham10000", "dermofit", "derm7pt", "ph2" and
            "isic", the key is one of ``DOMAINS`` and the path a folder or .zip. For a user's own data, the key is
            any name, and the path is a table for the kind "csv", or a folder or .zip of folders domain/class for
            "folders". A domain may appear several times; the manifest keeps the order of the domains.
        out: the CSV file to write.
        seed: seed of the splits, 0 or more.
        progress: show progress bars on stderr.
        labels: the label maps; None for the package's own. A user's own data must use the paper's seven classes
            when combined with a collection, and may use any classes otherwise.
        duplicates: "near" keeps images with the same bytes or the same look in one split, "exact" only those with the
            same bytes, and "off" does not search for duplicates.
        unpack_to: folder to unpack .zip files to; None for ``unpacked`` next to the manifest.
        pseudonym_key: file with the key of the pseudonyms of DICOM patients and studies, at least 16 bytes; None for
            the user's own key, which is made when it is first needed.

    Returns:
        The manifest as written, and the report.

    Raises:
        InputError: an argument is invalid, a source does not have the expected layout or has no usable image, an
            image belongs to two domains, or ``out`` or the key cannot be written or read.
    """
    out = Path(out)
    _check_arguments(sources, duplicates)
    check_seed(seed)
    _check_writable(out)
    maps = _label_maps(sources, labels or LabelMaps.read())
    rows, left_out = _read(sources, maps, out.parent / "unpacked" if unpack_to is None else Path(unpack_to), progress)
    images = _table(rows, left_out, None if pseudonym_key is None else Path(pseudonym_key))
    # Every image is decoded once, whatever is searched for: training would fail on a broken one.
    cache = None if duplicates == "off" else out.parent / _CACHE
    prints = fingerprint(images["image"].tolist(), cache, duplicates == "near", progress)
    images, prints = _leave_out_unreadable(images, prints, left_out)
    found, table = None, images
    if duplicates != "off":
        table, found = unite_groups(images, find_duplicates(prints))
    manifest = Manifest(split(table, seed))
    manifest.validate()  # before anything is written
    manifest.write(out)
    manifest = Manifest.read(out, check_files=False)
    report = PrepareReport.of(
        manifest, left_out, duplicates=found, lesions=images["group"].tolist(), duplicates_mode=duplicates
    )
    write_provenance(out, report, sources, seed=seed, labels={kind: used.labels for kind, used in maps.items()})
    return manifest, report


def _check_arguments(sources: Sequence[Source], duplicates: str) -> None:
    if not sources:
        raise InputError("no collection to prepare; pass at least one folder")
    for domain, kind, _ in sources:
        if kind not in READERS:
            raise InputError(f"there is no reader of {kind!r}; choose one of {', '.join(READERS)}")
        if kind not in _OWN_KINDS and domain not in DOMAINS:
            raise InputError(f"there is no domain {domain!r}; choose one of {', '.join(DOMAINS)}")
        if not domain.strip():
            raise InputError("the name of a domain is empty; name it")
    check_choice("duplicates", duplicates, get_args(DuplicateSearch))


def _check_writable(out: Path) -> None:
    """Raise InputError if the manifest cannot be written, before any images are read."""
    if out.is_dir():
        raise InputError(f"cannot write {out}: it is a folder; name a file in it, such as manifest.csv")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out.parent).close()
    except OSError as error:
        raise InputError(f"cannot write {out}: {error.strerror}; choose a folder you can write to") from error


def _label_maps(sources: Sequence[Source], labels: LabelMaps) -> dict[str, LabelMap]:
    """Return the label map of each kind of source. Only a user's own data without a collection may have new classes."""
    kinds = {kind for _, kind, _ in sources}
    own_only = kinds <= set(_OWN_KINDS)
    foreign = [label for label in labels.labels[OWN].values() if label not in (*CLASSES, LEFT_OUT)]
    if foreign and not own_only and kinds & set(_OWN_KINDS):
        raise InputError(
            f"the label {foreign[0]!r} for your own data is not one of {', '.join(CLASSES)}; "
            "data may only have classes of its own if no collection is prepared with it"
        )
    return {
        kind: labels.of(OWN, any_label=own_only) if kind in _OWN_KINDS else labels.of(kind)
        for kind in READERS
        if kind in kinds
    }


def _read(
    sources: Sequence[Source], maps: dict[str, LabelMap], unpack_to: Path, progress: bool
) -> tuple[dict[str, list[Row]], dict[str, list[LeftOut]]]:
    """Return the rows by domain, and what was left out, by the domain of its source."""
    rows: dict[str, list[Row]] = {}
    left_out: dict[str, list[LeftOut]] = {}
    for domain, kind, given in tqdm(sources, disable=not progress, leave=False, unit="collection", desc="reading"):
        path = Path(given)
        if kind != "csv" and is_archive(path):
            path = unpack(path, unpack_to, progress)
        collection = READERS[kind](path, domain, maps[kind])
        if kind != "csv":
            collection.left_out += list(unused_files(path, collection, own=kind == "folders"))
        _require_rows(collection, domain, given)
        for row in collection.rows:
            rows.setdefault(row.domain or domain, []).append(row)
        left_out.setdefault(domain, []).extend(collection.left_out)
    return rows, left_out


def _require_rows(collection: Collection, domain: str, given: str | os.PathLike[str]) -> None:
    if not collection.rows:
        reasons = describe_left_out(collection.left_out) or "no image at all"
        raise InputError(
            f"{given} has no usable image for {domain} ({reasons}); "
            "pass the folder of this collection, with its metadata and images"
        )


def _table(rows: dict[str, list[Row]], left_out: dict[str, list[LeftOut]], pseudonym_key: Path | None) -> pd.DataFrame:
    """Return the manifest's table, with the given splits if any; a file read twice for one domain is listed once."""
    domain_of: dict[str, str] = {}
    table: list[tuple[str, ...]] = []
    for domain, members in rows.items():
        for row in members:
            image = os.path.abspath(row.image)
            if image not in domain_of:
                table.append((image, row.label, domain, row.group, row.split, row.patient, row.lesion))
                domain_of[image] = domain
            elif domain_of[image] == domain:
                left_out.setdefault(domain, []).append(LeftOut(TWICE, row.image.name))
            else:
                raise InputError(
                    f"{image} is in both {domain_of[image]} and {domain}, and no metadata says which it belongs to; "
                    "put each collection into a folder of its own"
                )
    images = add_dicom_columns(pd.DataFrame(table, columns=[*COLUMNS, *LEVELS]), pseudonym_key)
    # Without a patient, a study says which images belong together.
    return join_groups(images, [*LEVELS, "study"] if "study" in images else LEVELS)


def _leave_out_unreadable(
    images: pd.DataFrame, prints: Sequence[Fingerprint], left_out: dict[str, list[LeftOut]]
) -> tuple[pd.DataFrame, list[Fingerprint]]:
    """Drop the images that cannot be read or decoded, because training would fail on them."""
    readable = [number for number, (_, look) in enumerate(prints) if look != UNREADABLE]
    for number in sorted(set(range(len(prints))) - set(readable)):
        image, domain = images["image"].iloc[number], images["domain"].iloc[number]
        left_out.setdefault(domain, []).append(LeftOut(why_unreadable(image), Path(image).name))
    if not readable:
        raise InputError(
            f"none of the {len(prints)} images can be read and decoded, for example {images['image'].iloc[0]}"
        )
    return images.iloc[readable].reset_index(drop=True), [prints[number] for number in readable]
