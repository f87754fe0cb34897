"""The device kernel of augmentation beside the copy bandwidth, and a training step that it feeds beside an unfed one.

    python benchmarks/bench_augment.py --device cuda
    python benchmarks/bench_augment.py --device cpu --batch 8 --crops 16 --rounds 3       the CPU's kernel

One line of JSON a measurement, taken in turns within each round, medians over the rounds:
    kernel   one batch of finished images from a store of crops in the device's memory; `of_copy` is its speed in parts
             of a copy's: the bytes of the windows read and of the images written, over its time, over the bandwidth of
             copying as many bytes from one buffer to another in the same run
    step     a ResNet-18 training step in bfloat16 (autocast, AdamW, channels last): `constant` on one tensor again and
             again, `fed` on a new batch from the kernel each time, `extra` their ratio less 1
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import resnet18

from fastccsa.benchmarking.timing import interleaved
from fastccsa.images import Transforms
from fastccsa.images.augment import augment, pack_views

CLASSES = 7
BATCHES = 16  # of different views, in turn


class Turns:
    """Batches of views, one after the other."""

    def __init__(self, transforms: Transforms, batch: int, crops: int, device: torch.device) -> None:
        self.packed = []
        rng = np.random.default_rng(0)
        read = 0
        for number in range(BATCHES):
            views = transforms.draw(0, number, np.arange(batch), 1)
            read += 3 * int(np.prod(views.window[:, 2:], axis=1).sum())
            self.packed.append(pack_views(rng.integers(0, crops, batch), views).to(device))
        self.bytes_read = read // BATCHES
        self._next = 0

    def next(self) -> Tensor:
        self._next = (self._next + 1) % BATCHES
        return self.packed[self._next]


def copying(count: int, device: torch.device) -> Callable[[], object]:
    """Reads and writes ``count`` bytes together, walking through buffers beyond the caches."""
    half = count // 2
    source = torch.zeros(max(1 << 28, 4 * half), dtype=torch.uint8, device=device)
    to, at = source.clone(), 0

    def run() -> None:
        nonlocal at
        at = at + half if at + 2 * half <= len(source) else 0
        to[at : at + half].copy_(source[at : at + half])

    return run


def training_step(images: Callable[[], Tensor], batch: int, device: torch.device) -> Callable[[], object]:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--crops", type=int, default=4096, help="in the store; 270 kB each")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seconds", type=float, default=20.0, help="budget of each of the two measurements")
    options = parser.parse_args()
    device = torch.device(options.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    synchronize = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    transforms = Transforms()
    shape = (options.crops, transforms.crop, transforms.crop, 3)
    store = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    turns = Turns(transforms, options.batch, options.crops, device)

    calls: dict[str, Callable[[], object]] = {}
    moved: dict[str, int] = {}
    for dtype in (torch.float32, torch.bfloat16):
        for layout in (torch.contiguous_format, torch.channels_last):
            size = (options.batch, 3, transforms.size, transforms.size)
            out = torch.empty(size, dtype=dtype, device=device, memory_format=layout)
            key = f"{dtype} {layout}".replace("torch.", "")
            calls[key] = lambda out=out: augment(store, turns.next(), transforms, out=out)
            moved[key] = turns.bytes_read + out.numel() * out.element_size()
            calls[f"copy {moved[key]}"] = copying(moved[key], device)
    for call in calls.values():
        call()
    times = interleaved(calls, options.rounds, options.seconds, synchronize)
    for key, count in moved.items():
        seconds, copied = (statistics.median(times[which].seconds) for which in (key, f"copy {count}"))
        line = {"measured": "kernel", "device": name, "batch": options.batch, "images": key, "seconds": seconds}
        line |= {"GB_per_second": count / seconds / 1e9, "copy_GB_per_second": count / copied / 1e9}
        print(json.dumps(line | {"of_copy": round(copied / seconds, 3)}), flush=True)

    bf16 = augment(store, turns.next(), transforms, torch.bfloat16, channels_last=True)
    constant = bf16.clone(memory_format=torch.preserve_format)
    steps = {
        "constant": training_step(lambda: constant, options.batch, device),
        "fed": training_step(lambda: augment(store, turns.next(), transforms, out=bf16), options.batch, device),
    }
    for step in steps.values():
        for _ in range(3):
            step()
    times = interleaved(steps, options.rounds, options.seconds, synchronize)
    seconds = {key: statistics.median(times[key].seconds) for key in steps}
    line = {"measured": "step", "device": name, "batch": options.batch, **seconds}
    print(json.dumps(line | {"extra": round(seconds["fed"] / seconds["constant"] - 1, 4)}), flush=True)


if __name__ == "__main__":
    main()
