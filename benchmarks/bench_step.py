"""A training step: fastccsa's loop, a plain PyTorch implementation of the same method, and the bare network.

A turn is several steps of one contestant. Its input pipeline runs only during its own turns, and is in a steady state
before the clock starts: nothing is prepared while others are timed.
"""

from __future__ import annotations

import itertools
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.amp.grad_scaler import GradScaler
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from benchmarks.harness import benchmark
from benchmarks.harness.results import FLOOR, OURS, RIVAL, Row
from benchmarks.images.contestants import augmentation
from fastccsa import reference
from fastccsa.collections import Manifest, render_collections
from fastccsa.images import Transforms
from fastccsa.models import build_model
from fastccsa.runs.checkpoint import TrainState
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.images import select_images
from fastccsa.system.devices import amp_dtype, autocast
from fastccsa.system.machine import usable_cpus
from fastccsa.training.graph import GraphedStep, Replay, check_graph
from fastccsa.training.meter import Meter
from fastccsa.training.objectives import CCSA
from fastccsa.training.optimizer import build_optimizer
from fastccsa.training.ranks import ALONE
from fastccsa.training.step import Step, make_forward, wrap_model

LOOP, PLAIN, BARE = "fastccsa's loop", "plain PyTorch", "bare network"
KINDS = {LOOP: OURS, PLAIN: RIVAL, BARE: FLOOR}
PARTS = ("images", "network", "loss", "backward", "update")
WARM_STEPS = 5  # untimed steps at the start of a turn: more than any pipeline prepares ahead

Steps = Iterator[int]  # each item is the number of steps that were taken at once


@dataclass(frozen=True)
class Cell:
    """A training run; the rest of its configuration is in the settings."""

    backbone: str
    size: int
    pairs: int
    cache: str

    @property
    def title(self) -> str:
        return f"{self.backbone}, {self.pairs} pairs of {self.size} px, cache {self.cache}"


class Benchmark(benchmark.Benchmark):
    """Measures the step of a run with zipped pairs, and its parts."""

    def cells(self) -> list[Cell]:
        return [Cell(self.options.backbone, self.options.size, self.options.pairs[-1], self.options.cache)]

    def names(self) -> list[str]:
        return [name for name in KINDS if self.options.plain or name != PLAIN]

    def measure(self, cell: Cell, names: Sequence[str]) -> list[Row]:
        o = self.options
        with tempfile.TemporaryDirectory() as folder:
            manifest = o.manifest or Path(folder, "manifest.csv")
            if not o.manifest:
                render_collections(folder, scale=0.02, width=600)
            config = TrainConfig(
                manifest=str(manifest), backbone=o.backbone, weights="none", size=o.size, batch_size=cell.pairs,
                cache=o.cache, amp=o.amp, compile=o.compile, cuda_graph=o.cuda_graph, graph_steps=o.graph_steps,
                device=o.device, workers=o.workers or min(16, usable_cpus()),
            )  # fmt: skip
            return self._race(config, Manifest.read(manifest), names)

    def _race(self, config: TrainConfig, manifest: Manifest, names: Sequence[str]) -> list[Row]:
        device, classes = self.device, len(manifest.classes)
        dtype = amp_dtype(config.amp, device)
        check_graph(config, device, dtype, ALONE)
        images = select_images(config, manifest)
        state = _state(config, classes, device)
        objective = CCSA(config, images, device, state.model.feature_width)
        rows = {name: Row(name, KINDS[name]) for name in names}
        with objective.loader:
            network, meter = wrap_model(state, config, device, ALONE), Meter(objective.terms, device)
            ordinary, captured = (
                kind(state, network, objective, config, meter, device, dtype, ALONE) for kind in (Step, GraphedStep)
            )
            bare = _bare(config, classes, next(_batches(ordinary, objective))[1], device, dtype)
            step = captured if config.cuda_graph else ordinary
            streams: dict[str, Callable[[], Steps]] = {
                LOOP: lambda: (_take(step, *each) for each in _batches(step, objective)),  # as in the training loop
                PLAIN: partial(_plain, config, classes, objective, images.training, device, dtype),
                BARE: lambda: (_once(bare) for _ in itertools.count()),
            }
            turns = [(row, partial(self._turn, streams[name])) for name, row in rows.items()]
            parts = Row("parts", extra={part: [] for part in PARTS})
            if self.options.parts:
                turns.append((parts, partial(self._parts, parts, ordinary, objective, state)))
            self.race(turns, seconds=math.inf)
        if LOOP in rows and self.options.parts:
            medians = {part: np.median(seconds) for part, seconds in parts.extra.items()}
            shares = (f"{part} {100 * median / sum(medians.values()):.1f} %" for part, median in medians.items())
            rows[LOOP].note = f"of a step: {', '.join(shares)}"
            rows[LOOP].extra = {"config": json.loads(config.to_json()), "parts": parts.extra}
        return list(rows.values())

    def _turn(self, stream: Callable[[], Steps]) -> float:
        with closing(stream()) as taken:  # type: ignore[type-var]
            for _ in range(WARM_STEPS):
                next(taken)
            self.synchronize()
            start, steps = perf_counter(), 0
            while steps < self.options.steps:
                steps += next(taken)
            self.synchronize()
            return (perf_counter() - start) / steps

    def _parts(self, row: Row, step: Step, objective: CCSA, state: TrainState) -> float:
        """Measure the parts of a step without a CUDA graph, waiting for the device after each."""
        totals = dict.fromkeys(PARTS, 0.0)

        def clocked(name: str, call: Callable[[], Any]) -> Any:
            start = perf_counter()
            result = call()
            self.synchronize()
            totals[name] += perf_counter() - start
            return result

        with closing(_batches(step, objective)) as batches:  # type: ignore[type-var]
            for number in range(WARM_STEPS + self.options.steps):
                if number == WARM_STEPS:
                    totals.update(dict.fromkeys(PARTS, 0.0))
                batch = clocked("images", lambda: next(batches)[1])
                state.optimizer.zero_grad(set_to_none=True)
                before = totals["network"]
                network = lambda images: clocked("network", partial(step.forward, images))  # noqa: E731
                terms = clocked("loss", partial(objective, network, batch))
                totals["loss"] -= totals["network"] - before
                clocked("backward", terms[0].backward)
                clocked("update", step.update)
        for part, seconds in totals.items():
            row.extra[part].append(seconds / self.options.steps)
        return sum(totals.values())


