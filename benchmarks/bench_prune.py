"""How long choosing channels takes, beside the naive algorithm too, and how good the choice is beside other criteria.

    python benchmarks/bench_prune.py speed        # every layer of a ResNet-18 at 224 px, on noise
    python benchmarks/bench_prune.py speed --layer layer3.0.conv2 --naive 4 --images 64 --discrimination-images 32
    python benchmarks/bench_prune.py layers --run runs/k0 --rate 0.9
    python benchmarks/bench_prune.py criteria --run runs/k0 runs/k1 runs/k2 --out prunings --rate 0.9

Times do not depend on what the images show. The naive algorithm is the tests' oracle: it passes over the data for
every channel. `--naive N` times its first N channels, and the whole path of fastccsa; what the naive one would take for
the layer is the cost of a channel times their number (its least squares grow, so it is at least that).
`layers` chooses channels in single layers of a run, the others whole, under the network's own loss: L by which they
are chosen, L_S on the images of its gradient and on validation images. `criteria` prunes every run by every criterion,
at the same number of channels in every layer, with all the fine-tuning of `fastccsa prune`; the same command again goes
on where it stopped. Without fine-tuning: bench_selection.py.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import math
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from fastccsa.evaluation import Outputs, score_outputs
from fastccsa.models import build_model
from fastccsa.pruning import CRITERIA, PruneConfig, prune
from fastccsa.pruning.criteria import rank_channels
from fastccsa.pruning.discrimination import Discrimination
from fastccsa.pruning.layer import BlockInputs, channels_by_rate, discrimination_of, gram_of
from fastccsa.pruning.procedure import open_source
from fastccsa.pruning.record import PruneRecord
from fastccsa.pruning.resnet import AuxiliaryHead, block_of, block_width, convolution, prunable_layers, stages_of
from fastccsa.pruning.select import Selection
from fastccsa.pruning.state import PruneState
from fastccsa.pruning.subset import Part, load_subset
from fastccsa.runs.folder import OUTPUTS_FILE
from fastccsa.runs.images import select_images
from fastccsa.system import machine
from fastccsa.system.files import write_atomically

CLASSES = 7
CPU = torch.device("cpu")


def speed(arguments: argparse.Namespace) -> None:
    """Time the selection in the layers of a ResNet-18, and the naive algorithm on the same."""
    about = machine.describe(CPU)
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    model = build_model("resnet18", CLASSES, weights="none").eval()
    images = torch.randn(arguments.images, 3, arguments.size, arguments.size)
    labels = torch.randint(CLASSES, (arguments.images,))
    wall = cpu = 0.0
    for stage in stages_of(model, None):
        head = None if stage.is_last else AuxiliaryHead(block_width(block_of(model, stage.end)), CLASSES).eval()
        state = PruneState(model, copy.deepcopy(model), head, 0)
        inputs: BlockInputs | None = None  # the layers of a stage share them, as in a pruning
        for layer in stage.layers:
            if arguments.layer and layer.name != arguments.layer:
                continue
            before = time.perf_counter(), time.process_time()
            with torch.no_grad():
                inputs = inputs or BlockInputs(state.model, state.baseline, images)
            select(state, stage, layer, inputs, labels, arguments.discrimination_images)
            seconds, cpu_seconds = time.perf_counter() - before[0], time.process_time() - before[1]
            wall, cpu = wall + seconds, cpu + cpu_seconds
            print(f"{layer.name}: {seconds:.1f} s, {cpu_seconds:.1f} s of CPU", flush=True)
            if arguments.naive:
                compare_naive(state, stage, layer, images, labels, arguments, seconds)
    print(
        f"all: {wall:.1f} s, {cpu:.1f} s of CPU, on {arguments.threads} threads of {about['cpu']} "
        f"(load before {about['load_before']}), {arguments.images} images of {arguments.size} px"
    )


@torch.no_grad()
def select(state, stage, layer, inputs, labels, count) -> None:
    """Choose the channels of one layer: run to its block, the Gram matrix, the cached inputs, the whole path."""
    inputs.go_to(layer.block)

    def loss_of(begin: int, end: int) -> Discrimination:
        part = Part(begin, end, lambda logits, features: F.cross_entropy(logits, labels[begin:end]))
        return discrimination_of(state, stage, layer, inputs, part)

    parts = loss_of(0, count // 2), loss_of(count // 2, count)
    with torch.enable_grad():
        Selection(gram_of(state, layer, inputs), convolution(state.model, layer), *parts).walk()


def compare_naive(state, stage, layer, images, labels, arguments, seconds) -> None:
    """Time the naive algorithm's first channels, and say what all of them would take beside our ``seconds``."""
    channels = convolution(state.model, layer).in_channels
    naive = time_naive(state, stage, layer, images, labels, arguments.discrimination_images, arguments.naive)
    whole = naive / arguments.naive * channels
    print(
        f"naive: {naive:.1f} s for {arguments.naive} channels, at that rate {whole:.0f} s for all {channels}: "
        f"{whole / seconds:.0f} times as long"
    )


