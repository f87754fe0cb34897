"""The report of ``fastccsa prepare``: the images found, next to the numbers of the paper's Table 1."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import pandas as pd

from fastccsa.collections.duplicates import Duplicates, Pair
from fastccsa.collections.manifest import Manifest
from fastccsa.collections.readers import LeftOut
from fastccsa.collections.readers.collection import (
    AMBIGUOUS,
    BAD_NAME,
    BAD_TABLE,
    DANGLING,
    FILE_UNREADABLE,
    NO_DECODER,
    NO_FILE,
    NO_REGULAR_FILE,
    OTHER_FILE,
    OTHER_TABLE,
    PACKED,
    UNLISTED,
    UNREADABLE_IMAGE,
)
from fastccsa.collections.taxonomy import CLASSES, TABLE1, TABLE1_NOTES
from fastccsa.collections.validate import SPLITS

_SHOWN = 10  # names or pairs listed in the text; the provenance file next to the manifest has all of them

# A group with at least this many images and this share of its domain is suspiciously large for copies of one image.
_CLUMP_SIZE, _CLUMP_SHARE = 10, 0.05

# Reasons that list names, because users can fix each file.
_NAMED = (
    NO_FILE,
    AMBIGUOUS,
    UNREADABLE_IMAGE,
    FILE_UNREADABLE,
    PACKED,
    NO_DECODER,
    DANGLING,
    NO_REGULAR_FILE,
    BAD_NAME,
    UNLISTED,
    OTHER_FILE,
    OTHER_TABLE,
    BAD_TABLE,
)


@dataclass(frozen=True)
class PrepareReport:
    """The findings of :func:`fastccsa.collections.prepare`; ``str(report)`` is the text that the command line prints.

    Attributes:
        found: number of images by domain and class.
        splits: number of images by domain and split.
        left_out: reason and name of what was left out, by domain.
        tables: number of rows of each table and description that was read, by domain.
        unknown: for each column that images were grouped by, the number of images without a value, by domain.
        duplicates: pairs of duplicates among the manifest's images; None if they were not searched for.
        images: the manifest's table.
        lesions: the group of each image before the groups of duplicates were merged.
        duplicates_mode: "off", "exact" or "near".
    """

    found: pd.DataFrame
    splits: pd.DataFrame
    left_out: dict[str, list[LeftOut]]
    tables: dict[str, dict[str, int]]
    unknown: dict[str, dict[str, int]]
    duplicates: Duplicates | None
    images: pd.DataFrame
    lesions: list[str]
    duplicates_mode: str

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        left_out: dict[str, list[LeftOut]],
        *,
        tables: dict[str, dict[str, int]],
        unknown: dict[str, dict[str, int]],
        duplicates: Duplicates | None,
        lesions: list[str],
        duplicates_mode: str,
    ) -> PrepareReport:
        """Count the images of a manifest."""
        splits = pd.concat({name: manifest.summary(name).sum(axis=1) for name in SPLITS}, axis=1)
        return cls(
            found=manifest.summary(),
            splits=splits,
            left_out=left_out,
            tables=tables,
            unknown=unknown,
            duplicates=duplicates,
            images=manifest.table,
            lesions=lesions,
            duplicates_mode=duplicates_mode,
        )

    @property
    def dropped(self) -> dict[str, Counter[str]]:
        """How many items were left out, by domain and reason."""
        return {domain: Counter(reason for reason, _ in entries) for domain, entries in self.left_out.items()}

    def contradictions(self, pairs: Iterable[Pair]) -> list[Pair]:
        """Return the given pairs of duplicates whose labels differ."""
        labels = self.images["label"].tolist()
        return [(i, j) for i, j in pairs if labels[i] != labels[j]]

    def __str__(self) -> str:
        parts = [self._counts(), self._splits(), self._tables(), self._left_out(), *self._grouped()]
        return "\n\n".join(part for part in [*parts, self._duplicates()] if part)

    def _counts(self) -> str:
        """Return the counts by class, with the paper's counts below each of the paper's domains."""
        rows: dict[tuple[str, str], pd.Series] = {}
        for domain, counts in self.found.iterrows():
            rows[str(domain), "found"] = counts
            if domain in TABLE1 and tuple(self.found.columns) == CLASSES:
                rows[str(domain), "paper"] = pd.Series(TABLE1[str(domain)])
        table = pd.DataFrame.from_dict(rows, orient="index")
        table.index = pd.MultiIndex.from_tuples(rows)
        table["total"] = table.sum(axis=1)
        notes = [
            f"{domain}: {TABLE1_NOTES[domain]}" for domain, kind in rows if kind == "paper" and domain in TABLE1_NOTES
        ]
        return "\n".join([table.to_string(), *notes])

    def _splits(self) -> str:
        """Return the number of images in each split, and which domains have too few to train on."""
        lines = [self.splits.to_string()]
        for domain, counts in self.splits.iterrows():
            empty = [str(name) for name, count in counts.items() if not count]
            if empty:
                lines.append(f"{domain} has no {' and no '.join(empty)} image: it has too few groups of images")
        return "\n".join(lines)

    def _tables(self) -> str:
        """Return the tables that were read, with their numbers of rows."""
        lines = []
        for domain, tables in self.tables.items():
            single = [name for name, count in tables.items() if count == 1]
            several = {name: count for name, count in tables.items() if count != 1 or len(single) <= _SHOWN}
            shown = [f"{name} ({count} row{'s'[: count != 1]})" for name, count in list(several.items())[:_SHOWN]]
            if len(several) > _SHOWN:
                rest = sum(list(several.values())[_SHOWN:])
                shown.append(f"and {len(several) - _SHOWN} more ({rest} rows)")
            if len(single) > _SHOWN:
                shown.append(f"{len(single)} descriptions of one image")
            if shown:
                lines.append(f"  {domain}: {', '.join(shown)}")
        return "\n".join(["Read:", *lines]) if lines else ""

    def _grouped(self) -> list[str]:
        lines = []
        for column, counts in self.unknown.items():
            missing = [f"{count} images of {domain}" for domain, count in counts.items() if count]
            lines.append(f"Grouped by {column}: {', '.join(missing) or 'no image'} without a value")
        return ["\n".join(lines)] if lines else []

    def _left_out(self) -> str:
        lines = [f"  {domain}: {describe_left_out(entries)}" for domain, entries in self.left_out.items() if entries]
        return "\n".join(["Left out:", *lines] if lines else ["Left out: nothing"])

    def _duplicates(self) -> str:
        if self.duplicates is None:
            return "Duplicates: not looked for"
        lines = self._duplicate_counts(self.duplicates)
        lines += self._pairs_line("same bytes, different label", self.contradictions(self.duplicates.exact))
        lines += self._pairs_line("same look, different label", self.contradictions(self.duplicates.near))
        lines += self._pairs_line("not in one split, because the given splits separate them", self.duplicates.separated)
        return "\n".join(lines + self._clump_warnings())

    def _clump_warnings(self) -> list[str]:
        """Return warnings about domains that are hard to split, because duplicates put many images into one group."""
        lines = []
        for domain, images in self.images.assign(lesion=self.lesions).groupby("domain", sort=False):
            group, size = next(iter(images["group"].value_counts().items()))
            joined = images.loc[images["group"] == group, "lesion"].nunique() > 1
            if joined and size >= _CLUMP_SIZE and size >= _CLUMP_SHARE * len(images):
                lines.append(
                    f"  {size} of the {len(images)} images of {domain} are in one group because of the same look; "
                    "if they are not copies, use --duplicates exact"
                )
        return lines

    def _duplicate_counts(self, duplicates: Duplicates) -> list[str]:
        kinds = {"same bytes": duplicates.exact}
        if self.duplicates_mode == "near":
            kinds["same look"] = duplicates.near
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for kind, pairs in kinds.items():
            for i, j in pairs:
                where = self._where(i, j)
                counts[where][kind] += 1
                counts[where]["already in one group"] += self.lesions[i] == self.lesions[j]
        if not counts:
            return [f"Duplicates: none (looked for {' and '.join(kinds)})"]
        columns = [*kinds, "already in one group"]
        table = pd.DataFrame([[counts[where][column] for column in columns] for where in counts], counts, columns)
        return ["Pairs of duplicates, each kept in one split:", table.to_string()]

    def _where(self, i: int, j: int) -> str:
        domains = self.images["domain"]
        first, second = domains.iloc[i], domains.iloc[j]
        return f"within {first}" if first == second else f"{first} and {second}"

    def _pairs_line(self, what: str, pairs: Sequence[Pair]) -> list[str]:
        if not pairs:
            return []
        shown = [f"{self._image_text(i)} = {self._image_text(j)}" for i, j in pairs[:_SHOWN]]
        return [f"  {what} ({len(pairs)}): {'; '.join(_shortened(shown, len(pairs)))}"]

    def _image_text(self, position: int) -> str:
        image = self.images.iloc[position]
        return f"{PurePath(image['image']).name} ({image['domain']} {image['label']})"


def describe_left_out(left_out: Iterable[LeftOut]) -> str:
    """Describe what was left out, the most frequent reason first, with the names of images that users can fix."""
    names: dict[str, list[str]] = defaultdict(list)
    for reason, name in left_out:
        names[reason].append(name)
    parts = []
    ordered = sorted(names.items(), key=lambda entry: -len(entry[1]))
    others = [reason for reason, _ in ordered if not reason.startswith(_NAMED)][_SHOWN:]
    for reason, of_reason in ordered:
        if reason in others:
            continue
        listed = f": {', '.join(_shortened(of_reason[:_SHOWN], len(of_reason)))}" if reason.startswith(_NAMED) else ""
        parts.append(f"{reason} ({len(of_reason)}{listed})")
    if others:
        parts.append(f"{len(others)} rarer reasons ({sum(len(names[reason]) for reason in others)})")
    return "; ".join(parts)


def _shortened(shown: Sequence[str], count: int) -> list[str]:
    return [*shown, f"and {count - len(shown)} more"] if count > len(shown) else list(shown)
