"""The pair sampler: which images form the pairs of a batch, and how probable each pair of classes is.

Every batch is a pure function of (seed, epoch, step): no generator state is carried from step to step, so training can
start at any step, and every rank computes its own share of the same epoch.
"""

from fastccsa.sampling._sampler import uniforms
from fastccsa.sampling.balance import RECIPES, Balance, Recipe, balanced_loss
from fastccsa.sampling.balanced_sampler import BalancedSampler
from fastccsa.sampling.image_sampler import ImageSampler
from fastccsa.sampling.pair_sampler import PairSampler
from fastccsa.sampling.probabilities import Negatives, PairProbabilities
from fastccsa.sampling.weights import inverse_probability

__all__ = [
    "RECIPES",
    "Balance",
    "BalancedSampler",
    "ImageSampler",
    "Negatives",
    "PairProbabilities",
    "PairSampler",
    "Recipe",
    "balanced_loss",
    "inverse_probability",
    "uniforms",
]
