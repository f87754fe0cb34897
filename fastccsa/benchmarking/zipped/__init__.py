"""The benchmark of the zipped loss: the whole loss of N pairs, forward alone or with its gradients."""

from fastccsa.benchmarking.zipped.cells import BACKWARD, FORWARD, MODES, Cell
from fastccsa.benchmarking.zipped.measure import Settings, run

__all__ = ["BACKWARD", "FORWARD", "MODES", "Cell", "Settings", "run"]
