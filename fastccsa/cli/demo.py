"""``fastccsa demo``: the paper's experiments A and K, scaled down, on images the package renders itself."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from fastccsa.training import TrainConfig

# With these, the demo takes about four minutes on two processor cores. Everything else is as in the paper.
IMAGES = 2000
SIZE = 64
EPOCHS = 12
BASELINE_EPOCHS = 2  # epochs of the baseline per epoch of CCSA
BASELINE_LR = 1e-3  # the paper's rate is for ImageNet weights; this network starts from random weights

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
    type=click.IntRange(min=1),
    default=IMAGES,
    show_default=True,
    help="Approximate number of images to draw.",
)
@click.option(
    "--epochs",
    type=click.IntRange(min=1),
    default=EPOCHS,
    show_default=True,
    help=f"Epochs of the CCSA model; the baseline is trained {BASELINE_EPOCHS} times as long.",
)
@click.option(
    "--size", type=click.IntRange(min=32), default=SIZE, show_default=True, help="Side of the images in pixels."
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--seed", type=click.IntRange(min=0, max=2**32 - 1), default=0, show_default=True, help="Random seed.")
def demo_command(out: Path, images: int, epochs: int, size: int, device: str, seed: int) -> None:
    """Train, score and report on images the package renders itself; nothing is downloaded.

    Renders seven synthetic collections, trains a baseline on one of them (the paper's experiment A), then a
    CCSA model on all seven (experiment K) that starts from the baseline, and prints the recall of both by
    domain. Repeating the command resumes where it stopped.
    """
    from fastccsa.collections import render_collections
    from fastccsa.collections.taxonomy import TABLE1
    from fastccsa.reporting import report
    from fastccsa.system.files import write_atomically
    from fastccsa.training import train

    started = time.monotonic()
    click.echo(f"{NOTE}\n")
    click.echo(f"1/4  Seven collections of synthetic images, into {out / 'images'}")
    scale = images / sum(sum(counts.values()) for counts in TABLE1.values())
    manifest = render_collections(out / "images", scale, seed)
    click.echo(f"{manifest.summary().to_string()}\n")

    baseline, ccsa = experiments(out, epochs, size, device, seed)
    click.echo("2/4  Experiment A: a baseline on HAM only")
    train(baseline)
    click.echo("\n3/4  Experiment K: CCSA on all seven, from A's weights")
    train(ccsa)

    click.echo("\n4/4  Report")
    runs = out / "runs"
    with write_atomically(runs / "note.txt") as file:
        file.write_text(NOTE + "\n", encoding="utf-8")
    page = report(runs, out / "report.html")
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    click.echo(f"\n{NOTE}\nDone in {minutes} min {seconds} s. Confusion matrices and curves: {page}")


def experiments(out: Path, epochs: int, size: int, device: str, seed: int) -> tuple[TrainConfig, TrainConfig]:
    """Configure the runs ``A`` and ``K`` of the paper's Table 2 in the folder ``out``, at the scale of the demo."""
    from fastccsa.training import TrainConfig

    manifest = str(out / "images" / "manifest.csv")
    baseline_epochs = BASELINE_EPOCHS * epochs
    baseline = TrainConfig(
        manifest=manifest,
        out=str(out / "runs" / "A"),
        n_sec=0,
        alignment="-",
        weights="none",
        lr=BASELINE_LR,
        epochs=baseline_epochs,
        lr_step=math.ceil(baseline_epochs / 3),
        size=size,
        device=device,
        seed=seed,
    )
    ccsa = TrainConfig(
        manifest=manifest,
        out=str(out / "runs" / "K"),
        init=baseline.out,
        weights="none",
        epochs=epochs,
        lr_step=math.ceil(epochs / 2),
        size=size,
        device=device,
        seed=seed,
    )
    return baseline, ccsa
