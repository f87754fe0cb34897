"""The sections of a model card, from its facts: plain text, for Markdown and for the report page."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from fastccsa.cards.facts import Facts
from fastccsa.cards.guidelines import GUIDELINES, checklist
from fastccsa.cards.limits import limits
from fastccsa.evaluation.metrics import METRICS

UNDEFINED = "-"
# The columns of the tables of scores; those that are not defined for any row are left out.
_RANKING = ("recall", "accuracy", "auroc", "auroc_positive", "average_precision_positive", "brier")
_CALIBRATION = ("calibration_error", "calibration_error_scaled", "coverage", "set_size", "answered")
_DECISIONS = tuple(key for key in METRICS if key.startswith("net_gain_"))
_UNSEEN = tuple(key for key, metric in METRICS.items() if metric.of_unseen)
_POINTS = ("sensitivity", "specificity_there", "specificity", "sensitivity_there", "accuracy_of_answered")


@dataclass(frozen=True)
class Paragraph:
    """A paragraph."""

    text: str
    kind: ClassVar[str] = "paragraph"


@dataclass(frozen=True)
class Points:
    """A list of sentences."""

    sentences: tuple[str, ...]
    kind: ClassVar[str] = "points"


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row names it."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    kind: ClassVar[str] = "table"


Block = Paragraph | Points | Table


@dataclass(frozen=True)
class Section:
    """A section of a card. Its texts have names from outside, and are escaped by whoever renders them."""

    title: str
    blocks: tuple[Block, ...]


def sections_of(facts: Facts) -> list[Section]:
    """Return the sections of the card of these facts, with the checklists of the guidelines at the end."""
    found = [Section(title, tuple(blocks)) for title, blocks in _sections(facts)]
    there = {section.title for section in found}
    return [*found, *(Section(name, tuple(_checklist(name, there))) for name in GUIDELINES)]


def _sections(facts: Facts) -> Iterator[tuple[str, Iterable[Block]]]:
    yield "Model", [_points(_model(facts["model"]))]
    yield "Intended use", _intended_use(facts)
    if facts.get("data"):
        yield "Data", _data(facts["data"])
    if facts.get("training"):
        yield "Training", _training(facts["training"])
    performance = facts.get("performance")
    if performance:
        yield "Scores", _scores(performance)
        yield "Calibration and decisions", _decisions(performance)
        if any("scores" in each for each in performance["subgroups"].values()):
            yield "Subgroups", _subgroups(performance)
    yield "Limits", [_points(limits(facts))]
    if facts.get("versions"):
        yield "Versions", [_points(_pairs(facts["versions"]))]


def _model(model: Facts) -> Iterator[str]:
    pruned = (
        f", {model['pruned_layers']} layers narrower than in the original (pruned)" if model["pruned_layers"] else ""
    )
    yield f"Network: {model['backbone']}{pruned}."
    yield f"Classes, in the order of the logits: {_names(model['classes'])}."
    yield f"Trained on the domains: {_names(model['trained_on_domains'])}."
    size, mean, std = model["input"]["pixels"], model["input"]["mean"], model["input"]["std"]
    yield f"Input: RGB images of {size} x {size} pixels, normalised by mean {mean} and deviation {std}."
    yield "Output: a logit for each class; their softmax is not calibrated."
    if model.get("weights_sha256"):
        yield f"SHA-256 of the weights: {model['weights_sha256']}."


def _intended_use(facts: Facts) -> Iterator[Block]:
    model = facts["model"]
    yield Paragraph(
        f"What the records support: research on images like those of {_names(model['trained_on_domains'])}, each of "
        f"which shows one of the classes {_names(model['classes'])}."
    )
    yield Paragraph("Open: who is to use it, on which patients, at which point of care, and for which decision.")


def _data(data: Facts) -> Iterator[Block]:
    yield _points(_about_data(data))
    for split, by_domain in (data.get("counts") or {}).items():
        yield Paragraph(f"Images of the split {split}:")
        yield _counts(by_domain)
    if data.get("trained_on"):
        yield Paragraph("Images that this run trained on:")
        yield _counts(data["trained_on"])
    left_out = (data.get("collections") or {}).get("left_out") or {}
    rows = [(domain, why, str(number)) for domain, each in left_out.items() for why, number in each.items()]
    if rows:
        yield Paragraph("Left out when the manifest was made:")
        yield Table(("domain", "reason", "number"), tuple(rows))


def _about_data(data: Facts) -> Iterator[str]:
    checksum = f", SHA-256 {data['manifest_sha256']}" if data["manifest_sha256"] else ""
    yield f"Manifest: {data['manifest']}{checksum}."
    if data["problem"]:
        yield f"Images are not counted: {data['problem']}."
    collections = data.get("collections")
    if collections and collections.get("problem"):
        yield f"Where the images come from is not known: {collections['problem']}."
    elif collections:
        kinds = (f"{each['domain']} (read as {each['kind']})" for each in collections["sources"])
        yield f"Collections: {', '.join(kinds)}."
        duplicates = dict(collections["duplicates"])
        searched = duplicates.pop("looked_for")
        found = ", ".join(f"{number} pairs of {kind.replace('_', ' ')}" for kind, number in duplicates.items())
        yield f"Search for duplicates: {searched}{f'; {found}' if found else ''}."
    if data.get("groups"):
        parts = (f"{number} in {split}" for split, number in data["groups"].items())
        yield f"Groups (lesions or patients), none of which is in two splits: {', '.join(parts)}."
    if data["excluded_domains"]:
        yield f"Excluded from training and selection, but tested: {_names(data['excluded_domains'])}."


def _counts(by_domain: Mapping[str, Mapping[str, int]]) -> Table:
    classes = list(next(iter(by_domain.values()), {}))
    rows = (
        (domain, *(str(counts[name]) for name in classes), str(sum(counts.values())))
        for domain, counts in by_domain.items()
    )
    return Table(("domain", *classes, "all"), tuple(rows))


def _training(training: Facts) -> Iterator[Block]:
    selection = training["selection"]
    lines = [f"Algorithm: {training['algorithm']}."]
    if selection:
        lines.append(
            f"Selected: epoch {selection['epoch']} of {training['epochs_done'] or 'an unknown number'}, by validation "
            f"images only: {selection['rule']} ({100 * selection['validation_recall']:.1f} %)."
        )
    if training["seconds"]:
        lines.append(f"Time: {training['seconds'] / 60:.1f} minutes, without validation.")
    lines.append("One network; no ensemble.")
    yield _points(lines)
    yield Table(("setting", "value"), tuple((name, _value(value)) for name, value in training["settings"].items()))


def _scores(performance: Facts) -> Iterator[Block]:
    yield Paragraph(
        f"On {performance['images']} {performance['split']} images, with 95 % intervals: {performance['intervals']}."
    )
    yield from _by_domain(performance, _RANKING, with_counts=True)


def _decisions(performance: Facts) -> Iterator[Block]:
    tuned = performance["tuned_on_validation"]
    if tuned:
        yield Paragraph(
            f"Chosen on validation images of the training domains: temperature {tuned['temperature']:.3f}; a class "
            f"belongs to the set of answers from a probability of {tuned['in_set']:.4f}; an image is answered from a "
            f"confidence of {tuned['certain']:.4f}."
        )
    for keys in (_CALIBRATION, _POINTS, _DECISIONS, _UNSEEN):
        yield from _by_domain(performance, keys)


def _by_domain(performance: Facts, keys: Sequence[str], with_counts: bool = False) -> Iterator[Table]:
    scores = performance["scores"]
    known = [key for key in keys if any(key in values for values in scores.values())]
    if not known:
        return
    rows = []
    for name, values in scores.items():
        role = performance["roles"].get(name)
        about = [str(performance["test_images"].get(name, performance["images"]))] if with_counts else []
        label = f"{name} ({role})" if role and with_counts else name
        rows.append((label, *about, *(_interval(key, values.get(key)) for key in known)))
    counted = ["images"] if with_counts else []
    yield Table(("domain", *counted, *(performance["titles"][key] for key in known)), tuple(rows))


def _subgroups(performance: Facts) -> Iterator[Block]:
    for column, found in performance["subgroups"].items():
        if "scores" not in found:
            yield Paragraph(f"{column}: {found['problem']}.")
            continue
        keys = [key for key in found["gap"] if any(key in values for values in found["scores"].values())]
        rows = [
            (name, str(found["images"][name]), *(_interval(key, values.get(key)) for key in keys))
            for name, values in found["scores"].items()
        ]
        rows.append(("gap, highest minus lowest", "", *(_interval(key, found["gap"][key]) for key in keys)))
        yield Table((column, "images", *(performance["titles"][key] for key in keys)), tuple(rows))


def _checklist(guideline: str, there: set[str]) -> Iterator[Block]:
    entries = checklist(guideline, there)
    counts = {state: sum(entry.state == state for entry in entries) for state in ("filled", "partly", "open")}
    yield Paragraph(f"{counts['filled']} items are filled, {counts['partly']} in part, and {counts['open']} are open.")
    rows = (
        (entry.number, entry.topic, entry.state, ", ".join(entry.sections) or UNDEFINED, entry.write or UNDEFINED)
        for entry in entries
    )
    yield Table(("item", "topic", "state", "see", "to write"), tuple(rows))


def _interval(key: str, value: Sequence[float | None] | None) -> str:
    if value is None or value[0] is None:
        return UNDEFINED
    scale = METRICS[key].scale
    numbers = [UNDEFINED if each is None else f"{scale * each:.{1 if scale == 100 else 3}f}" for each in value]
    return "{} [{}, {}]".format(*numbers)


def _points(items: Iterable[str]) -> Points:
    return Points(tuple(items))


def _pairs(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield f"{name}: {', '.join(f'{one} {two}' for one, two in value.items())}"
        else:
            yield f"{name}: {value}"


def _names(names: Sequence[str]) -> str:
    return ", ".join(names) or "none"


def _value(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
