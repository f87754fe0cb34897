"""``fastccsa bench images``: images a second of each way from files to training batches."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastccsa.cli.bench_options import FILE

if TYPE_CHECKING:
    from fastccsa.benchmarking.results import Results

FOLDER = click.Path(path_type=Path, exists=True, file_okay=False)


@click.command("images")
@click.option("--images", type=FOLDER, help="Folder of JPEGs of one's own.  [default: rendered ones]")
@click.option("--shape", multiple=True, help="WIDTHxHEIGHT to render; repeatable.  [default: 600x450 to 3000x2000]")
@click.option("--files", type=click.IntRange(min=1), default=128, show_default=True, help="Files of each size.")
@click.option("--contestant", multiple=True, help="Measure only this one; repeatable.  [default: all]")
@click.option("--batch", type=click.IntRange(min=1), default=64, show_default=True, help="Images of a batch.")
@click.option("--threads", type=click.IntRange(min=1), help="Of each contestant.  [default: the usable CPUs]")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Turns of each contestant.")
@click.option(
    "--seconds", type=click.FloatRange(min=0), default=4.0, show_default=True, help="Of a turn, two batches at least."
)
@click.option("--device", default="cpu", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--machine", help="What to call this machine.  [default: its name in the network]")
@click.option("--out", type=FILE, help="JSON of the results, written after each collection of files.")
@click.option("--parity", is_flag=True, help="Compare the images instead: grey levels off torchvision's composition.")
def images_command(
    images: Path | None,
    shape: tuple[str, ...],
    files: int,
    contestant: tuple[str, ...],
    batch: int,
    threads: int | None,
    rounds: int,
    seconds: float,
    device: str,
    machine: str | None,
    out: Path | None,
    parity: bool,
) -> None:
    """Images a second and CPU time an image: fastccsa's ways, DALI, torchvision and kornia, and the floors.

    In each round every contestant makes batches for some seconds, and another one begins. With --parity: mean and
    largest difference of each way's images from torchvision's steps on the same files and random parameters.
    """
    from tqdm import tqdm

    from fastccsa.benchmarking.images.files import SHAPES
    from fastccsa.benchmarking.images.measure import CONTESTANTS, Settings, run
    from fastccsa.benchmarking.images.parity import parity_table
    from fastccsa.benchmarking.images.table import rates_table
    from fastccsa.system.devices import pick_device

    settings = Settings(
        images=images,
        shapes=shape or SHAPES,
        files=files,
        contestants=contestant or None,
        batch=batch,
        threads=threads,
        rounds=rounds,
        seconds=seconds,
        device=str(pick_device(device)),
        machine=machine,
    )
    if parity:
        click.echo(parity_table(settings))
        return
    collections = 1 if images is not None else len(settings.shapes)
    turns = collections * rounds * len(contestant or CONTESTANTS)
    with tqdm(total=turns, unit="turn", disable=None) as bar:

        def after_turn(title: str) -> None:
            bar.set_description(title)
            bar.update()

        def after_cell(results: Results) -> None:
            if out is not None:
                results.write(out)

        results = run(settings, shlex.join(["fastccsa", *sys.argv[1:]]), after_turn, after_cell)
    click.echo(rates_table(results))
