"""The benchmark of the loss over all pairs of two sets of N rows, with its gradients, and of its errors."""

from fastccsa.benchmarking.all_pairs.cells import LABELS, Cell
from fastccsa.benchmarking.all_pairs.hard import run_hard
from fastccsa.benchmarking.all_pairs.measure import Settings, run

__all__ = ["LABELS", "Cell", "Settings", "run", "run_hard"]
