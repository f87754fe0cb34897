"""``fastccsa evaluate``: score a run's best model."""

from __future__ import annotations

from pathlib import Path

import click

from fastccsa.cli.options import (
    MOST_BATCH,
    allow_changed_option,
    amp_option,
    choice,
    device_option,
    image_backend_option,
    workers_option,
)
from fastccsa.collections.choices import Split
from fastccsa.system.text import printable


@click.command("evaluate")
@click.option("--run", required=True, help="Run folder of `fastccsa train`.")
@click.option("--manifest", help="CSV of other images to score on.  [default: the images of the run]")
@click.option(
    "--split",
    type=choice(Split),
    default="test",
    show_default=True,
    help="Split of the manifest to score.",
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Also write the scores, with the confusion matrices, as JSON.",
)
@click.option(
    "--batch-size", type=click.IntRange(1, MOST_BATCH), help="Images per batch.  [default: 64, or 256 on a GPU]"
)
@allow_changed_option
@device_option
@amp_option
@workers_option
@image_backend_option
def evaluate_command(
    run: str,
    manifest: str | None,
    split: str,
    json_path: Path | None,
    batch_size: int | None,
    allow_changed_manifest: bool,
    device: str,
    amp: str,
    workers: int,
    image_backend: str,
) -> None:
    """Score a run's best model on every domain: macro-average recall and recall by class, in percent."""
    from fastccsa.collections import Manifest
    from fastccsa.evaluation import evaluate
    from fastccsa.models import ModelCard, load_model
    from fastccsa.runs.used_images import check_manifest
    from fastccsa.system.files import write_atomically
    from fastccsa.training import TrainConfig

    card = ModelCard.read(run)
    model = load_model(run)
    images = Manifest.read(manifest or TrainConfig.read(run).manifest, classes=card.classes)
    check_manifest(run, manifest, images, [split], allow_changed_manifest)
    scores = evaluate(
        model,
        images,
        device,
        split=split,
        size=card.size,
        batch_size=batch_size,
        amp=amp,
        workers=workers,
        image_backend=image_backend,
        progress=True,
    )
    click.echo(printable(str(scores), lines=True))
    if json_path is not None:
        with write_atomically(json_path) as file:
            file.write_text(scores.to_json())
        click.echo(f"Wrote {json_path}")
