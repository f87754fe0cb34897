"""``fastccsa preview``: draw augmented pairs."""

from __future__ import annotations

import click

from fastccsa.cli.options import MOST_PAIRS, image_backend_option, seed_type, size_type


@click.command("preview")
@click.option("--manifest", required=True, help="CSV of the images, as `fastccsa prepare` writes it.")
@click.option("--out", type=click.Path(dir_okay=False), required=True, help="PNG file to write.")
@click.option("--pairs", type=click.IntRange(1, MOST_PAIRS), default=8, show_default=True, help="Number of pairs.")
@click.option("--primary", help="Domain that holds every class.  [default: HAM, else the manifest's first]")
@click.option("--size", type=size_type, default=224, show_default=True, help="Side of the images in pixels.")
@click.option("--seed", type=seed_type, default=0, show_default=True, help="Seed of sampling and augmentation.")
@image_backend_option
def preview_command(
    manifest: str, out: str, pairs: int, primary: str | None, size: int, seed: int, image_backend: str
) -> None:
    """Draw training pairs as the network sees them, in a PNG with each image's class and domain.

    Titles are green if the two classes of a pair are the same, and brown if they differ.
    """
    from fastccsa.collections import Manifest
    from fastccsa.images import Transforms
    from fastccsa.images.preview import draw_pairs

    images = Manifest.read(manifest).select("train")
    draw_pairs(
        images,
        out,
        pairs=pairs,
        primary=primary,
        transforms=Transforms(size),
        seed=seed,
        backend=image_backend,
    )
    click.echo(f"Wrote {out}")
