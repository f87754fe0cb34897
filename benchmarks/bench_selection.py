"""Which channels a criterion chooses, without any fine-tuning to make up for it.

    python benchmarks/bench_selection.py --run runs/k0 runs/k1 runs/k2 --out selection.json --rate 0.5,0.9

Every run is pruned by every criterion at the same number of channels in every layer, from the first layer to the
last, under the network's own loss. What is done with the weights of the channels that stay can be chosen: nothing
(kept), least squares of the layer's outputs (squares), or the way down the joint loss as in `fastccsa prune` (joint).
Two more criteria: "reconstruction" is dcp's without the discrimination loss, "exact" is dcp's with the gradient of
that loss evaluated for every channel. The same command again measures what is missing in --out, and prints all that is
there.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_prune import CPU, mean_and_error, scores_of

from fastccsa.data import Manifest
from fastccsa.evaluation.evaluate import collect_outputs, evaluation_loader
from fastccsa.models import Classifier
from fastccsa.pruning import CRITERIA, PruneConfig
from fastccsa.pruning.criteria import rank_channels
from fastccsa.pruning.layer import BlockInputs, channels_by_rate, discrimination_of, gram_of
from fastccsa.pruning.procedure import open_source
from fastccsa.pruning.remove import keep_channels
from fastccsa.pruning.resnet import convolution, stages_of
from fastccsa.pruning.select import GROWTH, Selection
from fastccsa.pruning.state import PruneState
from fastccsa.pruning.subset import Part, Subset, load_subset
from fastccsa.runs.images import select_images
from fastccsa.system import machine
from fastccsa.system.files import write_atomically
from fastccsa.training import TrainConfig

KEYS = ("discrimination_images", "rate", "weights", "criterion")
SHOWN = {"recall": 1, "loss": 3, "agreement": 1, "gradient": 3, "value": 3, "validation": 3}  # digits


@dataclass(frozen=True)
class Task:
    """A run to prune without fine-tuning.

    Attributes:
        config, training: the pruning, of any rate, and the run's training.
        model: its network.
        chosen, held_out: training images to choose by, and validation images of the same kind.
        test: test images of the run's domains, ``batches`` of what they show, and the class that the whole network
            ``says`` of each.
    """

    config: PruneConfig
    training: TrainConfig
    model: Classifier
    chosen: Subset
    held_out: Subset
    test: Manifest
    batches: list[dict[str, torch.Tensor]]
    says: np.ndarray


def measure(task: Task, missing: list[dict[str, Any]], rows: list[dict[str, Any]], out: Path) -> None:
    """Add what is missing of a run to ``rows``, and write them to ``out`` after each."""
    for row in missing:
        model = task.model
        if row["criterion"] != "all":
            model = prune_untuned(task, row["criterion"], row["seed"], row["rate"], row["weights"])
        rows.append(row | judge(task, model))
        print(json.dumps(rows[-1]), flush=True)
        with write_atomically(out) as file:
            about = {"machine": machine.describe(CPU), "commit": machine.commit()}
            file.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")


def wanted_rows(run: str, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """List what to measure of a run: first the whole network, then each criterion, a random one with several seeds."""
    same = {"run": run, "images": arguments.images, "discrimination_images": arguments.discrimination_images}
    yield same | {"rate": 0.0, "weights": "kept", "criterion": "all", "seed": 0}
    for rate in map(float, arguments.rate.split(",")):
        for weights in arguments.weights.split(","):
            for criterion in arguments.criteria.split(","):
                for seed in range(arguments.random if criterion == "random" else 1):
                    yield same | {"rate": rate, "weights": weights, "criterion": criterion, "seed": seed}


def open_task(run: Path, images: int, discrimination_images: int) -> Task:
    """Read a run, and all the images that it is pruned and judged by."""
    config = PruneConfig(str(run), f"{run}-none", rate=0.5, device="cpu", workers=1)
    training, manifest, model = open_source(config)
    of_run, width = select_images(training, manifest), model.feature_width
    unseen = replace(of_run, training=of_run.validation)
    chosen = load_subset(training, of_run, images, discrimination_images, 0, CPU, width)
    held_out = load_subset(training, unseen, images, images, 0, CPU, width)
    test = manifest.select("test", of_run.domains)
    with evaluation_loader(test, CPU, training.size, workers=1, image_backend=training.image_backend) as loader:
        batches = list(loader.epoch(0))
    says = collect_outputs(model, batches, CPU, None, test, "test").predictions
    return Task(config, training, model, chosen, held_out, test, batches, says)


def prune_untuned(task: Task, criterion: str, seed: int, rate: float, weights: str) -> Classifier:
    """Prune all layers from the first to the last, under the network's own loss."""
    (stage,) = stages_of(task.model, 0)
    state, config = PruneState(copy.deepcopy(task.model), task.model, None, 0), replace(task.config, rate=rate)
    with torch.no_grad():
        inputs = BlockInputs(state.model, state.baseline, task.chosen.images)
    for layer in stage.layers:
        with torch.no_grad():
            inputs.go_to(layer.block)
        steps = channels_by_rate(config, convolution(state.model, layer).in_channels)
        parts = (task.chosen.discrimination, task.chosen.check)
        losses = [discrimination_of(state, stage, layer, inputs, part) for part in parts]
        gram = gram_of(state, layer, inputs)
        kept, weight = choose(state.model, layer, gram, losses, criterion, seed, steps, weights)
        keep_channels(state.model, layer, kept, weight, task.training.size)
    return state.model


