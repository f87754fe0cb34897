"""``fastccsa export``: write a run's model in formats that run without fastccsa."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from fastccsa.cli.options import allow_changed_option, workers_option
from fastccsa.collections.choices import Split

FILE = click.Path(path_type=Path, dir_okay=False)


@click.command("export")
@click.option("--run", type=click.Path(path_type=Path, file_okay=False), required=True, help="Run folder.")
@click.option("--onnx", type=FILE, help="ONNX file to write.")
@click.option("--torch-export", type=FILE, help="Program of torch.export to write, ending in .pt2.")
@click.option(
    "--quantize",
    type=(click.Choice(["int8"]), FILE),
    metavar="int8 FILE",
    help="8-bit ONNX file to write; calibrated on training images. Its scores are compared with float32's.",
)
@click.option(
    "--pixels",
    is_flag=True,
    help="The models of --onnx and --torch-export take uint8 pixels [n, size, size, 3] and normalise them.",
)
@click.option("--manifest", type=FILE, help="CSV of the images for --quantize.  [default: the run's]")
@click.option(
    "--split",
    type=click.Choice([split for split in get_args(Split) if split != "train"]),
    default="test",
    show_default=True,
    help="Images on which the 8-bit model is scored.",
)
@allow_changed_option
@workers_option
def export_command(
    run: Path,
    onnx: Path | None,
    torch_export: Path | None,
    quantize: tuple[str, Path] | None,
    pixels: bool,
    manifest: Path | None,
    split: str,
    allow_changed_manifest: bool,
    workers: int,
) -> None:
    """Write a run's model as ONNX, as 8-bit ONNX, or as a torch.export program, and compare its outputs.

    Every file takes any number of images at once. The metadata of an ONNX file describe how images must be
    preprocessed, and which classes the logits stand for.
    """
    if onnx is None and torch_export is None and quantize is None:
        raise click.UsageError("nothing to write: give --onnx, --torch-export or --quantize")
    if pixels and onnx is None and torch_export is None:
        raise click.UsageError("--pixels is for --onnx and --torch-export")
    from fastccsa.export import export_onnx, export_program

    for path, export in ((onnx, export_onnx), (torch_export, export_program)):
        if path is not None:
            difference = export(run, path, pixels)
            click.echo(
                f"{path}: {_megabytes(path)}, logits within {difference:.1e} of PyTorch's (relative to the largest)"
            )
    if quantize is not None:
        _quantize(run, quantize[1], manifest, split, workers, allow_changed_manifest)


def _quantize(run: Path, path: Path, manifest: Path | None, split: str, workers: int, allow: bool) -> None:
    from fastccsa.collections import Manifest
    from fastccsa.export import quantize
    from fastccsa.models import ModelCard
    from fastccsa.runs.used_images import check_manifest
    from fastccsa.training import TrainConfig

    card, config = ModelCard.read(run), TrainConfig.read(run)
    images = Manifest.read(manifest or config.manifest, classes=card.classes)
    check_manifest(run, manifest, images, [split], allow)
    before, after = quantize(run, path, images, split, workers=workers, image_backend=config.image_backend)
    click.echo(f"{path}: {_megabytes(path)}; macro-average recall in %, {split} images")
    click.echo(f"{'':>6} {'float32':>8} {'int8':>8} {'change':>8}")
    rows = {name: (before.domains[name].macro_recall, after.domains[name].macro_recall) for name in before.domains}
    for name, (full, eight) in (rows | {"avg": (before.average, after.average)}).items():
        click.echo(f"{name:>6} {100 * full:8.1f} {100 * eight:8.1f} {100 * (eight - full):+8.1f}")


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"
