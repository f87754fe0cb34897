"""What DICOM files say about themselves: patient and study as pseudonyms, institution and device.

Only the attributes below are read from a file, so no name, birth date or other identifying field can reach a manifest.
"""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pandas as pd

from fastccsa.collections.pseudonym_key import read_key
from fastccsa.formats.dicom import frame_count, is_dicom, shown_frame
from fastccsa.formats.files import open_regular
from fastccsa.system.machine import usable_cpus

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

_TAGS = (
    "PatientID",
    "StudyInstanceUID",
    "InstitutionName",
    "ClinicalTrialSiteName",
    "ClinicalTrialSiteID",
    "Manufacturer",
    "ManufacturerModelName",
    "NumberOfFrames",
    "RepresentativeFrameNumber",
)
_HEADER = 132  # bytes of the preamble and the mark
_DIGITS = 16  # of a pseudonym: 64 bits, which no two of a million patients share
# Names that anonymisers give to all patients alike. They would put all of them into one group.
_NOBODY = {"", "anonymous", "anonymized", "anonymised", "anon", "unknown", "none", "removed"}


class Facts(NamedTuple):
    """What one DICOM file says; "" where it does not, and for other files.

    Attributes:
        patient, study: pseudonyms of both.
        institution: the site where the image was made.
        device: maker and model of the device.
        frame: which of several frames is shown, such as "31 of 60".
    """

    patient: str = ""
    study: str = ""
    institution: str = ""
    device: str = ""
    frame: str = ""


def add_dicom_columns(images: pd.DataFrame, key: Path | None = None, workers: int | None = None) -> pd.DataFrame:
    """Fill in what the DICOM files among the images say.

    Args:
        images: columns ``image`` (absolute paths) and ``patient``, as strings.
        key: file with the key of the pseudonyms; None for the user's own, which is made when it is first needed.
        workers: number of threads; None for one per usable CPU core.

    Returns:
        The table with the columns of `Facts`, without new ones that are empty. What the table knows already is kept.

    Raises:
        InputError: the file with the key cannot be read or made.
    """
    facts = dicom_facts(images["image"].tolist(), key, workers)
    for column in Facts._fields:
        values = [getattr(one, column) for one in facts]
        if column in images:
            values = [given or found for given, found in zip(images[column], values, strict=True)]
        if column in images or any(values):
            images = images.assign(**{column: values})
    return images


def dicom_facts(paths: Sequence[str], key: Path | None = None, workers: int | None = None) -> list[Facts]:
    """Return what each file says. Arguments and errors are those of `add_dicom_columns`."""
    pseudonym = _Pseudonyms(key)
    with ThreadPoolExecutor(workers or usable_cpus()) as pool:
        headers = list(pool.map(_read_header, paths))
    return [Facts() if header is None else _facts(header, pseudonym) for header in headers]


class _Pseudonyms:
    """Makes the pseudonyms of identifiers; the key is read when the first one is needed."""

    def __init__(self, key: Path | None) -> None:
        self._path = key
        self._key: bytes | None = None

    def __call__(self, kind: str, identifier: str) -> str:
        """Return the pseudonym of an identifier: always the same with the same key, and useless without it."""
        if identifier.lower() in _NOBODY:
            return ""
        if self._key is None:
            self._key = read_key(self._path)
        digest = hmac.new(self._key, f"{kind}\0{identifier}".encode(), hashlib.sha256)
        return f"{kind}-{digest.hexdigest()[:_DIGITS]}"


def _read_header(path: str) -> Dataset | None:
    """Read the attributes above from a DICOM file; None for other files, and for what cannot be read."""
    try:
        with open_regular(path) as file:
            if not is_dicom(file.read(_HEADER)):
                return None
            import pydicom

            file.seek(0)
            return pydicom.dcmread(file, stop_before_pixels=True, specific_tags=list(_TAGS))
    # If the file is damaged, decoding says so. pydicom raises many types of errors.
    except Exception:
        return None


def _facts(header: Dataset, pseudonym: Callable[[str, str], str]) -> Facts:
    institution = _text(header, "InstitutionName") or _text(header, "ClinicalTrialSiteName")
    maker, model = _text(header, "Manufacturer"), _text(header, "ManufacturerModelName")
    frames = frame_count(header)
    return Facts(
        patient=pseudonym("patient", _text(header, "PatientID")),
        study=pseudonym("study", _text(header, "StudyInstanceUID")),
        institution=institution or _text(header, "ClinicalTrialSiteID"),
        device=model if model.lower().startswith(maker.lower()) else f"{maker} {model}".strip(),
        frame=f"{shown_frame(header) + 1} of {frames}" if frames > 1 else "",
    )


def _text(header: Dataset, name: str) -> str:
    """Return a value as one line of text; "" if it is absent or damaged."""
    try:
        value = str(header.get(name) or "")
    except Exception:  # as above
        return ""
    visible = "".join(" " if unicodedata.category(letter)[0] in "CZ" else letter for letter in value)
    return " ".join(visible.split())
