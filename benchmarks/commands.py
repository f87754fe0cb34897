"""The benchmarks by name, with their options: what ``python -m benchmarks``, ``fastccsa bench`` and pytest take.

Nothing here imports torch, so ``--help`` answers at once.
"""

from __future__ import annotations

import copy
import importlib
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click

FILE, ANY = click.Path(path_type=Path, dir_okay=False), click.Path(path_type=Path, exists=True)
FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)
COUNT, AMOUNT = click.IntRange(min=1), click.FloatRange(min=0)


def _option(flags: str, type: Any, help: str, **settings: Any) -> click.Option:
    settings |= {"is_flag": True} if type is bool else {"type": type}
    return click.Option(flags.split(), help=help, **settings)


def _several(flags: str, type: Any, help: str) -> click.Option:
    return _option(flags, type, f"{help}; repeatable.", multiple=True)


OPTIONS: dict[str, click.Option] = {
    (option.name or "").replace("_", "-"): option
    for option in (
        # sizes
        _several("--pairs -n", COUNT, "Pairs in a batch"),
        _several("--rows -n", COUNT, "Rows of either side"),
        _several("--width -d", COUNT, "Columns of the features"),
        _several("--classes -c", COUNT, "Columns of the logits"),
        _several("--dtype", click.Choice(["float32", "bfloat16", "float16", "float64"]), "Of logits and features"),
        _several("--mode", click.Choice(["forward", "forward+backward"]), "What a call computes"),
        _several("--labels", click.Choice(["uniform", "table1"]), "Seven equally frequent classes, or Table 1's"),
        _option("--memory", COUNT, "Rows of the second side, as past features that get no gradient."),
        _option("--unweighted", bool, "Without weights: the job that other libraries can express too."),
        _option("--hard", bool, "Only errors, where distances are small or 0."),
        _option("--longest", AMOUNT, "Seconds; where the dense products would take longer, nothing is measured."),
        _option("--full", bool, "Everything that there is to measure, in many minutes."),
        _option("--images", FOLDER, "Folder of your own JPEGs; otherwise some are rendered."),
        _several("--shape", str, "WIDTHxHEIGHT to render, such as 1024x768"),
        _option("--files", COUNT, "Files of each shape."),
        _option("--batch", COUNT, "Images in a batch; by default as many as suit the device."),
        _option("--crops", COUNT, "Crops in the store, 270 kB each; by default as many as suit the device."),
        _option("--size", click.IntRange(min=8), "Side of the finished images, pixels."),
        _option("--steps", COUNT, "Timed steps in a turn."),
        # what is measured
        _option("--manifest", ANY, "Images; otherwise some are rendered."),
        _several("--run", FOLDER, "Run of a training or a pruning"),
        _option("--backbone", str, "A torchvision classification network."),
        _option("--cache", click.Choice(["none", "disk", "ram", "gpu"]), "Where fastccsa's images come from."),
        _option("--amp", click.Choice(["auto", "none", "bfloat16"]), "Precision of the network."),
        _option("--compile/--no-compile", None, "Compile the network of fastccsa and the bare one.", default=False),
        _option("--cuda-graph/--no-cuda-graph", None, "Capture these steps as CUDA graphs.", default=False),
        _option("--plain/--no-plain", None, "Measure plain PyTorch too.", default=True),
        _several("--rival", str, "Measure only fastccsa and this rival"),
        _several("--contestant", str, "Measure only this one"),
        _several("--layer", str, "Only this layer"),
        _several("--rate", click.FloatRange(0, 1), "Share of the channels taken"),
        _option("--criteria", str, "Separated by commas; otherwise all."),
        _option("--weights", str, "Of the channels that stay: kept, squares, joint; separated by commas."),
        _option("--random", COUNT, "Seeds of the random criterion."),
        _option("training_images --images", COUNT, "Training images to choose channels by."),
        _option("--discrimination-images", COUNT, "Images for the classification loss."),
        # how it is measured
        _option("--device", str, "auto, cpu, cuda or cuda:N."),
        _option("--threads", COUNT, "On the CPU; otherwise as many as there are usable CPUs."),
        _option("--workers", COUNT, "Of each input pipeline; otherwise one per usable CPU, at most 16."),
        _option("--rounds", COUNT, "Rounds of a cell at most."),
        _option("--seconds", AMOUNT, "Budget for the rounds of a cell; of images, the length of a turn."),
        _option("--minutes", AMOUNT, "Budget for everything."),
        _option(
            "--memory-limit", AMOUNT, "GiB; what would hold more is not tried. By default 4/5 of what is available."
        ),
        _option("--machine", str, "What to call this machine; otherwise its name in the network."),
        _option("--out", FILE, "JSON of the results, written after each cell."),
        _option("--folder", click.Path(path_type=Path, file_okay=False), "A folder that does not exist yet."),
    )
}

