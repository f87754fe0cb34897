"""The start of a run: its model, the initial training state, and the description that is printed."""

from __future__ import annotations

import math
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from torch.amp.grad_scaler import GradScaler

from fastccsa.images import Transforms
from fastccsa.models import CARD_FILE, Classifier, Layers, ModelCard, build_model, load_weights
from fastccsa.runs.checkpoint import TrainState
from fastccsa.runs.config import BASELINE_EPOCHS, BASELINE_LR_STEP, CCSA_EPOCHS, CCSA_LR_STEP, TrainConfig
from fastccsa.runs.folder import finished_scores
from fastccsa.runs.images import RunImages
from fastccsa.system.errors import InputError
from fastccsa.system.progress import Say
from fastccsa.training.average import make_average
from fastccsa.training.batchnorm import share_batchnorm
from fastccsa.training.optimizer import build_optimizer
from fastccsa.training.ranks import Ranks


def start_model(config: TrainConfig, classes: tuple[str, ...], resuming: bool, say: Say) -> Classifier:
    """Build the model as it is before the first step; when ``resuming``, without loading initial weights.

    Raises:
        InputError: the weights are not available, or the network does not accept images of this size.
    """
    weights = "none" if resuming or config.init else config.weights
    model = build_model(config.backbone, len(classes), weights, config.size)
    model.narrow(_narrow_layers(config))
    if config.init and not resuming:
        warm_start(model, Path(config.init), config.backbone, classes, say)
    model.freeze(backbone=config.tune == "head", batchnorm=config.batchnorm == "frozen")
    check_size(model, config)
    check_batch(model, config)
    return model


# Rates of AdamW at which networks from random weights learn within tens of epochs, where 1e-4 hardly moves them.
BASELINE_LR_FROM_RANDOM, CCSA_LR_FROM_RANDOM = 1e-3, 3e-4


def repeat_rates(config: TrainConfig) -> TrainConfig:
    """Give a run that is resumed the learning rate that `suit_rates` chose for it."""
    there = TrainConfig.read(config.out)
    return replace(config, lr=there.lr, lr_step=there.lr_step)


def suit_rates(config: TrainConfig, first_weights: str, say: Say) -> TrainConfig:
    """Choose the learning rate of a run whose command names none, and say so where it is not the paper's.

    Random weights need a higher one than pretrained ones, and one that falls within the epochs of the run.
    """
    if config.init or first_weights != "none":
        return config
    lr = BASELINE_LR_FROM_RANDOM if config.is_baseline else CCSA_LR_FROM_RANDOM
    share = BASELINE_LR_STEP / BASELINE_EPOCHS if config.is_baseline else CCSA_LR_STEP / CCSA_EPOCHS
    lr_step = config.lr_step if config.lr_step < config.epochs else max(1, math.ceil(share * config.epochs))
    say(
        f"random weights: learning rate {lr:g} instead of {config.lr:g}, times {config.lr_gamma:g} after every "
        f"{lr_step} of {config.epochs} epochs; --lr sets another"
    )
    return replace(config, lr=lr, lr_step=lr_step)


def _narrow_layers(config: TrainConfig) -> Layers:
    """Return the narrower layers of a pruned network, from the run's own model or from the one it starts from."""
    for folder in (Path(config.out), Path(config.init or config.out)):
        if (folder / CARD_FILE).is_file():
            return ModelCard.read(folder).layers
    return {}


def warm_start(model: Classifier, init: Path, backbone: str, classes: tuple[str, ...], say: Say) -> None:
    """Load the weights of another run, including its head if both have the same classes.

    Raises:
        InputError: the other run is unfinished, has another backbone, or cannot be read.
    """
    same_classes = True
    if init.is_dir():
        card = ModelCard.read(init)
        if finished_scores(init) is None:
            raise InputError(f"the run in {init} is not finished: finish it before starting from its weights")
        if card.backbone != backbone:
            raise InputError(f"the run in {init} is a {card.backbone}, not a {backbone}: use one backbone")
        same_classes = card.classes == classes
    if not load_weights(model, init, head=same_classes):
        say(f"{init} has other classes: its backbone is loaded, and the head starts from random weights")


def check_size(model: Classifier, config: TrainConfig) -> None:
    """Check that the model accepts images of the run's size, by running one.

    Raises:
        InputError: it does not.
    """
    try:
        with torch.inference_mode():
            model.eval()(torch.zeros(1, 3, config.size, config.size))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"{config.backbone} cannot take images of {config.size} px: {reason}") from error


def check_batch(model: Classifier, config: TrainConfig, world: int = 1) -> None:
    """Check that the network can be trained on batches of this size; BatchNorm cannot use a single value.

    Args:
        model: the network. It does not change.
        config: the run.
        world: number of processes that share a batch.

    Raises:
        InputError: a batch is one image, of which the network's BatchNorm would see a single value.
    """
    shared = 1 if config.sync_batchnorm else world
    images = config.batch_size // shared * (2 if not config.is_baseline and config.joint_forward else 1)
    if images > 1:
        return
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=()):
            deepcopy(model).train()(torch.zeros(1, 3, config.size, config.size))
    except ValueError as error:
        raise InputError(
            f"batch_size {config.batch_size} passes a single image at a time through {config.backbone}, whose "
            f"BatchNorm cannot use a single value at {config.size} px: give --batch-size {2 * shared} or more, or a "
            "larger --size"
        ) from error


def start_state(
    config: TrainConfig, model: Classifier, device: torch.device, dtype: torch.dtype | None, ranks: Ranks
) -> TrainState:
    """Move the model to its device, and make the optimiser and everything else of the state before the first step."""
    if config.sync_batchnorm and not ranks.is_alone:
        share_batchnorm(model, device)
    model.to(device).to(memory_format=torch.channels_last)
    optimizer, scheduler = build_optimizer(config, model)
    scaler = GradScaler(device.type, enabled=dtype == torch.float16)
    return TrainState(model, optimizer, scheduler, scaler, average=make_average(config, model))


def model_card(config: TrainConfig, images: RunImages) -> ModelCard:
    """Make the card of this run's model."""
    transforms = Transforms(size=config.size)
    return ModelCard(
        backbone=config.backbone,
        classes=images.training.classes,
        domains=images.domains,
        size=config.size,
        mean=transforms.mean,
        std=transforms.std,
    )


def describe(config: TrainConfig, images: RunImages, model: Classifier, device: torch.device) -> str:
    """Describe a run in a few lines."""
    parameters = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    what = {"erm": "baseline", "ccsa": "CCSA"}.get(config.named_algorithm, config.named_algorithm)
    start = f"the weights of {config.init}" if config.init else f"weights {config.weights}"
    if config.tune == "head":
        start += ", of which only the head is trained"
    kept = "the mean of the weights by SWAD" if config.average == "swad" else images.selection_rule
    return (
        f"{what}: {config.backbone} ({parameters:.2f}M parameters) from {start}, {config.size} px, {device}\n"
        f"trained on {len(images.training)} images of {', '.join(images.domains)}, "
        f"{config.epochs} epochs\n"
        f"model selection: {kept}"
    )
