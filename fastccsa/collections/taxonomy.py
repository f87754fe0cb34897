"""The paper's seven classes and seven collections, with its image counts."""

from __future__ import annotations

# Paper, Table 1, in its order; the integer label of a class is its position here.
CLASSES: tuple[str, ...] = ("nv", "mel", "bcc", "df", "bkl", "vasc", "akiec")

CLASS_NAMES: dict[str, str] = {
    "nv": "melanocytic nevus",
    "mel": "melanoma",
    "bcc": "basal cell carcinoma",
    "df": "dermatofibroma",
    "bkl": "benign keratosis",
    "vasc": "vascular lesion",
    "akiec": "actinic keratosis",
}

# Key in the manifest's column ``domain`` -> name: in the order of the paper's Table 2, then the later collections.
DOMAINS: dict[str, str] = {
    "HAM": "HAM10000",
    "DMF": "Dermofit",
    "D7P": "Derm7pt",
    "MSK": "ISIC MSK",
    "PH2": "PH2",
    "SON": "ISIC SONIC",
    "UDA": "ISIC UDA",
    "ISIC2016": "ISIC challenge 2016",
    "ISIC2017": "ISIC challenge 2017",
    "ISIC2018": "ISIC challenge 2018",
    "ISIC2019": "ISIC challenge 2019",
    "ISIC2020": "ISIC challenge 2020",
    "MILK": "MILK10k",
    "BCN": "BCN20000",
    "PAD": "PAD-UFES-20",
    "DDI": "Diverse Dermatology Images",
    "F17K": "Fitzpatrick17k",
}

# Labels of the challenge of 2016, which does not tell what a benign lesion is.
BINARY: tuple[str, ...] = ("benign", "malignant")


def _by_class(*counts: int) -> dict[str, int]:
    return dict(zip(CLASSES, counts, strict=True))


# Paper, Table 1, as printed.
TABLE1: dict[str, dict[str, int]] = {
    "HAM": _by_class(6705, 1113, 514, 115, 1099, 142, 327),
    "DMF": _by_class(331, 76, 239, 65, 257, 121, 123),
    "D7P": _by_class(1150, 504, 82, 40, 90, 58, 0),
    "MSK": _by_class(2241, 826, 32, 452, 0, 0, 0),
    "PH2": _by_class(160, 40, 0, 0, 0, 0, 0),
    "SON": _by_class(9251, 0, 0, 0, 0, 0, 0),
    "UDA": _by_class(408, 193, 0, 0, 0, 0, 0),
}

# Errors in the printed table: where it contradicts itself or the collection it describes.
TABLE1_NOTES: dict[str, str] = {
    "D7P": "the paper prints 82 bcc, but only 84 (twice 42 cases) gives its total of 1926",
    "MSK": "the paper's 452 df are most likely bkl, shifted by one column",
}

# ISIC archive: domain -> prefix of the names of its collections (MSK-1 to MSK-5, UDA-1 and UDA-2, SONIC).
ISIC_COLLECTIONS: dict[str, str] = {"MSK": "MSK", "SON": "SONIC", "UDA": "UDA"}
