"""``fastccsa preview``: a picture of augmented pairs."""

from __future__ import annotations

import click


@click.command("preview")
@click.option("--manifest", required=True, help="CSV of the images, as `fastccsa prepare` writes it.")
@click.option("--out", required=True, help="PNG file to write.")
@click.option("--pairs", type=click.IntRange(min=1), default=8, show_default=True, help="Number of pairs.")
@click.option("--primary", help="Domain that holds every class.  [default: HAM, else the manifest's first]")
@click.option(
    "--size", type=click.IntRange(min=8), default=224, show_default=True, help="Side of the images in pixels."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of sampling and augmentation.")
@click.option(
    "--image-backend",
    type=click.Choice(["auto", "native", "dali", "torchvision"]),
    default="auto",
    show_default=True,
    help="What decodes the images: fastccsa itself (CPU), DALI, or torchvision, which is slower; auto chooses.",
)
def preview_command(
    manifest: str, out: str, pairs: int, primary: str | None, size: int, seed: int, image_backend: str
) -> None:
    """Draw training pairs as the network sees them: a PNG with each image's class and domain.

    Titles are green where the two classes of a pair are the same, and brown where they differ.
    """
    from fastccsa.collections import Manifest
    from fastccsa.images import Transforms
    from fastccsa.images.preview import draw_pairs

    images = Manifest.read(manifest).select("train")
    draw_pairs(images, out, pairs, primary, Transforms(size), seed, image_backend)
    click.echo(f"Wrote {out}")
