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
from fastccsa.training.swad import Swad


def make_forward(model: nn.Module, device: torch.device, dtype: torch.dtype | None) -> Forward:
    """Make the function from images to (logits, features) under autocast; both have the same dtype."""

    def forward(images: Tensor) -> tuple[Tensor, Tensor]:
        with stage("forward"), autocast(device, dtype):
            logits, features = model(images.contiguous(memory_format=torch.channels_last))
        # Autocast keeps the last normalisation of some networks in float32; the loss needs one dtype for both.
        return logits.to(features.dtype), features

    return forward


def wrap_model(state: TrainState, config: TrainConfig, device: torch.device, ranks: Ranks) -> nn.Module:
    """Return the network that steps call: the state's model, distributed over the ranks and compiled if configured."""
    network: nn.Module = state.model
    if not ranks.is_alone:
        # Each rank keeps its own BatchNorm statistics; those of the first rank are scored and saved.
        devices = [device.index] if device.type == "cuda" else None
        with warnings.catch_warnings():  # the argument is deprecated, and older torch lacks its replacement
            warnings.simplefilter("ignore", FutureWarning)
            network = DistributedDataParallel(network, device_ids=devices, broadcast_buffers=False)
    if config.compile:
        network.compile()
    return network


class Step:
    """Takes a training step per batch, or per several batches if gradients are accumulated.

    The gradient is that of the mean over the rows of the step's batches on all ranks: the loss of each rank is weighted
    by its share of the rows, since the loss is linear in them. A step whose loss is not finite, and all steps after it,
    leave the weights unchanged. A step needs no host sync.

    Args:
        state: the state of training; the loop advances its epoch and step.
        network: the model as returned by `wrap_model`.
        objective: the objective to minimise.
        config: the run.
        meter: accumulates the terms of the loss.
        device: the device of the model.
        dtype: dtype of autocast; None disables it.
        ranks: the processes that train together.
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
        self._config, self._accumulate, self._clip = config, config.accumulate, config.clip
        self._ranks = ranks
        self._prepared: tuple[int | None, Iterator[Any]] = None, iter(())
        self._parameters = [parameter for parameter in state.model.parameters() if parameter.requires_grad]

    def batches(self, epoch: int, start: int) -> Iterator[Any]:
        """Yield the batches of an epoch from number ``start`` on, for ``__call__``."""
        (prepared, batches), self._prepared = self._prepared, (None, iter(()))
        if (epoch, start) == (prepared, 0) and self._objective.loader.is_open(batches):
            return batches
        return self.open_epoch(epoch, start)

    def prepare(self, epoch: int) -> None:
        """Let the loader begin with the first batches of an epoch, for `batches`; another epoch makes this void."""
        self._prepared = epoch, self.open_epoch(epoch, 0)

    def open_epoch(self, epoch: int, start: int) -> Iterator[Any]:
        """Let the loader begin an epoch at batch ``start``; return its batches."""
        return self._objective.loader.epoch(epoch, start)

    def close(self) -> None:
        """Free what only steps need; no step follows."""

    def count(self, batch: Any) -> int:
        """Return how many batches ``batch``, an item of `batches`, stands for."""
        return 1

    def __call__(self, batch: Any, step: int) -> bool:
        """Process batch number ``step`` of an epoch; return whether the weights were updated."""
        last = len(self._objective.loader) - 1
        first_of_group = step - step % self._accumulate
        last_of_group = min(first_of_group + self._accumulate - 1, last)
        if step == first_of_group:
            self._state.optimizer.zero_grad(set_to_none=True)
        with self._exchange_gradients(step == last_of_group):
            self.learn(batch, self._share(batch, step, range(first_of_group, last_of_group + 1)))
        if step == last_of_group:
            self.update()
        return step == last_of_group

    def learn(self, batch: dict[str, Tensor], share: float) -> None:
        """Add the gradient of a batch, weighted by ``share``."""
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
            if not scaler.is_enabled():  # an enabled scaler sets it itself
                # The fused optimiser changes nothing if this is not 0.
                is_bad = self.meter.is_bad
                if not self._ranks.is_alone:
                    is_bad = self._ranks.maximum(is_bad.clone())
                optimizer.found_inf = is_bad  # type: ignore[attr-defined]
            scaler.step(optimizer)
            scaler.update()
            if isinstance(self._state.average, WeightAverage | Swad):
                self._state.average.update(self._state.model)

    def _share(self, batch: dict[str, Tensor], step: int, group: range) -> float:
        """Return the weight of a batch's mean loss: gradients are averaged over ranks and added up over batches."""
        if self._ranks.is_alone and len(group) == 1:
            return 1.0
        sampler = self._objective.loader.sampler
        rows = sum(sampler.rows(number) for number in group)
        if self._objective.sees_all_ranks:
            return sampler.rows(step) / rows
        return self._ranks.world * _rows(batch) / rows

    def _exchange_gradients(self, now: bool) -> AbstractContextManager[None]:
        """Let ranks exchange gradients in this backward pass, or keep them for a later one."""
        if now or not isinstance(self._network, DistributedDataParallel):
            return nullcontext()
        keep: AbstractContextManager[None] = self._network.no_sync()  # type: ignore[operator]
        return keep


def _rows(batch: dict[str, Tensor]) -> int:
    return len(next(iter(batch.values())))  # every tensor of a batch has one row per sample
