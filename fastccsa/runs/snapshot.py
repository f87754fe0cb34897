"""Copies of a training state that are taken between two steps, so that another thread can write them meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor


def replace_leaves(value: Any, kind: type, function: Callable[[Any], Any]) -> Any:
    """Apply ``function`` to every ``kind`` in nested dicts, lists and tuples, and return them; they are copied.

    Copied dicts keep their attributes: some networks need those of their state dict.
    """
    if isinstance(value, kind):
        return function(value)
    if isinstance(value, dict):
        same = copy(value)
        same.update({key: replace_leaves(item, kind, function) for key, item in value.items()})
        return same
    if isinstance(value, list | tuple):
        return type(value)(replace_leaves(item, kind, function) for item in value)
    return value


class _Place(int):
    """The number of a tensor, in its place."""


class _Layout(NamedTuple):
    """Where a tensor lies in a block of memory."""

    shape: torch.Size
    strides: tuple[int, ...]
    start: int


class Snapshot:
    """A copy of everything in nested dicts, lists and tuples, taken without waiting for a GPU.

    Tensors are copied in the order of the work of their own device, so that later steps do not change the copies. They
    are copied within its memory if that has room to spare, and otherwise to main memory. Tensors of one device and
    dtype share one block of memory, so that a GPU needs a few kernels for all of them, and one transfer.

    Args:
        content: the values to copy.
    """

    def __init__(self, content: Any) -> None:
        tensors: list[Tensor] = []

        def take(tensor: Tensor) -> _Place:
            tensors.append(tensor.detach())
            return _Place(len(tensors) - 1)

        self._content = replace_leaves(content, Tensor, take)
        groups: dict[tuple[torch.device, torch.dtype], list[int]] = {}
        for number, tensor in enumerate(tensors):
            groups.setdefault((tensor.device, tensor.dtype), []).append(number)
        self._blocks: list[_Block] = []
        for (device, _), numbers in groups.items():
            self._copy([tensors[number] for number in numbers], numbers, device)
        devices = {block.device for block in self._blocks if block.device.type == "cuda"}
        self._ready = {device: _record(device) for device in devices}

    def _copy(self, tensors: list[Tensor], numbers: list[int], device: torch.device) -> None:
        memory = _allocate(sum(tensor.numel() for tensor in tensors), tensors[0].dtype, device)
        layouts, start = {}, 0
        for number, tensor in zip(numbers, tensors, strict=True):
            # The strides of a clone, such as those of channels-last.
            layouts[number] = _Layout(tensor.shape, torch.empty_like(tensor, device="meta").stride(), start)
            start += tensor.numel()
        with torch.no_grad():
            places = [memory.as_strided(*layout) for layout in layouts.values()]
            torch._foreach_copy_(places, tensors, non_blocking=True)
        self._blocks.append(_Block(device, memory, layouts))

    def on_host(self) -> Any:
        """Return the content, with its tensors in main memory; it waits for a GPU. Any thread may call it."""
        found: dict[int, Tensor] = {}
        for device, memory, layouts in self._blocks:
            host = memory if device.type == "cpu" else _to_host(memory, self._ready[device])
            found |= {number: host.as_strided(*layout) for number, layout in layouts.items()}
        return replace_leaves(self._content, _Place, found.__getitem__)


class _Block(NamedTuple):
    """Copies of tensors of one device, where they lie, and where each of them starts."""

    device: torch.device
    memory: Tensor
    layouts: dict[int, _Layout]


def _allocate(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Allocate memory for copies of a device's tensors: its own if it has room, or else main memory."""
    if device.type == "cpu":
        return torch.empty(length, dtype=dtype)
    # A block could take, or split, any memory that torch has kept for the next steps, and they would need it anew.
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free, _ = torch.cuda.mem_get_info(device)
    if free >= length * dtype.itemsize + kept:
        try:
            return torch.empty(length, dtype=dtype, device=device)
        except torch.OutOfMemoryError:  # another process was faster
            pass
    return _pinned(length, dtype)


def _record(device: torch.device) -> torch.cuda.Event:
    """Record an event after the work of a device so far, which a thread sleeps to wait for."""
    return torch.cuda.current_stream(device).record_event(torch.cuda.Event(blocking=True))


def _to_host(memory: Tensor, ready: torch.cuda.Event) -> Tensor:
    """Return a block in main memory: wait for the copy of its tensors, and transfer it beside the training."""
    if memory.device.type == "cpu":
        ready.synchronize()
        return memory
    stream = _copy_stream(memory.device)
    with torch.cuda.stream(stream):
        stream.wait_event(ready)
        host = _pinned(memory.numel(), memory.dtype)
        host.copy_(memory, non_blocking=True)
    stream.synchronize()
    return host


def _pinned(length: int, dtype: torch.dtype) -> Tensor:
    """Allocate main memory that a GPU can write to directly, or ordinary memory where the system has none left."""
    try:
        return torch.empty(length, dtype=dtype, pin_memory=True)
    except RuntimeError:
        return torch.empty(length, dtype=dtype)


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    # One for all copies: torch has 32 streams in turn, and one of them may be in use by the capture of a graph.
    return torch.cuda.Stream(device)
