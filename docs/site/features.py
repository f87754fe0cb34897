"""Draw what training with CCSA does to the features of test images: docs/pictures/features.svg.

    python docs/site/features.py --before runs/A/seed0 --after runs/K/seed0

reads the test outputs of two run folders, the second of which started from the first. Above are the two principal
components of the features before and after, below the distances between images of different domains. The commands
that make these runs are in docs/results/method.md, under "Rendered collections".
"""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

import click
import numpy as np
import numpy.typing as npt

from fastccsa.evaluation import Outputs
from fastccsa.evaluation.distances import PairDistances, balanced_part, cross_domain_distances
from fastccsa.runs.config import TrainConfig

ROOT = Path(__file__).resolve().parents[2]
PICTURE = ROOT / "docs" / "pictures" / "features.svg"
PER_GROUP = 30  # images per domain and class, as in the report
BINS = 60
DEFAULT_HOME = "HAM"

WIDTH, HEIGHT = 720, 630
PANEL, GAP, LEFT = 330, 20, 20  # width of a column, space between the two, left edge of the first
LEGEND, HEADINGS = 28, 96  # baselines of the text
SCATTER, SCATTER_HEIGHT = 110, 250  # top and height of the upper panels
HISTOGRAM, HISTOGRAM_HEIGHT = 432, 145  # top and height of the lower panels

# The picture has its own background, because the same file is shown on light and on dark pages.
STYLE = """
svg { --page: #ffffff; --ink: #1b1f24; --muted: #59636e; --grid: #d1d9e0; --same: #1a7f5a; --other: #c2541b;
  --c0: #2a78d6; --c1: #d9541e; --c2: #1a9a6c; --c3: #c98a00; --c4: #6a4fc8; --c5: #d64a8a; --c6: #0e8fa8; }
@media (prefers-color-scheme: dark) {
svg { --page: #15191f; --ink: #e8ecf1; --muted: #9aa5b1; --grid: #3a424c; --same: #49c394; --other: #f0925c;
  --c0: #62a3f2; --c1: #f0804e; --c2: #3fc092; --c3: #e0ab3a; --c4: #a995f5; --c5: #f07fb4; --c6: #41bdd4; } }
text { font: 15px system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; fill: var(--muted); }
.head { font-size: 18px; font-weight: 600; fill: var(--ink); }
.frame { fill: none; stroke: var(--grid); }
.home { fill: none; stroke-width: 1.6; }
.seen { fill: none; stroke-width: 6.5; stroke-linecap: round; }
"""
COLOURS = 7


@click.command()
@click.option("--before", type=click.Path(path_type=Path), required=True, help="Run folder of the baseline.")
@click.option("--after", type=click.Path(path_type=Path), required=True, help="Run folder that started from it.")
@click.option("--out", type=click.Path(path_type=Path), default=PICTURE, show_default=True, help="Picture to write.")
def main(before: Path, after: Path, out: Path) -> None:
    """Draw the features of two runs."""
    config = TrainConfig.read(after)
    moments = [balanced_part(Outputs.read(run / "test_outputs.safetensors"), PER_GROUP) for run in (before, after)]
    names = moments[1].domain_names
    home = config.primary or (DEFAULT_HOME if DEFAULT_HOME in names else names[0])
    out.write_text(draw(*moments, home=home, unseen=config.exclude), encoding="utf-8")
    click.echo(f"Wrote {out}: {len(moments[1])} images, {out.stat().st_size:,} bytes")


