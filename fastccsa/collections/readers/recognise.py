"""Naming the collection whose table lies in a folder that was passed as another one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fastccsa.collections.tables import column_names

# Columns of its table, collection, option. The first that fits counts, so special ones come before general ones.
_SIGNATURES: tuple[tuple[frozenset[str], str, str], ...] = (
    (frozenset({"lesion_id", "image_id", "dx"}), "HAM10000", "--ham10000"),
    (frozenset({"diagnosis", "clinic", "derm"}), "Derm7pt", "--derm7pt"),
    (frozenset({"img_id", "diagnostic", "fitspatrick"}), "PAD-UFES-20", "--pad-ufes-20"),
    (frozenset({"ddi_file", "disease"}), "DDI", "--ddi"),
    (frozenset({"md5hash", "label", "fitzpatrick_scale"}), "Fitzpatrick17k", "--fitzpatrick17k"),
    (frozenset({"bcn_filename"}), "BCN20000", "--bcn20000"),
    (frozenset({"lesion_id", "ben_oth", "sccka"}), "MILK10k", "--milk10k"),
    (frozenset({"mel", "nv", "bcc", "bkl", "df", "vasc"}), "an ISIC challenge", "--challenge YEAR="),
    (frozenset({"melanoma", "seborrheic_keratosis"}), "the ISIC challenge of 2017", "--challenge 2017="),
    (frozenset({"image_name", "diagnosis", "benign_malignant"}), "the ISIC challenge of 2020", "--challenge 2020="),
    (frozenset({"isic_id"}), "the ISIC archive", "--isic DOMAIN="),
    (frozenset({"image", "label"}), "a user's own data", "--csv NAME="),
)
_LOOKED_AT = 100  # tables; a folder may hold thousands of other files


def other_collection(files: Iterable[Path]) -> str:
    """Return ``; FILE is a table of COLLECTION: pass ...`` if one of the files is; else ""."""
    tables = [path for path in files if path.suffix.lower() in (".csv", ".tab", ".tsv")]
    for path in tables[:_LOOKED_AT]:
        columns = set(column_names(path))
        for signature, collection, option in _SIGNATURES:
            if signature <= columns:
                return f"; {path.name} is a table of {collection}: use {option}"
    return ""
