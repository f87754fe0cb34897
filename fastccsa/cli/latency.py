"""``fastccsa latency``: time exported models on the machine where they will run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click

from fastccsa.cli.options import MOST_BATCH, FiniteRange
from fastccsa.system.ranges import WORKERS

FILE = click.Path(path_type=Path, dir_okay=False)


class Size(click.ParamType):
    """A size in pixels, HEIGHTxWIDTH."""

    name = "HEIGHTxWIDTH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Return height and width."""
        found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", value)
        if found is None:
            self.fail(f"{value!r} is not HEIGHTxWIDTH in pixels, such as 450x600", param, ctx)
        return int(found[1]), int(found[2])


@click.command("latency")
@click.argument("files", type=FILE, nargs=-1, required=True)
@click.option("--batch", type=click.IntRange(1, MOST_BATCH), default=1, show_default=True, help="Images per call.")
@click.option(
    "--photograph",
    type=Size(),
    default="450x600",
    show_default=True,
    help="Size of the photographs, if the model resizes them.",
)
@click.option(
    "--threads",
    type=click.IntRange(0, int(WORKERS.high)),
    default=0,
    show_default=True,
    help="Threads of a call; 0 lets the runtime choose.",
)
@click.option(
    "--seconds", type=FiniteRange(0, 86_400), default=5.0, show_default=True, help="How long to repeat the call."
)
@click.option("--json", "json_path", type=FILE, help="Also write the figures, with facts about this machine, as JSON.")
def latency_command(
    files: tuple[Path, ...],
    batch: int,
    photograph: tuple[int, int],
    threads: int,
    seconds: float,
    json_path: Path | None,
) -> None:
    """Time exported models (.onnx, .pt2, .pte) on this machine's CPU: copy the files here, and nothing else.

    The time of a call includes the preprocessing that is part of the model, but not decoding the photograph.
    """
    import json
    from dataclasses import asdict

    import torch

    from fastccsa.export import measure
    from fastccsa.system import machine
    from fastccsa.system.files import write_atomically

    if threads:
        torch.set_num_threads(threads)
    found = []
    click.echo(f"{'median':>9} {'90 %':>9} {'fastest':>9}  ms per call")
    for file in files:
        latency = measure(file, batch=batch, photograph=photograph, threads=threads, seconds=seconds)
        found.append(latency)
        images = f"{latency.dtype} {'x'.join(map(str, latency.shape))}"
        click.echo(
            f"{latency.median:9.2f} {latency.p90:9.2f} {latency.fastest:9.2f}  {file} ({images}, {latency.calls} calls)"
        )
    if json_path is not None:
        facts = {"machine": machine.describe(torch.device("cpu")), "threads": threads}
        with write_atomically(json_path) as written:
            written.write_text(json.dumps(facts | {"latency": list(map(asdict, found))}, indent=2) + "\n")
        click.echo(f"Wrote {json_path}")