def _state(config: TrainConfig, classes: int, device: torch.device) -> TrainState:
    torch.manual_seed(0)
    model = build_model(config.backbone, classes, "none", config.size)
    model.to(device).to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    return TrainState(model, *build_optimizer(config, model), GradScaler(device.type, enabled=False))


def _batches(step: Step, objective: CCSA) -> Iterator[tuple[int, Any]]:
    """Yield full batches without end, in the form that ``step`` takes, after the number of steps that they stand for.

    Groups of steps that one CUDA graph holds are yielded only if they are complete.
    """
    sampler = objective.loader.sampler
    for epoch in itertools.count():
        number, most = 0, 0
        for batch in step.batches(epoch, 0):
            count = step.count(batch)
            most = max(most, count)
            if sampler.rows(number) == sampler.batch_size and count == most:
                yield count, batch
            number += count


def _once(work: Callable[[], None]) -> int:
    work()
    return 1


def _take(step: Step, count: int, batch: Any) -> int:
    step(batch, 0)
    return count


def _bare(
    config: TrainConfig, classes: int, batch: dict[str, Tensor], device: torch.device, dtype: torch.dtype | None
) -> Callable[[], None]:
    """Make a step of the network only, on fixed images; it is compiled and captured like the loop's."""
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


class _Pairs(Dataset[tuple[Tensor, Tensor, int, int]]):
    """Pairs as a user of torchvision would load them: the paper's transforms, one image at a time."""

    def __init__(self, images: Manifest, objective: CCSA, size: int) -> None:
        t, sampler = Transforms(size=size), objective.loader.sampler
        self.paths, self.labels = images.paths, images.labels
        self.epoch = np.concatenate([np.stack(sampler.batch(0, step)) for step in range(len(sampler))], axis=1)
        self.transform = v2.Compose(
            [v2.Resize((t.resize, t.resize)), v2.CenterCrop(t.crop), *augmentation(t, tensors=False)]
        )

    def __len__(self) -> int:
        return int(self.epoch.shape[1])

    def __getitem__(self, row: int) -> tuple[Tensor, Tensor, int, int]:
        first, second = (int(index) for index in self.epoch[:, row])
        image1, image2 = (self.transform(Image.open(self.paths[i]).convert("RGB")) for i in (first, second))
        return image1, image2, int(self.labels[first]), int(self.labels[second])


def _plain(
    config: TrainConfig, classes: int, objective: CCSA, images: Manifest, device: torch.device,
    dtype: torch.dtype | None,
) -> Steps:  # fmt: skip
    """Take steps of the same method in plain PyTorch: transforms in a DataLoader, and the loss in eager mode."""
    torch.manual_seed(0)
    model = build_model(config.backbone, classes, "none", config.size).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), config.lr, weight_decay=config.weight_decay)
    loader = DataLoader(
        _Pairs(images, objective, config.size), config.batch_size, shuffle=True, drop_last=True,
        num_workers=config.workers, pin_memory=device.type == "cuda",
    )  # fmt: skip
    loss = objective.loss
    weights = (loss.class_weight1, loss.class_weight2, loss.pair_weight, loss.margin, loss.alpha)
    while True:
        for batch in loader:
            image1, image2, *targets = (x.to(device) for x in batch)
            with autocast(device, dtype):
                logits, features = model(torch.cat([image1, image2]))
            halves = (half for both in (logits, features) for half in both.float().chunk(2))
            value = reference.weighted_ccsa_loss(*halves, *targets, *weights)  # type: ignore[arg-type]
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            value.item()  # the running loss that such a loop prints
            yield 1


def test_step(report):
    report()
