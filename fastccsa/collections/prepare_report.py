"""What ``fastccsa prepare`` found, told beside the paper's Table 1."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import pandas as pd

from fastccsa.collections.duplicates import Duplicates, Pair
from fastccsa.collections.manifest import Manifest
from fastccsa.collections.readers import LeftOut
from fastccsa.collections.readers.collection import AMBIGUOUS, NO_FILE, PACKED, UNREADABLE_IMAGE
from fastccsa.collections.taxonomy import CLASSES, TABLE1, TABLE1_NOTES
from fastccsa.collections.validate import SPLITS

_SHOWN = 10  # names or pairs in the text; the file beside the manifest has all

# A group of that many images, and of that share of its domain, is more than copies should make.
_CLUMP_SIZE, _CLUMP_SHARE = 10, 0.05

_NAMED = (NO_FILE, AMBIGUOUS, UNREADABLE_IMAGE, PACKED)  # reasons that a user can do something about, image by image


@dataclass(frozen=True)
class PrepareReport:
    """What :func:`fastccsa.collections.prepare` found; ``str()`` of it is the text the command line prints.

    Attributes:
        found: images by domain and class.
        splits: images by domain and split.
        left_out: per domain, reason and name of what was left out.
        duplicates: pairs of the manifest's images that are one; None when they were not looked for.
        images: the manifest's table.
        lesions: the group of each image before duplicates were given one group.
        looked_for: "off", "exact" or "near".
    """

    found: pd.DataFrame
    splits: pd.DataFrame
    left_out: dict[str, list[LeftOut]]
    duplicates: Duplicates | None
    images: pd.DataFrame
    lesions: list[str]
    looked_for: str

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        left_out: dict[str, list[LeftOut]],
        duplicates: Duplicates | None,
        lesions: list[str],
        looked_for: str,
    ) -> PrepareReport:
        """Count what is in a manifest."""
        splits = pd.concat({name: manifest.summary(name).sum(axis=1) for name in SPLITS}, axis=1)
        return cls(manifest.summary(), splits, left_out, duplicates, manifest.table, lesions, looked_for)

    @property
    def dropped(self) -> dict[str, Counter[str]]:
        """Per domain, how many were left out for which reason."""
        return {domain: Counter(reason for reason, _ in entries) for domain, entries in self.left_out.items()}

    def contradictions(self, pairs: Iterable[Pair]) -> list[Pair]:
        """Return those of some pairs of duplicates that have different labels."""
        labels = self.images["label"].tolist()
        return [(i, j) for i, j in pairs if labels[i] != labels[j]]

    def __str__(self) -> str:
        return "\n\n".join([self._counts(), self.splits.to_string(), self._left_out(), self._duplicates()])

    def _counts(self) -> str:
        """Return the counts by class, each of the paper's domains above what the paper counts."""
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

    def _left_out(self) -> str:
        lines = [f"  {domain}: {tell(entries)}" for domain, entries in self.left_out.items() if entries]
        return "\n".join(["Left out:", *lines] if lines else ["Left out: nothing"])

    def _duplicates(self) -> str:
        if self.duplicates is None:
            return "Duplicates: not looked for"
        lines = self._duplicate_counts(self.duplicates)
        lines += self._tell_pairs("same bytes, another label", self.contradictions(self.duplicates.exact))
        lines += self._tell_pairs("same look, another label", self.contradictions(self.duplicates.near))
        lines += self._tell_pairs("cannot be kept in one split, as the splits given part them", self.duplicates.torn)
        return "\n".join(lines + self._tell_clumps())

    def _tell_clumps(self) -> list[str]:
        """Warn of domains that a split can hardly cut, as duplicates make one group of a large part of them."""
        lines = []
        for domain, images in self.images.assign(lesion=self.lesions).groupby("domain", sort=False):
            group, size = next(iter(images["group"].value_counts().items()))
            joined = images.loc[images["group"] == group, "lesion"].nunique() > 1
            if joined and size >= _CLUMP_SIZE and size >= _CLUMP_SHARE * len(images):
                lines.append(
                    f"  {size} of the {len(images)} images of {domain} are one group by their look; "
                    "if they are not copies, use --duplicates exact"
                )
        return lines

    def _duplicate_counts(self, duplicates: Duplicates) -> list[str]:
        kinds = {"same bytes": duplicates.exact}
        if self.looked_for == "near":
            kinds["same look"] = duplicates.near
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for kind, pairs in kinds.items():
            for i, j in pairs:
                where = self._where(i, j)
                counts[where][kind] += 1
                counts[where]["of one group already"] += self.lesions[i] == self.lesions[j]
        if not counts:
            return [f"Duplicates: none (looked for {' and '.join(kinds)})"]
        columns = [*kinds, "of one group already"]
        table = pd.DataFrame([[counts[where][column] for column in columns] for where in counts], counts, columns)
        return ["Duplicates, pairs; each is kept in one split:", table.to_string()]

    def _where(self, i: int, j: int) -> str:
        domains = self.images["domain"]
        first, second = domains.iloc[i], domains.iloc[j]
        return f"within {first}" if first == second else f"{first} and {second}"

    def _tell_pairs(self, what: str, pairs: Sequence[Pair]) -> list[str]:
        if not pairs:
            return []
        shown = [f"{self._tell_image(i)} = {self._tell_image(j)}" for i, j in pairs[:_SHOWN]]
        return [f"  {what} ({len(pairs)}): {'; '.join(_shortened(shown, len(pairs)))}"]

    def _tell_image(self, position: int) -> str:
        image = self.images.iloc[position]
        return f"{PurePath(image['image']).name} ({image['domain']} {image['label']})"


def tell(left_out: Iterable[LeftOut]) -> str:
    """Tell what was left out, the most frequent reason first; missing files by name."""
    names: dict[str, list[str]] = defaultdict(list)
    for reason, name in left_out:
        names[reason].append(name)
    told = []
    for reason, of_reason in sorted(names.items(), key=lambda entry: -len(entry[1])):
        listed = f": {', '.join(_shortened(of_reason[:_SHOWN], len(of_reason)))}" if reason in _NAMED else ""
        told.append(f"{reason} ({len(of_reason)}{listed})")
    return "; ".join(told)


def _shortened(shown: Sequence[str], count: int) -> list[str]:
    return [*shown, f"and {count - len(shown)} more"] if count > len(shown) else list(shown)
