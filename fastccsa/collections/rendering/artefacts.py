"""Artefacts in the frame: hair, gel bubbles, pen marks, stickers, a ruler, a round mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw

from fastccsa.collections.rendering.canvas import Field, planes, soften
from fastccsa.collections.rendering.styles import Style

_HAIR_COLOURS = ((0.10, 0.06, 0.04), (0.25, 0.14, 0.07), (0.50, 0.36, 0.20), (0.80, 0.78, 0.74))
_INK = (0.36, 0.16, 0.52)
# Rings of SONIC's stickers, from the outside in.
_STICKERS = (
    ((0.05, 0.48, 0.75),),
    ((0.35, 0.78, 0.76), (0.62, 0.86, 0.84)),
    ((0.97, 0.62, 0.25), (0.92, 0.92, 0.90), (0.20, 0.52, 0.25)),
    ((0.82, 0.80, 0.96), (0.93, 0.30, 0.42)),
)


def add_artefacts(colours: Field, style: Style, rng: np.random.Generator) -> Field:
    """Return the scene, float32 [3, height, width], with random artefacts according to ``style``."""
    if style.hair and rng.random() < style.hairy:
        colours = _hair(colours, rng, rng.poisson(style.hair))
    if rng.random() < style.bubbles:
        colours = _bubbles(colours, rng)
    if rng.random() < style.ink:
        colours = _ink(colours, rng)
    if rng.random() < style.stickers:
        colours = _sticker(colours, rng)
    if rng.random() < style.ruler:
        colours = _ruler(colours, rng)
    if rng.random() < style.aperture:
        colours = _aperture(colours, rng)
    return colours


class _Layer:
    """A mask to draw on at twice the size of the scene; halving it smooths the edges."""

    def __init__(self, colours: Field) -> None:
        self.colours = colours
        self.height, self.width = colours.shape[1:]
        self.mask = Image.new("L", (2 * self.width, 2 * self.height))
        self.draw = ImageDraw.Draw(self.mask)

    def paint(self, colour: ArrayLike, opacity: float = 1.0, blur: float = 0.0) -> Field:
        """Return the scene with ``colour`` where the mask is drawn."""
        small = self.mask.reduce(2)
        alpha = np.float32(opacity) * soften(small, blur)
        return self.colours + alpha * (planes(colour) - self.colours)

    def disc(self, x: float, y: float, radius: float, fill: int = 255, rim: int | None = None) -> None:
        """Draw a disc, optionally with a bright rim; coordinates are pixels of the scene."""
        box = [2 * (x - radius), 2 * (y - radius), 2 * (x + radius), 2 * (y + radius)]
        self.draw.ellipse(box, fill=fill, outline=rim, width=max(1, round(0.3 * radius)))


def _hair(colours: Field, rng: np.random.Generator, count: int) -> Field:
    """Draw hairs: gentle arcs of one colour in roughly one direction."""
    layer = _Layer(colours)
    t = np.linspace(-1, 1, 12)
    combed = rng.uniform(0, np.pi)
    for _ in range(count):
        angle = combed + rng.normal(0, 0.7)
        along = np.array([np.cos(angle), np.sin(angle)])
        across = np.array([-along[1], along[0]])
        middle = rng.uniform(0, 1, 2) * (layer.width, layer.height)
        length, bend = rng.uniform(0.15, 0.6) * layer.width, rng.normal(0, 0.1) * layer.width
        points = middle + np.outer(t * length / 2, along) + np.outer(bend * t * t, across)
        thickness = max(1, round(layer.width * rng.uniform(0.003, 0.008)))
        layer.draw.line([(2 * x, 2 * y) for x, y in points.tolist()], fill=255, width=thickness)
    return layer.paint(_HAIR_COLOURS[rng.choice(4, p=[0.4, 0.35, 0.15, 0.1])], opacity=0.85)


def _bubbles(colours: Field, rng: np.random.Generator) -> Field:
    """Draw gel bubbles: bright rims around a slightly lighter interior."""
    layer = _Layer(colours)
    for _ in range(rng.integers(2, 9)):
        x, y = rng.uniform(0, layer.width), rng.uniform(0, layer.height)
        radius = layer.width * rng.uniform(0.008, 0.04)
        layer.disc(x, y, radius, fill=40, rim=200)
    return layer.paint((1.0, 0.98, 0.96), opacity=0.7, blur=0.5)


def _ink(colours: Field, rng: np.random.Generator) -> Field:
    """Draw one or two strokes of a purple surgical pen around the middle."""
    layer = _Layer(colours)
    for _ in range(rng.integers(1, 3)):
        radius, start = rng.uniform(0.6, 0.85) * layer.height, rng.uniform(0, 360)
        box = [layer.width - radius, layer.height - radius, layer.width + radius, layer.height + radius]
        layer.draw.arc(box, start, start + rng.uniform(20, 70), fill=255, width=round(0.035 * layer.width))
    return layer.paint(_INK, opacity=0.6, blur=1.0)


def _sticker(colours: Field, rng: np.random.Generator) -> Field:
    """Draw a round coloured sticker that reaches into the frame from one side."""
    rings = _STICKERS[rng.integers(len(_STICKERS))]
    height, width = colours.shape[1:]
    radius = rng.uniform(0.2, 0.32) * height
    x = rng.choice([rng.uniform(-0.08, 0.08), rng.uniform(0.92, 1.08)]) * width
    y = rng.uniform(0, 1) * height
    for ring, colour in enumerate(rings):
        layer = _Layer(colours)
        layer.disc(x, y, radius * (1 - ring / len(rings)))
        colours = layer.paint(colour)
    return colours


def _ruler(colours: Field, rng: np.random.Generator) -> Field:
    """Draw the ticks of a ruler along one edge, with longer ones at every fifth and tenth."""
    layer = _Layer(colours)
    edge = rng.uniform(0.82, 0.97) * layer.height
    up = -1 if rng.random() < 0.5 else 1
    if up > 0:
        edge = layer.height - edge
    step = rng.uniform(0.012, 0.03) * layer.width
    start = rng.uniform(0, 0.4) * layer.width
    thickness = max(1, round(0.005 * layer.width))
    for tick in range(int((layer.width - start) / step)):
        x = start + tick * step
        length = layer.height * (0.05 if tick % 10 == 0 else 0.035 if tick % 5 == 0 else 0.02)
        layer.draw.line([2 * x, 2 * edge, 2 * x, 2 * (edge + up * length)], fill=255, width=thickness)
    return layer.paint((0.08, 0.08, 0.10), opacity=0.85)


def _aperture(colours: Field, rng: np.random.Generator) -> Field:
    """Black out everything outside the dermatoscope's round field of view."""
    layer = _Layer(colours)
    layer.mask.paste(255, (0, 0, *layer.mask.size))
    x, y = layer.width / 2, layer.height / 2
    shift_x, shift_y = rng.normal(0, 0.03, 2) * layer.width
    layer.disc(x + shift_x, y + shift_y, rng.uniform(0.5, 0.62) * layer.width, fill=0)
    return layer.paint((0.02, 0.02, 0.03), blur=0.01 * layer.width)
