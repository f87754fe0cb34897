"""The quality and the time of a choice of channels, without any fine-tuning to compensate for it.

Every run is pruned by every criterion at the same number of channels in every layer, from the first layer to the
last, or in one layer while the others stay whole, under the network's own loss. The weights of the channels that stay
are "kept" (the layer's own), "squares" (those that minimise L_M, as in `fastccsa prune`), or "joint" (those that
descend the joint loss, as with `--refit joint`). Two criteria exist only here: "reconstruction" is dcp without the
discrimination loss, and "exact" is dcp with the gradient of that loss evaluated for every channel. Repeating the
command measures only what --out lacks, and prints all results.
"""

from __future__ import annotations

import copy
import itertools
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from fastccsa.evaluation import Outputs, score_outputs
from fastccsa.evaluation.inference import collect_outputs, evaluation_loader
from fastccsa.models import Classifier
from fastccsa.pruning import CRITERIA, PruneConfig
from fastccsa.pruning.criteria import rank_channels
from fastccsa.pruning.layer import BlockInputs, channels_by_rate, discrimination_of, gram_of
from fastccsa.pruning.procedure import open_source
from fastccsa.pruning.remove import keep_channels
from fastccsa.pruning.resnet import convolution, stages_of
from fastccsa.pruning.select import GROWTH, Selection
from fastccsa.pruning.state import PruneState
from fastccsa.pruning.subset import Part, load_subset
from fastccsa.runs.images import select_images
from fastccsa.system import machine
from fastccsa.system.files import write_atomically

CPU = torch.device("cpu")
KEYS = ["layer", "discrimination_images", "rate", "weights", "criterion"]
FIGURES = ["seconds", "recall", "loss", "agreement", "gradient", "value", "validation"]


def main(options: SimpleNamespace) -> None:
    """Measure what is missing for each run; print means with standard errors, and dcp minus the others."""
    if not options.run:
        raise click.UsageError("name the runs to prune: --run RUN")
    torch.set_num_threads(options.threads)
    rows = json.loads(options.out.read_text())["rows"] if options.out and options.out.exists() else []
    for run in options.run:
        asked = _rows_of(str(run), options)
        if missing := [row for row in asked if not any(row.items() <= done.items() for done in rows)]:
            task = Task(run, options)
            for row in missing:
                rows.append(row | task.measure(row))
                click.echo(json.dumps(rows[-1]))
                if options.out:
                    about = json.dumps({"machine": machine.describe(CPU), "commit": machine.commit()})[:-1]
                    with write_atomically(options.out) as file:
                        file.write_text(f'{about}, "rows": [\n' + ",\n".join(map(json.dumps, rows)) + "\n]}\n")
    frame = pd.DataFrame(rows)
    click.echo(frame.groupby(KEYS, sort=False)[FIGURES].agg(["mean", "sem"]).round(3).to_string(na_rep=""))
    by_run = frame.groupby(["run", *KEYS])[["recall", "loss"]].mean().unstack("criterion")
    for figure in ("recall", "loss") if "dcp" in by_run["recall"] else ():
        less = by_run[figure].rsub(by_run[figure]["dcp"], axis=0).groupby(KEYS[:-1]).agg(["mean", "sem"]).round(3)
        click.echo(f"\n{figure}: dcp minus the others, in the same run\n{less.to_string(na_rep='')}")


def _rows_of(run: str, options: SimpleNamespace) -> Iterator[dict[str, Any]]:
    """List the rows to measure for a run: the whole network, then each criterion, the random one with several seeds."""
    same = {"run": run, "images": options.training_images, "discrimination_images": options.discrimination_images}
    yield same | {"layer": "", "rate": 0.0, "weights": "kept", "criterion": "all", "seed": 0}
    criteria = options.criteria.split(",") if options.criteria else (*CRITERIA, "reconstruction", "exact")
    choices = itertools.product(options.layer or ("",), options.rate or (0.9,), options.weights.split(","), criteria)
    for layer, rate, weights, criterion in choices:
        for seed in range(options.random if criterion == "random" else 1):
            row = {"layer": layer, "rate": rate, "weights": weights, "criterion": criterion, "seed": seed}
            yield same | row