def choose(model, layer, gram, losses, criterion, seed, steps, weights) -> tuple[list[int], torch.Tensor]:
    """Choose ``steps`` channels of a layer and their weights.

    Args:
        model, layer: the layer.
        gram, losses: its joint loss; L_S on the images of its gradient, and on those of its value.
        criterion: one of a pruning's, reconstruction or exact.
        seed: of the random criterion.
        steps: how many channels to keep.
        weights: kept (the layer's own), squares (those that minimise L_M), or joint (down L, as in a pruning).
    """
    conv = convolution(model, layer)
    solved_by = losses if weights == "joint" else ()
    chosen_by = {"dcp": losses, "exact": losses, "reconstruction": ()}.get(criterion, solved_by)
    ranking = rank_channels(criterion, model, layer, losses[0], seed) if criterion in CRITERIA else None
    growth = 1.0 if criterion == "exact" else GROWTH
    selection = Selection(gram, conv, *chosen_by, ranking=ranking, steps=steps, growth=growth)
    order = selection.walk().order
    if weights == "kept":
        return sorted(order), conv.weight[:, sorted(order)]
    if chosen_by is not solved_by or growth != GROWTH:
        selection = Selection(gram, conv, *solved_by, ranking=order, steps=steps)
        selection.walk()
    return sorted(order), selection.weight(steps)


@torch.no_grad()
def judge(task: Task, model: Classifier) -> dict[str, float]:
    """Score a network on test images, and by L_S on the images it was chosen by and on validation images.

    Returns:
        What `scores_of` does, ``agreement``, the share in % of test images of which it says what the whole network
        says, and L_S on the images of its gradient (``gradient``), of its value (``value``) and ``validation``.
    """
    outputs = collect_outputs(model, task.batches, CPU, None, task.test, "test")
    found = scores_of(outputs) | {"agreement": 100 * float(np.mean(outputs.predictions == task.says))}

    def loss(subset: Subset, part: Part) -> float:
        return float(part.loss(*model(subset.images[part.begin : part.end])))

    chosen, held_out = task.chosen, task.held_out
    found |= {"gradient": loss(chosen, chosen.discrimination), "value": loss(chosen, chosen.check)}
    unseen = (held_out.discrimination, held_out.check)
    return found | {"validation": statistics.mean(loss(held_out, part) for part in unseen)}


def table(rows: list[dict]) -> str:
    """Print means over runs with their standard errors, and how far dcp is ahead in the same run."""
    lines = [
        "| images for L_S | rate | weights | criterion | recall, % | loss | as the whole, % | L_S, gradient's images "
        "| L_S, value's | L_S, validation | dcp's recall above | dcp's loss below |",
        "| --: | --: | :-- | :-- | --: | --: | --: | --: | --: | --: | --: | --: |",
    ]
    groups: dict[tuple, dict[str, list[dict]]] = {}
    for row in rows:
        by_run = groups.setdefault(tuple(row[name] for name in KEYS), {})
        by_run.setdefault(row["run"], []).append(row)

    def mean(group: dict[str, list[dict]], run: str, name: str) -> float:
        return statistics.mean(row[name] for row in group[run])

    for (*same, criterion), group in groups.items():
        dcp = groups.get((*same, "dcp"), {})
        both = [] if criterion == "dcp" else [run for run in group if run in dcp]
        values = [
            *(([mean(group, run, name) for run in group], digits) for name, digits in SHOWN.items()),
            ([mean(dcp, run, "recall") - mean(group, run, "recall") for run in both], 1),
            ([mean(group, run, "loss") - mean(dcp, run, "loss") for run in both], 3),
        ]
        cells = [mean_and_error(*value) if value[0] else "" for value in values]
        lines.append(f"| {' | '.join(map(str, (*same, criterion, *cells)))} |")
    return "\n".join(lines)


def main() -> None:
    """Read the command line, and measure what is missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, nargs="+", required=True, help="finished runs, one a seed")
    parser.add_argument("--out", type=Path, required=True, help="JSON of all rows")
    parser.add_argument("--rate", default="0.9", help="separated by commas")
    parser.add_argument("--weights", default="kept,squares,joint")
    parser.add_argument("--criteria", default=",".join((*CRITERIA, "reconstruction", "exact")))
    parser.add_argument("--random", type=int, default=3, help="seeds of the random criterion")
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--discrimination-images", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = json.loads(arguments.out.read_text())["rows"] if arguments.out.exists() else []
    for run in arguments.run:
        wanted = wanted_rows(str(run), arguments)
        if missing := [row for row in wanted if not any(row.items() <= done.items() for done in rows)]:
            measure(open_task(run, arguments.images, arguments.discrimination_images), missing, rows, arguments.out)
    print(table(rows))


if __name__ == "__main__":
    main()
