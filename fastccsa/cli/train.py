"""``fastccsa train``: start a training run, or resume it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any, get_args

import click

from fastccsa.cli.options import AMP_HELP, BACKEND_HELP, DEVICE_HELP, WORKERS_HELP, given_options, options_of
from fastccsa.runs.config import BASELINE_EPOCHS, BASELINE_LR_STEP, CCSA_EPOCHS, CCSA_LR_STEP, Tracker, TrainConfig


class ImagesPerClass(click.ParamType):
    """A number of images, or ``all``."""

    name = "N|all"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Return ``"all"`` unchanged, and anything else as an integer of at least 0."""
        if value == "all":
            return "all"
        number = click.INT.convert(value, param, ctx)
        if number < 0:
            self.fail(f"{value} is negative: give 0 or more, or all", param, ctx)
        return int(number)


def check_used(values: Mapping[str, Any]) -> None:
    """Check that every option that was given has an effect with the others.

    Raises:
        UsageError: one has none; the message names it.
    """
    given = given_options()
    unused: dict[str, Iterable[str]] = {}
    if values["alignment"] == "-":
        unused["--alignment -, a baseline without pairs"] = [
            item.name for item in fields(TrainConfig) if item.metadata.get("of_pairs")
        ]
    elif values["alignment"] == "u":
        unused["--alignment u, which has no weights"] = ("pair_weight_scale", "pair_weight_cap")
    if values["classification_weight"] == "u":
        unused["--classification-weight u, which has no weights"] = ("class_weight_scale",)
    if values["init"] is not None and values["weights"] != "none":
        unused["--init, which gives the weights"] = ("weights",)
    for other, names in unused.items():
        for name in names:
            if name in given:
                raise click.UsageError(f"{given[name]} has no effect with {other}: omit one of them")


option = options_of(TrainConfig)
balance_option = partial(option, show_default="the recipe's")


