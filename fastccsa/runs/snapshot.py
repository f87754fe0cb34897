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

    Tensors are copied in the memory of their own device, in the order of its work, so that later steps do not change
    the copies. Tensors of one device and dtype share one block of memory, so that a GPU needs a few kernels for all of
    them, and one transfer. If a GPU has no room for them, they are copied to main memory at once, which waits for it.

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
        self._blocks: list[tuple[Tensor, dict[int, _Layout]]] = []
        for (device, dtype), numbers in groups.items():
            self._copy([tensors[number] for number in numbers], numbers, dtype, device)
        devices = {block.device for block, _ in self._blocks if block.device.type == "cuda"}
        self._ready = {device: torch.cuda.current_stream(device).record_event() for device in devices}

    def _copy(self, tensors: list[Tensor], numbers: list[int], dtype: torch.dtype, device: torch.device) -> None:
        length = sum(tensor.numel() for tensor in tensors)
        try:
            block = torch.empty(length, dtype=dtype, device=device)
        except torch.OutOfMemoryError:
            block = torch.empty(length, dtype=dtype)
        layouts, start = {}, 0
        for number, tensor in zip(numbers, tensors, strict=True):
            # The strides of a clone, such as those of channels-last.
            layouts[number] = _Layout(tensor.shape, torch.empty_like(tensor, device="meta").stride(), start)
            start += tensor.numel()
        with torch.no_grad():
            torch._foreach_copy_([block.as_strided(*layout) for layout in layouts.values()], tensors)
        self._blocks.append((block, layouts))

    def on_host(self) -> Any:
        """Return the content, with its tensors in main memory; it waits for a GPU. Any thread may call it."""
        found: dict[int, Tensor] = {}
        for block, layouts in self._blocks:
            host = block if block.device.type == "cpu" else _to_host(block, self._ready[block.device])
            found |= {number: host.as_strided(*layout) for number, layout in layouts.items()}
        return replace_leaves(self._content, _Place, found.__getitem__)


def _to_host(block: Tensor, ready: torch.cuda.Event) -> Tensor:
    """Copy a block to main memory on a stream of its own, beside the work of the training."""
    stream = _copy_stream(block.device)
    with torch.cuda.stream(stream):
        stream.wait_event(ready)
        host = _pinned(block)
        host.copy_(block, non_blocking=True)
    stream.synchronize()
    return host


def _pinned(like: Tensor) -> Tensor:
    """Allocate main memory that a GPU can write to directly, or ordinary memory where the system has none left."""
    try:
        return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)
    except RuntimeError:
        return torch.empty(like.shape, dtype=like.dtype)


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    # One for all copies: torch has 32 streams in turn, and one of them may be in use by the capture of a graph.
    return torch.cuda.Stream(device)
