"""The canvas that a lesion is painted on: smooth random fields, soft shapes and layers of pigment."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw, ImageFilter

Field = NDArray[np.float32]
Point = tuple[float, float]

#: The canvas spans -EXTENT..EXTENT along both axes; the mean radius of a lesion is 1.
EXTENT = 1.6


def smoothstep(low: float, high: float, values: Field) -> Field:
    """Map every value through the cubic ramp from 0 at ``low`` to 1 at ``high`` (float32)."""
    t = np.clip((values - np.float32(low)) / np.float32(high - low), 0, 1)
    return t * t * (3 - 2 * t)


def smooth_noise(rng: np.random.Generator, cells: int, height: int, width: int) -> Field:
    """Return a smooth field, float32 [height, width], of about unit variance with ``cells`` bumps along the width.

    The random numbers drawn depend on ``cells`` and the aspect ratio, not on the size in pixels: the same
    generator state gives the same field at any resolution.
    """
    rows = max(2, round(cells * height / width))
    grid = rng.standard_normal((rows, cells), dtype=np.float32)
    smooth = Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(smooth, dtype=np.float32)


def planes(colour: ArrayLike) -> Field:
    """Return one value per channel as float32 [3, 1, 1], to broadcast with pictures [3, height, width]."""
    return np.asarray(colour, np.float32).reshape(3, 1, 1)


def soften(mask: Image.Image, radius: float) -> Field:
    """Return an 8-bit mask, blurred by ``radius`` pixels, as float32 values in [0, 1]."""
    blurred = mask.filter(ImageFilter.GaussianBlur(radius)) if radius else mask
    return np.asarray(blurred, dtype=np.float32) / np.float32(255)


class Canvas:
    """The square canvas that a lesion is painted on.

    Args:
        rng: Source of every random choice, shared by the painters.
        side: Width and height in pixels.

    Attributes:
        x, y, radius, angle: float32 [side, side], lesion coordinates of the pixels.
        melanin, blood: float32 [side, side], optical densities that darken the skin below.
        cover_colour, cover: float32 [3, side, side] and [side, side], an opaque layer over the skin (scale, scar,
            veil): its colour times its opacity, and its opacity.
    """

    def __init__(self, rng: np.random.Generator, side: int) -> None:
        self.rng = rng
        self.side = side
        axis = np.linspace(-EXTENT, EXTENT, side, dtype=np.float32)
        self.x, self.y = np.meshgrid(axis, axis)
        self.radius = np.hypot(self.x, self.y)
        self.angle = np.arctan2(self.y, self.x)
        self.melanin = np.zeros((side, side), np.float32)
        self.blood = np.zeros((side, side), np.float32)
        self.cover_colour = np.zeros((3, side, side), np.float32)
        self.cover = np.zeros((side, side), np.float32)

    def noise(self, cells: int) -> Field:
        """Return a smooth field of about unit variance with ``cells`` bumps along a side."""
        return smooth_noise(self.rng, cells, self.side, self.side)

    def depth(self, irregularity: float, elongation: float = 1.0, jag: float = 0.0) -> Field:
        """Return how far inside the lesion's outline each pixel lies (negative outside), in radii.

        Args:
            irregularity: Relative amplitude of the outline's lobes; finer lobes are smaller.
            elongation: Ratio of the long axis to the short axis.
            jag: Amplitude of small notches.
        """
        stretch = np.float32(np.sqrt(elongation))
        outline = np.ones_like(self.radius)
        for lobes in range(2, 7):
            amplitude, phase = self.rng.normal(0, 3 * irregularity / lobes), self.rng.uniform(0, 2 * np.pi)
            outline += np.float32(amplitude) * np.cos(lobes * self.angle + np.float32(phase))
        depth = outline - np.hypot(self.x / stretch, self.y * stretch)
        return depth + np.float32(jag) * self.noise(14)

    def lattice(self, spacing: float, warp: float) -> Field:
        """Return a warped honeycomb in [0, 1]: 1 on the lines, 0 in the holes, which are ``spacing`` radii apart."""
        u, v = self.x + np.float32(warp) * self.noise(9), self.y + np.float32(warp) * self.noise(9)
        frequency = np.float32(4 * np.pi / (np.sqrt(3) * spacing))
        half, tall = np.float32(0.5), np.float32(np.sqrt(3) / 2)
        waves = np.cos(frequency * u)
        waves += np.cos(frequency * (half * u + tall * v))
        waves += np.cos(frequency * (half * u - tall * v))
        return 1 - smoothstep(-0.6, 1.6, waves)

    def scatter(self, count: int, reach: float) -> list[Point]:
        """Return ``count`` points, uniform over the disc of radius ``reach``."""
        radius = reach * np.sqrt(self.rng.uniform(0, 1, count))
        angle = self.rng.uniform(0, 2 * np.pi, count)
        return [(float(r * np.cos(a)), float(r * np.sin(a))) for r, a in zip(radius, angle, strict=True)]

    def discs(self, centres: Sequence[Point], low: float, high: float, blur: float = 0.02) -> Field:
        """Return a mask of round spots with radii uniform in [low, high]; ``blur`` is in lesion radii too."""
        mask = Image.new("L", (self.side, self.side))
        draw = ImageDraw.Draw(mask)
        for x, y in centres:
            radius = self.rng.uniform(low, high)
            box = *self._pixel(x - radius, y - radius), *self._pixel(x + radius, y + radius)
            draw.ellipse(box, fill=255)
        return soften(mask, blur * self._scale)

    def lumps(self, centres: Sequence[Point], low: float, high: float) -> Field:
        """Return a mask of rounded, uneven lumps: discs that merge with their neighbours."""
        mask = self.discs(centres, low, high, blur=0.35 * (low + high) / 2)
        return smoothstep(0.3, 0.6, mask + np.float32(0.08) * self.noise(14))

    def strokes(self, lines: Sequence[Sequence[Point]], width: float, blur: float = 0.012) -> Field:
        """Return a mask of polylines that are ``width`` lesion radii thick."""
        mask = Image.new("L", (self.side, self.side))
        draw = ImageDraw.Draw(mask)
        for line in lines:
            points = [self._pixel(x, y) for x, y in line]
            draw.line(points, fill=255, width=max(1, round(width * self._scale)), joint="curve")
        return soften(mask, blur * self._scale)

    def lay(self, colour: ArrayLike, opacity: Field) -> None:
        """Lay a colour (RGB in [0, 1]) with the given opacity over the existing cover layer."""
        keep = 1 - opacity
        self.cover_colour *= keep
        self.cover_colour += planes(colour) * opacity
        self.cover *= keep
        self.cover += opacity

    def fade(self) -> None:
        """Fade all layers out towards the edges of the canvas, where a large lesion would be cut off."""
        keep = 1 - smoothstep(0.85 * EXTENT, 0.98 * EXTENT, np.maximum(np.abs(self.x), np.abs(self.y)))
        for layer in (self.melanin, self.blood, self.cover_colour, self.cover):
            layer *= keep

    @property
    def _scale(self) -> float:
        return (self.side - 1) / (2 * EXTENT)

    def _pixel(self, x: float, y: float) -> Point:
        return (x + EXTENT) * self._scale, (y + EXTENT) * self._scale
