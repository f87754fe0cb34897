"""From the folders of the collections to one manifest, and the account of how that went."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from fastccsa.data.manifest import Manifest
from fastccsa.data.manifest_checks import SPLITS
from fastccsa.data.readers import Collection, Row, read_ham10000, read_isic
from fastccsa.data.readers.collection import TWICE
from fastccsa.data.splits import split
from fastccsa.data.taxonomy import DOMAINS, TABLE1, TABLE1_NOTES
from fastccsa.errors import InputError

Source = tuple[str, str, "str | os.PathLike[str]"]  # domain key, kind, folder

# Kind of collection -> its reader, called with the folder and the domain key.
READERS: dict[str, Callable[[Path, str], Collection]] = {
    "ham10000": lambda folder, domain: read_ham10000(folder),
    "isic": read_isic,
}


@dataclass(frozen=True)
class PrepareReport:
    """What :func:`prepare` found; ``str()`` of it is the text the command line prints.

    Attributes:
        found: images by domain and class.
        splits: images by domain and split.
        dropped: per domain, how many images were left out for which reason.
    """

    found: pd.DataFrame
    splits: pd.DataFrame
    dropped: dict[str, Counter[str]]

    def __str__(self) -> str:
        return "\n\n".join([self._counts(), self.splits.to_string(), self._dropped()])

    def _counts(self) -> str:
        """Return the counts by class, each domain's found ones above the paper's."""
        domains = list(self.found.index)
        paper = pd.DataFrame.from_dict({domain: TABLE1[domain] for domain in domains}, orient="index")
        table = pd.concat({"found": self.found, "paper": paper}).swaplevel().loc[domains]
        table["total"] = table.sum(axis=1)
        notes = [f"{domain}: {TABLE1_NOTES[domain]}" for domain in domains if domain in TABLE1_NOTES]
        return "\n".join([table.to_string(), *notes])

    def _dropped(self) -> str:
        lines = [f"  {domain}: {_tell(reasons)}" for domain, reasons in self.dropped.items() if reasons]
        return "\n".join(["Left out:", *lines] if lines else ["Left out: nothing"])


def prepare(
    sources: Sequence[Source], out: str | os.PathLike[str], seed: int = 0, progress: bool = False
) -> tuple[Manifest, PrepareReport]:
    """Read collections, split each 50/20/30, and write the manifest.

    Args:
        sources: ``(domain key, kind, folder)`` each: a key of ``DOMAINS``, and "ham10000" or "isic". A domain
            may be given several times, with a folder each; the manifest keeps the order of the domains.
        out: the CSV file to write.
        seed: of the splits.
        progress: show a progress bar on stderr.

    Returns:
        The manifest, as written, and the report.

    Raises:
        InputError: a source is not what it is said to be or holds no usable image, an image belongs to two
            domains, or ``out`` cannot be written.
    """
    _check(sources)
    rows: dict[str, list[Row]] = {}
    dropped: dict[str, Counter[str]] = {}
    with tqdm(sources, disable=not progress, leave=False, unit="folder") as bar:
        for domain, kind, folder in bar:
            bar.set_description(f"reading {DOMAINS[domain]}")
            collection = READERS[kind](Path(folder), domain)
            _require_rows(collection, domain, folder)
            rows.setdefault(domain, []).extend(collection.rows)
            dropped.setdefault(domain, Counter()).update(collection.dropped)
        bar.set_description("splitting")
        table = split(_table(rows, dropped), seed)
    Manifest(table).write(out)
    manifest = Manifest.read(out)
    return manifest, _report(manifest, dropped)


def _check(sources: Sequence[Source]) -> None:
    if not sources:
        raise InputError("no collection to prepare; give at least one folder")
    for domain, kind, _ in sources:
        if domain not in DOMAINS:
            raise InputError(f"there is no domain {domain!r}; choose one of {', '.join(DOMAINS)}")
        if kind not in READERS:
            raise InputError(f"there is no reader of {kind!r}; choose one of {', '.join(READERS)}")


def _require_rows(collection: Collection, domain: str, folder: str | os.PathLike[str]) -> None:
    if not collection.rows:
        raise InputError(
            f"{folder} holds no image that can be used for {domain} ({_tell(collection.dropped)}); "
            "give the folder of this collection, with its metadata and images"
        )


def _tell(reasons: Counter[str]) -> str:
    return "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common())


def _table(rows: dict[str, list[Row]], dropped: dict[str, Counter[str]]) -> pd.DataFrame:
    """Return the manifest's table without the splits; a file read twice for one domain is dropped once."""
    domain_of: dict[str, str] = {}
    table: list[tuple[str, str, str, str]] = []
    for domain, members in rows.items():
        for row in members:
            image = os.path.abspath(row.image)
            if image not in domain_of:
                table.append((image, row.label, domain, row.group))
                domain_of[image] = domain
            elif domain_of[image] == domain:
                dropped[domain][TWICE] += 1
            else:
                raise InputError(
                    f"{image} is taken for both {domain_of[image]} and {domain}, and no metadata tell which "
                    "it is; give each collection a folder of its own"
                )
    return pd.DataFrame(table, columns=["image", "label", "domain", "group"])


def _report(manifest: Manifest, dropped: dict[str, Counter[str]]) -> PrepareReport:
    splits = pd.concat({name: manifest.summary(name).sum(axis=1) for name in SPLITS}, axis=1)
    return PrepareReport(manifest.summary(), splits, dropped)
