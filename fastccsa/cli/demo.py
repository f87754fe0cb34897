"""``fastccsa demo``: a baseline, aggregation and CCSA, scaled down, on images the package renders itself."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fastccsa.cli.options import MOST_IMAGES, MOST_RUNS, FiniteRange, data_seed_type
from fastccsa.collections.taxonomy import DOMAINS
from fastccsa.system.ranges import COUNTS, SIZES

if TYPE_CHECKING:
    from fastccsa.training import TrainConfig

# With these, the demo takes about nine minutes on two processor cores.
IMAGES = 1600
SIZE = 64
SEEDS = 2
EPOCHS = 6
BASELINE_EPOCHS = 3  # epochs of the baselines per epoch of CCSA
BASELINE_LR, LR = 1e-3, 3e-4  # the paper's rate is for ImageNet weights; these networks start from random weights
SHIFT, CONFOUNDING = 1.0, 0.5
UNSEEN = "MSK"  # of the domains with several classes, the one with the most test images after HAM

ARMS = {
    "baseline": "cross-entropy, on HAM only (the paper's experiment A)",
    "aggregation": "cross-entropy, on all training domains together (E)",
    "ccsa": "pairs of images across the training domains, from the baseline's weights (K)",
}

NOTE = (
    "The images are synthetic: fastccsa drew them. The numbers show how the parts work together. They say nothing "
    "about medicine and cannot be compared with the paper's."
)


@click.command("demo")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo"),
    show_default=True,
    help="Folder for everything; existing results in it are reused.",
)
@click.option(
    "--images",
    type=click.IntRange(1, MOST_IMAGES),
    default=IMAGES,
    show_default=True,
    help="Approximate number of images to draw.",
)
@click.option(
    "--shift",
    type=FiniteRange(0, 10),
    default=SHIFT,
    show_default=True,
    help="How much the domains differ in colour, device and artefacts; 0 for not at all.",
)
@click.option(
    "--confounding",
    type=FiniteRange(0, 1),
    default=CONFOUNDING,
    show_default=True,
    help="How closely artefacts follow the class, differently in each domain.",
)
@click.option(
    "--unseen",
    type=click.Choice([domain for domain in DOMAINS if domain != "HAM"]),
    default=UNSEEN,
    show_default=True,
    help="Domain that training and model selection never see.",
)
@click.option(
    "--seeds",
    type=click.IntRange(1, MOST_RUNS),
    default=SEEDS,
    show_default=True,
    help="Runs of each kind of training.",
)
@click.option(
    "--epochs",
    type=click.IntRange(1, int(COUNTS.high) // BASELINE_EPOCHS),
    default=EPOCHS,
    show_default=True,
    help=f"Epochs of CCSA; the baselines are trained {BASELINE_EPOCHS} times as long.",
)
@click.option(
    "--size",
    type=click.IntRange(32, int(SIZES.high)),
    default=SIZE,
    show_default=True,
    help="Side of the images in pixels.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--seed", type=data_seed_type, default=0, show_default=True, help="First seed.")
def demo_command(
    out: Path,
    images: int,
    shift: float,
    confounding: float,
    unseen: str,
    seeds: int,
    epochs: int,
    size: int,
    device: str,
    seed: int,
) -> None:
    """Train, score and report on images the package renders itself; nothing is downloaded.

    Renders seven synthetic collections. On six of them it trains a baseline (the paper's experiment A, on HAM
    only), one model on all six together (E), and CCSA (K), which starts from the baseline, each with several
    seeds. It prints their recalls with 95 % intervals: at home, on the other training domains, and on the
    seventh domain, which training never saw. Repeating the command resumes where it stopped.
    """
    from fastccsa.collections import render_collections
    from fastccsa.collections.taxonomy import TABLE1
    from fastccsa.reporting import report
    from fastccsa.reporting.arms_table import REPORT_FILE, as_markdown, compare_arms, write_comparison
    from fastccsa.system.files import write_atomically
    from fastccsa.training import train

    started = time.monotonic()
    runs = out / "runs"
    configs = list(experiments(out, unseen=unseen, seeds=seeds, epochs=epochs, size=size, device=device, seed=seed))
    steps = len(configs) + 2
    click.echo(f"{NOTE}\n")
    click.echo(f"1/{steps}  Seven collections of synthetic images, into {out / 'images'}")
    scale = images / sum(sum(counts.values()) for counts in TABLE1.values())
    manifest = render_collections(out / "images", scale, seed, shift=shift, confounding=confounding)
    click.echo(f"{manifest.summary().to_string()}\n")

    for step, (arm, config) in enumerate(configs, start=2):
        click.echo(f"{step}/{steps}  {arm}, seed {config.seed}: {ARMS[arm]}")
        train(config)
        click.echo()

    click.echo(f"{steps}/{steps}  Report")
    with write_atomically(runs / "note.txt") as file:
        file.write_text(NOTE + "\n", encoding="utf-8")
    page = report(runs, out / "report.html")
    found = compare_arms(runs, ["aggregation", "baseline"], ARMS)
    write_comparison(found, out / REPORT_FILE)
    click.echo(f"\n{as_markdown(found)}\n")
    for line in conclusions(found):
        click.echo(line)
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    click.echo(f"\n{NOTE}\nDone in {minutes} min {seconds} s. Confusion matrices and curves: {page}")


def experiments(
    out: Path, *, unseen: str, seeds: int, epochs: int, size: int, device: str, seed: int
) -> Iterator[tuple[str, TrainConfig]]:
    """Yield the runs of the demo in the folder ``out``, each after the one it starts from, with the name of its arm."""
    from fastccsa.training import TrainConfig

    baseline_epochs = BASELINE_EPOCHS * epochs
    common: dict[str, Any] = {
        "manifest": str(out / "images" / "manifest.csv"),
        "exclude": (unseen,),
        "weights": "none",
        "size": size,
        "device": device,
    }
    baseline: dict[str, Any] = {
        "alignment": "-",
        "lr": BASELINE_LR,
        "epochs": baseline_epochs,
        "lr_step": math.ceil(baseline_epochs / 3),
    }
    ccsa: dict[str, Any] = {"lr": LR, "epochs": epochs, "lr_step": math.ceil(epochs / 2)}
    for number in range(seed, seed + seeds):
        start = str(out / "runs" / "baseline" / f"seed{number}")
        own = {"baseline": {**baseline, "n_sec": 0}, "aggregation": baseline, "ccsa": {**ccsa, "init": start}}
        for arm, settings in own.items():
            folder = out / "runs" / arm / f"seed{number}"
            yield arm, TrainConfig(out=str(folder), seed=number, **common, **settings)


def conclusions(found: dict[str, Any]) -> Iterator[str]:
    """Say in words where CCSA is ahead, from the result of `compare_arms`; nothing is claimed that is within noise."""
    for row in found["differences"]:
        if row["arm"] != "ccsa":
            continue
        for group, where in (("unseen", "the domain never seen"), ("several", "all domains with several classes")):
            if row[group] is None:
                continue
            estimate, low, high, _ = row[group]
            verdict = "ahead of" if low > 0 else "behind" if high < 0 else "not told apart from"
            yield (
                f"On {where}, CCSA is {verdict} the {row['minus']}: {estimate:+.1f} points, 95 % interval "
                f"{low:+.1f} to {high:+.1f}."
            )
