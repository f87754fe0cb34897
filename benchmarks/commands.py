"""The benchmarks by name, with the options that ``python -m benchmarks``, ``fastccsa bench`` and pytest take.

Nothing here imports torch, so ``--help`` is fast.
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
        _several("--rows -n", COUNT, "Rows on each side"),
        _several("--width -d", COUNT, "Columns of the features"),
        _several("--classes -c", COUNT, "Columns of the logits"),
        _several("--dtype", click.Choice(["float32", "bfloat16", "float16", "float64"]), "Dtype of the inputs"),
        _several("--mode", click.Choice(["forward", "forward+backward"]), "What a call computes"),
        _several("--labels", click.Choice(["uniform", "table1"]), "Seven equally frequent classes, or Table 1's"),
        _option("--memory", COUNT, "Rows of the second side, which are past features without gradients."),
        _option("--unweighted", bool, "Omit the weights, which not every other library supports."),
        _option("--hard", bool, "Measure only errors, on data whose distances are small or 0."),
        _option("--longest", AMOUNT, "Seconds; cells whose dense products would take longer are not measured."),
        _option("--full", bool, "Measure every size, which takes many minutes."),
        _option("--images", FOLDER, "Folder of your own JPEGs; otherwise some are rendered."),
        _several("--shape", str, "WIDTHxHEIGHT to render, such as 1024x768"),
        _option("--files", COUNT, "Files of each shape."),
        _option("--batch", COUNT, "Images in a batch; the default depends on the device."),
        _option("--crops", COUNT, "Crops in the store, 270 kB each; the default depends on the device."),
        _option("--size", click.IntRange(min=8), "Side length of the finished images in pixels."),
        _option("--steps", COUNT, "Timed steps in a turn."),
        # what is measured
        _option("--manifest", ANY, "Images; otherwise some are rendered."),
        _several("--run", FOLDER, "Run folder of a training or a pruning"),
        _option("--backbone", str, "A torchvision classification network."),
        _option("--cache", click.Choice(["none", "disk", "ram", "gpu"]), "Where fastccsa's images come from."),
        _option("--amp", click.Choice(["auto", "none", "bfloat16"]), "Precision of the network."),
        _option("--compile/--no-compile", None, "Compile the network of fastccsa and the bare one.", default=False),
        _option("--cuda-graph/--no-cuda-graph", None, "Capture these steps as CUDA graphs.", default=False),
        _option("--graph-steps", click.IntRange(min=0), "Steps in a CUDA graph; 0 chooses by the size of a batch."),
        _option("--parts/--no-parts", None, "Measure the parts of a step too.", default=True),
        _option("--plain/--no-plain", None, "Measure plain PyTorch too.", default=True),
        _several("--rival", str, "Measure only fastccsa and this rival"),
        _several("--contestant", str, "Measure only this contestant"),
        _several("--layer", str, "Prune only this layer"),
        _several("--rate", click.FloatRange(0, 1), "Share of the channels to remove"),
        _option("--criteria", str, "Criteria, separated by commas; otherwise all."),
        _option("--weights", str, "Weights of the kept channels: kept, squares, joint; separated by commas."),
        _option("--random", COUNT, "Number of seeds of the random criterion."),
        _option("training_images --images", COUNT, "Training images to choose channels by."),
        _option("--discrimination-images", COUNT, "Images for the classification loss."),
        _several(
            "--arms",
            str,
            "Variants of training, separated by commas: A, E, S, K, or name=key:value+key:value. Those of a repeated "
            "option are trained after all seeds of the ones before",
        ),
        _option("--seeds", COUNT, "Runs of each arm: seeds 0, 1, ..."),
        _option("--leave-out", str, "Domains separated by commas; each seed leaves one of them out, in turn."),
        _option("--scale", str, "Image size, epochs and so on, as in `fastccsa experiment`."),
        _several("settings --set", str, "FIELD=VALUE, a setting of all runs"),
        _option("--against", str, "Arms that every later arm is compared with, separated by commas."),
        _option("--report", FOLDER, "Only report the finished runs in this folder."),
        _option("--sizes", str, "Side lengths of the images in pixels, separated by commas."),
        _option("rendered --scale", click.FloatRange(0, 1), "Images to render per image of Table 1."),
        _option("--epochs", click.IntRange(min=2), "Epochs of the run on pairs."),
        _option("--baseline-epochs", click.IntRange(min=2), "Epochs of the baseline."),
        _option("share --checkpoint-share", click.FloatRange(0, 1), "Share of the time for checkpoints."),
        _option("csv --manifest", click.Path(path_type=Path, exists=True, dir_okay=False), "CSV file of the images."),
        _option("folder --out", click.Path(path_type=Path, file_okay=False), "Folder of all runs."),
        # how it is measured
        _option("--jobs", COUNT, "Runs at a time, with equal shares of the processors."),
        _option("--device", str, "auto, cpu, cuda or cuda:N."),
        _option("--threads", COUNT, "Threads on the CPU; otherwise one per usable CPU."),
        _option("--workers", COUNT, "Workers of each input pipeline; otherwise one per usable CPU, at most 16."),
        _option("--rounds", COUNT, "Maximum number of rounds of a cell."),
        _option("--seconds", AMOUNT, "Time budget for the rounds of a cell; for images, the length of a turn."),
        _option("--minutes", AMOUNT, "Time budget for all cells."),
        _option(
            "--memory-limit",
            AMOUNT,
            "GiB; what needs more is not run. The default is 4/5 of the available memory.",
        ),
        _option("--machine", str, "Name of this machine in the results; otherwise its host name."),
        _option("--out", FILE, "JSON file of the results, written after each cell."),
    )
}

LOSS = "full device=cpu threads rounds=30 seconds=8 minutes memory-limit rival machine out"
# By name: a description, and the options with their defaults.
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
        "images shape files=128 threads contestant batch=64 size=224 rounds=3 seconds=1 full device=cpu machine out",
    ),
    "decode": (
        "CPU time of decoding the regions of JPEGs that training needs, on one thread: fastccsa and libjpeg-turbo.",
        "images shape files=32 contestant rounds=15 seconds=20 machine out",
    ),
    "step": (
        "A training step: fastccsa's loop, the same method in plain PyTorch, and the bare network.",
        "manifest backbone=resnet18 size=64 pairs=32 cache=ram amp=auto compile cuda-graph graph-steps=0 parts plain "
        "workers device=auto rounds=3 steps=10 machine out",
    ),
    "prune": (
        "Size, recall and latency of a pruned run and of the run it was made from, and its size by threshold.",
        "run rounds=30 seconds=8 machine out",
    ),
    "augment": (
        "The device kernel of the augmentation, a copy of as many bytes, and a training step that the kernel feeds.\n\n"
        "With --dtype, only the kernel.",
        "device=auto dtype batch crops rounds=30 seconds=8 machine out",
    ),
    "sampler": (
        "Time of a batch of 32 pairs, and the memory that a sampler keeps, by the number of images.",
        "full rounds=30 seconds=4 machine out",
    ),
    "store": ("Time and size of the store of a manifest's crops.", "manifest size=224 device=cpu rounds=3 machine out"),
}
# The same for modules that have a function `main` and do not run under pytest.
SCRIPTS = {
    "selection": (
        "Prune runs by every criterion without fine-tuning; repeating the command measures only what --out lacks.",
        "run layer rate criteria weights=kept,squares,joint random=3 training-images=512 discrimination-images=128 "
        "threads=1 out",
    ),
    "method": (
        "Train variants of the method with several seeds, and compare them by group of domains, with 95 % intervals."
        "\n\nRepeating the command resumes interrupted runs and keeps finished ones.",
        "csv folder arms=A,E,S,K seeds=5 leave-out scale=small settings against=S,E,A jobs=1 device=auto report",
    ),
    "algorithms": (
        "Compare finished runs of algorithms on the domains that they never saw, and say what can be told apart.\n\n"
        "The runs are those of `method`. Algorithms that lack one of the seeds are left out.",
        "report seeds=5 against=E,K",
    ),
    "bounds": (
        "Count the tiles of pairs that bounds could leave out before the first product, with the features of runs.",
        "run threads=1",
    ),
    "epoch": (
        "The loop, an epoch, and the whole of the runs A and K, against the bare network's step.",
        "manifest backbone=resnet18 sizes=112,224 pairs=32 rendered=0.1 cache amp=auto graph-steps=0 epochs=20 "
        "baseline-epochs=40 share workers threads device=auto out",
    ),
}
TYPED: dict[str, SimpleNamespace] = {}  # the options of the command that runs pytest, by benchmark


@click.group("bench")
def bench() -> None:
    """Compare fastccsa with other implementations, and with the limits of the machine.

    `pytest benchmarks` runs the benchmarks too, with the long forms of these options.
    """


def _parameters(names: str) -> list[click.Parameter]:
    """Make options from their names and defaults."""
    found: list[click.Parameter] = []
    for word in names.split():
        name, _, default = word.partition("=")
        option = copy.copy(OPTIONS[name])
        if default:
            option.default, option.show_default = ((default,) if option.multiple else default), True
        found.append(option)
    return found


def _run(context: click.Context, **options: Any) -> None:
    """Run a script; or run a benchmark under pytest, and exit with its status."""
    name = context.info_name or ""
    if name in SCRIPTS:
        importlib.import_module(f"benchmarks.{name}").main(SimpleNamespace(**options))
        return
    try:
        import pytest
        import pytest_benchmark  # noqa: F401
    except ImportError:
        raise click.ClickException("benchmarks need pytest-benchmark: pip install 'fastccsa[bench]'") from None
    module = importlib.import_module(f"benchmarks.bench_{name.replace('-', '_')}")
    benchmark = module.Benchmark(SimpleNamespace(**options))  # reports a wrong option in one line, before pytest starts
    benchmark.names()
    if not benchmark.cells():
        raise click.UsageError("there is nothing to measure without --run or --manifest", context)
    TYPED[name] = SimpleNamespace(**options)
    sys.exit(pytest.main([str(module.__file__), "--benchmark-quiet", "-q", "--no-header", "-s"]))


def flags_of(*names: str) -> dict[str, bool]:
    """Return the long forms of the options of these benchmarks, and whether each is a flag without a value."""
    found = {}
    for option in (option for name in names for option in bench.commands[name].params):
        for flag in (*option.opts, *option.secondary_opts):
            if flag.startswith("--"):
                found[flag] = bool(option.is_flag)  # type: ignore[attr-defined]
    return found


def options_of(name: str, given: dict[str, Any]) -> SimpleNamespace:
    """Return the options of a benchmark, as typed for it, or else from ``given``, which pytest parsed.

    ``given`` has True or a list of values for each long form that was used, and None for the others.
    """
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
