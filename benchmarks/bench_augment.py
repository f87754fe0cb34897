"""The device kernel of the augmentation compared with a copy of as many bytes, and a training step that it feeds.

The kernel makes one batch of finished images from a store of crops in the device's memory. Its floor copies as many
bytes as the kernel reads from windows and writes to images. On CUDA both are replayed as CUDA graphs, so that they take
the time of the GPU. The step trains a ResNet-18 in bfloat16 (autocast, AdamW,
channels last) with a new batch from the kernel each time; its floor uses the same batch each time.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from benchmarks.harness import benchmark
from benchmarks.harness.graphs import captured
from benchmarks.harness.results import FLOOR, OURS, Row
from fastccsa.images import Transforms
from fastccsa.images.augment import augment, pack_views

T = Transforms()
CLASSES = 7
BATCHES = 16  # of different views, in turn
BEYOND_CACHES = 1 << 28  # bytes
STEP = "training step"


@dataclass(frozen=True)
class Cell:
    """Finished images of a dtype and a layout, or a training step."""

    dtype: str
    layout: str
    batch: int

    @property
    def title(self) -> str:
        return f"{self.layout}, {self.dtype}, batches of {self.batch}"


class Benchmark(benchmark.Benchmark):
    """Measures the kernel on a store of noise."""

    def cells(self) -> list[Cell]:
        batch = self.options.batch or (256 if self.device.type == "cuda" else 8)
        layouts = ("contiguous_format", "channels_last")
        dtypes = self.options.dtype or ("float32", "bfloat16")
        images = [Cell(dtype, layout, batch) for dtype in dtypes for layout in layouts]
        return images if self.options.dtype else [*images, Cell("bfloat16", STEP, batch)]

    def names(self) -> Sequence[str]:
        return ("fastccsa", "floor")

    @cached_property
    def store(self) -> Tensor:
        """The store: crops of noise."""
        crops = self.options.crops or (4096 if self.device.type == "cuda" else 16)
        return torch.randint(0, 256, (crops, T.crop, T.crop, 3), dtype=torch.uint8, device=self.device)

    def measure(self, cell: Cell, names: Sequence[str]) -> list[Row]:
        views = [T.draw(0, number, np.arange(cell.batch), 1) for number in range(BATCHES)]
        crops = np.random.default_rng(0).integers(0, len(self.store), cell.batch)
        packed = itertools.cycle([pack_views(crops, view).to(self.device) for view in views])
        read = sum(3 * int(np.prod(view.window[:, 2:], axis=1).sum()) for view in views) // BATCHES
        step = cell.layout == STEP
        layout = torch.channels_last if step else getattr(torch, cell.layout)
        images = torch.empty(
            (cell.batch, 3, T.size, T.size), dtype=getattr(torch, cell.dtype), device=self.device, memory_format=layout
        )
        moved = read + images.numel() * images.element_size()

        def fill() -> Tensor:
            return augment(self.store, next(packed), T, out=images)

        constant = fill().clone(memory_format=torch.preserve_format)
        if step:
            calls = {"fastccsa": self._step(fill, cell.batch), "floor": self._step(lambda: constant, cell.batch)}
        else:
            calls = {"fastccsa": fill, "floor": self._copy(moved)}
            if self.device.type == "cuda":
                calls = {name: captured(call, BATCHES) for name, call in calls.items()}
        extra = {} if step else {"bytes_moved": moved}
        rows = [Row(name, OURS if name == "fastccsa" else FLOOR, extra=extra) for name in names]
        self.race([(row, self.calls(calls[row.contestant])) for row in rows])
        return rows

    def _copy(self, count: int) -> Callable[[], object]:
        """Make a call that reads and writes ``count`` bytes in total, in buffers larger than the caches."""
        half, at = count // 2, 0
        source = torch.zeros(max(BEYOND_CACHES, 4 * half), dtype=torch.uint8, device=self.device)
        to = source.clone()

        def run() -> None:
            nonlocal at
            at = at + half if at + 2 * half <= len(source) else 0
            to[at : at + half].copy_(source[at : at + half])

        return run

    def _step(self, images: Callable[[], Tensor], batch: int) -> Callable[[], object]:
        device = self.device
        torch.manual_seed(0)
        model = resnet18(num_classes=CLASSES).to(device, memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=device.type == "cuda")
        target = torch.arange(batch, device=device) % CLASSES

        def run() -> None:
            optimizer.zero_grad(set_to_none=True)
            with torch.autocast(device.type, torch.bfloat16):
                loss = nn.functional.cross_entropy(model(images()), target)
            loss.backward()
            optimizer.step()

        return run


def test_augment(report):
    report()