@click.command("train")
@option("manifest", "CSV of the images, as `fastccsa prepare` writes it.", required=True, default=None)
@option("out", "Run folder; repeating the command resumes the run in it.", required=True, default=None)
@option("init", "Run folder or checkpoint with the weights to start from.")
@option(
    "n_sec",
    "Training images per class and secondary domain; 0 trains on the primary domain only.",
    type=ImagesPerClass(),
)
@option("fraction", "Share of the training images of each class and domain to train on.")
@option("primary", "Domain that holds every class.  [default: HAM, else the manifest's first]")
@option("exclude", "Domain to exclude from training and model selection; repeatable.", multiple=True)
@option("classification_weight", "Cross-entropy weighted by 1/P(class) (w), or unweighted (u).")
@option("alignment", "Alignment weighted by 1/P(pair of classes) (w), unweighted (u), or none: a baseline (-).")
@option(
    "algorithm",
    "ccsa, erm (a baseline), or another way to train on single images; auto: as --alignment says.",
)
@option("strength", "The algorithm's penalty weight or parameter.", show_default="the algorithm's")
@option("backbone", "A classification network of torchvision, or timm/ and a name of timm.")
@option("weights", "Initial weights of the backbone: auto (ImageNet if available), imagenet, none or a path.")
@option("size", "Side length of the images in pixels.")
@option(
    "epochs",
    "Passes over the training images.",
    type=click.IntRange(min=1),
    default=None,
    show_default=f"{CCSA_EPOCHS}, {BASELINE_EPOCHS} for a baseline",
)
@option("batch_size", "Pairs per batch, or images for a baseline; under torchrun, of all processes together.")
@option(
    "lr",
    "Learning rate of AdamW.",
    show_default="0.0001; for random weights 0.001, with CCSA 0.0003",
)
@option(
    "lr_step",
    "Epochs between reductions of the learning rate.",
    type=click.IntRange(min=1),
    default=None,
    show_default=f"{CCSA_LR_STEP}, {BASELINE_LR_STEP} for a baseline",
)
@option("lr_gamma", "Factor by which the learning rate is multiplied at each reduction.")
@option("weight_decay", "Weight decay of AdamW.")
@option("recipe", "How the parts of the loss are balanced: ours, the paper's text, or its authors' code.")
@balance_option("alpha", "Share of the alignment in the loss.")
@balance_option("margin", "Distance up to which features of different classes are pushed apart.")
@balance_option("margin_unit", "Unit of the margin: that of the features, or their median distance at the start.")
@balance_option(
    "normalize_features",
    "Divide the features by their norm before they are compared.",
    "--normalize-features/--raw-features",
)
@balance_option("distance_unit", "Unit of distances in the loss: that of the features, or the margin.")
@balance_option(
    "class_weight_scale", "Scale of the weights 1/P(class): mean 1, largest 1 (max), or not scaled (plain)."
)
@balance_option("pair_weight_scale", "Scale of the weights 1/P(pair of classes).")
@balance_option("pair_weight_cap", "Largest weight of a pair, in multiples of the mean; 0 for no limit.")
@balance_option(
    "classification_reduction", "What the mean of the cross-entropy divides by: images (mean), or their weights."
)
@balance_option("negatives", "Classes of the pairs that are not drawn to match: different, or any.")
@balance_option(
    "joint_forward",
    "Pass both images of the pairs through the network in one batch, with shared BatchNorm statistics, or in two.",
    "--joint-forward/--separate-forward",
)
@option("pairs", "Pairs that the alignment sums over: the pairs as drawn (zipped), or every pair of a batch (all).")
@option(
    "memory",
    "With --pairs all: number of past images of each stream that are also compared with the other stream's batch; 0 "
    "for none. Each of their features takes 4 bytes, in memory and in every checkpoint.",
)
@option("match_probability", "Share of pairs that are drawn from one class.")
@option("image_backend", BACKEND_HELP)
@option(
    "cache",
    "Decode training and validation images once, and keep their crops on disk (next to the manifest, 270 kB per image "
    "at size 224); use them from there, from memory, or from GPU memory. auto: on a GPU, where there is room.",
)
@option("amp", AMP_HELP)
@option("seed", "Seed of the weights, the sampling and the augmentation.")
@option("device", DEVICE_HELP)
@option("workers", WORKERS_HELP)
@option(
    "checkpoint_every",
    "Batches between checkpoints, which are then also saved after every epoch; 0: as --checkpoint-share says.",
)
@option(
    "checkpoint_share",
    "Largest share of the run's time for checkpoints; 0 saves only when the run stops and after its last epoch.",
)
@option("accumulate", "Batches whose gradients are added up for one update.")
@option("clip", "Maximum norm of a step's gradient; 0 does not clip.")
@option(
    "ema",
    "Decay per step of a moving average of the weights, which is then validated and saved as the model; 0 for none.",
)
@option(
    "average",
    "A mean of the weights that becomes the model: over the steps after the first quarter (uniform), or over the flat "
    "stretch of the validation loss (swad).",
    show_default="none, uniform for ermpp",
)
@option(
    "head_epochs",
    "First epochs in which only the head learns.",
    show_default="0, 1 for ermpp on trained weights",
)
@option("layer_decay", "Factor of the learning rate from each layer to the one before it; 1 for one rate.")
@option("tune", "Train the whole network, or only the head: a linear probe.")
@option("batchnorm", "Let BatchNorm's statistics follow the images, or keep those of the first weights.")
@option(
    "selection",
    "Epoch whose model is kept: the latest within one standard error of the highest validation recall, with domains "
    "weighted by what their validation images can tell (informative), or the highest mean over the domains (paper).",
)
@option(
    "score_epochs",
    "After each epoch, also score the test images and the validation images of excluded domains, which decide nothing.",
    "--score-epochs/--score-selected",
)
@option(
    "patience",
    "Epochs without a higher validation recall, averaged as --selection does, after which training ends; 0 for none.",
)
@option("time_limit", "Minutes after which the run saves and stops; the same command resumes it. 0 for none.")
@option("broken_images", "Replace an image that cannot be read by another of its class and domain, or stop the run.")
@option(
    "sync_batchnorm",
    "Under torchrun: compute BatchNorm over the batches of all processes, or in each process separately.",
    "--sync-batchnorm/--local-batchnorm",
)
@option("compile", "Compile the network with torch.compile.", "--compile/--no-compile")
@option(
    "deterministic",
    "Make GPUs compute the same bits every time, as CPUs do anyway; slower.",
    "--deterministic/--no-deterministic",
)
@option(
    "cuda_graph",
    "Capture the whole step as a CUDA graph; needs --cache gpu.",
    "--cuda-graph/--no-cuda-graph",
    show_default="where possible",
)
@option("graph_steps", "Steps in a CUDA graph; 0 chooses by the size of a batch.")
@option(
    "track",
    "Where scalars are logged; repeatable. MLflow and Weights & Biases stay on this machine unless their variables "
    "MLFLOW_TRACKING_URI and WANDB_MODE say otherwise.",
    type=click.Choice(get_args(Tracker)),
    multiple=True,
)
@option("profile", "Write trace.json, a profile of a few steps, into the run folder.", "--profile/--no-profile")
def train_command(**values: Any) -> None:
    """Train a baseline or a CCSA model; repeating the command resumes.

    The defaults are the paper's experiment K, which starts from a baseline on the primary domain:

    \b
      fastccsa train --manifest manifest.csv --out runs/a --n-sec 0 --alignment -
      fastccsa train --manifest manifest.csv --out runs/k --init runs/a
    """  # noqa: D301  (\b tells click to keep the lines)
    check_used(values)
    config = TrainConfig(**{name: value for name, value in values.items() if value is not None})
    from fastccsa.training import train

    if "lr" in given_options():
        train(config)
    else:
        train(config, suits_weights=True)


def command_of(config: TrainConfig) -> str:
    """Return the command line that trains with a configuration, with only the options that differ from the defaults."""
    words = ["fastccsa", "train"]
    usual = TrainConfig(algorithm=config.algorithm, alignment=config.alignment, recipe=config.recipe)
    shown = {"manifest", "out", "epochs", "lr"}  # always; without a rate, `train` would choose one by the weights
    if config.algorithm != "auto":
        shown.add("algorithm")
    else:
        shown.add("alignment")
        if not config.is_baseline and config.recipe != TrainConfig.recipe:
            shown.add("recipe")
    hidden = {"alignment"} - shown  # follows from the algorithm
    for parameter in train_command.params:
        name = str(parameter.name)
        value = getattr(config, name)
        if name in hidden or value is None or (value == getattr(usual, name) and name not in shown):
            continue
        if isinstance(value, bool):
            words.append((parameter.opts if value else parameter.secondary_opts)[0])
        else:
            for each in value if isinstance(value, tuple) else (value,):
                words += [parameter.opts[0], str(each)]
    return shlex.join(words)
