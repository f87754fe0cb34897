"""The step of training beside a plain PyTorch implementation of the same method, and the bare network's step.

Each contestant takes a turn of several steps a round, another one first each round. Its input pipeline runs in its own
turns only, and has come to its pace before the clock starts: nobody works ahead while others are timed.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from fastccsa import reference
from fastccsa.benchmarking.step_times import StepTimes
from fastccsa.collections import Manifest
from fastccsa.images import Transforms
from fastccsa.models import build_model
from fastccsa.runs.checkpoint import TrainState
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.images import select_images
from fastccsa.system.devices import amp_dtype, autocast, pick_device
from fastccsa.training.graph import GraphedStep, Replay, check_graph
from fastccsa.training.meter import Meter
from fastccsa.training.objectives import CCSA
from fastccsa.training.optimizer import build_optimizer
from fastccsa.training.ranks import ALONE
from fastccsa.training.step import Step, make_forward, wrap_model

WARM_STEPS = 5  # a turn's first steps, not timed: more than any pipeline works ahead

Steps = Iterator[None]  # each item is a step taken


def measure(
    config: TrainConfig, manifest: Manifest, rounds: int, steps: int, plain: bool, progress: Callable[[], object]
) -> StepTimes:
    """Measure the step of the run that ``config`` describes.

    Args:
        config: the run; zipped pairs.
        manifest: its images.
        rounds: turns of each contestant.
        steps: timed steps of a turn.
        plain: measure the plain PyTorch implementation too.
        progress: called after each round.

    Raises:
        InputError: the run cannot be started.
    """
    device = pick_device(config.device)
    dtype = amp_dtype(config.amp, device)
    check_graph(config, device, dtype, ALONE)
    images = select_images(config, manifest)
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    classes = len(manifest.classes)
    state = _state(config, classes, device)
    objective = CCSA(config, images, device, state.model.feature_width)
    with objective.loader:
        network = wrap_model(state, config, device, ALONE)
        meter = Meter(objective.terms, device)
        ordinary, captured = (
            kind(state, network, objective, config, meter, device, dtype, ALONE) for kind in (Step, GraphedStep)
        )
        step = captured if config.cuda_graph else ordinary
        bare = _bare(config, classes, next(_batches(ordinary, objective)), device, dtype)
        contestants: dict[str, Callable[[], Steps]] = {
            "loop": partial(_loop, step, objective),
            "bare": partial(_again, bare),
        }
        if plain:
            contestants["plain"] = _Plain(config, classes, objective, images.training, device, dtype)
        times = StepTimes(2 * config.batch_size)
        names = list(contestants)
        for number in range(rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                getattr(times, name).append(_turn(contestants[name](), steps, synchronize))
            for part, seconds in _parts(ordinary, objective, state, steps, synchronize).items():
                times.parts.setdefault(part, []).append(seconds)
            progress()
    return times


def _turn(taken: Steps, steps: int, synchronize: Callable[[], None]) -> float:
    for _ in range(WARM_STEPS):
        next(taken)
    synchronize()
    start = perf_counter()
    for _ in range(steps):
        next(taken)
    synchronize()
    seconds = (perf_counter() - start) / steps
    taken.close()  # type: ignore[attr-defined]
    return seconds


def _state(config: TrainConfig, classes: int, device: torch.device) -> TrainState:
    torch.manual_seed(0)
    model = build_model(config.backbone, classes, "none", config.size)
    model.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    return TrainState(model, *build_optimizer(config, model), GradScaler(device.type, enabled=False))


def _batches(step: Step, objective: CCSA) -> Iterator[Any]:
    """Full batches without end, as ``step`` takes them."""
    sampler = objective.loader.sampler
    for epoch in itertools.count():
        for number, batch in enumerate(step.batches(epoch, 0)):
            if sampler.rows(number) == sampler.batch_size:
                yield batch


def _loop(step: Step, objective: CCSA) -> Steps:
    """What the training loop does for each batch."""
    for batch in _batches(step, objective):
        step(batch, 0)
        yield


def _bare(
    config: TrainConfig, classes: int, batch: dict[str, Tensor], device: torch.device, dtype: torch.dtype | None
) -> Callable[[], object]:
    """The network alone, on images that are there already; compiled and captured as the loop's."""
    state = _state(config, classes, device)
    network = wrap_model(state, config, device, ALONE)
    images = torch.cat([batch["images1"], batch["images2"]]).contiguous(memory_format=torch.channels_last)
    forward = make_forward(network, device, dtype)

    def work() -> None:
        logits, features = forward(images)
        (logits.float().sum() + features.float().sum()).backward()
        state.optimizer.step()

    def take() -> None:
        state.optimizer.zero_grad(set_to_none=True)
        work()

    return Replay(work, state.optimizer) if config.cuda_graph else take


