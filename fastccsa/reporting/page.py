"""The report as a single, self-contained HTML file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from tqdm import tqdm

from fastccsa._version import __version__
from fastccsa.collections.taxonomy import CLASS_NAMES, DOMAINS
from fastccsa.reporting.groups import Estimate, RunGroup, estimate, group_runs
from fastccsa.reporting.plots import SERIES_COLOURS
from fastccsa.reporting.projection import CACHE_FOLDER
from fastccsa.reporting.sections.calibration import CalibrationView, calibration_of
from fastccsa.reporting.sections.card import CardView, card_of
from fastccsa.reporting.sections.confusion import Matrix, class_recalls, confusion_matrices
from fastccsa.reporting.sections.decisions import DecisionsView, decisions_of
from fastccsa.reporting.sections.features import PER_GROUP, Features, features_of
from fastccsa.reporting.sections.gradcam import GradCam, grad_cam_of
from fastccsa.reporting.sections.sampling import Sampling, sampling_of
from fastccsa.reporting.sections.scale import facts_of
from fastccsa.reporting.sections.scores import missing_runs
from fastccsa.reporting.sections.training import Training, training_of
from fastccsa.reporting.table import SETTINGS, SETTINGS_KEY, ScoreTable, domain_order, to_markdown
from fastccsa.runs.records import RunFolder

OPEN_AT_ONCE = 2  # with up to this many experiments, all are shown open; with more, all are collapsed


@dataclass(frozen=True)
class Experiment:
    """The contents of the page for a group of runs; ``settings`` are names and values, by run."""

    group: RunGroup
    average: Estimate
    recalls: Mapping[str, Estimate | None]
    matrices: Sequence[Matrix]
    training: Training
    sampling: Sampling
    features: Features | None
    calibration: CalibrationView | None
    decisions: DecisionsView | None
    grad_cam: GradCam | None
    card: CardView | None
    settings: Mapping[str, Sequence[tuple[str, str]]]


def render_page(folder: RunFolder, table: ScoreTable, *, images: bool = True, progress: bool = False) -> str:
    """Render the page of ``folder`` as HTML text.

    Args:
        folder: the runs.
        table: their scores.
        images: show some images of the data set on the page, for Grad-CAM.
        progress: show a progress bar on stderr, if it is a terminal.

    Raises:
        InputError: a file in a run folder is broken.
    """
    environment = Environment(
        loader=PackageLoader("fastccsa.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    runs = folder.runs
    domains = domain_order(runs)
    colours = {domain: number for number, domain in enumerate(domains)}
    classes = list(dict.fromkeys(name for run in runs for name in run.scores.classes))
    groups = group_runs(runs)
    bar = tqdm(groups, desc="page", unit="experiment", disable=None if progress else True)
    experiments = [_experiment(group, folder.path, colours, classes, images) for group in bar]
    rows = table.scores
    return environment.get_template("report.html").render(
        folder=folder,
        table=table,
        rows=rows,
        has_paper=any(cell.paper is not None for row in rows for cell in row.cells),
        missing=missing_runs(folder, groups),
        facts=facts_of(runs),
        settings=SETTINGS,
        settings_key=SETTINGS_KEY,
        remarks=[remark for remark in table.remarks if not remark.startswith("Not finished")],
        markdown=to_markdown(table),
        domains=domains,
        domain_names={domain: DOMAINS.get(domain, domain) for domain in domains},
        classes=[name for name in classes if any(name in _shown_classes(item) for item in experiments)],
        class_names={name: CLASS_NAMES[name] for name in classes if name in CLASS_NAMES},
        experiments=experiments,
        has_seeds=any(len(item.group.runs) > 1 for item in experiments),
        open_at_once=OPEN_AT_ONCE,
        per_group=PER_GROUP,
        with_images=images,
        colours=colours,
        series_colours=SERIES_COLOURS,
        version=__version__,
    )


def _experiment(
    group: RunGroup, runs_folder: Path, colours: Mapping[str, int], classes: Sequence[str], images: bool
) -> Experiment:
    domains = tuple(colours)
    average = estimate(run.scores.average for run in group.runs)
    assert average is not None
    return Experiment(
        group=group,
        average=average,
        recalls=dict(zip(classes, class_recalls(group, classes), strict=True)),
        matrices=tuple(confusion_matrices(group, domains)),
        training=training_of(group, colours),
        sampling=sampling_of(group.shown),
        features=features_of(group, runs_folder, colours, runs_folder / CACHE_FOLDER),
        calibration=calibration_of(group, domains),
        decisions=decisions_of(group),
        grad_cam=grad_cam_of(group) if images else None,
        card=card_of(group),
        settings={run.name: [*_flatten(asdict(run.config)), *_flatten(run.environment or {})] for run in group.runs},
    )


def _shown_classes(experiment: Experiment) -> set[str]:
    """Return the classes with test images."""
    return {name for matrix in experiment.matrices for name, *_ in matrix.rows}


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield names and values of a nested mapping, with names like ``outer.inner``."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)):
            yield f"{prefix}{name}", ", ".join(map(str, value)) or "none"
        else:
            yield f"{prefix}{name}", "none" if value is None else str(value)
