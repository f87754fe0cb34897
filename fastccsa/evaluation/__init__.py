"""Scores by domain: macro-average recall, recall by class, confusion matrices."""

from __future__ import annotations

from fastccsa.evaluation.evaluate import evaluate
from fastccsa.evaluation.scores import DomainScores, Scores, Selection, score

__all__ = ["DomainScores", "Scores", "Selection", "evaluate", "score"]
