"""Uniform random numbers (Philox 4x32) as a pure function of seed, stream, epoch and position."""

from fastccsa.sampling._sampler import uniforms

__all__ = ["uniforms"]
