"""The seven classes, the seven collections, and what each collection's own labels mean.

Label maps are plain tables: a diagnosis that is not in its table belongs to none of the seven classes.
"""

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

# Key in the manifest's column ``domain`` -> name, in the order of the paper's Table 2.
DOMAINS: dict[str, str] = {
    "HAM": "HAM10000",
    "DMF": "Dermofit",
    "D7P": "Derm7pt",
    "MSK": "ISIC MSK",
    "PH2": "PH2",
    "SON": "ISIC SONIC",
    "UDA": "ISIC UDA",
}


def _by_class(*counts: int) -> dict[str, int]:
    return dict(zip(CLASSES, counts, strict=True))


# Paper, Table 1, as it is printed.
TABLE1: dict[str, dict[str, int]] = {
    "HAM": _by_class(6705, 1113, 514, 115, 1099, 142, 327),
    "DMF": _by_class(331, 76, 239, 65, 257, 121, 123),
    "D7P": _by_class(1150, 504, 82, 40, 90, 58, 0),
    "MSK": _by_class(2241, 826, 32, 452, 0, 0, 0),
    "PH2": _by_class(160, 40, 0, 0, 0, 0, 0),
    "SON": _by_class(9251, 0, 0, 0, 0, 0, 0),
    "UDA": _by_class(408, 193, 0, 0, 0, 0, 0),
}

# Where the printed table contradicts itself or the collection it describes.
TABLE1_NOTES: dict[str, str] = {
    "D7P": "the paper prints 82 bcc, but only 84 (twice 42 cases) gives its total of 1926",
    "MSK": "the paper's 452 df are most likely bkl, shifted by a column",
}

# HAM10000, column ``dx``.
HAM10000_LABELS: dict[str, str] = {label: label for label in CLASSES}

# ISIC archive, lower case: the old ``diagnosis`` values and, since 2025, those of ``diagnosis_1`` to ``_5``.
ISIC_LABELS: dict[str, str] = {
    "nevus": "nv",
    "melanoma": "mel",
    "melanoma, nos": "mel",
    "melanoma invasive": "mel",
    "melanoma in situ": "mel",
    "melanoma metastasis": "mel",
    "malignant melanocytic proliferations (melanoma)": "mel",  # a diagnosis_2
    "basal cell carcinoma": "bcc",
    "dermatofibroma": "df",
    "seborrheic keratosis": "bkl",
    "lichenoid keratosis": "bkl",
    "lichen planus like keratosis": "bkl",  # the new name of the lichenoid keratosis
    "lentigo nos": "bkl",
    "lentigo simplex": "bkl",
    "solar lentigo": "bkl",
    "ink-spot lentigo": "bkl",
    "vascular lesion": "vasc",
    "angioma": "vasc",
    "hemangioma": "vasc",
    "angiokeratoma": "vasc",
    "pyogenic granuloma": "vasc",
    "benign soft tissue proliferations - vascular": "vasc",  # a diagnosis_2, often the last level given
    "actinic keratosis": "akiec",
    "solar or actinic keratosis": "akiec",
}

# ISIC archive: a domain -> the prefix of its collections' names (MSK-1 to MSK-5, UDA-1 and UDA-2, SONIC).
ISIC_COLLECTIONS: dict[str, str] = {"MSK": "MSK", "SON": "SONIC", "UDA": "UDA"}
