"""Describing a plan in words."""

from __future__ import annotations

from collections.abc import Iterator

from fastccsa.experiments.plan import Plan
from fastccsa.experiments.rows import Experiment


def describe_plan(plan: Plan) -> str:
    """Describe what a plan will do: one line per run, and the total."""
    return "\n".join([*_runs(plan), *_notes(plan), _total(plan)])


def describe_row(row: Experiment) -> str:
    """Describe an experiment in a few words."""
    if row.threshold is not None:
        return f"{row.starts_from} pruned at {row.threshold:g}"
    n_sec = {0: "primary domain only", "all": "all images"}.get(row.n_sec, f"n_sec {row.n_sec}")
    parts = [row.backbone, n_sec]
    parts.append(row.settings.get("algorithm") or f"weighting {row.classification} {row.alignment}")
    if left_out := (*([row.without] if row.without else ()), *row.settings.get("exclude", ())):
        parts.append(f"without {', '.join(left_out)}")
    if row.starts_from:
        parts.append(f"from {row.starts_from}")
    return ", ".join(parts)


def _runs(plan: Plan) -> Iterator[str]:
    width = max((len(run.row.letter) for run in plan.runs), default=1)
    for run in plan.runs:
        row = run.row
        what = f"{describe_row(row):<55}"
        if row.threshold is None:
            what += f"{run.training:>7} images {run.config.epochs:>4} epochs"
        yield f"{row.letter:<{width}}  seed {run.seed}  {run.state:<9} {what}".rstrip()


def _notes(plan: Plan) -> Iterator[str]:
    if plan.added:
        yield f"added, because others start from it: {', '.join(plan.added)}"
    for letter, why in plan.skipped.items():
        yield f"{letter} is skipped: {why}"


def _total(plan: Plan) -> str:
    left = [run for run in plan.runs if not run.is_finished]
    to_train, to_score = sum(run.images_to_train for run in left), sum(run.images_to_score for run in left)
    pruned = ", excluding the pruning" if any(run.row.threshold is not None for run in left) else ""
    return (
        f"{len(left)} of {len(plan.runs)} runs to do: {to_train:,} images forward and backward, "
        f"{to_score:,} forward only{pruned}"
    )
