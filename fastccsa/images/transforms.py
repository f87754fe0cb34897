"""The image transforms of the paper: their constants, and the random parameters drawn for each image.

Every backend uses the same `Views`, so all of them apply the same transforms to an image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fastccsa.sampling import uniforms
from fastccsa.system.errors import InputError

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

_CROP_ATTEMPTS = 10  # as in torchvision's RandomResizedCrop
_UNIFORMS = 2 * _CROP_ATTEMPTS + 7  # area and ratio per attempt; position (2), flips (2), turns, cutout (2)


@dataclass(frozen=True, eq=False)
class Views:
    """The random parameters of each image of a batch. They are applied in the order of the fields.

    Attributes:
        window: int64 [B, 4], top, left, height, width of the part of the centre crop that becomes the image, in pixels.
        flips: bool [B, 2], whether the image is flipped upside down, and whether left to right.
        turns: int64 [B], anticlockwise quarter turns, 0 to 3.
        cutout: int64 [B, 4], top, left, height, width of the blanked square, clipped at the border of the image;
            height and width are 0 if there is none.
    """

    window: IntArray
    flips: BoolArray
    turns: IntArray
    cutout: IntArray

    def __len__(self) -> int:
        return len(self.turns)

    @classmethod
    def concatenate(cls, parts: Sequence[Views]) -> Views:
        """Concatenate the views of several batches."""
        return cls(
            np.concatenate([part.window for part in parts]),
            np.concatenate([part.flips for part in parts]),
            np.concatenate([part.turns for part in parts]),
            np.concatenate([part.cutout for part in parts]),
        )

    def take(self, rows: Sequence[int]) -> Views:
        """Return the views of some of the images."""
        return Views(self.window[rows], self.flips[rows], self.turns[rows], self.cutout[rows])

    @cached_property
    def symmetry(self) -> tuple[BoolArray, BoolArray]:
        """The flips and turns as one of the eight symmetries of the square: flips, then optionally a transpose.

        An anticlockwise quarter turn is a left-right flip followed by a transpose, a half turn is both flips, and three
        quarter turns are an upside-down flip followed by a transpose.

        Returns:
            flips: bool [B, 2], upside down and left to right; transpose: bool [B].
        """
        turned = np.stack([self.turns >= 2, (self.turns == 1) | (self.turns == 2)], axis=1)
        return self.flips ^ turned, self.turns % 2 == 1


@dataclass(frozen=True)
class Transforms:
    """The paper's transforms for images of ``size`` x ``size`` pixels; lengths given for 224 scale with ``size``.

    Training: resize to ``resize`` x ``resize`` (650 at size 224), centre crop of ``crop`` (300), random
    resized crop to ``size``, flips, quarter turns, cutout of a square of ``cutout`` (64), normalisation.
    Evaluation: the same resize, the centre ``size`` x ``size`` of the centre crop, normalisation.

    Attributes:
        size: side of the finished image in pixels, at least 8.
        scale: range of the random crop's area as a fraction of the centre crop's.
        ratio: range of the random crop's aspect ratio, width over height.
        mean: mean of each channel, for values in [0, 1].
        std: standard deviation of each channel.

    Raises:
        InputError: a value is out of range.
    """

    size: int = 224
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if self.size < 8:
            raise InputError(f"Transforms: size is {self.size}; give 8 pixels or more")
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise InputError(f"Transforms: scale is {self.scale}; give two fractions of the area, 0 < from <= to <= 1")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise InputError(f"Transforms: ratio is {self.ratio}; give two positive numbers, from <= to")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise InputError("Transforms: mean and std need three numbers each, and those of std must be positive")

    @property
    def resize(self) -> int:
        """Side of the square that every image is first resized to, regardless of its aspect ratio."""
        return round(650 * self.size / 224)

    @property
    def crop(self) -> int:
        """Side of the centre crop of the resized image."""
        return round(300 * self.size / 224)

    @property
    def crop_offset(self) -> int:
        """Top and left of the centre crop in the resized image."""
        return (self.resize - self.crop) // 2

    @property
    def evaluation_offset(self) -> int:
        """Top and left of the evaluation image in the centre crop (38 at size 224)."""
        return (self.crop - self.size) // 2

    @property
    def cutout(self) -> int:
        """Side of the square that cutout blanks."""
        return round(64 * self.size / 224)

    @property
    def fill(self) -> tuple[int, int, int]:
        """Colour of the blanked square in grey levels: the mean, which becomes 0 after normalisation.

        It is rounded to whole grey levels, because images are bytes until they are normalised.
        """
        red, green, blue = (round(255 * mean) for mean in self.mean)
        return red, green, blue

    def draw(self, seed: int, epoch: int, positions: npt.ArrayLike, stream: int) -> Views:
        """Draw the training views of the images at some positions of an epoch.

        This is a pure function of its arguments; each row depends only on its own position.

        Args:
            seed: the run's seed.
            epoch: number of the epoch, from 0.
            positions: int64 [B], positions in the epoch, independent of the number of processes.
            stream: 1 for the first images of pairs and for single images, 2 for the second images.
        """
        positions = np.ascontiguousarray(positions, dtype=np.int64)
        uniform = uniforms(seed, stream, epoch, positions, _UNIFORMS)
        area, ratio, rest = np.split(uniform, [_CROP_ATTEMPTS, 2 * _CROP_ATTEMPTS], axis=1)
        return Views(
            window=self._random_windows(area, ratio, position=rest[:, :2]),
            flips=rest[:, 2:4] < 0.5,
            turns=np.floor(4 * rest[:, 4]).astype(np.int64),
            cutout=self._clipped_squares(centre=np.floor(self.size * rest[:, 5:7]).astype(np.int64)),
        )

    def evaluation(self, count: int) -> Views:
        """Return the view of evaluation, the upright centre without cutout, for ``count`` images."""
        offset = self.evaluation_offset
        return Views(
            window=np.tile(np.array([offset, offset, self.size, self.size], np.int64), (count, 1)),
            flips=np.zeros((count, 2), np.bool_),
            turns=np.zeros(count, np.int64),
            cutout=np.zeros((count, 4), np.int64),
        )

    def _random_windows(self, area: FloatArray, ratio: FloatArray, position: FloatArray) -> IntArray:
        """Draw windows in the centre crop like torchvision's RandomResizedCrop, from uniform random numbers.

        ``area`` and ``ratio`` are [B, attempts]. The first rectangle that fits is used; if none fits, the largest
        central rectangle of an allowed ratio is. ``position`` [B, 2] places the rectangle.
        """
        low, high = self.scale
        pixels = self.crop**2 * (low + (high - low) * area)
        log_low, log_high = np.log(self.ratio)
        aspect = np.exp(log_low + (log_high - log_low) * ratio)
        sizes = np.stack([np.rint(np.sqrt(pixels / aspect)), np.rint(np.sqrt(pixels * aspect))], axis=2)
        fits = np.all((sizes > 0) & (sizes <= self.crop), axis=2)
        chosen = sizes[np.arange(len(sizes)), fits.argmax(axis=1)].astype(np.int64)
        corner = np.floor(position * (self.crop - chosen + 1)).astype(np.int64)
        fallback = self._central_window()
        windows = np.concatenate([corner, chosen], axis=1)
        return np.where(fits.any(axis=1, keepdims=True), windows, fallback)

    def _central_window(self) -> IntArray:
        """Return the window used if no attempt fits: the largest central rectangle of an allowed ratio, int64 [4]."""
        low, high = self.ratio
        height = round(self.crop / max(1.0, low))
        width = round(self.crop * min(1.0, high))
        return np.array([(self.crop - height) // 2, (self.crop - width) // 2, height, width], np.int64)

    def _clipped_squares(self, centre: IntArray) -> IntArray:
        """Return squares around ``centre`` [B, 2], clipped at the border, as top, left, height, width."""
        start = centre - self.cutout // 2
        end = np.minimum(start + self.cutout, self.size)
        start = np.maximum(start, 0)
        return np.concatenate([start, end - start], axis=1)


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions of the original images that the views show.

    Attributes:
        decode: int64 [B, 4], top, left, height, width of the pixels to decode: the region and a margin for the
            resampling filter.
        resample: float64 [B, 4], top, left, bottom, right of the region, in pixels of the decoded part.
    """

    decode: IntArray
    resample: FloatArray


