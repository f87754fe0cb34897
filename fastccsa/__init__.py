"""fastccsa: weighted CCSA loss, dynamic pair sampling and an image pipeline, for classifiers that generalise.

It implements Yoon, Hamarneh and Garbi, "Generalizable Feature Learning in the Presence of Data Bias and Domain Class
Imbalance with Application to Skin Lesion Classification" (MICCAI 2019).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from fastccsa._version import __version__
from fastccsa.system.extras import install_advice
from fastccsa.system.lazy import lazy_names

if TYPE_CHECKING:
    from fastccsa import data, functional, reference
    from fastccsa.collections.manifest import Manifest
    from fastccsa.losses import CCSATerms, WeightedCCSALoss
    from fastccsa.losses.memory import FeatureMemory, PairMemory
    from fastccsa.losses.terms import median_distance
    from fastccsa.models import load_model
    from fastccsa.ops.allocator import set_cpu_cache_limit
    from fastccsa.ops.profiling import nvtx_ranges
    from fastccsa.sampling import ImageSampler, PairSampler, balanced_loss, inverse_probability
    from fastccsa.system.doctor import check
    from fastccsa.system.errors import InputError

# The module that defines each name. It is imported on first use: the loss needs neither pandas nor torchvision.
_HOMES = {
    "WeightedCCSALoss": "fastccsa.losses",
    "CCSATerms": "fastccsa.losses",
    "FeatureMemory": "fastccsa.losses.memory",
    "PairMemory": "fastccsa.losses.memory",
    "median_distance": "fastccsa.losses.terms",
    "PairSampler": "fastccsa.sampling",
    "ImageSampler": "fastccsa.sampling",
    "inverse_probability": "fastccsa.sampling",
    "balanced_loss": "fastccsa.sampling",
    "Manifest": "fastccsa.collections.manifest",
    "InputError": "fastccsa.system.errors",
    "check": "fastccsa.system.doctor",
    "load_model": "fastccsa.models",
    "set_cpu_cache_limit": "fastccsa.ops.allocator",
    "nvtx_ranges": "fastccsa.ops.profiling",
}
_MODULES = (
    "collections", "data", "distributed", "evaluation", "experiments", "export", "functional", "images", "losses",
    "models", "pruning", "reference", "reporting", "sampling", "training",
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
    "balanced_loss",
    "median_distance",
    "Manifest",
    "data",
    "load_model",
    "check",
    "set_cpu_cache_limit",
    "nvtx_ranges",
    "InputError",
    "__version__",
]


_lazy_name = lazy_names(__name__, _HOMES)


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        return _lazy_name(name)
    with install_advice():
        return importlib.import_module(f"{__name__}.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES, *_MODULES})
