"""``fastccsa render``: draw the synthetic collections."""

from __future__ import annotations

from pathlib import Path

import click

from fastccsa.cli.options import MOST_IMAGES, FiniteRange, data_seed_type
from fastccsa.system.ranges import SIZES


@click.command("render")
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Folder for the images and their manifest; existing images in it are kept.",
)
@click.option(
    "--images",
    type=click.IntRange(1, MOST_IMAGES),
    default=2000,
    show_default=True,
    help="Approximate number of images; rare classes get at least 20 in each domain.",
)
@click.option(
    "--shift",
    type=FiniteRange(0, 10),
    default=1.0,
    show_default=True,
    help="How much the other domains differ from HAM: 0 not at all, 1 visibly, 2 twice as much.",
)
@click.option(
    "--confounding",
    type=FiniteRange(0, 1),
    default=0.0,
    show_default=True,
    help="How strongly artefacts indicate the class, a different one in each domain: 0 not at all, 1 fully.",
)
@click.option("--seed", type=data_seed_type, default=0, show_default=True, help="Random seed.")
@click.option(
    "--width",
    type=click.IntRange(64, int(SIZES.high)),
    default=300,
    show_default=True,
    help="Width of HAM's images in pixels.",
)
def render_command(out: Path, images: int, shift: float, confounding: float, seed: int, width: int) -> None:
    """Draw seven synthetic collections with the paper's class proportions, for demonstrations and tests.

    Writes one folder of JPEG files per domain and OUT/manifest.csv. Repeating the command draws only what is
    missing, and a larger --images adds to the folder. The images are of no use for diagnosis.
    """
    from fastccsa.collections import render_collections
    from fastccsa.collections.taxonomy import TABLE1

    scale = images / sum(sum(counts.values()) for counts in TABLE1.values())
    manifest = render_collections(out, scale, seed, shift=shift, confounding=confounding, width=width)
    click.echo(manifest.summary().to_string())
    click.echo(f"\nWrote {len(manifest)} images and {out / 'manifest.csv'}")