LOSS = "full device=cpu threads rounds=30 seconds=8 minutes memory-limit rival machine out"
# By name: what is measured, and which options there are, with their defaults.
BENCHMARKS = {
    "zipped": (
        "Time, memory and errors of the zipped loss: fastccsa, eager PyTorch, torch.compile, others, and floors.\n\n"
        "Without sizes: a small batch, a large one, and the small one without weights, in about a minute.",
        f"pairs width classes dtype mode unweighted {LOSS}",
    ),
    "all-pairs": (
        "Time, memory and errors of the loss over all pairs, with gradients: fastccsa, its rivals, and dense products."
        "\n\nWithout sizes: 4096 x 4096 pairs of width 512; with only --memory a batch of 32 against it.",
        f"rows width labels dtype memory hard longest=60 {LOSS}",
    ),
    "images": (
        "Time and CPU time per image: fastccsa's ways from files to training batches, others', and the floors.",
        "images shape files=128 threads contestant batch=64 rounds=3 seconds=1 full device=cpu machine out",
    ),
    "step": (
        "A step of training: fastccsa's loop, the same method in plain PyTorch, and the bare network's step.",
        "manifest backbone=resnet18 size=64 pairs=32 cache=ram amp=auto compile cuda-graph plain workers device=auto "
        "rounds=3 steps=10 machine out",
    ),
    "prune": (
        "Size, recall and latency of a pruned run beside the run it was made from, and its size by threshold.",
        "run rounds=30 seconds=8 machine out",
    ),
    "augment": (
        "The device kernel of the augmentation beside a copy of as many bytes, and a training step that it feeds.",
        "device=auto batch crops rounds=30 seconds=8 machine out",
    ),
    "sampler": (
        "A batch of 32 pairs and the memory that is kept for it, by the number of images.",
        "full rounds=30 seconds=4 machine out",
    ),
    "store": ("Time and size of the store of a manifest's crops.", "manifest size=224 rounds=3 machine out"),
}
# The same for modules with a function `main`, which have nothing for pytest to compare.
SCRIPTS = {
    "selection": (
        "Prune runs by every criterion without fine-tuning; the same command again measures what --out lacks.",
        "run layer rate criteria weights=kept,squares,joint random=3 training-images=512 discrimination-images=128 "
        "threads=1 out",
    ),
    "quickstart": ("The quick start in a fresh clone, every command timed, kept as a page.", "folder"),
}
TYPED: dict[str, SimpleNamespace] = {}  # the options of the command that runs pytest, by benchmark


@click.group("bench")
def bench() -> None:
    """Measure fastccsa beside other implementations, and beside what the machine allows.

    `pytest benchmarks` runs the benchmarks too, with the long forms of these options.
    """


def _parameters(names: str) -> list[click.Parameter]:
    """Options from their names and defaults."""
    found: list[click.Parameter] = []
    for word in names.split():
        name, _, default = word.partition("=")
        option = copy.copy(OPTIONS[name])
        if default:
            option.default, option.show_default = ((default,) if option.multiple else default), True
        found.append(option)
    return found


def _run(context: click.Context, **options: Any) -> None:
    """Run a script, or a benchmark under pytest, with whose status it exits."""
    name = context.info_name or ""
    if name in SCRIPTS:
        importlib.import_module(f"benchmarks.{name}").main(SimpleNamespace(**options))
        return
    try:
        import pytest
        import pytest_benchmark  # noqa: F401
    except ImportError:
        raise click.ClickException("benchmarks need pytest-benchmark: pip install 'fastccsa[bench]'") from None
    TYPED[name] = SimpleNamespace(**options)
    module = importlib.import_module(f"benchmarks.bench_{name.replace('-', '_')}")
    benchmark = module.Benchmark(TYPED[name])  # what is wrong is said in one line, before pytest begins
    benchmark.names()
    if not benchmark.cells():
        raise click.UsageError("there is nothing to measure without --run or --manifest", context)
    sys.exit(pytest.main([str(module.__file__), "--benchmark-quiet", "-q", "--no-header", "-s"]))


def flags_of(*names: str) -> dict[str, bool]:
    """The options of these benchmarks in the long form, which pytest accepts; whether one takes no value."""
    found = {}
    for option in (option for name in names for option in bench.commands[name].params):
        for flag in (*option.opts, *option.secondary_opts):
            if flag.startswith("--"):
                found[flag] = bool(option.is_flag)  # type: ignore[attr-defined]
    return found


def options_of(name: str, given: dict[str, Any]) -> SimpleNamespace:
    """The options of a benchmark: those that were typed, or from what pytest parsed, True or a list by long form."""
    if name in TYPED:
        return TYPED[name]
    words = []
    for flag in flags_of(name):
        words += [flag] if given[flag] is True else [f"{flag}={value}" for value in given[flag] or ()]
    return SimpleNamespace(**bench.commands[name].make_context(name, words).params)


@bench.command("show")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
def show(file: Path) -> None:
    """Print the table of a JSON file that --out wrote."""
    from benchmarks.harness.results import Results
    from benchmarks.harness.table import table

    click.echo(table(Results.read(file)))


for _name, (_help, _options) in (BENCHMARKS | SCRIPTS).items():
    bench.add_command(click.Command(_name, callback=click.pass_context(_run), help=_help, params=_parameters(_options)))