def find_regions(
    transforms: Transforms, views: Views, shapes: IntArray, output: IntArray, scales: IntArray | None = None
) -> Regions:
    """Map the windows from the centre crop back to the original images.

    Args:
        transforms: provides the sizes.
        views: provides the B windows.
        shapes: int64 [B, 2], height and width of the upright originals.
        output: int64 [B, 2] or [2], height and width that the regions are resampled to.
        scales: int64 [B], factor by which decoding reduces each image along both axes; None for 1. The regions are in
            pixels of the reduced image.
    """
    reduced = shapes if scales is None else -(-shapes // scales[:, None])
    scale = shapes / transforms.resize if scales is None else shapes / transforms.resize / scales[:, None]
    start = (views.window[:, :2] + transforms.crop_offset) * scale
    end = np.minimum(start + views.window[:, 2:] * scale, reduced)
    # A triangle filter reaches one output pixel, or one input pixel when enlarging. One more allows for rounding.
    reach = np.maximum((end - start) / output, 1.0) + 1.0
    first = np.maximum(np.floor(start - reach), 0).astype(np.int64)
    last = np.minimum(np.ceil(end + reach), reduced).astype(np.int64)
    return Regions(
        decode=np.concatenate([first, last - first], axis=1),
        resample=np.concatenate([start - first, end - first], axis=1),
    )


def find_scales(transforms: Transforms, views: Views, shapes: IntArray) -> IntArray:
    """Choose the factor by which decoding reduces each image along both axes: 1, 2, 4 or 8, int64 [B].

    It is the largest factor that leaves at least one pixel per pixel of the finished image along both axes.
    """
    extent = views.window[:, 2:] * shapes / transforms.resize
    reduction = extent.min(axis=1) / transforms.size
    return np.exp2(np.clip(np.floor(np.log2(reduction)), 0, 3)).astype(np.int64)