def draw(before: Outputs, after: Outputs, *, home: str, unseen: tuple[str, ...] = ()) -> str:
    """Return the picture of the same images' features before and after a training, as SVG text.

    Args:
        before, after: outputs of the two networks, of the same images.
        home: the domain that the first network was trained on.
        unseen: domains that neither network was trained on.
    """
    distances = [cross_domain_distances(outputs) for outputs in (before, after)]
    every = np.concatenate([values for pairs in distances for values in (pairs.same, pairs.different)])
    edges = np.linspace(0, float(np.quantile(every, 0.99)), BINS + 1)
    parts = [legend(after.classes, home, unseen)]
    for column, (title, outputs, pairs) in enumerate(
        zip(("Before: baseline", "After: CCSA"), (before, after), distances, strict=True)
    ):
        left = LEFT + column * (PANEL + GAP)
        parts += [
            f'<text class="head" x="{left}" y="{HEADINGS}">{title}</text>',
            f'<g transform="translate({left} {SCATTER})">{scatter(outputs, home, unseen)}</g>',
            f'<g transform="translate({left} {HISTOGRAM})">{histograms(pairs, edges)}</g>',
        ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="Features of {len(after)} test images before and after training with CCSA">\n'
        f"<style>{STYLE}</style>\n"
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="10" fill="var(--page)"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def legend(classes: tuple[str, ...], home: str, unseen: tuple[str, ...]) -> str:
    """Explain the colours and the marks, in two lines."""
    parts, x = [], LEFT
    for number, name in enumerate(classes):
        parts.append(f'<circle cx="{x + 5}" cy="{LEGEND - 5}" r="5" fill="var(--c{number % COLOURS})"/>')
        parts.append(f'<text x="{x + 15}" y="{LEGEND}">{escape(name)}</text>')
        x += 30 + 9 * len(name)
    y, x = LEGEND + 26, LEFT
    marks = [(ring, f"{home}, home"), (dot, "other domains"), (triangle, f"{', '.join(unseen)}, in no training")]
    for mark, text in marks if unseen else marks[:2]:
        kind = {ring: "home", dot: "seen", triangle: "unseen"}[mark]
        parts.append(f'<path class="{kind}" d="{mark(x + 5, y - 5)}" {paint(kind, "var(--ink)")}/>')
        parts.append(f'<text x="{x + 15}" y="{y}">{escape(text)}</text>')
        x += 45 + 8 * len(text)
    return "".join(parts)


def scatter(outputs: Outputs, home: str, unseen: tuple[str, ...]) -> str:
    """Draw the two principal components of the features; one path for each class and kind of domain."""
    features = outputs.features.astype(np.float64)
    points, share = principal_components(features)
    low, high = points.min(axis=0), points.max(axis=0)
    room = np.array([PANEL, SCATTER_HEIGHT])
    scale = float(((room - 24) / np.maximum(high - low, 1e-12)).min())  # one for both axes
    places = (points - (low + high) / 2) * scale * [1, -1] + room / 2
    names = np.array(outputs.domain_names)[outputs.domains]
    kinds = np.where(names == home, "home", np.where(np.isin(names, unseen), "unseen", "seen"))
    parts = [f'<rect class="frame" width="{PANEL}" height="{SCATTER_HEIGHT}" rx="4"/>']
    for kind, mark in (("seen", dot), ("home", ring), ("unseen", triangle)):
        for number in range(len(outputs.classes)):
            chosen = places[(kinds == kind) & (outputs.targets == number)]
            if len(chosen):
                path = "".join(mark(round(x), round(y)) for x, y in chosen)
                parts.append(f'<path class="{kind}" d="{path}" {paint(kind, f"var(--c{number % COLOURS})")}/>')
    parts.append(f'<text x="0" y="{SCATTER_HEIGHT + 20}">PCA, {100 * share:.0f} % of the variance</text>')
    return "".join(parts)


def principal_components(features: npt.NDArray[np.float64]) -> tuple[npt.NDArray[np.float64], float]:
    """Return the first two principal components, [n, 2], and their share of the variance."""
    centred = features - features.mean(axis=0)
    left, values, right = np.linalg.svd(centred, full_matrices=False)
    signs = np.sign(right[:2, np.abs(right[:2]).argmax(axis=1)].diagonal())  # the same on every machine
    return left[:, :2] * values[:2] * signs, float((values[:2] ** 2).sum() / (values**2).sum())


def histograms(pairs: PairDistances, edges: npt.NDArray[np.float64]) -> str:
    """Draw the distances between images of different domains, of one class and of two, with their medians."""
    parts = []
    kinds = (("one class", pairs.same, "same"), ("two classes", pairs.different, "other"))
    densities = [np.histogram(values, edges)[0] / max(len(values), 1) for _, values, _ in kinds]
    scale = (HISTOGRAM_HEIGHT - 6) / max(float(np.max(densities)), 1e-12)
    step = PANEL / (len(edges) - 1)
    for x, ((name, values, colour), density) in zip((0, PANEL // 2), zip(kinds, densities, strict=True), strict=True):
        steps = "".join(
            f"V{HISTOGRAM_HEIGHT - height * scale:.1f}H{(bin_ + 1) * step:.1f}" for bin_, height in enumerate(density)
        )
        parts.append(
            f'<path d="M0 {HISTOGRAM_HEIGHT}{steps}V{HISTOGRAM_HEIGHT}Z" fill="var(--{colour})" fill-opacity="0.25" '
            f'stroke="var(--{colour})" stroke-width="1.5"/>'
        )
        parts.append(f'<text x="{x}" y="-10" style="fill: var(--{colour})">{name}: {np.median(values):.1f}</text>')
    parts.append(f'<path class="frame" d="M0 {HISTOGRAM_HEIGHT}H{PANEL}"/>')
    for value in range(0, int(edges[-1]) + 1, tick(float(edges[-1]))):
        x = value / edges[-1] * PANEL
        anchor = "start" if value == 0 else "middle"
        parts.append(f'<text x="{x:.0f}" y="{HISTOGRAM_HEIGHT + 19}" text-anchor="{anchor}">{value}</text>')
    parts.append(f'<text x="0" y="{HISTOGRAM_HEIGHT + 42}">distance across domains (above: medians)</text>')
    return "".join(parts)


def tick(longest: float) -> int:
    """Return a round distance between ticks, for about five of them."""
    return next((step for step in (1, 2, 5, 10, 20, 50, 100) if longest / step <= 6), 200)


def ring(x: float, y: float) -> str:
    """Return a small circle, as part of a path."""
    return f"M{x - 3} {y}a3 3 0 1 0 6 0a3 3 0 1 0-6 0"


def dot(x: float, y: float) -> str:
    """Return a line of length 0, which round ends make a disc."""
    return f"M{x} {y}h0"


def triangle(x: float, y: float) -> str:
    """Return a triangle, as part of a path."""
    return f"M{x} {y - 5}l5 8h-10z"


def paint(kind: str, colour: str) -> str:
    """Return the attribute that colours a kind of mark."""
    return f'fill="{colour}"' if kind == "unseen" else f'stroke="{colour}"'


if __name__ == "__main__":
    main()
