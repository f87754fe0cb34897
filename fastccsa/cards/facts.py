"""The facts of a model card about the model, its training and its images, collected from a run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from fastccsa._version import __version__
from fastccsa.collections import Manifest
from fastccsa.collections.provenance import provenance_path
from fastccsa.collections.validate import SPLITS
from fastccsa.evaluation.scores import Scores
from fastccsa.models import ModelCard
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.sampling_record import SamplingRecord
from fastccsa.runs.tested_images import CLUSTER_COLUMN, ImageRows
from fastccsa.system.errors import InputError
from fastccsa.system.reading import load_json, read_bytes, reported
from fastccsa.system.schema import build

CARD_MARKDOWN = "model_card.md"
CARD_JSON = "model_card.json"

Facts = dict[str, Any]

# Settings that say where the files of one machine are, or what is said elsewhere in the card.
_NOT_SHOWN = ("manifest", "out", "manifest_sha256", "device", "workers", "exclude", "backbone", "size")


def model_facts(card: ModelCard) -> Facts:
    """Describe the model itself."""
    return {
        "backbone": card.backbone,
        "pruned_layers": len(card.layers),
        "classes": list(card.classes),
        "trained_on_domains": list(card.domains),
        "input": {"pixels": card.size, "mean": list(card.mean), "std": list(card.std)},
    }


def training_facts(config: TrainConfig, scores: Scores, history: list[dict[str, Any]]) -> Facts:
    """Describe the training: its settings, and how the model was selected. Paths are reduced to names."""
    settings = {name: value for name, value in asdict(config).items() if name not in _NOT_SHOWN}
    for name in ("init", "weights"):
        if settings[name] is not None:
            settings[name] = "/".join(Path(settings[name]).parts[-2:])
    selection = scores.selection
    return {
        "algorithm": config.named_algorithm,
        "settings": settings,
        "epochs_done": len(history) or None,
        "seconds": round(sum(record.get("seconds", 0.0) for record in history), 1) or None,
        "selection": None
        if selection is None
        else {"rule": selection.rule, "epoch": selection.epoch, "validation_recall": selection.recall},
        "replaced_images": max((record.get("broken_images", 0) for record in history), default=0),
    }


def version_facts(environment: Mapping[str, Any] | None) -> Facts:
    """Return the versions and the hardware of the training, as far as the run recorded them."""
    names = ("python", "platform", "packages", "commit", "started", "processor", "gpu", "cuda")
    known = environment or {}
    return {"fastccsa": __version__} | {name: known[name] for name in names if known.get(name)}


def data_facts(config: TrainConfig, images: ImageRows, sampling: SamplingRecord | None) -> Facts:
    """Describe the images: counts by split, domain and class, and what was left out; as far as they are known."""
    facts: Facts = {
        "manifest": Path(config.manifest).name,
        "manifest_sha256": config.manifest_sha256 or None,
        "problem": images.problem or None,
        "excluded_domains": list(config.exclude),
    }
    if sampling is not None:
        facts["trained_on"] = {
            domain: dict(zip(sampling.classes, counts, strict=True))
            for domain, counts in zip(sampling.domains, sampling.counts, strict=True)
        }
    if images.manifest is not None:
        facts |= _counts(images.manifest)
        facts["collections"] = _collections(Path(config.manifest), config.manifest_sha256)
    return facts


def _counts(manifest: Manifest) -> Facts:
    counts: dict[str, dict[str, dict[str, int]]] = {}
    for split in SPLITS:
        table: pd.DataFrame = manifest.summary(split)
        counts[split] = {
            domain: {str(name): int(count) for name, count in table.loc[domain].items()} for domain in manifest.domains
        }
    groups = manifest.table.groupby("split")[CLUSTER_COLUMN].nunique()
    return {
        "images": len(manifest),
        "counts": counts,
        "groups": {split: int(groups.get(split, 0)) for split in SPLITS},
        "columns": [str(name) for name in manifest.table.columns],
    }


def _collections(manifest: Path, checksum: str) -> Facts | None:
    """Return what `prepare` recorded about the collections of this manifest; None if it did not make it."""
    path = provenance_path(manifest)
    try:
        with reported(path, "does not say how the manifest was made", "restore it, or remove it"):
            record = build(dict[str, Any], load_json(read_bytes(path)))
            about = build(dict[str, Any], record.get("manifest", {}), "manifest")
            if about.get("sha256") != checksum:
                return None  # the manifest was edited since
            sources = build(tuple[dict[str, str], ...], record.get("sources", []), "sources")
            left_out = build(dict[str, dict[str, tuple[Any, ...]]], record.get("left_out", {}), "left_out")
            duplicates = build(dict[str, Any], record.get("duplicates", {}), "duplicates")
    except FileNotFoundError:
        return None
    except InputError as error:
        return {"problem": str(error).replace(str(path), path.name)}
    found = ((kind, duplicates.get(kind)) for kind in ("same_bytes", "same_look"))
    return {
        "sources": [{"domain": each.get("domain", ""), "kind": each.get("kind", "")} for each in sources],
        "left_out": {domain: {why: len(names) for why, names in each.items()} for domain, each in left_out.items()},
        "duplicates": {"looked_for": str(duplicates.get("looked_for", "not recorded"))}
        | {kind: len(pairs) for kind, pairs in found if isinstance(pairs, list)},
    }
