"""Steps whose batch always uses the same memory, so that one step can be captured as a CUDA graph and replayed.

A captured step consists only of kernels: images from the GPU's store, network, loss, backward, clipping, update, moving
average, and the meter's sums. For each step the host only copies the plan of the next batch and launches the graph.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from fastccsa.runs.config import TrainConfig
from fastccsa.system.errors import InputError
from fastccsa.training.ranks import Ranks
from fastccsa.training.step import Step

logger = logging.getLogger("fastccsa.training")

WARM_UP = 3  # steps before the capture, as torch's notes on CUDA graphs recommend


def check_graph(config: TrainConfig, device: torch.device, dtype: torch.dtype | None, ranks: Ranks) -> None:
    """Check that this run's steps can be captured, if the configuration asks for it.

    Raises:
        InputError: they cannot; the message says why.
    """
    if config.cuda_graph and (reason := obstacle(config, device, dtype, ranks)):
        raise InputError(f"cuda_graph is not available here ({reason}): omit it, or change that")


def obstacle(config: TrainConfig, device: torch.device, dtype: torch.dtype | None, ranks: Ranks) -> str | None:
    """Return why this run's steps cannot be captured; None if they can."""
    obstacles = {
        f"device is {device}: it needs a CUDA GPU": device.type != "cuda",
        f"cache is {config.cache}: it needs the images in the GPU's memory, cache gpu": config.cache != "gpu",
        "pairs is all, with a memory, which grows from step to step": bool(config.memory),
        f"accumulate is {config.accumulate}: it captures steps of one batch": config.accumulate > 1,
        "amp is float16: its loss scaling runs on the host; use bfloat16 or none": dtype == torch.float16,
        f"{ranks.world} processes train together: it supports only one": not ranks.is_alone,
    }
    return next((reason for reason, applies in obstacles.items() if applies), None)


class StaticStep(Step):
    """A `Step` that makes its batch itself, from a plan that it always copies into the same memory.

    Its batches are those of `PairLoader.plans`. A batch of another size, such as the last one of an epoch, is an
    ordinary step.
    """

    _plan: Tensor | None = None

    def open_epoch(self, epoch: int, start: int) -> Iterator[Any]:
        """Let the loader begin an epoch at batch ``start``; return the plans of its batches."""
        return self._objective.loader.plans(epoch, start)

    def __call__(self, batch: Any, step: int) -> bool:
        """Process batch number ``step`` of an epoch, given its plan; the weights are always updated."""
        loader = self._objective.loader
        if self._plan is None:
            rows = self._objective.images_per_sample * loader.sampler.batch_size
            self._plan = torch.empty((rows, batch.shape[1]), dtype=batch.dtype, device=loader.device)
        if len(batch) != len(self._plan):
            return super().__call__(loader.make(batch.to(loader.device, non_blocking=True)), step)
        self._plan.copy_(batch, non_blocking=True)
        self.take()
        return True

    def take(self) -> None:
        """Take the step whose plan has been copied."""
        self._state.optimizer.zero_grad(set_to_none=True)
        self.work()

    def work(self) -> None:
        """Do the device's part of a step; gradients are None when it starts."""
        assert self._plan is not None
        self.learn(self._objective.loader.make(self._plan), 1.0)
        self.update()


class GraphedStep(StaticStep):
    """A `StaticStep` that is captured as a CUDA graph after a few steps and then replayed.

    If the graph was not requested, but chosen, and cannot be captured, a warning says so and steps go on without it.
    """

    _replay: Replay | None = None
    _given_up = False

    def take(self) -> None:
        """Take the step whose plan has been copied."""
        if self._given_up:
            super().take()
            return
        if self._replay is None:
            self._replay = Replay(self.work, self._state.optimizer)
        try:
            self._replay()
        except CaptureError as error:
            if self._config.cuda_graph:
                raise
            logger.warning("the steps cannot be captured as a CUDA graph (%s) and are launched one by one", error)
            self._replay, self._given_up = None, True
            super().take()


class CaptureError(RuntimeError):
    """Work could not be captured as a CUDA graph; it has not been done."""


def _end_capture(device: torch.device) -> None:
    """Let the GPU's generator leave a capture that failed, which it would otherwise wait for."""
    generator = torch.cuda.default_generators[device.index or 0]
    generator.graphsafe_set_state(generator.clone_state())


class Replay:
    """Work that ends with an optimiser's step; it runs normally a few times, is then captured, and then replayed.

    The first calls warm up the libraries, the allocator and the optimiser. They are ordinary steps, and the capture
    itself computes nothing, so no state has to be restored. Random numbers continue as they would without a graph,
    because torch registers the GPU's default generator.

    Args:
        work: launches kernels on the current stream, always on the same memory, without a host sync. Gradients are None
            when it starts.
        optimizer: a fused optimiser on a CUDA device. Its learning rates may change from call to call.
    """

    def __init__(self, work: Callable[[], None], optimizer: Optimizer) -> None:
        self._work, self._optimizer = work, optimizer
        device = optimizer.param_groups[0]["params"][0].device
        self._rates = [torch.empty((), device=device) for _ in optimizer.param_groups]
        self._filled: list[float] = []
        self._side = torch.cuda.Stream(device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._done = 0

    def __call__(self) -> None:
        """Do the work.

        Raises:
            CaptureError: it cannot be captured, and has not been done.
        """
        if self._done < WARM_UP:
            self._warm_up()
        else:
            if self._graph is None:
                self._graph = self._capture()
            self._fill_rates()
            self._graph.replay()
        self._done += 1

    @contextmanager
    def _rates_on_device(self, capturable: bool) -> Iterator[None]:
        """Make the optimiser read its learning rates from device memory, where they may change after the capture.

        Outside the block they are numbers, for the schedule and for checkpoints, which can be resumed with or without a
        graph.
        """
        self._fill_rates()
        groups = self._optimizer.param_groups
        before = [{name: group[name] for name in ("lr", "capturable")} for group in groups]
        for group, rate in zip(groups, self._rates, strict=True):
            group.update(lr=rate, capturable=capturable)
        try:
            yield
        finally:
            for group, values in zip(groups, before, strict=True):
                group.update(values)

    def _warm_up(self) -> None:
        # On the stream of the capture, because autograd and libraries keep state per stream, and the capture must not
        # use the state of the default stream.
        self._side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._side), self._rates_on_device(capturable=False):
            self._optimizer.zero_grad(set_to_none=True)
            self._work()
        torch.cuda.current_stream().wait_stream(self._side)

    def _capture(self) -> torch.cuda.CUDAGraph:
        graph = torch.cuda.CUDAGraph()
        self._optimizer.zero_grad(set_to_none=True)  # so that gradients are allocated in the graph's own memory
        # The restrictions of a capture apply only to this thread: the loader's threads pin memory meanwhile.
        capture = torch.cuda.graph(graph, stream=self._side, capture_error_mode="thread_local")
        try:
            with self._rates_on_device(capturable=True), capture:
                self._work()
        except RuntimeError as error:
            _end_capture(self._side.device)
            raise CaptureError(str(error).split("\n")[0]) from error
        return graph

    def _fill_rates(self) -> None:
        rates = [float(group["lr"]) for group in self._optimizer.param_groups]
        if rates != self._filled:
            for tensor, rate in zip(self._rates, rates, strict=True):
                tensor.fill_(rate)
            self._filled = rates
