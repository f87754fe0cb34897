"""``fastccsa prune``: a smaller network from a trained run."""

from __future__ import annotations

from typing import Any

import click

from fastccsa.cli.options import options_of
from fastccsa.pruning.config import PruneConfig

option = options_of(PruneConfig)


@click.command("prune")
@option("run", "Folder of the finished run to prune.", required=True, default=None)
@option("out", "Folder of the pruned run; the same command again resumes what is in it.", required=True, default=None)
@option("threshold", "Adaptive stop: a layer has enough channels when another lowers its loss by less.", type=float)
@option("rate", "Part of the channels to take from every layer, instead of --threshold.", type=float)
@option("criterion", "How channels are ranked.")
@option("round_to", "Round the channels kept up to a multiple of this.", type=int)
@option("loss_weight", "Weight of the discrimination loss against the reconstruction's.", type=float)
@option("images", "Training images by which outputs are reconstructed.", type=int)
@option(
    "discrimination_images",
    "How many of these the discrimination loss looks at, half for its gradient, half for its value.",
    type=int,
)
@option("auxiliary", "Auxiliary losses besides the final one.  [default: 2, from 9 blocks on 3]", type=int)
@option("stage_epochs", "Epochs of fine-tuning before each stage's layers are pruned.", type=int)
@option("epochs", "Epochs of fine-tuning at the end.  [default: the run's]", type=int)
@option("lr", "First learning rate of fine-tuning.  [default: the run's]", type=float)
@option("fraction", "Share of the training images to do all this on.  [default: the run's]", type=float)
@option("manifest", "CSV of the images.  [default: the run's]")
@option("seed", "Seed of the subset of images and of fine-tuning.  [default: the run's]", type=int)
@option("device", "auto, cpu, cuda or cuda:N.")
@option("workers", "Threads that decode images; 0 lets the pipeline choose.", type=int)
def prune_command(**values: Any) -> None:
    """Prune a run by channels, and fine-tune what is left; the same command again resumes.

    The result is a run folder like any other, with a physically smaller network. The paper's experiments U and V:

    \b
      fastccsa prune --run runs/k --threshold 1e-4 --out runs/u
      fastccsa prune --run runs/k --threshold 1e-3 --out runs/v
    """  # noqa: D301  (click's mark for lines to keep)
    PruneConfig(**values)  # bad values are reported before torch is imported
    from fastccsa.pruning import prune

    prune(**values)
