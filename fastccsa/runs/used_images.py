"""The images that a run was trained on and selected by, and the check that none of them is scored as a test image."""

from __future__ import annotations

import csv
import hashlib
import io
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from fastccsa.collections import Manifest
from fastccsa.runs.config import CONFIG_FILE, TrainConfig
from fastccsa.runs.images import RunImages
from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically
from fastccsa.system.reading import read_bytes, reported

IMAGES_FILE = "images.csv"
ALLOW = "--allow-changed-manifest"

logger = logging.getLogger("fastccsa.runs")

_COLUMNS = ("image", "split")
_USES = {"train": "trained on", "validation": "used to select the model"}


def write_used_images(folder: Path, config: TrainConfig, images: RunImages) -> None:
    """Write the training and validation images of a run, with those of the runs that it started from.

    Paths below the manifest's folder are relative to it.

    Raises:
        InputError: the file cannot be written.
    """
    used = _used_images(Path(config.init)) if config.init else None
    split_of = dict(used or {})
    for split, part in (("validation", images.validation), ("train", images.training)):
        split_of |= dict.fromkeys(part.paths, split)
    prefix = os.path.join(os.path.dirname(os.path.abspath(config.manifest)), "")
    with (
        write_atomically(folder / IMAGES_FILE) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows((path.removeprefix(prefix), split) for path, split in split_of.items())


def check_manifest(
    run: str | Path,
    given: str | Path | None,
    images: Manifest,
    splits: Sequence[str],
    allow: bool,
) -> None:
    """Check that no image of ``splits`` was used to train or to select the model of a run.

    Args:
        run: run folder.
        given: the manifest's file; None for the run's own.
        images: the manifest as read from it.
        splits: names of the splits that will be scored.
        allow: only log what is wrong.

    Raises:
        InputError: the run's own manifest has changed since, or another one has such images; unless ``allow``.
    """
    if given and not (Path(run) / CONFIG_FILE).exists():
        return  # a model without a record of its training
    config = TrainConfig.read(run)
    path = Path(given or config.manifest)
    # The name of the file is no evidence, and neither is its date: only its content tells whether it changed.
    if config.manifest_sha256 in ("", hashlib.sha256(path.read_bytes()).hexdigest()):
        return
    own = os.path.abspath(path) == os.path.abspath(config.manifest)
    used = _used_images(Path(run))
    found = [] if used is None else [text for split in splits for text in _overlaps(images, split, used, config)]
    if used is None:
        what = f"the run has no {IMAGES_FILE}, so its test images may have been trained on"
    else:
        what = ", and ".join(found) or "none of the images to score was trained on"
    problem = f"the manifest {path} {'changed since' if own else 'is not that of'} the run in {run}: {what}"
    if not allow and (own or found):
        raise InputError(f"{problem}; restore it, or add {ALLOW} to go on")
    if own or found or used is None:
        logger.warning("%s", problem)


def _overlaps(images: Manifest, split: str, used: Mapping[str, str], config: TrainConfig) -> list[str]:
    """Describe how many images of a split were used by the run."""
    part = images.select(split)
    folder = os.path.dirname(os.path.abspath(config.manifest))
    # If the images were moved with their manifest, they are recognised by their paths relative to it.
    moved = {os.path.relpath(path, folder): use for path, use in used.items() if not os.path.exists(path)}
    uses = [used.get(path) or moved.get(os.path.relpath(path, images.folder)) for path in part.paths]
    return [
        f"{uses.count(use)} of its {len(part)} {split} images were {text}"
        for use, text in _USES.items()
        if use != split and use in uses
    ]


def _used_images(run: Path, seen: frozenset[str] = frozenset()) -> dict[str, str] | None:
    """Return the split of each image that a run used, by absolute path; None if the run does not say."""
    try:
        config = TrainConfig.read(run)
    except InputError:
        return None
    try:
        return _read_images(run / IMAGES_FILE, os.path.dirname(os.path.abspath(config.manifest)))
    except FileNotFoundError:
        pass
    # The network that pruning leaves, before it is fine-tuned, used the images of the run that was pruned.
    key = os.path.abspath(run)
    return _used_images(Path(config.init), seen | {key}) if config.init and key not in seen else None


def _read_images(file: Path, folder: str) -> dict[str, str]:
    """Return the split of each image in a file of `write_used_images`, by absolute path.

    Raises:
        FileNotFoundError: it does not exist.
        InputError: it is broken.
    """
    splits = {}
    with reported(file, "does not list the images of a run", "restore it, or train the run again"):
        # Names of files may have bytes that are not UTF-8.
        text = read_bytes(file).decode("utf-8", "surrogateescape")
        rows = csv.reader(io.StringIO(text, newline=""), strict=True)
        try:
            header, *listed = rows
        except (csv.Error, ValueError) as error:
            raise InputError(f"line {rows.line_num}: {error}") from error
        if tuple(header) != _COLUMNS:
            raise InputError(f"its first line is not {','.join(_COLUMNS)}")
        for number, row in enumerate(listed, start=2):
            if len(row) != len(_COLUMNS) or row[1] not in _USES or not row[0] or "\0" in row[0]:
                raise InputError(f"row {number} is not an image and one of {', '.join(_USES)}")
            splits[os.path.normpath(os.path.join(folder, row[0]))] = row[1]
    return splits