def time_naive(state, stage, layer, images, labels, count, channels) -> float:
    """Time the tests' oracle on the same layer, in float32 as well, for its first ``channels`` channels."""
    path = Path(__file__).parents[1] / "tests" / "pruning" / "naive.py"
    spec = importlib.util.spec_from_file_location("naive", path)
    naive = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(naive)
    half = count // 2
    loss = naive.stage_loss(stage, state.head, labels, torch.float32)
    value = naive.stage_loss(stage, state.head, labels[half:count], torch.float32)
    check = lambda model: value(model, images[half:count])  # noqa: E731
    name = f"backbone.{layer.name}"
    started = time.perf_counter()
    naive.select(
        state.model,
        state.baseline,
        name,
        images,
        images[:half],
        loss,
        steps=channels,
        dtype=torch.float32,
        check=check,
    )
    return time.perf_counter() - started


def layers(arguments: argparse.Namespace) -> None:
    """Choose channels of single layers by every criterion, from the same images and for the same losses."""
    torch.set_num_threads(arguments.threads)
    config = PruneConfig(str(arguments.run), str(arguments.run) + "-none", rate=arguments.rate, device="cpu", workers=1)
    training, manifest, model = open_source(config)
    images, (stage,) = select_images(training, manifest), stages_of(model, 0)
    count, few = arguments.images, arguments.discrimination_images
    chosen = load_subset(training, images, count, few, 0, CPU, model.feature_width)
    unseen = replace(images, training=images.validation)
    held_out = load_subset(training, unseen, count, count, 0, CPU, model.feature_width)
    print(
        "| layer | channels | criterion | L | L_S, chosen by | L_S, validation |\n| :-- | --: | :-- | --: | --: | --: |"
    )
    for layer in prunable_layers(model):
        if arguments.layer and layer.name not in arguments.layer.split(","):
            continue
        state, conv = PruneState(model, model, None, 0), convolution(model, layer)
        gram, discrimination, check = problem_of(state, stage, layer, chosen)
        _, *unseen = problem_of(state, stage, layer, held_out)
        steps = channels_by_rate(config, gram.channels)
        losses = discrimination.loss(conv.weight), statistics.mean(loss.loss(conv.weight) for loss in unseen)
        print(f"| {layer.name} | {gram.channels} | all | | {losses[0]:.3f} | {losses[1]:.3f} |", flush=True)
        for criterion, seed in [("dcp", 0), ("magnitude", 0), ("taylor", 0), *(("random", seed) for seed in range(3))]:
            ranking = rank_channels(criterion, model, layer, discrimination, seed)
            selection = Selection(gram, conv, discrimination, check, ranking=ranking, steps=steps)
            path, weight = selection.walk(), torch.zeros_like(conv.weight)
            weight[:, sorted(path.order)] = selection.weight(steps)
            losses = discrimination.loss(weight), statistics.mean(loss.loss(weight) for loss in unseen)
            print(f"| {layer.name} | {steps} | {criterion} | {path.losses[-1]:.3f} ", end="")
            print(f"| {losses[0]:.3f} | {losses[1]:.3f} |", flush=True)


@torch.no_grad()
def problem_of(state, stage, layer, subset):
    """Make the parts of a layer's joint loss on a subset."""
    inputs = BlockInputs(state.model, state.baseline, subset.images)
    inputs.go_to(layer.block)
    parts = (subset.discrimination, subset.check)
    return gram_of(state, layer, inputs), *(discrimination_of(state, stage, layer, inputs, part) for part in parts)


