"""``fastccsa bench step``: a step of training beside plain PyTorch, and beside the bare network."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import click

from fastccsa.cli.bench_options import FILE, about


@click.command("step")
@click.option("--manifest", type=click.Path(path_type=Path, exists=True), help="Images.  [default: rendered ones]")
@click.option("--backbone", default="resnet18", show_default=True, help="A torchvision classification network.")
@click.option("--size", type=click.IntRange(min=8), default=64, show_default=True, help="Side of the images, pixels.")
@click.option("--pairs", "-n", type=click.IntRange(min=2), default=32, show_default=True, help="Pairs of a batch.")
@click.option(
    "--cache",
    type=click.Choice(["none", "disk", "ram", "gpu"]),
    default="ram",
    show_default=True,
    help="Where fastccsa's images come from; plain PyTorch decodes files.",
)
@click.option("--amp", type=click.Choice(["auto", "none", "bfloat16"]), default="auto", show_default=True)
@click.option(
    "--compile/--no-compile", default=False, show_default=True, help="fastccsa and the bare network compiled."
)
@click.option(
    "--cuda-graph/--no-cuda-graph",
    default=False,
    show_default=True,
    help="The steps of fastccsa and the bare network as CUDA graphs; with --cache gpu.",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option("--workers", type=click.IntRange(min=1), help="Of each input pipeline.  [default: the CPUs, at most 16]")
@click.option("--rounds", type=click.IntRange(min=1), default=7, show_default=True, help="Turns of each contestant.")
@click.option("--steps", type=click.IntRange(min=1), default=20, show_default=True, help="Timed steps of a turn.")
@click.option("--plain/--no-plain", default=True, show_default=True, help="Measure plain PyTorch too.")
@click.option("--out", type=FILE, help="JSON of the times, the machine and the versions.")
def step_command(
    manifest: Path | None,
    backbone: str,
    size: int,
    pairs: int,
    cache: str,
    amp: str,
    compile: bool,
    cuda_graph: bool,
    device: str,
    workers: int | None,
    rounds: int,
    steps: int,
    plain: bool,
    out: Path | None,
) -> None:
    """A step of training: fastccsa's loop, the same method in plain PyTorch, and the floor, the bare network's step.

    The contestants take turns; medians are printed, and the parts of fastccsa's step.
    """
    import torch
    from tqdm import tqdm

    from fastccsa.benchmarking.step import measure
    from fastccsa.collections import Manifest, render_collections
    from fastccsa.system.devices import pick_device
    from fastccsa.system.machine import usable_cpus
    from fastccsa.training import TrainConfig

    beginning = about(pick_device(device)) | {"threads": torch.get_num_threads()}
    with tempfile.TemporaryDirectory() as folder:
        if manifest is None:
            render_collections(folder, scale=0.02, width=600)
            manifest = Path(folder) / "manifest.csv"
        config = TrainConfig(
            manifest=str(manifest),
            backbone=backbone,
            weights="none",
            size=size,
            batch_size=pairs,
            cache=cache,  # type: ignore[arg-type]
            amp=amp,  # type: ignore[arg-type]
            compile=compile,
            cuda_graph=cuda_graph,
            device=device,
            workers=workers or min(16, usable_cpus()),
        )
        with tqdm(total=rounds, unit="round", disable=None) as bar:
            times = measure(config, Manifest.read(manifest), rounds, steps, plain, bar.update)
    click.echo(times.table())
    if out is not None:
        times.write(out, beginning | {"config": json.loads(config.to_json())})
