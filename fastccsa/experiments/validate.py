"""Checks that can be made before an experiment spends hours on training."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from fastccsa.collections import Manifest
from fastccsa.experiments.rows import Experiment
from fastccsa.pruning.config import PruneConfig
from fastccsa.pruning.record import PRUNE_FILE, PruneRecord
from fastccsa.pruning.remove import require_torch_pruning
from fastccsa.pruning.resnet import check_architecture
from fastccsa.pruning.state import check_same, load_state
from fastccsa.runs.config import CONFIG_FILE, TrainConfig
from fastccsa.runs.images import RunImages
from fastccsa.system.errors import InputError
from fastccsa.training import start_model


def why_impossible(row: Experiment, manifest: Manifest) -> str | None:
    """Return why an experiment cannot run here with any settings; None if it can."""
    if row.without is not None and row.without not in manifest.domains:
        return f"it excludes {row.without}, which the manifest does not have ({', '.join(manifest.domains)})"
    if row.n_sec != 0 and len(manifest.domains) - (row.without is not None) < 2:
        return f"it needs a secondary domain to train on, and the manifest has only {', '.join(manifest.domains)}"
    if row.threshold is not None:
        try:
            require_torch_pruning()
        except InputError as error:
            return str(error)
    return None


def check_writable(folder: Path) -> None:
    """Check that ``folder`` can be created if necessary, and written to.

    Raises:
        InputError: it cannot.
    """
    place = Path(os.path.abspath(folder))
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise InputError(f"cannot write {folder}: {place} is a file; choose another folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"cannot write {folder}: you may not write to {place}; choose another folder")


def check_classes(images: RunImages, manifest: Manifest) -> None:
    """Check that every class of the manifest occurs among the training images.

    Raises:
        InputError: a class does not.
    """
    trained = set(images.training.table["label"])
    labels = set(manifest.table["label"])
    untrained = [name for name in manifest.classes if name in labels - trained]
    if untrained:
        raise InputError(
            f"no training image of {', '.join(images.domains)} shows {', '.join(untrained)}, which other images of "
            "the manifest do: split it again, or choose a primary domain that contains every class"
        )


def check_folder(folder: Path, config: TrainConfig) -> None:
    """Check that ``folder`` is empty or holds the run of ``config``.

    Raises:
        InputError: it holds another run.
    """
    if not (folder / CONFIG_FILE).exists():
        return
    there = TrainConfig.read(folder)
    if there.init and config.init and Path(there.init).parts[-2:] == Path(config.init).parts[-2:]:
        there = replace(there, init=config.init)  # the folder of all runs was moved
    differences = config.differences(there)
    if differences:
        raise InputError(
            f"{folder} holds a run with other settings ({'; '.join(differences)}): choose another --out, or repeat them"
        )


def check_pruned_folder(folder: Path, config: PruneConfig) -> None:
    """Check that ``folder`` is empty or holds the pruning of ``config``, finished or not.

    Raises:
        InputError: it holds another pruning.
    """
    if (folder / PRUNE_FILE).exists():
        check_same(config, PruneRecord.read(folder).config, folder)
    else:
        load_state(folder, config)


def check_model(config: TrainConfig, classes: tuple[str, ...], is_pruned: bool = False) -> None:
    """Check that the network can be built, that its initial weights are available, and that it accepts an image.

    Args:
        config: configuration of the run.
        classes: names of the classes.
        is_pruned: whether the network must also support pruning.

    Raises:
        InputError: one of these checks failed.
    """
    weights = "none" if config.init else config.weights
    model = start_model(replace(config, init=None, weights=weights), classes, False, print)
    if is_pruned:
        check_architecture(model)
