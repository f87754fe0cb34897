"""Which images meet in a batch, and how probable each pair of classes is.

Every batch is a pure function of (seed, epoch, step): no generator is carried along, so training can
start at any step, and every rank computes its own share of the same epoch.
"""

from fastccsa.sampling.image_sampler import ImageSampler
from fastccsa.sampling.pair_sampler import PairSampler
from fastccsa.sampling.probabilities import PairProbabilities
from fastccsa.sampling.weights import inverse_probability

__all__ = ["ImageSampler", "PairProbabilities", "PairSampler", "inverse_probability"]
