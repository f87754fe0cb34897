"""The calibration of an experiment's models: how well their confidence matches their accuracy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from fastccsa.evaluation import Outputs
from fastccsa.evaluation.calibration import calibrate
from fastccsa.reporting.groups import Estimate, RunGroup, estimate, read_outputs
from fastccsa.reporting.plots import reliability

ALL = "all images"


@dataclass(frozen=True)
class CalibrationView:
    """An experiment's calibration.

    Attributes:
        seed: seed of the run whose diagram is shown.
        svg: the reliability diagram over all its test images.
        errors: expected calibration error by domain and over all images, over the seeds.
    """

    seed: int
    svg: Markup
    errors: tuple[tuple[str, Estimate], ...]


def calibration_of(group: RunGroup, domains: Sequence[str]) -> CalibrationView | None:
    """Return the calibration of ``group`` for the page; None if its runs have no outputs.

    Raises:
        InputError: a file of outputs is broken.
    """
    by_seed: list[dict[str, float]] = []
    diagram = None
    for run in group.runs:
        outputs = read_outputs(run)
        if outputs is None:
            continue
        if diagram is None:
            diagram = run.config.seed, _diagram(group.name, outputs)
        by_seed.append(_errors(outputs))
    if diagram is None:
        return None
    rows = [(name, estimate(errors.get(name) for errors in by_seed)) for name in (*domains, ALL)]
    seed, svg = diagram
    return CalibrationView(seed, svg, tuple((name, error) for name, error in rows if error is not None))


def _diagram(name: str, outputs: Outputs) -> Markup:
    found = calibrate(outputs)
    title = f"Reliability of {name}: share of correct answers over confidence"
    return Markup(reliability(title, found.confidence, found.accuracy, found.counts / len(outputs)))


def _errors(outputs: Outputs) -> dict[str, float]:
    errors = {ALL: calibrate(outputs).error}
    for number, name in enumerate(outputs.domain_names):
        here = outputs.domains == number
        if here.any():
            errors[name] = calibrate(outputs.take(here)).error
    return errors
