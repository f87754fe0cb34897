"""``fastccsa export``: write a run's model in formats that run without fastccsa."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import click

from fastccsa.cli.options import MOST_IMAGES, FiniteRange, allow_changed_option, choice, workers_option
from fastccsa.collections.choices import Split
from fastccsa.export.choices import Preprocess
from fastccsa.system.errors import InputError

if TYPE_CHECKING:
    from fastccsa.export import Reference

FILE = click.Path(path_type=Path, dir_okay=False)
WITHOUT = "--without-images"


@click.command("export")
@click.option("--run", type=click.Path(path_type=Path, file_okay=False), required=True, help="Run folder.")
@click.option("--onnx", type=FILE, help="ONNX file to write.")
@click.option("--torch-export", type=FILE, help="Program of torch.export to write, ending in .pt2.")
@click.option("--executorch", type=FILE, help="ExecuTorch file to write, ending in .pte; takes one image at a time.")
@click.option(
    "--quantize",
    type=(click.Choice(["int8"]), FILE),
    metavar="int8 FILE",
    help="8-bit ONNX file to write; calibrated on validation images. Its scores are compared with float32's.",
)
@click.option(
    "--preprocess",
    type=choice(Preprocess),
    default="none",
    show_default=True,
    help="Steps inside the model. none: it takes normalised images, float32 [n, 3, S, S]; normalise: uint8 images "
    "[n, S, S, 3]; all: photographs of any size, uint8 [n, height, width, 3], which it resizes, crops and normalises.",
)
@click.option("--manifest", type=FILE, help="CSV of the images to compare on.  [default: the run's]")
@click.option(
    "--images",
    type=click.IntRange(1, MOST_IMAGES),
    default=256,
    show_default=True,
    help="Validation images on which the outputs must agree, spread over domains and classes.",
)
@click.option(WITHOUT, is_flag=True, help="Compare on noise only, if no images are at hand. The record says so.")
@click.option(
    "--split",
    type=click.Choice([split for split in get_args(Split) if split != "train"]),
    default="test",
    show_default=True,
    help="Images on which the 8-bit model is scored.",
)
@click.option(
    "--max-loss",
    type=FiniteRange(0, 100),
    default=5.0,
    show_default=True,
    help="Points of macro-average recall that 8 bits may cost in any domain.",
)
@allow_changed_option
@workers_option
def export_command(
    run: Path,
    onnx: Path | None,
    torch_export: Path | None,
    executorch: Path | None,
    quantize: tuple[str, Path] | None,
    preprocess: Preprocess,
    manifest: Path | None,
    images: int,
    without_images: bool,
    split: str,
    max_loss: float,
    allow_changed_manifest: bool,
    workers: int,
) -> None:
    """Write a run's model as ONNX, 8-bit ONNX, a torch.export program or for ExecuTorch, and prove its outputs.

    A file is written only if its outputs equal PyTorch's, up to rounding, on validation images of every domain. The
    figures are written beside it, as FILE.json, with the classes of the outputs and the preprocessing of the images.
    `fastccsa latency` times the files.
    """
    if onnx is None and torch_export is None and executorch is None and quantize is None:
        raise click.UsageError("nothing to write: give --onnx, --torch-export, --executorch or --quantize")
    if quantize is not None and without_images:
        raise click.UsageError(f"--quantize needs images; {WITHOUT} is for the other formats")
    _check_files(onnx, torch_export, executorch, quantize[1] if quantize else None, preprocess)
    from fastccsa.export import export_executorch, export_onnx, export_program

    splits = ["validation"] if quantize is None else sorted({"validation", split})
    reference = _reference(run, preprocess, manifest, images, without_images, splits, allow_changed_manifest, workers)
    for path, export in ((onnx, export_onnx), (torch_export, export_program), (executorch, export_executorch)):
        if path is not None:
            agreement = export(reference, path)
            click.echo(
                f"{path}: {_megabytes(path)}; logits within {agreement.difference:.1e} of PyTorch's on "
                f"{agreement.compared_on} images (rounding explains {agreement.bound:.1e})"
            )
            click.echo(str(agreement))
    if quantize is not None:
        _quantize(reference, quantize[1], split, max_loss)


def _check_files(
    onnx: Path | None, torch_export: Path | None, executorch: Path | None, int8: Path | None, preprocess: Preprocess
) -> None:
    """Check names, packages and combinations before any work is done."""
    from fastccsa.export.executorch import check_executorch
    from fastccsa.export.onnx import require_onnx
    from fastccsa.export.runners import ONNX_ENDING, PROGRAM_ENDING, check_ending

    for path, ending in ((onnx, ONNX_ENDING), (int8, ONNX_ENDING), (torch_export, PROGRAM_ENDING)):
        if path is not None:
            check_ending(path, ending)
    if onnx is not None or int8 is not None:
        require_onnx()
    if executorch is not None:
        check_executorch(executorch, preprocess)


def _reference(
    run: Path,
    preprocess: Preprocess,
    manifest: Path | None,
    count: int,
    without: bool,
    splits: list[str],
    allow: bool,
    workers: int,
) -> Reference:
    from fastccsa.collections import Manifest
    from fastccsa.export import Reference
    from fastccsa.models import ModelCard
    from fastccsa.runs.used_images import check_manifest
    from fastccsa.training import TrainConfig

    card = ModelCard.read(run)
    if without:
        return Reference(run, None, preprocess=preprocess)
    with _images_advice():
        config = TrainConfig.read(run)
        images = Manifest.read(manifest or config.manifest, classes=card.classes)
    check_manifest(run, manifest, images, splits, allow)
    with _images_advice():
        reference = Reference(
            run, images, preprocess=preprocess, count=count, workers=workers, image_backend=config.image_backend
        )
        reference.measure()
    return reference


@contextmanager
def _images_advice() -> Iterator[None]:
    """Within the block, add to an error about images that the outputs can be compared without them."""
    from fastccsa.export import DisagreementError
    from fastccsa.system.extras import MissingPackageError

    try:
        yield
    except (DisagreementError, MissingPackageError):
        raise
    except InputError as error:
        raise InputError(
            f"{error}; the outputs are compared on validation images: name their manifest with --manifest, or add "
            f"{WITHOUT}"
        ) from error


def _quantize(reference: Reference, path: Path, split: str, max_loss: float) -> None:
    from fastccsa.export import quantize

    before, after = quantize(reference, path, split, max_loss)
    click.echo(f"{path}: {_megabytes(path)}; macro-average recall in %, {split} images")
    click.echo(f"{'':>8} {'float32':>8} {'int8':>8} {'change':>8}")
    rows = {name: (before.domains[name].macro_recall, after.domains[name].macro_recall) for name in before.domains}
    for name, (full, eight) in (rows | {"avg": (before.average, after.average)}).items():
        click.echo(f"{name:>8} {100 * full:8.1f} {100 * eight:8.1f} {100 * (eight - full):+8.1f}")


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"
