"""The weighted CCSA loss: as a module, as functions, in plain PyTorch, with a memory of past features, across ranks.

It needs only torch and numpy.
"""

from fastccsa.losses.memory import FeatureMemory, PairMemory
from fastccsa.losses.module import WeightedCCSALoss
from fastccsa.losses.terms import CCSATerms

__all__ = ["CCSATerms", "FeatureMemory", "PairMemory", "WeightedCCSALoss"]
