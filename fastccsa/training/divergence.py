"""Reporting and saving a batch whose loss was not finite."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from fastccsa.collections import Manifest
from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically
from fastccsa.system.text import spreadsheet_row
from fastccsa.training.meter import Summary
from fastccsa.training.objectives import Forward, Objective
from fastccsa.training.ranks import Ranks

DIVERGED_FILE, BATCH_FILE = "diverged.csv", "diverged.safetensors"


@dataclass(frozen=True)
class Suspect:
    """An image of the batch: its file, class and domain, and whether its pixels and outputs are finite."""

    stream: int
    image: str
    label: str
    domain: str
    finite_pixels: bool
    finite_outputs: bool
    feature_norm: float


def divergence(
    objective: Objective,
    forward: Forward,
    training: Manifest,
    epoch: int,
    summary: Summary,
    *,
    folder: Path,
    ranks: Ranks,
) -> InputError:
    """Load the batch of ``summary.bad_step`` again, save it with a list of its images, and return the error to raise.

    The weights are still the ones this batch was computed with, because later steps have not changed them. Every rank
    must call this.

    Args:
        objective: the objective, whose loader loads the batch again.
        forward: maps images to (logits, features).
        training: the training images, which the loader's indices refer to.
        epoch: the epoch, from 0.
        summary: this rank's summary; some ranks may have no bad step.
        folder: the run folder.
        ranks: the processes that train together.

    Returns:
        An error that names the step, the terms that are not finite, and the classes and domains of suspicious images.
    """
    steps = [step for step in ranks.gather(summary.bad_step) if step >= 0]
    step = min(steps)
    batch = next(iter(objective.loader.epoch(epoch, step)))
    own = find_suspects(batch, forward, training, objective.joint_forward)
    suspects = [suspect for part in ranks.gather(own) for suspect in part]
    terms = next(found for found in ranks.gather(_bad_terms(summary, step)) if found)
    parts = ranks.gather({name: tensor.cpu() for name, tensor in batch.items()})
    saved = _save(folder, suspects, parts) if ranks.is_first else "the first process saves it"
    return InputError(
        f"the loss is not finite at epoch {epoch + 1}, step {step + 1} ({terms}): {_blame(suspects)}; {saved}, and the "
        "last checkpoint is kept: check those images, or start again in another folder with a lower lr or with clip"
    )


def _bad_terms(summary: Summary, step: int) -> str:
    if summary.bad_step != step:
        return ""
    bad = {name: value for name, value in summary.bad_terms.items() if not abs(value) < float("inf")}
    return ", ".join(f"{name} is {value}" for name, value in bad.items())


@torch.no_grad()
def find_suspects(batch: dict[str, Tensor], forward: Forward, training: Manifest, joint_forward: bool) -> list[Suspect]:
    """Pass the batch through the network as the step does, and describe each of its images."""
    suffixes = ("1", "2") if "images1" in batch else ("",)
    streams = [batch[f"images{suffix}"] for suffix in suffixes]
    passes = [torch.cat(streams)] if joint_forward else streams  # as in the step: a single pair is a batch of two
    outputs = [[output.float() for output in forward(images)] for images in passes]
    images, index = torch.cat(streams), torch.cat([batch[f"index{suffix}"] for suffix in suffixes])
    features = torch.cat([features for _, features in outputs])
    finite = torch.cat([torch.isfinite(torch.cat(pair, dim=1)).all(1) for pair in outputs])
    columns = zip(
        [stream for stream, part in enumerate(streams, start=1) for _ in part],
        index.tolist(),
        torch.isfinite(images).flatten(1).all(1).tolist(),
        finite.tolist(),
        features.norm(dim=1).tolist(),
        strict=True,
    )
    suspects = []
    for stream, row, pixels, good, norm in columns:
        about = training.table.iloc[row]
        suspects.append(
            Suspect(stream, training.paths[row], str(about["label"]), str(about["domain"]), pixels, good, norm)
        )
    return suspects


def _blame(suspects: list[Suspect]) -> str:
    """Say how many images have pixels or outputs that are not finite, by domain and class."""
    for what, found in (
        ("pixels", [s for s in suspects if not s.finite_pixels]),
        ("outputs", [s for s in suspects if not s.finite_outputs]),
    ):
        if found:
            counts = Counter(f"{suspect.domain}/{suspect.label}" for suspect in found)
            names = ", ".join(f"{count} of {name}" for name, count in counts.most_common())
            return f"its {len(suspects)} images include {names} with {what} that are not finite"
    counts = Counter(f"{suspect.domain}/{suspect.label}" for suspect in suspects)
    names = ", ".join(f"{count} of {name}" for name, count in counts.most_common())
    return f"all pixels and outputs of its {len(suspects)} images are finite ({names})"


def _save(folder: Path, suspects: list[Suspect], parts: list[dict[str, Tensor]]) -> str:
    """Write the list of images, and the tensors of all ranks' rows; say so in words."""
    rows = {name: torch.cat([part[name] for part in parts]).contiguous() for name in parts[0]}
    try:
        _write_list(folder / DIVERGED_FILE, suspects)
        with write_atomically(folder / BATCH_FILE) as file:
            save_file(rows, file)
    except (OSError, SafetensorError, InputError) as error:  # must not hide the divergence itself
        reason = isinstance(error, OSError) and error.strerror
        return f"the batch cannot be saved ({reason or error})"
    return f"its images are listed in {folder / DIVERGED_FILE}, the batch is in {BATCH_FILE} next to it"


def _write_list(path: Path, suspects: list[Suspect]) -> None:
    with write_atomically(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([item.name for item in fields(Suspect)])
        writer.writerows(spreadsheet_row(astuple(suspect)) for suspect in suspects)
