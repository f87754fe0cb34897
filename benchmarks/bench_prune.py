"""How long choosing channels takes beside the naive algorithm, and how good the choice is beside other criteria.

    python benchmarks/bench_prune.py speed        # every layer of a ResNet-18 at 224 px, on noise
    python benchmarks/bench_prune.py speed --naive layer3.0.conv2 --channels 8 --images 64 --discrimination-images 32
    python benchmarks/bench_prune.py criteria --run runs/k --out prunings --rate 0.3 --seeds 0,1,2

Times do not depend on what the images show. The naive algorithm is the tests' oracle: it passes over the data for
every channel; only its first channels are timed, and fastccsa's share of as many of them is all its work up to there.
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import statistics
import time
from pathlib import Path

import torch
from torch.nn import functional as F

from fastccsa.evaluation import Scores
from fastccsa.models import build_model
from fastccsa.pruning import prune
from fastccsa.pruning.discrimination import Discrimination
from fastccsa.pruning.layer import BlockInputs, accumulate_layer
from fastccsa.pruning.record import PruneRecord
from fastccsa.pruning.resnet import (
    AuxiliaryHead,
    after_layer,
    block_of,
    block_width,
    convolution,
    layer_inputs,
    prunable_layers,
    run_blocks,
    run_stem,
    stages_of,
)
from fastccsa.pruning.select import Selection
from fastccsa.pruning.state import PruneState

CLASSES = 7


@torch.no_grad()
def select(model, baseline, stage, head, layer, images, labels, discrimination_images, steps=None) -> None:
    """Choose the channels of one layer, from images on: the Gram matrix, the cached inputs, the whole path."""
    state = PruneState(model, baseline, head, 0)
    inputs = BlockInputs(model, baseline, images)
    inputs.go_to(layer.block)
    conv = convolution(model, layer)
    gram = accumulate_layer(state, layer, conv, inputs)
    block_inputs = inputs.first(discrimination_images)
    own = torch.cat([layer_inputs(model, layer, part) for part in block_inputs.split(16)])
    rest = after_layer(model, layer, stage, head)
    loss = lambda logits, features: F.cross_entropy(logits, labels[:discrimination_images])  # noqa: E731
    with torch.enable_grad():
        Selection(gram, conv, Discrimination(conv, own, block_inputs, rest, loss), steps=steps).walk()


def speed(arguments: argparse.Namespace) -> None:
    """Time the layers of a ResNet-18, or one of them beside the naive algorithm."""
    torch.manual_seed(0)
    torch.set_num_threads(arguments.threads)
    model = build_model("resnet18", CLASSES, weights="none").eval()
    baseline = copy.deepcopy(model)
    images = torch.randn(arguments.images, 3, arguments.size, arguments.size)
    labels = torch.randint(CLASSES, (arguments.images,))
    stages = stages_of(model, None)
    total = 0.0
    for layer in prunable_layers(model):
        if arguments.naive and layer.name != arguments.naive:
            continue
        stage = next(stage for stage in stages if layer in stage.layers)
        head = None if stage.is_last else AuxiliaryHead(block_width(block_of(model, stage.end)), CLASSES).eval()
        problem = (model, baseline, stage, head, layer, images, labels, arguments.discrimination_images)
        started = time.perf_counter()
        select(*problem, steps=arguments.channels if arguments.naive else None)
        seconds = time.perf_counter() - started
        total += seconds
        print(f"{layer.name}: {seconds:.1f} s", flush=True)
        if arguments.naive:
            naive_seconds = time_naive(*problem, arguments.channels)
            print(
                f"naive: {naive_seconds:.1f} s for {arguments.channels} channels, ratio {naive_seconds / seconds:.1f}"
            )
    print(f"all: {total:.1f} s on {arguments.threads} threads, {arguments.images} images of {arguments.size} px")


def time_naive(model, baseline, stage, head, layer, images, labels, discrimination_images, channels) -> float:
    """Time the oracle of the tests on the same layer, for its first ``channels`` channels."""
    path = Path(__file__).parents[1] / "tests" / "pruning" / "naive.py"
    spec = importlib.util.spec_from_file_location("naive", path)
    naive = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(naive)

    def loss(network, some):
        outputs = run_blocks(network, run_stem(network, some), 0, stage.end + 1)
        logits = network(some)[0] if head is None else head.to(some.dtype)(outputs)[0]
        return F.cross_entropy(logits, labels[: len(some)])

    started = time.perf_counter()
    few = images[:discrimination_images]
    naive.select(model, baseline, f"backbone.{layer.name}", images, few, loss, steps=channels)
    return time.perf_counter() - started


def criteria(arguments: argparse.Namespace) -> None:
    """Prune a run by every criterion, at the same number of channels in every layer, with several seeds."""
    rows = {}
    for criterion in arguments.criteria.split(","):
        for seed in map(int, arguments.seeds.split(",")):
            out = arguments.out / f"{criterion}-{seed}"
            options = {"criterion": criterion, "seed": seed, "epochs": arguments.epochs, "images": arguments.images}
            prune(arguments.run, out, rate=arguments.rate, **options)
            before, after = (Scores.read(out / name / "scores.json").average for name in ("selected", "."))
            rows.setdefault(criterion, []).append((100 * before, 100 * after))
            parameters = PruneRecord.read(out).after.parameters
            print(f"{criterion} seed {seed}: {parameters / 1e6:.2f}M, {100 * before:.1f} then {100 * after:.1f}")
    print(f"\n{'':>10} {'before fine-tuning':>20} {'after':>20}   (macro recall in %, mean and deviation over seeds)")
    for criterion, values in rows.items():
        cells = []
        for column in zip(*values, strict=True):
            spread = statistics.stdev(column) if len(column) > 1 else 0.0
            cells.append(f"{statistics.mean(column):.1f} ± {spread:.1f}")
        print(f"{criterion:>10} {cells[0]:>20} {cells[1]:>20}")
    (arguments.out / "criteria.json").write_text(json.dumps({"rate": arguments.rate, "recalls": rows}) + "\n")


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("speed")
    one.add_argument("--naive", help="one layer, beside the naive algorithm")
    one.add_argument("--channels", type=int, default=8)
    one.add_argument("--images", type=int, default=512)
    one.add_argument("--discrimination-images", type=int, default=128)
    one.add_argument("--size", type=int, default=224)
    one.add_argument("--threads", type=int, default=2)
    one.set_defaults(command=speed)
    two = commands.add_parser("criteria")
    two.add_argument("--run", type=Path, required=True)
    two.add_argument("--out", type=Path, required=True)
    two.add_argument("--rate", type=float, default=0.3)
    two.add_argument("--seeds", default="0,1,2")
    two.add_argument("--criteria", default="dcp,magnitude,taylor,random")
    two.add_argument("--epochs", type=int)
    two.add_argument("--images", type=int, default=512)
    two.set_defaults(command=criteria)
    arguments = parser.parse_args()
    arguments.command(arguments)


if __name__ == "__main__":
    main()
