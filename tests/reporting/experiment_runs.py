"""Finished experiments like those of `fastccsa train`, made without training: tiny models with random weights."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fastccsa.data import Manifest
from fastccsa.evaluation import Candidate, Selection, run_split, score_outputs
from fastccsa.models import ModelCard, build_model, save_model
from fastccsa.runs.folder import OUTPUTS_FILE
from fastccsa.runs.images import select_images
from fastccsa.training import TrainConfig
from fastccsa.training.objectives import build_objective

BACKBONE = "shufflenet_v2_x0_5"
SIZE = 64
COLOURS = {"nv": (190, 120, 100), "mel": (90, 50, 40), "bcc": (220, 170, 160)}
DOMAINS = {"HAM": ("nv", "mel", "bcc"), "DMF": ("nv", "mel", "bcc"), "SON": ("nv",)}
SPLITS = ["train"] * 3 + ["validation"] * 2 + ["test"] * 4


def write_manifest(folder: Path) -> Path:
    """Write noisy images with one colour per class, and a bright square whose position depends on the number."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    rows = ["image,label,domain,group,split"]
    for domain, labels in DOMAINS.items():
        for label in labels:
            for number, split in enumerate(SPLITS):
                name = f"{domain}_{label}_{number}.png"
                pixels = random.normal(COLOURS[label], 15, (80, 100, 3)).clip(0, 255).astype(np.uint8)
                pixels[10 + 5 * number : 25 + 5 * number, 30:45] = 255
                Image.fromarray(pixels).save(folder / name)
                rows.append(f"{name},{label},{domain},{name},{split}")
    path = folder / "manifest.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def write_experiment(runs: Path, manifest_csv: Path, letter: str, seed: int, epochs: int = 3) -> Path:
    """Write the run folder of experiment A (a baseline on HAM) or of another letter (CCSA, started from A)."""
    folder = runs / letter / f"seed{seed}"
    settings = {"n_sec": 0, "alignment": "-"} if letter == "A" else {"init": str(runs / "A" / f"seed{seed}")}
    config = TrainConfig(
        manifest=str(manifest_csv),
        manifest_sha256=hashlib.sha256(manifest_csv.read_bytes()).hexdigest(),
        out=str(folder),
        backbone=BACKBONE,
        size=SIZE,
        epochs=epochs,
        batch_size=4,
        seed=seed,
        **settings,
    )
    manifest = Manifest.read(manifest_csv)
    torch.manual_seed(1000 * seed + ord(letter))
    model = build_model(BACKBONE, len(manifest.classes), weights="none")
    with torch.no_grad():
        model.head.weight.mul_(30)  # so that the answers differ
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(config.to_json())
    card = ModelCard(BACKBONE, manifest.classes, ("HAM",), SIZE, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    save_model(folder, model, card)
    outputs = run_split(model, manifest, "cpu", size=SIZE, workers=1)
    outputs.write(folder / OUTPUTS_FILE)
    selection = Selection("highest mean validation recall of HAM", 2, 0.5)
    if letter != "A":  # A is as older versions wrote it
        choices = {"informative": Candidate(2, 0.5), "paper": Candidate(1, 0.75)}
        selection = replace(selection, choices=choices, last=Candidate(epochs, 0.25))
        last = replace(outputs, logits=outputs.logits[:, ::-1].copy())
        (folder / "scores_last.json").write_text(score_outputs(last).to_json())
    scores = replace(score_outputs(outputs), selection=selection)
    (folder / "scores.json").write_text(scores.to_json())
    objective = build_objective(config, select_images(config, manifest), torch.device("cpu"), model.feature_width)
    objective.record.write(folder)
    objective.loader.close()
    (folder / "metrics.jsonl").write_text(
        "".join(_record(objective.terms, epoch, seed) for epoch in range(1, epochs + 1))
    )
    return folder


def _record(terms: tuple[str, ...], epoch: int, seed: int) -> str:
    values = {term: (place + 1) * (1 + seed) / epoch for place, term in enumerate(terms)}
    recall = 0.2 * epoch + 0.05 * seed
    record = {"epoch": epoch, "lr": 1e-4, **values, "seconds": 2.0, "images_per_second": 100.0}
    return json.dumps({**record, "validation_recall": recall, "validation": {"HAM": recall}}) + "\n"