def _again(take: Callable[[], object]) -> Steps:
    while True:
        take()
        yield


def _parts(
    step: Step, objective: CCSA, state: TrainState, steps: int, synchronize: Callable[[], None]
) -> dict[str, float]:
    """Seconds of a step's parts."""
    totals = dict.fromkeys(("images", "network", "loss", "backward", "update"), 0.0)
    batches = _batches(step, objective)

    def clocked(name: str, call: Callable[[], Any]) -> Any:
        start = perf_counter()
        result = call()
        synchronize()
        totals[name] += perf_counter() - start
        return result

    def network(images: Tensor) -> tuple[Tensor, Tensor]:
        outputs: tuple[Tensor, Tensor] = clocked("network", partial(step.forward, images))
        return outputs

    for number in range(WARM_STEPS + steps):
        if number == WARM_STEPS:
            totals.update(dict.fromkeys(totals, 0.0))
        batch = clocked("images", lambda: next(batches))
        state.optimizer.zero_grad(set_to_none=True)
        before = totals["network"]
        terms = clocked("loss", partial(objective, network, batch))
        totals["loss"] -= totals["network"] - before
        clocked("backward", terms[0].backward)
        clocked("update", step.update)
    batches.close()  # type: ignore[attr-defined]
    return {name: seconds / steps for name, seconds in totals.items()}


class _Pairs(Dataset[tuple[Tensor, Tensor, int, int]]):
    """Pairs as one would write them with torchvision: the paper's steps, an image at a time."""

    def __init__(self, images: Manifest, objective: CCSA, size: int) -> None:
        transforms = Transforms(size=size)
        self.paths, self.labels, self.sampler = images.paths, images.labels, objective.loader.sampler
        self.epoch = np.concatenate(
            [np.stack(self.sampler.batch(0, step)) for step in range(len(self.sampler))], axis=1
        )
        self.transform = v2.Compose(
            [
                v2.Resize((transforms.resize, transforms.resize)),
                v2.CenterCrop(transforms.crop),
                v2.RandomResizedCrop(size, transforms.scale, transforms.ratio),
                v2.RandomHorizontalFlip(),
                v2.RandomVerticalFlip(),
                v2.RandomChoice([v2.RandomRotation((angle, angle)) for angle in (0, 90, 180, 270)]),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize(transforms.mean, transforms.std),
                v2.RandomErasing(1.0, scale=((transforms.cutout / size) ** 2,) * 2, ratio=(1.0, 1.0)),
            ]
        )

    def __len__(self) -> int:
        return int(self.epoch.shape[1])

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor, int, int]:
        first, second = (int(index) for index in self.epoch[:, row])
        image1, image2 = (self.transform(Image.open(self.paths[i]).convert("RGB")) for i in (first, second))
        return image1, image2, int(self.labels[first]), int(self.labels[second])


class _Plain:
    """The same method in plain PyTorch: torchvision's transforms in a DataLoader, the loss in eager operations."""

    def __init__(
        self,
        config: TrainConfig,
        classes: int,
        objective: CCSA,
        images: Manifest,
        device: torch.device,
        dtype: torch.dtype | None,
    ) -> None:
        torch.manual_seed(0)
        self.model = build_model(config.backbone, classes, "none", config.size).to(device).train()
        self.optimizer = torch.optim.AdamW(self.model.parameters(), config.lr, weight_decay=config.weight_decay)
        self.loss, self.device, self.dtype = objective.loss, device, dtype
        self.loader = DataLoader(
            _Pairs(images, objective, config.size),
            config.batch_size,
            shuffle=True,
            drop_last=True,
            num_workers=config.workers,
            pin_memory=device.type == "cuda",
        )

    def __call__(self) -> Steps:
        """Take steps; the loader's workers live as long as this goes on."""
        loss = self.loss
        while True:
            for batch in self.loader:
                image1, image2, target1, target2 = (x.to(self.device) for x in batch)
                with autocast(self.device, self.dtype):
                    logits, features = self.model(torch.cat([image1, image2]))
                (logits1, logits2), (features1, features2) = logits.float().chunk(2), features.float().chunk(2)
                value = reference.weighted_ccsa_loss_terms(
                    logits1, logits2, features1, features2, target1, target2, loss.class_weight1, loss.class_weight2,
                    loss.pair_weight, loss.margin, loss.alpha,
                ).loss  # fmt: skip
                self.optimizer.zero_grad()
                value.backward()
                self.optimizer.step()
                value.item()  # the running loss such a loop prints
                yield
