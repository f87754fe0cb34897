"""Steps whose batches always use the same memory, so that several can be captured as one CUDA graph and replayed.

A captured step consists only of kernels: images from the GPU's store, network, loss, backward, clipping, update, moving
average, and the meter's sums. For each graph the host only copies the plans of the next batches and launches it.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from fastccsa.runs.config import TrainConfig
from fastccsa.system.cuda_graphs import CaptureError, capture
from fastccsa.system.errors import InputError
from fastccsa.training.ranks import Ranks
from fastccsa.training.step import Step

logger = logging.getLogger("fastccsa.training")

WARM_UP = 3  # steps before the capture, as torch's notes on CUDA graphs recommend
# A batch of so few pixels is finished so fast that the time between two graphs counts: a graph then holds more steps.
SMALL_BATCH, AUTOMATIC_STEPS = 2**20, 8


def check_graph(config: TrainConfig, device: torch.device, dtype: torch.dtype | None, ranks: Ranks) -> None:
    """Check that this run's steps can be captured, if the configuration asks for it; its cache must have been chosen.

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


def steps_per_graph(config: TrainConfig, images_per_sample: int, steps: int) -> int:
    """Return how many steps of full batches one graph holds, in a run with ``steps`` steps in an epoch.

    Checkpoints, stops and reports come between graphs: ``checkpoint_every`` stays exact, and a profile of steps, too.
    """
    if config.profile:
        return 1
    wanted = config.graph_steps
    if not wanted:
        pixels = config.batch_size * images_per_sample * config.size**2
        wanted = AUTOMATIC_STEPS if pixels <= SMALL_BATCH else 1
    wanted = min(wanted, steps)
    if every := config.checkpoint_every:
        wanted = max(size for size in range(1, wanted + 1) if every % size == 0)
    return wanted


class StaticStep(Step):
    """A `Step` that makes its batch itself, from a plan that it always copies into the same memory.

    Its batches are groups of plans of `PairLoader.plan_groups`: one call takes a step for each plan of a group.
    """

    def __init__(self, *parts: Any, **named: Any) -> None:
        super().__init__(*parts, **named)
        loader = self._objective.loader
        self._size = steps_per_graph(self._config, self._objective.images_per_sample, len(loader))
        self._memory: dict[torch.Size, Tensor] = {}

    def open_epoch(self, epoch: int, start: int) -> Iterator[Any]:
        """Let the loader begin an epoch at batch ``start``; return the plans of its batches, in groups."""
        return self._objective.loader.plan_groups(epoch, start, self._size)

    def count(self, batch: Any) -> int:
        """Return how many batches a group of plans stands for."""
        return len(batch)

    def __call__(self, batch: Any, step: int) -> bool:
        """Process the batches from number ``step`` of an epoch on, given their plans; the weights are updated."""
        if batch.shape not in self._memory:
            self._memory[batch.shape] = torch.empty(
                batch.shape, dtype=batch.dtype, device=self._objective.loader.device
            )
        plans = self._memory[batch.shape]
        plans.copy_(batch, non_blocking=True)
        self.take(plans)
        return True

    def take(self, plans: Tensor) -> None:
        """Take the steps whose plans have been copied."""
        self._state.optimizer.zero_grad(set_to_none=True)
        self.work(plans)

    def work(self, plans: Tensor) -> None:
        """Do the device's part of the steps; gradients are None when it starts."""
        for number, plan in enumerate(plans):
            if number:
                self._state.optimizer.zero_grad(set_to_none=True)
            self.learn(self._objective.loader.make(plan), 1.0)
            self.update()


class GraphedStep(StaticStep):
    """A `StaticStep` whose groups of steps are captured as CUDA graphs after a few steps and then replayed.

    There is a graph for each size of a group and of its batches: for full groups, for the batches that are left at the
    end of an epoch, and for the last one. They share their memory, because nothing in it outlives a replay. If the
    graph was not requested, but chosen, and cannot be captured, a warning says so and steps go on without it; one that
    was requested is then an `InputError`.
    """

    def __init__(self, *parts: Any, **named: Any) -> None:
        super().__init__(*parts, **named)
        self._replays: dict[torch.Size, Replay] = {}
        self._given_up = False

    def close(self) -> None:
        """Free the graphs and their memory; no step follows."""
        self._replays.clear()  # each refers to this object, too, and through it to everything that a run has on the GPU

    def take(self, plans: Tensor) -> None:
        """Take the steps whose plans have been copied."""
        if self._given_up:
            super().take(plans)
            return
        if plans.shape not in self._replays:
            first = next(iter(self._replays.values()), None)
            # Once a graph has been captured, only what depends on the size of a batch is new.
            warm_up = math.ceil(WARM_UP / len(plans)) if first is None else 1
            work, optimizer = partial(self.work, plans), self._state.optimizer
            self._replays[plans.shape] = Replay(work, optimizer, warm_up, first)
        try:
            self._replays[plans.shape]()
        except CaptureError as error:
            if self._config.cuda_graph:
                raise InputError(
                    f"the steps cannot be captured as a CUDA graph ({error}): omit --cuda-graph, and they are launched "
                    "one by one; if memory ran out, a smaller --batch-size or --graph-steps 1 needs less"
                ) from error
            logger.warning("the steps cannot be captured as a CUDA graph (%s) and are launched one by one", error)
            self._replays.clear()
            self._given_up = True
            super().take(plans)


class Replay:
    """Work that ends with an optimiser's step; it runs normally a few times, is then captured, and then replayed.

    The first calls warm up the libraries, the allocator and the optimiser. They are ordinary steps, and the capture
    itself computes nothing, so no state has to be restored. Random numbers continue as they would without a graph,
    because torch registers the GPU's default generator.

    Args:
        work: launches kernels on the current stream, always on the same memory, without a host sync. Gradients are None
            when it starts.
        optimizer: a fused optimiser on a CUDA device. Its learning rates may change from call to call.
        warm_up: calls before the capture.
        beside: work whose graph this one shares its memory and stream with. They never run at the same time, and
            neither needs what the other leaves in the memory of the graphs.
    """

    def __init__(
        self,
        work: Callable[[], None],
        optimizer: Optimizer,
        warm_up: int = WARM_UP,
        beside: Replay | None = None,
    ) -> None:
        self._work, self._optimizer, self._warm_up_calls = work, optimizer, warm_up
        device = optimizer.param_groups[0]["params"][0].device
        self._rates = [torch.empty((), device=device) for _ in optimizer.param_groups]
        self._filled: list[float] = []
        self._side: torch.cuda.Stream = torch.cuda.Stream(device) if beside is None else beside._side
        self._pool: Any = torch.cuda.graph_pool_handle() if beside is None else beside._pool
        self._graph: torch.cuda.CUDAGraph | None = None
        self._done = 0

    def __call__(self) -> None:
        """Do the work.

        Raises:
            CaptureError: it cannot be captured, and has not been done.
        """
        if self._done < self._warm_up_calls:
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
        self._optimizer.zero_grad(set_to_none=True)  # so that gradients are allocated in the graph's own memory
        with self._rates_on_device(capturable=True):
            return capture(self._work, self._side, self._pool)

    def _fill_rates(self) -> None:
        rates = [float(group["lr"]) for group in self._optimizer.param_groups]
        if rates != self._filled:
            for tensor, rate in zip(self._rates, rates, strict=True):
                tensor.fill_(rate)
            self._filled = rates
