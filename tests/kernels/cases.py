"""Calls of the zipped loss, encoded for a program that runs kernels (cases.h), whose results are decoded."""

from __future__ import annotations

import math
import os
import struct
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

# In the order of the C++ enums.
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
REDUCTIONS = ("none", "mean", "sum", "weighted_mean")
ORDERS = ("forward", "reverse", "random")
GRADIENTS = ("gradient of logits1", "gradient of logits2", "gradient of features1", "gradient of features2")
FAULTS = (None, "target1", "target2", "class_weight1", "class_weight2", "pair_weight")

SANITIZER_OPTIONS = {
    "ASAN_OPTIONS": "detect_leaks=0",  # the search for leaks fails where processes may not be traced
    "UBSAN_OPTIONS": "print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1",
}


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of sums, of the loss, its terms and the weights."""
    return torch.float64 if dtype == torch.float64 else torch.float32


@dataclass(frozen=True)
class Schedule:
    """How the work is scheduled: the emulator's order of blocks, warps and threads, and the number of processors."""

    order: str = "forward"
    seed: int = 0
    processors: int = 1


@dataclass(frozen=True)
class Call:
    """Forward and backward pass of the loss; `grad_loss` and `grad_terms` are the upstream gradients."""

    name: str
    dtype: torch.dtype
    logits: tuple[Tensor | None, Tensor | None]
    features: tuple[Tensor | None, Tensor | None]
    targets: tuple[Tensor | None, Tensor | None]
    class_weights: tuple[Tensor | None, Tensor | None]
    pair_weight: Tensor | None
    grad_loss: Tensor | None
    grad_terms: Tensor | None
    reduction: str = "mean"
    margin: float = 12.0
    alpha: float = 0.3
    needs_grad: tuple[bool, bool, bool, bool] = (True, True, True, True)
    left: bool = False  # the forward pass leaves the gradients of the features for the backward pass
    run_length: int = 0  # pairs of a warp on CUDA; 0: as for a GPU
    schedule: Schedule = Schedule()

    @property
    def inputs(self) -> tuple[Tensor | None, ...]:
        """The differentiable inputs."""
        return (*self.logits, *self.features)

    @property
    def pairs(self) -> int:
        return next(x.shape[0] for x in self.inputs if x is not None)

    @property
    def sizes(self) -> tuple[int, int]:
        """The number of classes (of the logits) and the width of the features; 0 where there are none."""
        classes, _, width, _ = (0 if x is None else x.shape[1] for x in self.inputs)
        return classes, width

    @property
    def acc(self) -> torch.dtype:
        return accumulator(self.dtype)


@dataclass(frozen=True)
class Result:
    kernel: str
    fault: tuple[str | None, int, int]  # which argument, row, value
    loss: Tensor
    terms: Tensor
    saved: Tensor
    gradients: tuple[Tensor | None, ...]

    def tensors(self) -> dict[str, Tensor]:
        gradients = {name: g for name, g in zip(GRADIENTS, self.gradients, strict=True) if g is not None}
        return {"loss": self.loss, "terms": self.terms, **gradients}


# ---- making calls ----

# A memory layout: a function that returns an equal matrix with that layout.
Layout = Callable[[Tensor], Tensor]


def row_padded(x: Tensor) -> Tensor:
    """Return a matrix whose rows have a gap of one element between them."""
    return torch.nn.functional.pad(x, (0, 1))[:, : x.shape[1]]


def row_aligned(x: Tensor) -> Tensor:
    """Return a matrix whose rows have gaps between them, and begin at multiples of 16 bytes."""
    step = 16 // x.element_size()
    return torch.nn.functional.pad(x, (0, 2 * step - x.shape[1] % step))[:, : x.shape[1]]


def shifted(x: Tensor) -> Tensor:
    """Return a matrix that begins at the second element of its storage."""
    return torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape)


def column_major(x: Tensor) -> Tensor:
    return x.t().contiguous().t()


def every_other(x: Tensor) -> Tensor:
    """Return a view of every other row and every other column."""
    return x.repeat_interleave(2, 0).repeat_interleave(2, 1)[::2, ::2]


def as_it_is(x: Tensor) -> Tensor:
    return x


LAYOUTS: tuple[Layout, ...] = (as_it_is, row_padded, row_aligned, shifted, column_major, every_other)


