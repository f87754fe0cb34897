"""One step: forward, backward, and the update of the weights."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fastccsa.ops.profiling import stage
from fastccsa.runs.checkpoint import TrainState
from fastccsa.runs.config import TrainConfig
from fastccsa.system.devices import autocast
from fastccsa.training.average import WeightAverage
from fastccsa.training.meter import Meter
from fastccsa.training.objectives import Forward, Objective
from fastccsa.training.ranks import Ranks


def make_forward(model: nn.Module, device: torch.device, dtype: torch.dtype | None) -> Forward:
    """Make the function from images to (logits, features) under autocast; both come in one format."""

    def forward(images: Tensor) -> tuple[Tensor, Tensor]:
        with stage("forward"), autocast(device, dtype):
            logits, features = model(images.contiguous(memory_format=torch.channels_last))
        # Autocast keeps some networks' last normalisation in float32; the loss wants a single format.
        return logits.to(features.dtype), features

    return forward


def wrap_model(state: TrainState, config: TrainConfig, device: torch.device, ranks: Ranks) -> nn.Module:
    """Make of the state's model the network that steps call: shared among ranks, compiled, or just itself."""
    network: nn.Module = state.model
    if not ranks.is_alone:
        # Each rank keeps BatchNorm statistics of its own; the first rank's are scored and saved.
        devices = [device.index] if device.type == "cuda" else None
        with warnings.catch_warnings():  # the argument is on its way out, and what takes its place not in older torch
            warnings.simplefilter("ignore", FutureWarning)
            network = DistributedDataParallel(network, device_ids=devices, broadcast_buffers=False)
    if config.compile:
        network.compile()
    return network


class Step:
    """Takes a step of training for a batch; several batches make a step where gradients are accumulated.

    The gradient is that of the mean over the rows of all the step's batches on all ranks: each rank's loss counts by
    its share of the rows, since the loss is linear in them. A step whose loss is not finite, and those after it,
    leave the weights as they are. The host waits for nothing.

    Args:
        state: what is trained; its position is the loop's affair.
        network: the model as `wrap_model` makes it.
        objective: what is minimised.
        config: the run.
        meter: where the terms of the loss are counted.
        device: where all of this is.
        dtype: of autocast.
        ranks: who trains together.
    """

    def __init__(
        self,
        state: TrainState,
        network: nn.Module,
        objective: Objective,
        config: TrainConfig,
        meter: Meter,
        device: torch.device,
        dtype: torch.dtype | None,
        ranks: Ranks,
    ) -> None:
        self.forward = make_forward(network, device, dtype)
        self.meter = meter
        self._state, self._network, self._objective = state, network, objective
        self._accumulate, self._clip = config.accumulate, config.clip
        self._ranks = ranks
        self._parameters = [parameter for parameter in state.model.parameters() if parameter.requires_grad]

    def batches(self, epoch: int, start: int) -> Iterator[Any]:
        """Walk an epoch's batches from number ``start`` on, as ``__call__`` takes them."""
        return self._objective.loader.epoch(epoch, start)

    def __call__(self, batch: Any, step: int) -> bool:
        """Take batch number ``step`` of an epoch; whether the weights were updated after it."""
        last = len(self._objective.loader) - 1
        first_of_group = step - step % self._accumulate
        last_of_group = min(first_of_group + self._accumulate - 1, last)
        if step == first_of_group:
            self._state.optimizer.zero_grad(set_to_none=True)
        with self._gradients_travel(step == last_of_group):
            self.learn(batch, self._share(batch, step, range(first_of_group, last_of_group + 1)))
        if step == last_of_group:
            self.update()
        return step == last_of_group

    def learn(self, batch: dict[str, Tensor], share: float) -> None:
        """Add the gradient of a batch, which counts by ``share``."""
        terms = self._objective(self.forward, batch)
        self.meter.update(terms, _rows(batch))
        with stage("backward"):
            loss = terms[0] if share == 1 else terms[0] * share
            self._state.scaler.scale(loss).backward()

    def update(self) -> None:
        """Update the weights from their gradients."""
        optimizer, scaler = self._state.optimizer, self._state.scaler
        with stage("optimizer"):
            if self._clip:
                scaler.unscale_(optimizer)
                torch.nn.utils.clip_grad_norm_(self._parameters, self._clip)
            if not scaler.is_enabled():  # which sees to it itself
                # The fused optimiser leaves everything as it is where this is not 0.
                optimizer.found_inf = self._ranks.maximum(self.meter.is_bad)  # type: ignore[attr-defined]
            scaler.step(optimizer)
            scaler.update()
            if isinstance(self._state.average, WeightAverage):
                self._state.average.update(self._state.model)

    def _share(self, batch: dict[str, Tensor], step: int, group: range) -> float:
        """What a batch's mean loss counts, where ranks' gradients are averaged and batches' added."""
        if self._ranks.is_alone and len(group) == 1:
            return 1.0
        sampler = self._objective.loader.sampler
        rows = sum(sampler.rows(number) for number in group)
        if self._objective.sees_all_ranks:
            return sampler.rows(step) / rows
        return self._ranks.world * _rows(batch) / rows

    def _gradients_travel(self, now: bool) -> AbstractContextManager[None]:
        """Let ranks exchange gradients in this backward pass, or keep them for a later one."""
        if now or not isinstance(self._network, DistributedDataParallel):
            return nullcontext()
        stay: AbstractContextManager[None] = self._network.no_sync()  # type: ignore[operator]
        return stay


def _rows(batch: dict[str, Tensor]) -> int:
    return len(next(iter(batch.values())))  # a row for each sample, whatever the tensor
