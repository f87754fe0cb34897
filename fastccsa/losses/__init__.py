"""The weighted CCSA loss: as a module, as functions, in plain PyTorch, against a memory, and across ranks."""

from fastccsa.losses.memory import FeatureMemory, PairMemory
from fastccsa.losses.module import WeightedCCSALoss
from fastccsa.losses.reference import CCSATerms

__all__ = ["CCSATerms", "FeatureMemory", "PairMemory", "WeightedCCSALoss"]
