"""How many tiles of pairs bounds could leave out before the first product, with the features of finished runs.

The GPU kernels of the loss over all pairs multiply every tile of rows of different classes, and leave out the second
product where all pairs of the tile are beyond the margin. The triangle inequality would leave out the first one too,
where the centres of both sides of the tile are farther apart than the margin and both radii. This counts both kinds of
tiles, on the CPU, for the test images of each run with themselves, in the order of their classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import click
import pandas as pd
import torch
from torch import Tensor

from fastccsa.evaluation import Outputs
from fastccsa.runs.folder import OUTPUTS_FILE

TILES = (128, 64, 16)  # rows on both sides; the kernels have 128
MARGINS = (1.2, 1.0, 0.5, 0.25, 0.1)  # of the median distance of pairs of different classes; 1.2 is a run's default
SHARES = ["pairs beyond", "tiles beyond", "tiles by bounds"]


def main(options: SimpleNamespace) -> None:
    """Print the shares of the runs, and their means."""
    if not options.run:
        raise click.UsageError("name runs with test outputs: --run RUN")
    torch.set_num_threads(options.threads)
    found = []
    for run in options.run:
        outputs = Outputs.read(run / OUTPUTS_FILE)
        features, classes = torch.from_numpy(outputs.features).double(), torch.from_numpy(outputs.targets)
        if len(features) < max(TILES):
            raise click.UsageError(f"{run} has {len(features)} test images; a tile has {max(TILES)}")
        found += [{"run": str(run), **row} for row in count_tiles(features, classes)]
    shares = pd.DataFrame(found)
    click.echo(f"Shares in %, of pairs of different classes and of the tiles that have any; {len(options.run)} runs.")
    for name, part in [*shares.groupby("run", sort=False)] + ([("all runs", shares)] if len(options.run) > 1 else []):
        mean = part.groupby(["tile", "margin"], sort=False)[SHARES].mean()
        click.echo(f"\n{name}\n{(100 * mean).round(2).to_string()}")


def count_tiles(features: Tensor, classes: Tensor) -> Iterator[dict[str, float]]:
    """Yield, for each size of a tile and margin, the share of pairs and of tiles that are beyond it.

    Args:
        features: [N, D].
        classes: [N].
    """
    order = classes.argsort(stable=True)
    features, classes = features[order], classes[order]
    distance = torch.cdist(features, features)
    differ = classes[:, None] != classes
    median = distance[differ].median()
    nearest_first = torch.where(differ, distance, torch.inf)
    for tile in TILES:
        count = len(features) // tile
        rows = features[: count * tile].unflatten(0, (count, tile))
        centre = rows.mean(1)
        radius = (rows - centre[:, None]).norm(dim=2).amax(1)
        bound = torch.cdist(centre, centre) - radius[:, None] - radius
        nearest = nearest_first[: count * tile, : count * tile].unflatten(0, (count, tile)).amin(1)
        nearest = nearest.unflatten(1, (count, tile)).amin(2)
        counts = nearest < torch.inf  # tiles of pairs of one class are left out anyway
        for margin in MARGINS:
            beyond = [distance[differ], nearest[counts], bound[counts]]
            shares = [float((values >= margin * median).double().mean()) for values in beyond]
            yield {"tile": tile, "margin": margin, **dict(zip(SHARES, shares, strict=True))}
