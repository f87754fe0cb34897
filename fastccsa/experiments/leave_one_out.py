"""Experiments beside the paper's: named algorithms, and every experiment without one domain after the other."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

from fastccsa.collections import Manifest
from fastccsa.experiments.rows import EXPERIMENTS, Experiment
from fastccsa.experiments.scale import Scale, train_config
from fastccsa.experiments.validate import check_classes
from fastccsa.runs.config import Algorithm
from fastccsa.runs.images import select_images
from fastccsa.system.errors import InputError

WITHOUT = "-without-"


def algorithm_rows(names: Iterable[str]) -> list[Experiment]:
    """Return an experiment on all images for each algorithm, by its name; ``ccsa`` is K.

    Raises:
        InputError: there is no such algorithm, or a name is given twice.
    """
    known = [name for name in get_args(Algorithm) if name != "auto"]
    rows: list[Experiment] = []
    for name in names:
        if name not in known:
            raise InputError(f"there is no algorithm {name!r}: choose from {', '.join(known)}")
        if name in (row.letter for row in rows):
            raise InputError(f"algorithm {name} is given twice: once is enough")
        alignment = "w" if name == "ccsa" else "-"
        rows.append(Experiment(name, {}, alignment=alignment, settings={"algorithm": name}))  # type: ignore[arg-type]
    return rows


@dataclass(frozen=True)
class LeftOut:
    """Experiments without one domain after the other.

    Attributes:
        rows: the experiments; ``K-without-UDA`` is K without UDA.
        skipped: domains that cannot be left out, and why.
    """

    rows: tuple[Experiment, ...]
    skipped: Mapping[str, str] = field(default_factory=dict)


def leave_out(
    rows: Sequence[Experiment],
    domains: Sequence[str] | None,
    manifest: Manifest,
    scale: Scale,
    settings: Mapping[str, Any],
    nested: bool = False,
) -> LeftOut:
    """Leave one domain after the other out of the training and the selection of experiments.

    Args:
        rows: the experiments.
        domains: the domains to leave out; None for all that can be: secondary ones with test images, without which the
            other domains show every class in training and validation.
        manifest: the images.
        scale: size, epochs and so on.
        settings: values of `TrainConfig` fields.
        nested: also leave out every pair of domains, which selection by a domain left out needs.

    Raises:
        InputError: an experiment has no domain to leave out, a domain cannot be left out, or none can.
    """
    for row in rows:
        if row.n_sec == 0 or row.without or row.threshold is not None:
            reason = "is pruned" if row.threshold is not None else "trains without the secondary domains"
            reason = f"leaves {row.without} out already" if row.without else reason
            raise InputError(f"experiment {row.letter} {reason}: omit it, or --leave-one-out")
    candidates = manifest.domains if domains is None else domains
    reasons = {name: _why_not(rows, name, manifest, scale, settings) for name in candidates}
    refused = {name: why for name, why in reasons.items() if why}
    if domains is not None and refused:
        raise InputError("; ".join(f"{name} cannot be left out: {why}" for name, why in refused.items()))
    chosen = [name for name in candidates if not reasons[name]]
    if not chosen:
        raise InputError("no domain can be left out: " + "; ".join(f"{name}: {why}" for name, why in refused.items()))
    sets: list[tuple[str, ...]] = [(name,) for name in chosen]
    if nested:
        fixed = settings.get("exclude", ())
        sets += [
            pair
            for pair in itertools.combinations(chosen, 2)
            if not _why_not(rows, pair[1], manifest, scale, {**settings, "exclude": (*fixed, pair[0])})
        ]
    return LeftOut(tuple(without(row, names) for names in sets for row in rows), refused)


def without(row: Experiment, domains: Sequence[str]) -> Experiment:
    """Return an experiment without some domains, whose models of all epochs are scored."""
    settings = {"score_epochs": True, **row.settings, "exclude": tuple(domains)}
    return replace(row, letter=f"{row.letter}{WITHOUT}{'+'.join(domains)}", paper={}, settings=settings)


def with_paper(rows: Iterable[Experiment]) -> dict[str, Experiment]:
    """Return the paper's experiments and ``rows``, by their names."""
    return {**EXPERIMENTS, **{row.letter: row for row in rows}}


def _why_not(
    rows: Sequence[Experiment], domain: str, manifest: Manifest, scale: Scale, settings: Mapping[str, Any]
) -> str | None:
    """Return why a domain cannot be left out; None if it can."""
    if domain not in manifest.domains:
        return f"the manifest has only {', '.join(manifest.domains)}"
    if domain in settings.get("exclude", ()):
        return "all runs exclude it"
    if not re.fullmatch(r"\w[\w .-]*", domain):
        return "its name cannot be part of a folder's: rename it in the manifest"
    if len(manifest.select("test", [domain])) == 0:
        return "it has no test image"
    for row in rows:
        try:
            config = train_config(without(row, [domain]), scale, settings, manifest="the manifest")
            check_classes(select_images(config, manifest), manifest)
        except InputError as error:
            return str(error)
    return None
