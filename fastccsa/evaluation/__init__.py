"""Scores by domain: macro-average recall, recall by class, confusion matrices; and the outputs behind them."""

from __future__ import annotations

from fastccsa.system.extras import install_advice

with install_advice():
    from fastccsa.evaluation.evaluate import evaluate, run_split, score_outputs
    from fastccsa.evaluation.outputs import Outputs
    from fastccsa.evaluation.scores import Candidate, DomainScores, Scores, Selection, score

__all__ = [
    "Candidate",
    "DomainScores",
    "Outputs",
    "Scores",
    "Selection",
    "evaluate",
    "run_split",
    "score",
    "score_outputs",
]
