"""``fastccsa train``: one training run, or its resumption."""

from __future__ import annotations

from typing import Any

import click

from fastccsa.cli.options import IMAGE_BACKEND, options_of
from fastccsa.runs.config import BASELINE_EPOCHS, BASELINE_LR_STEP, CCSA_EPOCHS, CCSA_LR_STEP, TrainConfig

option = options_of(TrainConfig)


class ImagesPerClass(click.ParamType):
    """A number of images, or ``all``."""

    name = "N|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Take ``"all"`` as it is, anything else as an integer of at least 0."""
        if value == "all":
            return "all"
        number = click.INT.convert(value, param, ctx)
        if number < 0:
            self.fail(f"{value} is negative: give 0 or more, or all", param, ctx)
        return int(number)


@click.command("train")
@option("manifest", "CSV of the images, as `fastccsa prepare` writes it.", required=True, default=None)
@option("out", "Run folder; the same command again resumes what is in it.", required=True, default=None)
@option("init", "Run folder or checkpoint to start from (weights only).")
@option(
    "n_sec",
    "Training images per class and secondary domain; 0 is the primary domain alone.",
    type=ImagesPerClass(),
)
@option("fraction", "Share of the training images to train on, of each class and domain alike.", type=float)
@option("primary", "Domain that holds every class.  [default: HAM, else the manifest's first]")
@option("exclude", "Domain to leave out of training and selection; repeatable.", multiple=True)
@option("classification_weight", "Cross-entropy weighted by 1/P(class) or not.")
@option(
    "alignment",
    "Alignment weighted by 1/P(pair of classes), unweighted, or none (a baseline).",
)
@option("backbone", "A torchvision classification network.")
@option("weights", "Where the backbone starts: auto (ImageNet where it can be had), imagenet, none or a path.")
@option("size", "Side of the images in pixels.", type=int)
@option(
    "epochs",
    "Passes over the training images.",
    type=click.IntRange(min=1),
    default=None,
    show_default=f"{CCSA_EPOCHS}, {BASELINE_EPOCHS} for a baseline",
)
@option("batch_size", "Pairs a batch, or images for a baseline; under torchrun, of all processes.", type=int)
@option("lr", "Learning rate of AdamW.", type=float)
@option(
    "lr_step",
    "Epochs after which the learning rate falls.",
    type=click.IntRange(min=1),
    default=None,
    show_default=f"{CCSA_LR_STEP}, {BASELINE_LR_STEP} for a baseline",
)
@option("lr_gamma", "What the learning rate is multiplied by.", type=float)
@option("weight_decay", "Weight decay of AdamW.", type=float)
@option("margin", "Distance up to which other classes are pushed apart.", type=float)
@option("alpha", "Share of the alignment in the loss.", type=float)
@option(
    "pairs",
    "What the alignment sums over: the pairs as drawn, or every first image of a batch with every second.",
)
@option(
    "memory",
    "With --pairs all: past images of each stream that the other stream's batch meets as well; 0 for none. Their "
    "features take 4 bytes each, in memory and in every checkpoint.",
    type=int,
)
@option("match_probability", "Share of pairs of one class.", type=float)
@option("negatives", "The other pairs: of different classes, or any.")
@option(
    "joint_forward",
    "Both images of the pairs in one batch (shared BatchNorm statistics), or in two.",
    flags="--joint-forward/--separate-forward",
)
@option("image_backend", IMAGE_BACKEND)
@option(
    "cache",
    "Decode training and validation images once, and keep their crops on the disk (beside the manifest, 270 kB an "
    "image at size 224); used from there, from memory, or from the GPU's memory.",
)
@option("amp", "Autocast format.")
@option("seed", "Seed of weights, sampling and augmentation.", type=int)
@option("device", "auto, cpu, cuda or cuda:N.")
@option("workers", "Threads that decode images; 0 lets the pipeline choose.", type=int)
@option("checkpoint_every", "Batches between checkpoints within an epoch; 0 for none.", type=int)
@option("accumulate", "Batches whose gradients are added up for one step.", type=int)
@option("clip", "Norm that a step's gradient is cut down to; 0 leaves it.", type=float)
@option(
    "ema",
    "Share that stays, a step, in a moving average of the weights, which is then validated and saved as the model; "
    "0 for none.",
    type=float,
)
@option("patience", "Epochs without a higher validation recall after which training ends; 0 for none.", type=int)
@option("time_limit", "Minutes after which the run saves and stops; the same command goes on. 0 for none.", type=float)
@option(
    "broken_images",
    "An image that cannot be read is replaced by one of its class and domain, or stops the run.",
)
@option(
    "sync_batchnorm",
    "Under torchrun: BatchNorm over the batches of all processes, or each process over its own.",
    flags="--sync-batchnorm/--local-batchnorm",
)
@option("compile", "Compile the network with torch.compile.")
@option("deterministic", "GPUs compute the same bits each time, as CPUs do anyway; slower.")
@option("cuda_graph", "Capture the whole step as a CUDA graph; with --cache gpu.")
@option("profile", "Write trace.json, a profile of a few steps, into the run folder.")
def train_command(**values: Any) -> None:
    """Train a baseline or a CCSA model; the same command again resumes.

    The defaults are the paper's experiment K, which starts from a baseline on the primary domain:

    \b
      fastccsa train --manifest manifest.csv --out runs/a --n-sec 0 --alignment -
      fastccsa train --manifest manifest.csv --out runs/k --init runs/a
    """  # noqa: D301  (click's mark for lines to keep)
    config = TrainConfig(**{name: value for name, value in values.items() if value is not None})
    from fastccsa.training import train

    train(config)