class Task:
    """A run to prune, and the images that are used to prune and to judge it."""

    def __init__(self, run: Path, options: SimpleNamespace) -> None:
        self.config = PruneConfig(str(run), f"{run}-none", rate=0.5, device="cpu", workers=1)
        self.training, manifest, self.model = open_source(self.config)
        images, count = select_images(self.training, manifest), options.training_images
        subset = partial(load_subset, seed=0, device=CPU, width=self.model.feature_width)
        self.chosen = subset(self.training, images, count, options.discrimination_images)
        self.held_out = subset(self.training, replace(images, training=images.validation), count, count)
        self.test, size = manifest.select("test", images.domains), self.training.size
        backend = self.training.image_backend
        with evaluation_loader(self.test, CPU, size, workers=1, image_backend=backend) as loader:
            self.batches = list(loader.epoch(0))
        self.predictions = self.outputs(self.model).predictions

    def outputs(self, model: Classifier) -> Outputs:
        """Compute a network's outputs on the test images of the run's domains."""
        return collect_outputs(model, self.batches, CPU, None, self.test, "test")

    def measure(self, row: dict[str, Any]) -> dict[str, float]:
        """Prune with the settings of a row, and judge the network.

        Returns:
            ``seconds`` of the choice; macro-average ``recall`` in % and cross-entropy ``loss`` on test images, averaged
            over classes, then over domains; ``agreement``, the share in % of test images for which its prediction is
            that of the whole network; L_S on the images of its ``gradient``, of its ``value``, and on ``validation``
            images.
        """
        begun = time.perf_counter()
        model = self.model if row["criterion"] == "all" else self.prune(row)
        seconds, outputs = time.perf_counter() - begun, self.outputs(model)
        losses = -np.log(outputs.probabilities[np.arange(len(outputs)), outputs.targets].clip(1e-12))
        frame = pd.DataFrame({"domain": outputs.domains, "target": outputs.targets, "loss": losses})
        by_domain = frame.groupby(["domain", "target"]).loss.mean().groupby("domain").mean()

        @torch.no_grad()
        def loss(subset: Any, *parts: Part) -> float:
            return statistics.mean(float(p.loss(*model(subset.images[p.begin : p.end]))) for p in parts)

        chosen, held_out = self.chosen, self.held_out
        return {
            "seconds": seconds,
            "recall": 100 * score_outputs(outputs).average,
            "loss": float(by_domain.mean()),
            "agreement": 100 * float(np.mean(outputs.predictions == self.predictions)),
            "gradient": loss(chosen, chosen.discrimination),
            "value": loss(chosen, chosen.check),
            "validation": loss(held_out, held_out.discrimination, held_out.check),
        }

    def prune(self, row: dict[str, Any]) -> Classifier:
        """Prune all layers from the first to the last, or one of them, under the network's own loss."""
        (stage,) = stages_of(self.model, 0)
        state = PruneState(copy.deepcopy(self.model), self.model, None, 0)
        config = replace(self.config, rate=row["rate"])
        with torch.no_grad():
            inputs = BlockInputs(state.model, state.baseline, self.chosen.images)
        for layer in stage.layers:
            if row["layer"] in ("", layer.name):
                with torch.no_grad():
                    inputs.go_to(layer.block)
                    gram, parts = gram_of(state, layer, inputs), (self.chosen.discrimination, self.chosen.check)
                    losses = [discrimination_of(state, stage, layer, inputs, part) for part in parts]
                steps = channels_by_rate(config, convolution(state.model, layer).in_channels)
                kept, weight = _choose(state.model, layer, gram, losses, row, steps)
                keep_channels(state.model, layer, kept, weight, self.training.size)
        return state.model


def _choose(
    model: Classifier, layer: Any, gram: Any, losses: Sequence[Any], row: dict[str, Any], steps: int
) -> tuple[list[int], Tensor]:
    """Choose ``steps`` channels of a layer by the row's criterion, and their weights."""
    conv, criterion = convolution(model, layer), row["criterion"]
    joint = row["weights"] == "joint"
    solved_by = losses if joint else ()
    chosen_by = {"dcp": losses, "exact": losses, "reconstruction": ()}.get(criterion, solved_by)
    ranking = rank_channels(criterion, model, layer, losses[0], row["seed"]) if criterion in CRITERIA else None
    growth = 1.0 if criterion == "exact" else GROWTH
    choose: Callable[..., Selection] = partial(Selection, gram, conv, descend=joint)
    selection = choose(*chosen_by, ranking=ranking, steps=steps, growth=growth)
    order = selection.walk().order
    if row["weights"] == "kept":
        return sorted(order), conv.weight[:, sorted(order)]
    if joint and (chosen_by is not solved_by or growth != GROWTH):
        selection = choose(*solved_by, ranking=order, steps=steps)
        selection.walk()
    return sorted(order), selection.weight(steps)
