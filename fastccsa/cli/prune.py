"""``fastccsa prune``: a smaller network from a trained run."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import click

from fastccsa.pruning.config import CRITERIA, PruneConfig

DEFAULTS = {item.name: item.default for item in fields(PruneConfig)}


def option(name: str, text: str, **settings: Any) -> Any:
    """Make the click option of the `PruneConfig` field ``name``; its help shows the field's default."""
    default = DEFAULTS[name]
    settings = {"default": default, "show_default": default is not None} | settings
    return click.option("--" + name.replace("_", "-"), name, help=text, **settings)


@click.command("prune")
@option("run", "Folder of the finished run to prune.", required=True, default=None)
@option("out", "Folder of the pruned run; repeating the command resumes it.", required=True, default=None)
@option(
    "threshold", "Adaptive stop: a layer has enough channels once another would lower its loss by less.", type=float
)
@option("rate", "Fraction of the channels to remove from every layer, instead of --threshold.", type=float)
@option("criterion", "How channels are ranked.", type=click.Choice(CRITERIA))
@option("round_to", "Round the number of channels kept up to a multiple of this.", type=int)
@option("loss_weight", "Weight of the discrimination loss relative to the reconstruction loss.", type=float)
@option("images", "Training images on which outputs are reconstructed.", type=int)
@option(
    "discrimination_images",
    "Number of these images for the discrimination loss, half for its gradient, half for its value.",
    type=int,
)
@option("auxiliary", "Auxiliary losses besides the final one.  [default: 2, from 9 blocks on 3]", type=int)
@option("stage_epochs", "Epochs of fine-tuning before each stage's layers are pruned.", type=int)
@option("epochs", "Epochs of fine-tuning at the end.  [default: the run's]", type=int)
@option("lr", "First learning rate of fine-tuning.  [default: the run's]", type=float)
@option("fraction", "Fraction of the training images to use for all of this.  [default: the run's]", type=float)
@option("manifest", "CSV of the images.  [default: the run's]")
@option("seed", "Seed of the subset of images and of fine-tuning.  [default: the run's]", type=int)
@option("device", "auto, cpu, cuda or cuda:N.")
@option("workers", "Threads that decode images; 0 lets the pipeline choose.", type=int)
def prune_command(**values: Any) -> None:
    """Remove channels from a run's network and fine-tune the rest; repeating the command resumes.

    The result is a run folder like any other, with a smaller network. The paper's experiments U and V:

    \b
      fastccsa prune --run runs/k --threshold 1e-4 --out runs/u
      fastccsa prune --run runs/k --threshold 1e-3 --out runs/v
    """  # noqa: D301  (click's mark for lines that it must not rewrap)
    PruneConfig(**values)
    from fastccsa.pruning import prune

    prune(**values)
