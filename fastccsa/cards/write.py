"""Writing a model card beside a model: in a run folder, and beside an exported file."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastccsa.cards.facts import (
    CARD_JSON,
    CARD_MARKDOWN,
    Facts,
    data_facts,
    model_facts,
    training_facts,
    version_facts,
)
from fastccsa.cards.guidelines import GUIDELINES, checklist
from fastccsa.cards.performance import performance_facts
from fastccsa.cards.sections import Paragraph, Points, Section, sections_of
from fastccsa.cards.text import to_markdown
from fastccsa.evaluation import Outputs
from fastccsa.models import ModelCard
from fastccsa.models.weights import MODEL_FILE
from fastccsa.runs.folder import OUTPUTS_FILE, SCORES_FILE
from fastccsa.runs.records import read_runs, run_name
from fastccsa.runs.sampling_record import SamplingRecord
from fastccsa.runs.tested_images import ImageRows
from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically
from fastccsa.system.reading import check_regular, read_bytes, reported

logger = logging.getLogger("fastccsa.cards")


def facts_of_run(path: Path) -> Facts:
    """Collect what the files beside a model say about it.

    Args:
        path: a run folder, or one with only a model, or the weights file in either; the parts whose files are missing
            are missing from the facts too.

    Raises:
        InputError: there is no model, or a file is broken.
    """
    folder = path if path.is_dir() else path.parent
    card = ModelCard.read(folder)
    model = model_facts(card)
    weights = folder / MODEL_FILE
    if weights.is_file():
        with reported(weights, "cannot be read", "restore it"):
            model["weights_sha256"] = hashlib.sha256(read_bytes(weights, check_regular(weights))).hexdigest()
    facts: Facts = {"name": run_name(folder), "model": model}
    if not (folder / SCORES_FILE).exists():
        return facts
    (run,) = read_runs(folder).runs
    facts["training"] = training_facts(run.config, run.scores, list(run.history))
    facts["versions"] = version_facts(run.environment)
    if (folder / OUTPUTS_FILE).exists():
        outputs = Outputs.read(folder / OUTPUTS_FILE)
        if outputs.classes != card.classes:
            raise InputError(f"{folder / OUTPUTS_FILE} has other classes than the model; remove it to go on without it")
        images = ImageRows.read(run.config, outputs)
        facts["data"] = data_facts(run.config, images, SamplingRecord.read(folder))
        facts["performance"] = performance_facts(run.config, folder, outputs, images, card.domains)
    return facts


def write_run_card(folder: Path) -> None:
    """Write ``model_card.md`` and ``model_card.json`` into a finished run's folder, each completely or not at all.

    A card that cannot be made or written is only a warning: the model does not depend on it.
    """
    try:
        facts = facts_of_run(folder)
        # The text is last: where it is, the card is complete.
        _write_text(folder / CARD_JSON, _to_json(facts))
        _write_text(folder / CARD_MARKDOWN, to_markdown(facts))
    except (OSError, ValueError, RuntimeError) as error:  # InputError is a ValueError
        logger.warning("%s has no model card (%s); repeat the command to write it", folder, error)


def complete_run_card(folder: Path) -> None:
    """Write the card of a finished run if it has none, as runs of older versions; a card that is there stays."""
    if not (folder / CARD_MARKDOWN).exists():
        write_run_card(folder)


def facts_for_export(path: Path) -> Facts:
    """Return the facts of the model that is exported; only those of the model itself if other files are broken.

    Raises:
        InputError: there is no model.
    """
    try:
        return facts_of_run(path)
    except InputError as error:
        facts = {"name": run_name(path if path.is_dir() else path.parent), "model": model_facts(ModelCard.read(path))}
        logger.warning("the card of the exported model has no scores (%s)", error)
        return facts


def write_export_card(path: Path, facts: Facts, record: Mapping[str, Any]) -> None:
    """Write the card of an exported file, ``<file>.md``, beside it and its record.

    Args:
        path: the exported file.
        facts: those of the run, from `facts_of_run`.
        record: the record of the exported file, without its own name, size and checksum.

    Raises:
        InputError: the folder cannot be written.
    """
    _write_text(path.with_name(f"{path.name}.md"), to_markdown(facts, [_exported(path, record)]))


def _exported(path: Path, record: Mapping[str, Any]) -> Section:
    about = Paragraph(
        f"{path.name} is an exported form of the model below, whose scores are those of the run. Its checksum, and "
        f"figures by domain, are in {path.name}.json."
    )
    lines = [f"Preprocessing inside the file: {record['input']}."]
    agreement = record.get("agreement")
    if agreement:
        difference = max(domain["difference"] for domain in agreement["domains"].values())
        lines.append(f"Logits differ from PyTorch's by up to {difference:.1e} on {agreement['compared_on']} images.")
    averages = record.get("average_recall")
    if averages:
        lines.append(
            f"8 bits: mean of the domains' macro-average recalls {100 * averages['int8']:.1f} %, and "
            f"{100 * averages['float32']:.1f} % in float32."
        )
    return Section("This file", (about, Points(tuple(lines))))


def _to_json(facts: Facts) -> str:
    there = {section.title for section in sections_of(facts)}
    items = {name: [asdict(entry) for entry in checklist(name, there)] for name in GUIDELINES}
    return json.dumps(facts | {"guidelines": items}, indent=1, allow_nan=False) + "\n"


def _write_text(path: Path, text: str) -> None:
    with write_atomically(path) as file:
        file.write_text(text, encoding="utf-8")