def criteria(arguments: argparse.Namespace) -> None:
    """Prune runs by every criterion, at the same number of channels in every layer."""
    torch.set_num_threads(arguments.threads)
    options = {
        name: getattr(arguments, name)
        for name in ("rate", "epochs", "fraction", "images", "discrimination_images", "lr")
    }
    rows = []
    for number, run in enumerate(arguments.run):
        for criterion in arguments.criteria.split(","):
            out = arguments.out / f"{criterion}-{number}"
            prune(run, out, criterion=criterion, device="cpu", workers=1, **options)
            found = {"run": str(run), "criterion": criterion, "parameters": PruneRecord.read(out).after.parameters}
            folders = {"unpruned": Path(run), "before": out / "selected", "after": out}
            rows.append(found | {name: measure(folder) for name, folder in folders.items()})
            print(json.dumps(rows[-1]), flush=True)
            with write_atomically(arguments.out / "criteria.json") as file:
                about = {"machine": machine.describe(CPU), "commit": machine.commit()}
                file.write_text(json.dumps({**about, "options": options, "rows": rows}, indent=1) + "\n")
    print(table(rows))


def measure(run: Path) -> dict[str, float]:
    """Score a finished run on its test images, as `scores_of` does."""
    return scores_of(Outputs.read(run / OUTPUTS_FILE))


def scores_of(outputs: Outputs) -> dict[str, float]:
    """Score what a network said of images.

    Returns:
        ``recall``, the mean over domains of the macro-average recall in %; ``loss``, the cross-entropy averaged over
        the images of a class of a domain, then over a domain's classes, then over domains: it has no steps, so it
        tells apart what recall on few images cannot.
    """
    losses = -np.log(outputs.probabilities[np.arange(len(outputs)), outputs.targets].clip(1e-12))
    by_domain = [
        statistics.mean(float(losses[in_domain & (outputs.targets == label)].mean()) for label in present)
        for domain in np.unique(outputs.domains)
        if len(present := np.unique(outputs.targets[in_domain := outputs.domains == domain]))
    ]
    return {"recall": 100 * score_outputs(outputs).average, "loss": statistics.mean(by_domain)}


def table(rows: list[dict]) -> str:
    """Print means over runs, with the standard error of the mean."""
    lines = [
        "| criterion | parameters | recall before fine-tuning, % | after | loss before | after |",
        "| :-- | --: | --: | --: | --: | --: |",
    ]
    names = list(dict.fromkeys(row["criterion"] for row in rows))
    for name in ["unpruned", *names]:
        of_name = [row for row in rows if row["criterion"] == (names[0] if name == "unpruned" else name)]
        columns = ("unpruned", "unpruned") if name == "unpruned" else ("before", "after")
        cells = [
            mean_and_error([row[column][what] for row in of_name], digits)
            for what, digits in (("recall", 1), ("loss", 3))
            for column in columns
        ]
        size = "" if name == "unpruned" else f"{of_name[0]['parameters'] / 1e6:.2f}M"
        lines.append(f"| {name} | {size} | {' | '.join(cells)} |")
    return "\n".join(lines)


def mean_and_error(values: list[float], digits: int) -> str:
    """Print a mean and the standard error of the mean."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values) / math.sqrt(len(values)):.{digits}f}"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("speed")
    one.add_argument("--layer", help="this layer alone")
    one.add_argument("--naive", type=int, default=0, help="also time the naive algorithm, for so many channels")
    one.add_argument("--images", type=int, default=512)
    one.add_argument("--discrimination-images", type=int, default=128)
    one.add_argument("--size", type=int, default=224)
    one.add_argument("--threads", type=int, default=2)
    one.set_defaults(command=speed)
    three = commands.add_parser("layers")
    three.add_argument("--run", type=Path, required=True)
    three.add_argument("--layer", help="these layers alone, separated by commas")
    three.add_argument("--rate", type=float, default=0.9)
    three.add_argument("--images", type=int, default=512)
    three.add_argument("--discrimination-images", type=int, default=128)
    three.add_argument("--threads", type=int, default=1)
    three.set_defaults(command=layers)
    two = commands.add_parser("criteria")
    two.add_argument("--run", type=Path, nargs="+", required=True, help="finished runs, one a seed")
    two.add_argument("--out", type=Path, required=True)
    two.add_argument("--rate", type=float, default=0.3)
    two.add_argument("--criteria", default=",".join(CRITERIA))
    two.add_argument("--epochs", type=int)
    two.add_argument("--lr", type=float)
    two.add_argument("--fraction", type=float)
    two.add_argument("--images", type=int, default=512)
    two.add_argument("--discrimination-images", type=int, default=128)
    two.add_argument("--threads", type=int, default=1)
    two.set_defaults(command=criteria)
    arguments = parser.parse_args()
    arguments.command(arguments)


if __name__ == "__main__":
    main()
