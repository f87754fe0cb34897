"""Writing the synthetic collections: listing their pictures, and drawing those that are missing."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from fastccsa.collections.manifest import Manifest
from fastccsa.collections.rendering.scene import Picture, render
from fastccsa.collections.splits import split
from fastccsa.collections.taxonomy import TABLE1
from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically
from fastccsa.system.machine import usable_cpus

_SETTINGS_NAME = "rendering.json"
_VERSION = 1  # version of the renderer; increment it when the same settings give different pictures
_MAX_SEED = 2**32 - 1
_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_NOTICE = "Synthetic, drawn by fastccsa: shows nobody's skin and is of no use for diagnosis."  # part of the JPEG files

# The minimum size of a domain, in multiples of the minimum size of a class. It keeps the proportions of nevi and
# melanomas in PH2 and UDA, and bases their scores on more than a dozen images.
_DOMAIN_MINIMUM = 5

# The lesion that each picture of a cycle shows: HAM10000 has 4 pictures per 3 lesions (10015 of 7470), Derm7pt a
# clinical and a dermoscopic picture per lesion, the others one picture per lesion.
_LESIONS = {"HAM": (0, 0, 1, 2), "D7P": (0, 0)}
_ONE_EACH = (0,)


@dataclass(frozen=True)
class _Settings:
    """What determines a picture besides its identity; the folder's settings file records it.

    Fields with a default are missing in folders written before these settings existed.
    """

    version: int
    seed: int
    width: int
    shift: float = 1.0
    confounding: float = 0.0


@dataclass(frozen=True)
class _Entry:
    """A picture and its row in the manifest."""

    picture: Picture
    image: str
    group: str


def render_collections(
    out: str | os.PathLike[str],
    scale: float = 0.05,
    seed: int = 0,
    *,
    shift: float = 1.0,
    confounding: float = 0.0,
    width: int = 300,
    minimum: int = 20,
    workers: int | None = None,
    progress: bool = True,
) -> Manifest:
    """Draw seven synthetic lesion collections as JPEG files, with a manifest.

    The collections have the keys and class proportions of the paper's seven datasets (Table 1, with MSK's 452 df
    read as bkl) and visible domain shifts; the images are synthetic. A picture is a pure function of the seed, the
    width, ``shift``, ``confounding``, and its domain, class and number, so a larger ``scale`` adds pictures to those of
    a smaller one. An interrupted call can be repeated; complete files are kept.

    Args:
        out: Folder for ``manifest.csv``, ``README.txt`` and one folder of images per domain; created if missing.
        scale: Images drawn per image in Table 1. A scale of 1 gives about 26,800 images, the default 1,705.
        seed: Seed of the pictures and of the split, 0 to 2**32 - 1.
        shift: How much the other domains differ from HAM in skin, camera, light and artefacts: 0 gives all of them
            HAM's look, 1 their own, and 2 doubles the differences, up to the limits of what is possible.
        confounding: How strongly artefacts (hair, ruler, gel bubbles, colour cast, ink, sticker, round mask) indicate
            the class, from 0 to 1: at 0 they are independent of it, at 1 each picture has the artefact of its class
            and no other. In each domain an artefact indicates a different class, so it misleads a classifier that was
            trained on one domain.
        width: Width of HAM's images in pixels, at least 64; those of other domains are 0.9 to 1.25 times as wide, and
            as wide as HAM's at a shift of 0.
        minimum: Minimum number of images of each class in a domain, at least 10, so that every split has one. A
            domain has at least five times as many images in total, in its proportions of Table 1.
        workers: Number of threads; None for one per usable processor. The number does not affect the output.
        progress: Show a progress bar if standard error is a terminal.

    Returns:
        The manifest that was written to ``manifest.csv`` in ``out``.

    Raises:
        InputError: an argument is out of range, ``out`` cannot be written, or it contains other files or pictures
            drawn with another seed, width, shift or confounding.
    """
    settings = _Settings(_VERSION, seed, width, float(shift), float(confounding))
    workers = _check_arguments(settings, scale, minimum, workers)
    out = Path(out)
    _claim_folder(out, settings)
    entries = list(_plan(scale, minimum))
    missing = [entry for entry in entries if not _is_complete(out / entry.image)]
    bar = tqdm(
        total=len(entries),
        initial=len(entries) - len(missing),
        desc="synthetic images",
        unit="image",
        disable=None if progress else True,
    )
    # Threads are enough: drawing and encoding happen in NumPy and Pillow, which release the GIL.
    with bar, ThreadPoolExecutor(workers) as pool:
        for _ in pool.map(lambda entry: _write_image(out / entry.image, entry.picture, settings), missing):
            bar.update()
    manifest = Manifest(split(_table(entries), seed), out)
    manifest.write(out / "manifest.csv")
    return manifest


def _check_arguments(settings: _Settings, scale: float, minimum: int, workers: int | None) -> int:
    """Validate the arguments and return the number of threads."""
    if not (math.isfinite(scale) and scale > 0):
        raise InputError(f"scale is {scale}; give a number above 0, such as 0.05 (1 is the paper's size)")
    if not 0 <= settings.seed <= _MAX_SEED:
        raise InputError(f"the seed is {settings.seed}; give a whole number from 0 to {_MAX_SEED}")
    if not (math.isfinite(settings.shift) and settings.shift >= 0):
        raise InputError(f"shift is {settings.shift}; give 0 for no domain shift, 1 for the usual one, or more")
    if not 0 <= settings.confounding <= 1:
        raise InputError(f"confounding is {settings.confounding}; give a number from 0 to 1")
    if settings.width < 64:
        raise InputError(
            f"width is {settings.width} pixels; give at least 64, since lesions are unrecognisable below that"
        )
    if minimum < 10:
        raise InputError(f"minimum is {minimum}; give at least 10, so that every split has every class")
    if workers is None:
        return usable_cpus()
    if workers < 1:
        raise InputError(f"workers is {workers}; give at least 1, or None for one per processor")
    return workers


def _claim_folder(out: Path, settings: _Settings) -> None:
    """Record the settings in ``out``, so that pictures of different settings are never mixed."""
    text = json.dumps(asdict(settings))
    path = out / _SETTINGS_NAME
    if path.is_file():
        found = path.read_text(encoding="utf-8", errors="replace").strip()
        if _parse(found) != settings:
            raise InputError(
                f"{out} contains synthetic images with other settings, {found} instead of {text}; "
                "choose another folder or the same settings"
            )
    elif out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file; choose a folder for the synthetic images")
    elif out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise InputError(f"{out} contains other files; choose a new or empty folder for the synthetic images")
    for name, content in ((_SETTINGS_NAME, text), ("README.txt", _NOTICE)):
        with write_atomically(out / name) as temporary:
            temporary.write_text(content + "\n", encoding="utf-8")


def _parse(text: str) -> _Settings | None:
    """Return the settings that a settings file contains; None if it contains anything else."""
    try:
        return _Settings(**json.loads(text))
    except (TypeError, ValueError):
        return None


def _plan(scale: float, minimum: int) -> Iterator[_Entry]:
    """Yield every picture of the collections by domain and class."""
    for domain in TABLE1:
        cycle = _LESIONS.get(domain, _ONE_EACH)
        counts = _counts(domain)
        domain_scale = max(scale, _DOMAIN_MINIMUM * minimum / sum(counts.values()))
        for label, count in counts.items():
            for number in range(max(minimum, round(domain_scale * count)) if count else 0):
                turn, position = divmod(number, len(cycle))
                lesion = turn * (max(cycle) + 1) + cycle[position]
                view = position - cycle.index(cycle[position])
                kind = f"synthetic_{domain}_{label}"
                yield _Entry(
                    Picture(domain, label, lesion, view),
                    image=f"{domain}/{kind}_{number:05d}.jpg",
                    group=f"{kind}_lesion_{lesion:05d}",
                )


def _counts(domain: str) -> dict[str, int]:
    """Return the domain's row of Table 1 by class, with its errors corrected (``taxonomy.TABLE1_NOTES``)."""
    counts = dict(TABLE1[domain])
    if domain == "MSK":
        counts["df"], counts["bkl"] = counts["bkl"], counts["df"]
    if domain == "D7P":
        counts["bcc"] = 84
    return counts


def _is_complete(path: Path) -> bool:
    """Return whether the file exists and is a complete JPEG; a truncated one lacks the end marker."""
    try:
        with open(path, "rb") as file:
            start = file.read(2)
            file.seek(-2, os.SEEK_END)
            return start == _JPEG_START and file.read() == _JPEG_END
    except OSError:
        return False


def _write_image(path: Path, picture: Picture, settings: _Settings) -> None:
    image, quality = render(
        picture, settings.seed, settings.width, shift=settings.shift, confounding=settings.confounding
    )
    try:
        with write_atomically(path) as temporary:
            image.save(temporary, format="JPEG", quality=quality, comment=_NOTICE)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error}; fix this and run again, existing images are kept") from error


def _table(entries: list[_Entry]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "image": [entry.image for entry in entries],
            "label": [entry.picture.label for entry in entries],
            "domain": [entry.picture.domain for entry in entries],
            "group": [entry.group for entry in entries],
        }
    )
