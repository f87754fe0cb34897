"""``prepare``: read collections and write one manifest, with a report and a provenance file."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import pandas as pd

from fastccsa.collections.choices import DuplicateSearch
from fastccsa.collections.duplicates import find_duplicates, unite_groups
from fastccsa.collections.fingerprints import UNREADABLE, Fingerprint, fingerprint
from fastccsa.collections.groups import LEVELS, join_groups
from fastccsa.collections.groups import group_by as group_by_columns
from fastccsa.collections.labels import LabelMaps
from fastccsa.collections.manifest import Manifest
from fastccsa.collections.prepare_report import PrepareReport
from fastccsa.collections.provenance import write_provenance
from fastccsa.collections.readers import LeftOut, Row
from fastccsa.collections.readers.collection import TWICE
from fastccsa.collections.readers.dicom import add_dicom_columns
from fastccsa.collections.sources import OWN_KINDS, READERS, Source, label_maps, read_sources
from fastccsa.collections.splits import check_seed, split
from fastccsa.collections.taxonomy import DOMAINS
from fastccsa.collections.unreadable import why_unreadable
from fastccsa.collections.validate import COLUMNS
from fastccsa.system.choices import check_choice
from fastccsa.system.errors import InputError

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
    group_by: Sequence[str] = (),
    pseudonym_key: str | os.PathLike[str] | None = None,
) -> tuple[Manifest, PrepareReport]:
    """Read collections, find duplicates, split each domain 50/20/30 and write the manifest.

    Also writes ``NAME.prepare.json`` next to the manifest ``NAME.csv``; it records how the manifest was made.

    Args:
        sources: tuples ``(domain key, kind, path)``. For the kinds of published collections (those of ``READERS`` but
            the last two), the key is one of ``DOMAINS`` and the path a folder or .zip. For a user's own data, the key
            is any name, and the path is a table for the kind "csv", or a folder or .zip of folders domain/class for
            "folders". A domain may appear several times; the manifest keeps the order of the domains.
        out: the CSV file to write.
        seed: seed of the splits, 0 or more.
        progress: show progress bars on stderr.
        labels: the label maps; None for the package's own. A user's own data must use the paper's seven classes
            when combined with a collection, and may use any classes otherwise.
        duplicates: "near" keeps images with the same bytes or the same look in one split, "exact" only those with the
            same bytes, and "off" does not search for duplicates.
        unpack_to: folder to unpack .zip files to; None for ``unpacked`` next to the manifest.
        group_by: columns of the manifest, such as "site"; images of one source with the same value are never in two
            splits. Patients and lesions are kept together in any case.
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
    maps = label_maps(sources, labels or LabelMaps.read())
    unpack_to = out.parent / "unpacked" if unpack_to is None else Path(unpack_to)
    reading = read_sources(sources, maps, unpack_to, progress)
    images, of_source = _table(reading.rows, reading.left_out)
    images = add_dicom_columns(images, None if pseudonym_key is None else Path(pseudonym_key))
    # Without a patient, a study says which images belong together.
    levels = [*LEVELS, "study"] if "study" in images else LEVELS
    images = join_groups(group_by_columns(images, of_source, group_by), levels)
    # Every image is decoded once, whatever is searched for: training would fail on a broken one.
    cache = None if duplicates == "off" else out.parent / _CACHE
    prints = fingerprint(images["image"].tolist(), cache, duplicates == "near", progress)
    images, prints = _leave_out_unreadable(images, prints, reading.left_out)
    found, table = None, images
    if duplicates != "off":
        table, found = unite_groups(images, find_duplicates(prints))
    manifest = Manifest(split(table, seed))
    manifest.validate()  # before anything is written
    manifest.write(out)
    manifest = Manifest.read(out, check_files=False)
    report = PrepareReport.of(
        manifest,
        reading.left_out,
        tables=reading.tables,
        unknown={column: _unknown(manifest, column) for column in group_by},
        duplicates=found,
        lesions=images["group"].tolist(),
        duplicates_mode=duplicates,
    )
    write_provenance(out, report, sources, seed=seed, labels={kind: used.labels for kind, used in maps.items()})
    return manifest, report


def _check_arguments(sources: Sequence[Source], duplicates: str) -> None:
    if not sources:
        raise InputError("no collection to prepare; pass at least one folder")
    for domain, kind, _ in sources:
        if kind not in READERS:
            raise InputError(f"there is no reader of {kind!r}; choose one of {', '.join(READERS)}")
        if kind not in OWN_KINDS and domain not in DOMAINS:
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


def _table(
    rows: dict[str, list[tuple[int, Row]]], left_out: dict[str, list[LeftOut]]
) -> tuple[pd.DataFrame, list[int]]:
    """Return the manifest's table, with the given splits if any, and the number of each row's source.

    A file that is read twice for one domain is listed once.
    """
    domain_of: dict[str, str] = {}
    kept: list[tuple[str, str, Row]] = []
    of_source: list[int] = []
    for domain, members in rows.items():
        for source, row in members:
            image = os.path.abspath(row.image)
            if image not in domain_of:
                kept.append((image, domain, row))
                of_source.append(source)
                domain_of[image] = domain
            elif domain_of[image] == domain:
                left_out.setdefault(domain, []).append(LeftOut(TWICE, row.image.name))
            else:
                raise InputError(
                    f"{image} is in both {domain_of[image]} and {domain}, and no metadata says which it belongs to; "
                    "put each collection into a folder of its own"
                )
    table = pd.DataFrame(
        [(image, row.label, domain, row.group, row.split, row.patient, row.lesion) for image, domain, row in kept],
        columns=[*COLUMNS, *LEVELS],
    )
    for column in dict.fromkeys(column for *_, row in kept for column in row.about):
        values = [row.about.get(column, "") for *_, row in kept]
        if any(values):
            table[column] = values
    return table, of_source


def _unknown(manifest: Manifest, column: str) -> dict[str, int]:
    """Return the number of images of each domain without a value of a column."""
    table = manifest.table
    return {domain: int((table.loc[table["domain"] == domain, column] == "").sum()) for domain in manifest.domains}


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
