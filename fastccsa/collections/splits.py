"""Splitting images into training, validation and test sets, and limiting the images of secondary domains."""

from __future__ import annotations

import numpy as np
import pandas as pd

from fastccsa.collections.folds import stratified_folds
from fastccsa.collections.manifest import Manifest
from fastccsa.collections.validate import COLUMNS
from fastccsa.system.errors import InputError

# A domain is divided into tenths: 5 for training, 2 for validation, 3 for testing. The order matters for classes with
# few groups: the first group is needed to learn the class, the second to test it, the third to select the model.
TENTHS = (
    "train", "test", "validation", "train", "test", "train", "train", "validation", "test", "train",
)  # fmt: skip


def split(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Add the column ``split``: 50/20/30 % training/validation/test within each domain.

    Class proportions are kept within each domain, and each group is in one split, even if it spans domains. A
    class with fewer than ten groups puts its first into training, the second into test and the third into
    validation. The result depends only on the images and the seed: not on the order of the rows, nor, for domains
    that share no group, on the other domains.

    Args:
        table: columns ``image, label, domain, group`` (strings), one row per image. If it has a column ``split``
            too, values other than "" are kept and apply to the whole group.
        seed: 0 or more.

    Returns:
        A copy of ``table`` with the column ``split``.

    Raises:
        InputError: the seed is negative, the table lacks a column, or a group has two splits already.
    """
    check_seed(seed)
    missing = [column for column in COLUMNS if column != "split" and column not in table.columns]
    if missing:
        raise InputError(f"the table to split lacks {', '.join(missing)}")
    ordered = table.sort_values(["domain", "group", "label", "image"])
    split_of = _given_splits(ordered)
    for _, rows in ordered.groupby("domain", sort=True):
        new = rows[~rows["group"].isin(split_of.keys())]
        split_of |= _split_domain(new["group"].to_numpy(), new["label"].to_numpy(), seed)
    return table.assign(split=table["group"].map(split_of))


def nested_subset(manifest: Manifest, n_sec: int | None, primary: str, seed: int = 0) -> Manifest:
    """Reduce each secondary domain to at most ``n_sec`` training images of each class.

    The subsets are nested: with the same seed, ``n_sec=3`` includes every image of ``n_sec=2``. The primary domain
    and the validation and test images are kept in full, and the order of the images is preserved.

    Args:
        manifest: a manifest with all its splits.
        n_sec: images per class and secondary domain; None keeps all of them, 0 none.
        primary: key of the primary domain.
        seed: 0 or more; determines which images are kept first.

    Raises:
        InputError: ``n_sec`` or the seed is negative, or ``primary`` is not a domain of the manifest.
    """
    check_seed(seed)
    if primary not in manifest.domains:
        raise InputError(
            f"the primary domain {primary!r} is not in the manifest, which has {', '.join(manifest.domains)}"
        )
    if n_sec is None:
        return manifest
    if n_sec < 0:
        raise InputError(f"n_sec is {n_sec}; give 0 or more, or None for all images")
    table = manifest.table
    secondary = table[(table["split"] == "train") & (table["domain"] != primary)]
    dropped: list[int] = []
    for _, cell in secondary.sort_values(["group", "image"]).groupby(["domain", "label"]):
        order = np.random.default_rng(seed).permutation(len(cell))
        dropped += cell.index[order[n_sec:]].tolist()
    keep = np.ones(len(manifest), dtype=bool)
    keep[dropped] = False
    return manifest.take(keep)


def _given_splits(table: pd.DataFrame) -> dict[str, str]:
    """Return the split of each group that already has one."""
    split_of: dict[str, str] = {}
    if "split" in table.columns:
        for group, given in zip(table["group"], table["split"], strict=True):
            if given and split_of.setdefault(group, given) != given:
                raise InputError(f"group {group!r} is assigned to both {split_of[group]} and {given}; choose one")
    return split_of


def _split_domain(groups: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, str]:
    """Return the split of each group of one domain; ``groups`` and ``labels`` have one entry per image."""
    label_of = _label_of_groups(groups, labels)
    sizes = label_of.value_counts()
    rare = label_of.map(sizes) < len(TENTHS)
    return _deal(label_of[rare], seed) | _fold(groups, labels, label_of[~rare], seed)


def _label_of_groups(groups: np.ndarray, labels: np.ndarray) -> pd.Series:
    """Return one label per group, indexed by group; a group with several classes counts as the rarest of them."""
    pairs = pd.DataFrame({"group": groups, "label": labels}).drop_duplicates()
    pairs["size"] = pairs["label"].map(pairs["label"].value_counts())
    rarest = pairs.sort_values(["size", "label", "group"]).drop_duplicates("group")
    return rarest.set_index("group")["label"].sort_index()


def _deal(label_of: pd.Series, seed: int) -> dict[str, str]:
    """Shuffle the groups of each rare class and assign them to splits in the order of :data:`TENTHS`."""
    split_of: dict[str, str] = {}
    for _, members in label_of.groupby(label_of):
        shuffled = np.random.default_rng(seed).permutation(members.index.to_numpy())
        split_of |= dict(zip(shuffled, TENTHS, strict=False))
    return split_of


def _fold(groups: np.ndarray, labels: np.ndarray, label_of: pd.Series, seed: int) -> dict[str, str]:
    """Divide the groups of ``label_of`` into ten stratified folds, one per tenth; each class has ten groups or more."""
    if label_of.empty:
        return {}
    number = np.random.default_rng(seed).permutation(len(label_of))
    names = label_of.index[np.argsort(number)]  # a random order decides between groups that are alike
    position = names.get_indexer(groups)
    kept = position >= 0
    classes, of_image = np.unique(labels[kept].astype(str), return_inverse=True)
    by_group = np.zeros((len(names), len(classes)), dtype=np.int64)
    np.add.at(by_group, (position[kept], of_image), 1)
    folds = stratified_folds(by_group, len(TENTHS))
    return dict(zip(names, (TENTHS[fold] for fold in folds), strict=True))


def check_seed(seed: int) -> None:
    """Raise InputError if the seed is negative."""
    if seed < 0:
        raise InputError(f"the seed is {seed}; give 0 or more")
