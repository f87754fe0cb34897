"""fastccsa: weighted CCSA loss, dynamic pair sampling and an image pipeline, for classifiers that generalise.

After Yoon, Hamarneh and Garbi, "Generalizable Feature Learning in the Presence of Data Bias and Domain Class
Imbalance with Application to Skin Lesion Classification" (MICCAI 2019).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastccsa import data, functional, reference
    from fastccsa._ops import set_cpu_cache_limit
    from fastccsa.checks import check
    from fastccsa.data.manifest import Manifest
    from fastccsa.errors import InputError
    from fastccsa.losses import CCSATerms, WeightedCCSALoss
    from fastccsa.memory import FeatureMemory, PairMemory
    from fastccsa.models import load_model
    from fastccsa.profiling import nvtx_ranges
    from fastccsa.sampling import ImageSampler, PairSampler, inverse_probability

__version__ = "0.1.0"

# Where each name lives. Nothing is imported before it is asked for: a user of the loss need not pay for pandas.
_HOME = {
    "WeightedCCSALoss": "fastccsa.losses",
    "CCSATerms": "fastccsa.losses",
    "FeatureMemory": "fastccsa.memory",
    "PairMemory": "fastccsa.memory",
    "PairSampler": "fastccsa.sampling",
    "ImageSampler": "fastccsa.sampling",
    "inverse_probability": "fastccsa.sampling",
    "Manifest": "fastccsa.data.manifest",
    "InputError": "fastccsa.errors",
    "check": "fastccsa.checks",
    "load_model": "fastccsa.models",
    "set_cpu_cache_limit": "fastccsa._ops",
    "nvtx_ranges": "fastccsa.profiling",
}
_MODULES = (
    "data", "distributed", "functional", "reference", "sampling", "models", "evaluation", "training", "pruning",
    "export",
)  # fmt: skip

__all__ = [  # noqa: RUF022 - in the order of the documentation
    "WeightedCCSALoss",
    "CCSATerms",
    "FeatureMemory",
    "PairMemory",
    "functional",
    "reference",
    "PairSampler",
    "ImageSampler",
    "inverse_probability",
    "Manifest",
    "data",
    "load_model",
    "check",
    "set_cpu_cache_limit",
    "nvtx_ranges",
    "InputError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"fastccsa.{name}")
    raise AttributeError(f"module 'fastccsa' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, *_MODULES})