def make_call(
    pairs: int,
    classes: int,
    width: int,
    dtype: torch.dtype = torch.float32,
    *,
    reduction: str = "mean",
    layouts: tuple[Layout, Layout] = (as_it_is, as_it_is),
    weighted: bool = True,
    streams: int = 2,
    seed: int = 0,
) -> Call:
    """Return a random call. `streams` of the two streams have logits; with `width` 0 there are no features."""
    random = torch.Generator().manual_seed(seed)
    acc = accumulator(dtype)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(shape, generator=random, dtype=torch.float64)

    margin = 12.0
    logits = [layouts[k]((3 * normal(pairs, classes)).to(dtype)) if k < streams else None for k in range(2)]
    features: list[Tensor | None] = [None, None]
    if width > 0:
        # With this spread, some distances are within the margin and some beyond; one is 0, and one equals the margin.
        spread = margin / math.sqrt(2 * width)
        values = [(spread * normal(pairs, width)).to(dtype) for _ in range(2)]
        values[1][: pairs // 8] = values[0][: pairs // 8]
        if pairs > 1:
            values[0][-1] = values[1][-1] = 0
            values[0][-1, 0] = margin
        features = [layout(x) for layout, x in zip(layouts, values, strict=True)]
    targets = [torch.randint(classes, (2 * pairs,), generator=random)[::2] for _ in range(2)]
    each = reduction == "none"
    name = f"{pairs} pairs, {classes} classes, width {width}, {dtype}, {reduction}, {streams} streams"
    name += f", {layouts[0].__name__} and {layouts[1].__name__}" + (", weighted" if weighted else "")
    return Call(
        name=name,
        dtype=dtype,
        logits=(logits[0], logits[1]),
        features=(features[0], features[1]),
        targets=(targets[0], targets[1] if streams == 2 or width > 0 else None),
        class_weights=tuple(uniform(2 * classes).to(acc)[::2] if weighted and x is not None else None for x in logits),
        pair_weight=uniform(classes, classes).to(acc).t() if weighted and width > 0 else None,
        grad_loss=uniform(pairs).to(acc) if each else uniform().to(acc),
        grad_terms=uniform(pairs, 4).to(acc).t() if each else uniform(4).to(acc),
        reduction=reduction,
        margin=margin,
    )


# ---- the program's input and output ----


@dataclass(frozen=True)
class Kernels:
    """A program that runs kernels, and its environment variables."""

    program: Path
    environment: dict[str, str] = field(default_factory=dict)

    def run(self, calls: Sequence[Call]) -> list[Result]:
        """Run `calls` in one process; an error that a sanitizer or the emulator reports fails the test."""
        request = b"".join(_encode(call) for call in calls)
        environment = {**os.environ, **SANITIZER_OPTIONS, **self.environment}
        done = subprocess.run([self.program], input=request, capture_output=True, env=environment)
        if done.returncode != 0:
            message = done.stderr.decode()
            pytest.fail(f"{self.program.name} ended with {done.returncode}:\n{message[-8000:]}", pytrace=False)
        answer = _Reader(done.stdout)
        return [_decode(call, answer) for call in calls]


def _encode(call: Call) -> bytes:
    name = f"{call.name}; {call.schedule}".encode()
    classes, width = call.sizes
    labels = classes if call.pair_weight is None else call.pair_weight.shape[0]
    needs_grad = sum(1 << k for k, x in enumerate(call.inputs) if x is not None and call.needs_grad[k])
    numbers = (
        DTYPES.index(call.dtype), call.pairs, classes, labels, width, REDUCTIONS.index(call.reduction), needs_grad,
        int(call.left), call.run_length,
        ORDERS.index(call.schedule.order), call.schedule.seed, call.schedule.processors,
    )  # fmt: skip
    tensors = (*call.logits, *call.features, *call.targets, *call.class_weights)
    tensors += (call.pair_weight, call.grad_loss, call.grad_terms)
    head = struct.pack("<q", len(name)) + name + struct.pack("<12q2d", *numbers, call.margin, call.alpha)
    return head + b"".join(map(encode_view, tensors))


def encode_view(x: Tensor | None) -> bytes:
    if x is None:
        return struct.pack("<4q", -1, 0, 0, 0)
    last = x.storage_offset() + sum((n - 1) * stride for n, stride in zip(x.shape, x.stride(), strict=True))
    elements = torch.as_strided(x, (last + 1 if x.numel() > 0 else 0,), (1,), 0)
    storage = elements.view(torch.uint8).numpy().tobytes()
    strides = (*x.stride(), 0, 0)[:2]
    return struct.pack("<4q", len(storage), x.storage_offset(), *strides) + storage


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self._position = data, 0

    def block(self) -> bytes:
        begin = self._position + 8
        (size,) = struct.unpack_from("<q", self._data, self._position)
        self._position = begin + size
        return self._data[begin : self._position]

    def tensor(self, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        data = bytearray(self.block())
        return torch.frombuffer(data, dtype=dtype).reshape(shape) if data else torch.empty(shape, dtype=dtype)


def _decode(call: Call, answer: _Reader) -> Result:
    kernel = answer.block().decode()
    fault, row, value = struct.unpack("<3q", answer.block())
    each = (call.pairs,) if call.reduction == "none" else ()
    return Result(
        kernel=kernel,
        fault=(FAULTS[fault], row, value),
        loss=answer.tensor(call.acc, each),
        terms=answer.tensor(call.acc, (4, *each)),
        saved=answer.tensor(call.acc, (-1,)),
        gradients=tuple(
            answer.tensor(call.dtype, tuple(x.shape)) if x is not None and call.needs_grad[k] else _nothing(answer)
            for k, x in enumerate(call.inputs)
        ),
    )


def _nothing(answer: _Reader) -> None:
    assert answer.block() == b"", "the program returned a gradient that was not requested"
