"""Seven kinds of synthetic lesion, each painted with the signs a dermatologist looks for.

The strength of a lesion's signs is random, so each class has obvious and subtle members. Classes overlap where the real
ones do: nevus with melanoma, melanoma with benign keratosis, actinic keratosis with basal cell carcinoma.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fastccsa.collections.rendering.canvas import Canvas, Field, Point, smoothstep

BLUE_GREY = (0.38, 0.42, 0.56)
MILKY = (0.93, 0.87, 0.86)
PEARL = (0.95, 0.82, 0.80)
HORN = (0.92, 0.83, 0.62)
WAX = (0.66, 0.52, 0.38)
BLACK = (0.12, 0.08, 0.09)
PURPLE = (0.36, 0.10, 0.26)
CRIMSON = (0.62, 0.07, 0.13)


def _nevus(canvas: Canvas) -> None:
    """Nevus (nv): regular and round, a single shade of brown, a smooth border, an even network."""
    rng = canvas.rng
    depth = canvas.depth(rng.uniform(0.01, 0.07), rng.uniform(1, 1.4), jag=rng.uniform(0, 0.05))
    inside = smoothstep(-0.12, rng.uniform(0.1, 0.4), depth)
    density = rng.uniform(0.45, 1.5)
    structure = rng.uniform(0.1, 0.45)
    pattern = rng.integers(3)
    if pattern == 0:
        texture = canvas.lattice(rng.uniform(0.16, 0.24), warp=0.03)
    elif pattern == 1:
        texture = canvas.discs(canvas.scatter(60, 0.95), 0.04, 0.07)
    else:
        texture = smoothstep(-1.5, 1.5, canvas.noise(8))
    canvas.melanin += density * inside * (1 - structure / 2 + structure * texture)
    canvas.melanin *= 1 + rng.uniform(-0.15, 0.3) * smoothstep(0.2, 1.0, depth)
    canvas.blood += rng.uniform(0, 0.3) * inside


def _melanoma(canvas: Canvas) -> None:
    """Melanoma (mel): asymmetric, many colours, a ragged border, dots, streaks and a blue-white veil."""
    rng = canvas.rng
    sign = rng.uniform(0.15, 1)
    depth = canvas.depth(0.03 + 0.08 * sign, rng.uniform(1, 1.6), jag=0.02 + 0.08 * sign)
    inside = smoothstep(-0.06, rng.uniform(0.08, 0.25), depth)
    blotches = smoothstep(-0.6, 0.9, canvas.noise(4) + 0.5 * canvas.noise(9))
    net = canvas.lattice(rng.uniform(0.16, 0.3), warp=0.06 + 0.05 * sign)
    density = rng.uniform(0.6, 1.4)
    shades = 1 - 0.55 * sign + 1.2 * sign * blotches + 0.25 * net * (1 - blotches)
    canvas.melanin += density * inside * shades
    canvas.blood += sign * rng.uniform(0.1, 0.6) * inside * smoothstep(0.2, 1.2, canvas.noise(4))
    rim = [(float(np.cos(a)), float(np.sin(a))) for a in rng.uniform(0, 2 * np.pi, int(14 * sign))]
    streaks = [[(0.75 * x, 0.75 * y), (1.15 * x, 1.15 * y)] for x, y in rim]
    canvas.melanin += 0.7 * canvas.strokes(streaks, 0.05, blur=0.03)
    canvas.melanin += 1.2 * inside * canvas.discs(canvas.scatter(int(25 * sign), 0.95), 0.02, 0.05)
    _veil(canvas, inside, sign)
    if rng.random() < 0.3:
        canvas.lay(MILKY, 0.5 * sign * inside * _patch(canvas, 0.7, 0.25))


def _basal_cell_carcinoma(canvas: Canvas) -> None:
    """Basal cell carcinoma (bcc): pearly pink, branching vessels, blue-grey nests, a spot of ulcer."""
    rng = canvas.rng
    sign = rng.uniform(0.2, 1)
    depth = canvas.depth(rng.uniform(0.03, 0.09), rng.uniform(1, 1.4), jag=0.05)
    inside = smoothstep(-0.25, 0.3, depth)
    canvas.melanin += rng.uniform(0, 0.25) * inside * smoothstep(-1, 1.5, canvas.noise(6))
    canvas.blood += rng.uniform(0.15, 0.45) * inside
    canvas.lay(PEARL, rng.uniform(0.2, 0.5) * inside * smoothstep(-0.6, 1.2, canvas.noise(6)))
    tree = [line for _ in range(2 + int(4 * sign)) for line in _branches(rng)]
    canvas.blood += (0.4 + 0.9 * sign) * canvas.strokes(tree, 0.035) * smoothstep(-0.3, 0.2, depth)
    if rng.random() < 0.6:
        nests = canvas.lumps(canvas.scatter(int(rng.integers(1, 6)), 0.75), 0.08, 0.2)
        canvas.lay(BLUE_GREY, rng.uniform(0.4, 0.9) * nests)
    if rng.random() < 0.5:
        ulcer = _patch(canvas, 0.5, rng.uniform(0.12, 0.28))
        canvas.lay((0.45, 0.12, 0.08), 0.85 * ulcer)
        canvas.lay(HORN, 0.6 * ulcer * smoothstep(0.2, 1.2, canvas.noise(16)))


def _dermatofibroma(canvas: Canvas) -> None:
    """Dermatofibroma (df): a white scar in the middle of a pale brown ring that fades out."""
    rng = canvas.rng
    depth = canvas.depth(rng.uniform(0.02, 0.05), rng.uniform(1, 1.3))
    inside = smoothstep(-0.35, 0.45, depth)
    net = canvas.lattice(rng.uniform(0.15, 0.22), warp=0.03)
    canvas.melanin += rng.uniform(0.3, 0.75) * inside * (0.7 + 0.4 * net)
    canvas.blood += rng.uniform(0.05, 0.45) * inside
    scar = smoothstep(rng.uniform(0.2, 0.5), 1.0, depth + 0.15 * canvas.noise(8))
    canvas.lay(MILKY, rng.uniform(0.35, 0.85) * scar)


def _benign_keratosis(canvas: Canvas) -> None:
    """Benign keratosis (bkl): a sharp border, a waxy surface, milia-like cysts, dark plugs and fissures."""
    rng = canvas.rng
    sign = rng.uniform(0.2, 1)
    depth = canvas.depth(rng.uniform(0.03, 0.1), rng.uniform(1, 1.6), jag=rng.uniform(0.01, 0.06))
    inside = smoothstep(-0.03, 0.05, depth)
    canvas.melanin += rng.uniform(0.25, 1.0) * inside * (0.8 + 0.3 * smoothstep(-1, 1, canvas.noise(10)))
    canvas.blood += rng.uniform(0, 0.2) * inside
    canvas.lay(WAX, rng.uniform(0.1, 0.55) * inside)
    ridges = np.abs(canvas.noise(9))
    fissures = (1 - smoothstep(0.04, 0.2, ridges)) * smoothstep(0, 0.15, depth)
    canvas.melanin += rng.uniform(0.2, 1.1) * sign * fissures
    cysts = canvas.discs(canvas.scatter(int(rng.integers(6, 30) * sign), 0.9), 0.025, 0.06)
    canvas.lay((0.97, 0.91, 0.76), (0.35 + 0.55 * sign) * cysts * inside)
    plugs = canvas.discs(canvas.scatter(int(rng.integers(4, 20) * sign), 0.9), 0.03, 0.07)
    canvas.lay((0.25, 0.15, 0.09), (0.3 + 0.5 * sign) * plugs * inside)


def _vascular(canvas: Canvas) -> None:
    """Vascular lesion (vasc): red, purple or black lacunae separated by paler septa."""
    rng = canvas.rng
    sign = rng.uniform(0.2, 1)
    depth = canvas.depth(rng.uniform(0.02, 0.07), rng.uniform(1, 1.4))
    inside = smoothstep(-0.1, 0.12, depth)
    canvas.blood += rng.uniform(0.35, 1.0) * inside
    canvas.lay(MILKY, rng.uniform(0, 0.3) * inside * smoothstep(-0.5, 1.0, canvas.noise(7)))
    lacunae = canvas.lumps(canvas.scatter(int(rng.integers(8, 36)), 0.85), 0.08, 0.19)
    hue = [CRIMSON, PURPLE, (0.16, 0.08, 0.16)][rng.choice(3, p=[0.5, 0.35, 0.15])]
    canvas.lay(hue, (0.3 + 0.55 * sign) * lacunae * inside)


def _actinic_keratosis(canvas: Canvas) -> None:
    """Actinic keratosis (akiec): red between pale follicles (strawberry), horny scale, no clear border."""
    rng = canvas.rng
    sign = rng.uniform(0.2, 1)
    depth = canvas.depth(rng.uniform(0.05, 0.12), rng.uniform(1, 1.7), jag=0.1)
    inside = smoothstep(-0.4, 0.35, depth)
    holes = 1 - canvas.lattice(rng.uniform(0.24, 0.36), warp=0.08)
    canvas.blood += inside * rng.uniform(0.25, 0.65) * (1 - 0.6 * sign * holes)
    canvas.lay(PEARL, 0.5 * sign * holes * holes * inside)
    canvas.melanin += rng.uniform(0, 0.5) * inside * smoothstep(-0.2, 1.4, canvas.noise(6))
    scale = smoothstep(0.3, 1.1, canvas.noise(12) + 0.5 * canvas.noise(24)) * smoothstep(-0.1, 0.3, depth)
    canvas.lay(HORN if rng.random() < 0.5 else MILKY, (0.2 + 0.6 * sign) * scale)


def _veil(canvas: Canvas, inside: Field, sign: float) -> None:
    """Lay the blue-white veil of a melanoma off centre, and sometimes a black blotch."""
    rng = canvas.rng
    veil = _patch(canvas, 0.6, rng.uniform(0.25, 0.5))
    canvas.lay(BLUE_GREY, rng.uniform(0.3, 0.85) * sign * inside * veil)
    if rng.random() < 0.4:
        canvas.lay(BLACK, 0.7 * sign * inside * _patch(canvas, 0.6, rng.uniform(0.15, 0.35)))


def _patch(canvas: Canvas, reach: float, size: float) -> Field:
    """Return the mask of a ragged spot of radius ``size``, somewhere within ``reach`` of the centre."""
    ((x, y),) = canvas.scatter(1, reach)
    distance = np.hypot(canvas.x - np.float32(x), canvas.y - np.float32(y))
    return 1 - smoothstep(0.7 * size, 1.3 * size, distance + np.float32(0.3 * size) * canvas.noise(10))


def _branches(rng: np.random.Generator) -> list[list[Point]]:
    """Return a vessel that enters from the rim and forks twice, as polylines."""
    angle = rng.uniform(0, 2 * np.pi)
    start = (float(np.cos(angle)), float(np.sin(angle)))
    lines, tips = [], [(start, angle + np.pi)]
    for step in (0.18, 0.10, 0.06):
        grown = []
        for point, heading in tips:
            line = [point]
            for _ in range(5):
                heading += rng.normal(0, 0.3)
                x, y = line[-1]
                line.append((x + step * float(np.cos(heading)), y + step * float(np.sin(heading))))
            lines.append(line)
            grown += [(line[-1], heading + turn) for turn in rng.uniform(0.3, 0.8, 2) * (-1, 1)]
        tips = grown
    return lines


_PAINTERS: dict[str, Callable[[Canvas], None]] = {
    "nv": _nevus,
    "mel": _melanoma,
    "bcc": _basal_cell_carcinoma,
    "df": _dermatofibroma,
    "bkl": _benign_keratosis,
    "vasc": _vascular,
    "akiec": _actinic_keratosis,
}


def paint_lesion(label: str, rng: np.random.Generator, side: int) -> Canvas:
    """Paint one lesion of class ``label`` on a canvas of ``side`` pixels; a pure function of the state of ``rng``."""
    canvas = Canvas(rng, side)
    _PAINTERS[label](canvas)
    canvas.fade()
    return canvas
