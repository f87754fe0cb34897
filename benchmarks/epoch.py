"""How much of a run's time is training: the loop, an epoch and a whole run, against the bare network's step.

Trains A, a baseline on the primary domain, and K, the method that starts from it, on rendered images, and times their
parts. "Of the bare step" is the time that the bare network needs for as many images in batches of the same size (on
fixed images, captured as a CUDA graph where the runs are; measured before and after each run), divided by the time that
was needed:

* the loop: the training of an epoch, without what follows it,
* an epoch: training, validation and saving,
* the whole run: both trainings, from their first line to their last score, the crops of the images included.

The first epoch of each run is part of the whole run only: libraries initialise themselves in it. What a whole run
spends before its second epoch and after its last one does not depend on the number of epochs. Therefore the share that
a longer run would reach is computed, too: for the paper's numbers of epochs, of as many images as here, and of as many
as rendered collections of the paper's sizes have. The latter takes all times to be in proportion to the images, except
those of saving an epoch.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter, process_time
from types import SimpleNamespace
from typing import Any

import click
import torch

from benchmarks.bench_step import WARM_STEPS, _bare
from fastccsa.collections import Manifest, render_collections
from fastccsa.runs.config import BASELINE_EPOCHS, CCSA_EPOCHS, TrainConfig
from fastccsa.system import machine
from fastccsa.system.devices import amp_dtype, pick_device
from fastccsa.system.files import write_atomically
from fastccsa.training import loop, train

PARTS = ("training", "validation", "saving")
BARE_STEPS, BARE_SECONDS = 20, 1.0  # at least so many steps, and as long as a GPU's clock takes to settle


@dataclass
class Clock:
    """Seconds of the parts of each epoch of a run, and of the process's processors in them."""

    wall: dict[str, list[float]] = field(default_factory=lambda: {part: [] for part in PARTS})
    processors: dict[str, list[float]] = field(default_factory=lambda: {part: [] for part in PARTS})
    ends: list[float] = field(default_factory=list)
    images: list[float] = field(default_factory=list)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Time the parts of the training loop within the block."""
        names = {"train_one_epoch": "training", "validate": "validation", "finish_epoch": "saving"}
        before = {name: getattr(loop, name) for name in names}
        for name, part in names.items():
            setattr(loop, name, self._timed(part, before[name]))
        try:
            yield
        finally:
            for name, function in before.items():
                setattr(loop, name, function)

    def _timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            start, used = perf_counter(), process_time()
            result = function(*args)
            wall, processors = perf_counter() - start, process_time() - used
            if part == "saving":  # which calls the validation
                wall, processors = wall - self.wall["validation"][-1], processors - self.processors["validation"][-1]
                self.ends.append(perf_counter())
            if part == "training":
                self.images.append(result["seconds"] * result["images_per_second"])
            self.wall[part].append(wall)
            self.processors[part].append(processors)
            return result

        return timed


def main(options: SimpleNamespace) -> None:
    """Print the table of each size."""
    device = pick_device(options.device)
    on_gpu = device.type == "cuda"
    cache: Any = options.cache or ("gpu" if on_gpu else "ram")
    if options.threads:
        torch.set_num_threads(options.threads)
    gpu = f", {torch.cuda.get_device_name(device)}" if on_gpu else ""
    click.echo(f"torch {torch.__version__}, {torch.get_num_threads()} threads{gpu}")
    records: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        manifest = options.manifest or Path(folder, "images", "manifest.csv")
        if not options.manifest:
            start = perf_counter()
            render_collections(manifest.parent, scale=options.rendered, width=300, minimum=10)
            click.echo(f"rendering {len(Manifest.read(manifest))} images: {perf_counter() - start:.1f} s")
        for size in (int(size) for size in options.sizes.split(",")):
            shared: dict[str, Any] = {"checkpoint_share": options.share} if options.share is not None else {}
            config = TrainConfig(
                manifest=str(manifest), backbone=options.backbone, weights="none", size=size, device=options.device,
                batch_size=options.pairs[-1], cache=cache, amp=options.amp, cuda_graph=on_gpu,
                graph_steps=options.graph_steps,
                workers=options.workers or 0, alignment="-", n_sec=0, epochs=options.baseline_epochs,
                out=str(Path(folder, f"A{size}")), **shared,
            )  # fmt: skip
            after = replace(
                config, alignment="w", n_sec="all", init=config.out, out=str(Path(folder, f"K{size}")),
                epochs=options.epochs,
            )  # fmt: skip
            for record in measure(config, after, device, 1.0 if options.manifest else options.rendered):
                records.append(record)
                if options.out:
                    about = {"machine": machine.describe(device), "commit": machine.commit(), "records": records}
                    with write_atomically(options.out) as file:
                        file.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")


def measure(
    baseline: TrainConfig, after: TrainConfig, device: torch.device, rendered: float = 1.0
) -> Iterator[dict[str, Any]]:
    """Train both runs; print and yield the figures of the parts of each as soon as it has ended, and then of both.

    Args:
        baseline, after: the runs.
        device: where they train.
        rendered: the share of the paper's images that there are.
    """
    size, count = baseline.size, baseline.batch_size
    click.echo(f"\n{baseline.backbone}, {size} px, batches of {count} images (A) and {count} pairs (K), {device}")
    whole, bare_time, images, long, long_bare, full = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for name, config, rows in (("A", baseline, count), ("K", after, 2 * count)):
        before = bare_rate(config, rows, device)
        clock, start = Clock(), perf_counter()
        with clock.watch():
            train(config, progress=False)
        end = perf_counter()
        rates = (before, bare_rate(config, rows, device))
        bare = statistics.harmonic_mean(rates)
        record = report(name, clock, rates, start, end)
        yield {"size": size, "batch": count, "run": name, **record}
        epoch, saving = record["epoch_seconds"], record["saving_seconds"]
        further = (BASELINE_EPOCHS if name == "A" else CCSA_EPOCHS) - config.epochs
        long += end - start + further * epoch
        epochs = config.epochs + further
        full += (end - start + further * epoch - epochs * saving) / rendered + epochs * saving
        long_bare += (sum(clock.images) + further * statistics.median(clock.images)) / bare
        whole += end - start
        bare_time += sum(clock.images) / bare
        images += sum(clock.images)
    shares = {"A then K": bare_time / whole, "A then K, computed": long_bare / long}
    if rendered < 1:
        shares["A then K, computed for all images"] = long_bare / rendered / full
    click.echo(
        f"A then K: {images / whole:8.0f} images/s, {whole:.1f} s for {baseline.epochs} and {after.epochs} epochs: "
        f"{100 * shares['A then K']:.1f} % of the bare step"
    )
    click.echo(
        f"A then K: computed for {BASELINE_EPOCHS} and {CCSA_EPOCHS} epochs from the times of an epoch, {long:.0f} s: "
        f"{100 * shares['A then K, computed']:.1f} % of the bare step"
    )
    if rendered < 1:
        click.echo(
            f"A then K: computed for {1 / rendered:.3g} times as many images, as in the paper, {full:.0f} s: "
            f"{100 * shares['A then K, computed for all images']:.1f} % of the bare step"
        )
    for run, share in shares.items():
        yield {"size": size, "batch": count, "run": run, "share": share}


def report(name: str, clock: Clock, bare_rates: Sequence[float], start: float, end: float) -> dict[str, Any]:
    """Print and return the figures of a run; times are in seconds, those of an epoch without the first one."""
    images, bare = statistics.median(clock.images[1:]), statistics.harmonic_mean(bare_rates)
    training = statistics.median(clock.wall["training"][1:])
    epoch = (clock.ends[-1] - clock.ends[0]) / (len(clock.ends) - 1)
    found: dict[str, Any] = {"bare_images_per_second": list(bare_rates)}
    click.echo(
        f"{name}  bare step {bare:8.0f} images/s ({' before, '.join(f'{rate:.0f}' for rate in bare_rates)} after)"
    )
    for what, seconds in (("loop", training), ("epoch", epoch)):
        rate = images / seconds
        found |= {f"{what}_seconds": seconds, f"{what}_images_per_second": rate, f"{what}_share": rate / bare}
        click.echo(f"{name}  {what:9s} {rate:8.0f} images/s: {100 * rate / bare:.1f} % of the bare step")
    for part in PARTS:
        wall, processors = (statistics.median(times[part][1:]) for times in (clock.wall, clock.processors))
        found |= {f"{part}_seconds": wall, f"{part}_processor_seconds": processors}
        click.echo(f"{name}    {part:10s} {1000 * wall:8.1f} ms an epoch, processors {1000 * processors:8.1f} ms")
    first = clock.ends[0] - sum(clock.wall[part][0] for part in PARTS) - start
    parts = {
        "until the first step": first,
        "first epoch": clock.ends[0] - start - first,
        "further epochs": clock.ends[-1] - clock.ends[0],
        "afterwards": end - clock.ends[-1],
    }
    click.echo(f"{name}  whole run {end - start:.1f} s: {', '.join(f'{what} {s:.2f} s' for what, s in parts.items())}")
    return found | {"run_seconds": end - start, "parts_seconds": parts}


def bare_rate(config: TrainConfig, rows: int, device: torch.device) -> float:
    """Return the images per second of the bare network's steps on ``rows`` fixed images."""
    halves = torch.randn(rows, 3, config.size, config.size, device=device).chunk(2)
    batch = {"images1": halves[0], "images2": halves[1]}
    classes = len(Manifest.read(config.manifest).classes)
    step = _bare(config, classes, batch, device, amp_dtype(config.amp, device))
    for _ in range(WARM_STEPS):
        step()
    seconds, steps = 0.0, 0
    while seconds < BARE_SECONDS or steps < BARE_STEPS:
        start = perf_counter()
        for _ in range(10 if device.type == "cuda" else 1):
            step()
            steps += 1
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds += perf_counter() - start
    return rows * steps / seconds
