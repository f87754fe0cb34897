"""``fastccsa prune``: make the network of a trained run smaller."""

from __future__ import annotations

from typing import Any

import click

from fastccsa.cli.options import DEVICE_HELP, WORKERS_HELP, given_options, options_of
from fastccsa.pruning.config import PruneConfig

option = options_of(PruneConfig)


@click.command("prune")
@option("run", "Folder of the finished run to prune.", required=True, default=None)
@option("out", "Folder of the pruned run; repeating the command resumes it.", required=True, default=None)
@option("threshold", "Adaptive stop: share of a layer's loss without any channel at which it has enough; see --stop.")
@option("rate", "Fraction of the channels to remove from every layer, instead of --threshold.")
@option(
    "stop",
    "What is compared with --threshold: the gap to the reconstruction loss with all channels, or the fall of the joint "
    "loss with the last channel.",
)
@option("criterion", "How channels are ranked.")
@option("refit", "What the weights of the kept channels minimise: the reconstruction loss or the joint loss.")
@option("round_to", "Round the number of channels kept up to a multiple of this.")
@option("loss_weight", "Weight of the discrimination loss relative to the reconstruction loss.")
@option("images", "Training images on which outputs are reconstructed.  [default: as many pixels as 512 of 224 px]")
@option(
    "discrimination_images",
    "Number of these images used for the discrimination loss: half for its gradient, half for its value.",
)
@option("auxiliary", "Auxiliary losses in addition to the final one.  [default: 2; 3 for more than 8 blocks]")
@option("stage_epochs", "Epochs of fine-tuning before each stage's layers are pruned.")
@option("epochs", "Epochs of fine-tuning at the end.  [default: the run's]")
@option("lr", "Initial learning rate of fine-tuning.  [default: the run's]")
@option("fraction", "Fraction of the training images to use for all of this.  [default: the run's]")
@option("manifest", "CSV of the images.  [default: the run's]")
@option(
    "allow_changed_manifest",
    "Go on even if the manifest changed since the run, or if images to score were trained on.",
    is_flag=True,
)
@option("seed", "Seed of the subset of images and of fine-tuning.  [default: the run's]")
@option("device", DEVICE_HELP)
@option("workers", WORKERS_HELP)
def prune_command(**values: Any) -> None:
    """Remove channels from a run's network and fine-tune the rest; repeating the command resumes.

    The result is a run folder like any other, with a smaller network. The paper's experiments U and V:

    \b
      fastccsa prune --run runs/k --threshold 1e-4 --out runs/u
      fastccsa prune --run runs/k --threshold 1e-3 --out runs/v
    """  # noqa: D301  (\b tells click to keep the lines)
    given = given_options()
    if "stop" in given and "rate" in given:
        raise click.UsageError("--stop has no effect with --rate: it says what --threshold is compared with")
    PruneConfig(**values)
    from fastccsa.pruning import prune

    prune(**values)
