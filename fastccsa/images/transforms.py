"""The image transforms of the paper: their numbers, and the random parameters drawn for each image.

Every backend takes the same `Views`, so that all of them do the same thing to the same image.
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

_CROP_ATTEMPTS = 10  # torchvision's RandomResizedCrop gives up after ten
_UNIFORMS = 2 * _CROP_ATTEMPTS + 7  # area and ratio per attempt; place (2), flips (2), turns, cutout (2)


@dataclass(frozen=True, eq=False)
class Views:
    """How each image of a batch is seen; the steps follow the order of the fields.

    Attributes:
        window: int64 [B, 4], top, left, height, width of the part of the centre crop that fills the image.
        flips: bool [B, 2], whether the image is turned upside down, and left to right.
        turns: int64 [B], anticlockwise quarter turns, 0 to 3.
        cutout: int64 [B, 4], top, left, height, width of the blanked square after clipping at the border;
            height and width 0 for none.
    """

    window: IntArray
    flips: BoolArray
    turns: IntArray
    cutout: IntArray

    def __len__(self) -> int:
        return len(self.turns)

    @classmethod
    def concatenate(cls, parts: Sequence[Views]) -> Views:
        """Join the views of several batches, in order."""
        return cls(
            np.concatenate([part.window for part in parts]),
            np.concatenate([part.flips for part in parts]),
            np.concatenate([part.turns for part in parts]),
            np.concatenate([part.cutout for part in parts]),
        )

    def take(self, rows: Sequence[int]) -> Views:
        """Views of some of the images."""
        return Views(self.window[rows], self.flips[rows], self.turns[rows], self.cutout[rows])

    @cached_property
    def symmetry(self) -> tuple[BoolArray, BoolArray]:
        """Flips and turns as one of the eight symmetries of the square: flip, then perhaps transpose.

        A quarter turn anticlockwise is a flip left to right followed by a transposition, a half turn is both
        flips, and three quarter turns are a flip upside down followed by a transposition.

        Returns:
            flips: bool [B, 2], upside down and left to right; transpose: bool [B].
        """
        turned = np.stack([self.turns >= 2, (self.turns == 1) | (self.turns == 2)], axis=1)
        return self.flips ^ turned, self.turns % 2 == 1


@dataclass(frozen=True)
class Transforms:
    """The paper's transforms for images of ``size`` pixels a side; its lengths, given for 224, scale along.

    Training: resize to ``resize`` x ``resize`` (650 at size 224), centre crop of ``crop`` (300), random
    resized crop to ``size``, flips, quarter turns, cutout of a square of ``cutout`` (64), normalisation.
    Evaluation: the same resize, the centre ``size`` x ``size`` of the centre crop, normalisation.

    Attributes:
        size: side of the finished image in pixels, at least 8.
        scale: the random crop's area as a part of the centre crop's, from and to.
        ratio: the random crop's width over height, from and to.
        mean: mean of each channel, subtracted; images count from 0 to 1.
        std: standard deviation of each channel, divided by.

    Raises:
        InputError: a number out of its range.
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
            raise InputError(f"Transforms: scale is {self.scale}; give two parts of the area, 0 < from <= to <= 1")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise InputError(f"Transforms: ratio is {self.ratio}; give two positive numbers, from <= to")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise InputError("Transforms: mean and std need three numbers each, and std positive ones")

    @property
    def resize(self) -> int:
        """Side of the square every image is first resized to, whatever its aspect."""
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
        """Colour of the blanked square in grey levels: the mean, hence 0 after normalisation.

        Within half a grey level, for the image is made of bytes until it is normalised.
        """
        red, green, blue = (round(255 * mean) for mean in self.mean)
        return red, green, blue

    def draw(self, seed: int, epoch: int, positions: npt.ArrayLike, stream: int) -> Views:
        """Draw the training views of the images at some positions of an epoch.

        A pure function of its arguments: a row depends on its own position alone.

        Args:
            seed: the run's seed.
            epoch: number of the epoch, from 0.
            positions: int64 [B], places in the epoch, independent of the number of processes.
            stream: 1 for the first images of the pairs and for single images, 2 for the second images.
        """
        positions = np.ascontiguousarray(positions, dtype=np.int64)
        uniform = uniforms(seed, stream, epoch, positions, _UNIFORMS)
        area, ratio, rest = np.split(uniform, [_CROP_ATTEMPTS, 2 * _CROP_ATTEMPTS], axis=1)
        return Views(
            window=self._random_windows(area, ratio, place=rest[:, :2]),
            flips=rest[:, 2:4] < 0.5,
            turns=np.floor(4 * rest[:, 4]).astype(np.int64),
            cutout=self._clipped_squares(centre=np.floor(self.size * rest[:, 5:7]).astype(np.int64)),
        )

    def evaluation(self, count: int) -> Views:
        """Repeat the one view of evaluation, the centre upright and whole, for ``count`` images."""
        offset = self.evaluation_offset
        return Views(
            window=np.tile(np.array([offset, offset, self.size, self.size], np.int64), (count, 1)),
            flips=np.zeros((count, 2), np.bool_),
            turns=np.zeros(count, np.int64),
            cutout=np.zeros((count, 4), np.int64),
        )

    def _random_windows(self, area: FloatArray, ratio: FloatArray, place: FloatArray) -> IntArray:
        """Draw as torchvision's RandomResizedCrop does on the centre crop, from uniform numbers.

        ``area`` and ``ratio`` are [B, attempts]: the first attempt whose rectangle fits is taken, and if none
        does, the largest central rectangle of an allowed ratio. ``place`` [B, 2] puts the rectangle.
        """
        low, high = self.scale
        pixels = self.crop**2 * (low + (high - low) * area)
        log_low, log_high = np.log(self.ratio)
        aspect = np.exp(log_low + (log_high - log_low) * ratio)
        sizes = np.stack([np.rint(np.sqrt(pixels / aspect)), np.rint(np.sqrt(pixels * aspect))], axis=2)
        fits = np.all((sizes > 0) & (sizes <= self.crop), axis=2)
        chosen = sizes[np.arange(len(sizes)), fits.argmax(axis=1)].astype(np.int64)
        corner = np.floor(place * (self.crop - chosen + 1)).astype(np.int64)
        fallback = self._central_window()
        windows = np.concatenate([corner, chosen], axis=1)
        return np.where(fits.any(axis=1, keepdims=True), windows, fallback)

    def _central_window(self) -> IntArray:
        """Where no attempt fits: the whole centre crop, or what an allowed ratio leaves of it."""
        low, high = self.ratio
        height = round(self.crop / max(1.0, low))
        width = round(self.crop * min(1.0, high))
        return np.array([(self.crop - height) // 2, (self.crop - width) // 2, height, width], np.int64)

    def _clipped_squares(self, centre: IntArray) -> IntArray:
        """Squares around ``centre`` [B, 2], clipped at the border, as top, left, height, width."""
        start = centre - self.cutout // 2
        end = np.minimum(start + self.cutout, self.size)
        start = np.maximum(start, 0)
        return np.concatenate([start, end - start], axis=1)


@dataclass(frozen=True, eq=False)
class Regions:
    """Where the views lie in the original images.

    Attributes:
        decode: int64 [B, 4], top, left, height, width of the pixels to decode: the region and the margin
            that the resampling filter reaches into.
        resample: float64 [B, 4], top, left, bottom, right of the region in the decoded part's pixels.
    """

    decode: IntArray
    resample: FloatArray


def find_regions(
    transforms: Transforms, views: Views, shapes: IntArray, output: IntArray, scales: IntArray | None = None
) -> Regions:
    """Take the windows back from the centre crop through the resize to the original images.

    Args:
        transforms: the sizes.
        views: the windows, B of them.
        shapes: int64 [B, 2], height and width of the upright originals.
        output: int64 [B, 2] or [2], height and width that the regions are resampled to.
        scales: int64 [B], pixels along each axis that become one when decoding; None for 1. The regions count
            in these.
    """
    reduced = shapes if scales is None else -(-shapes // scales[:, None])
    scale = shapes / transforms.resize if scales is None else shapes / transforms.resize / scales[:, None]
    start = (views.window[:, :2] + transforms.crop_offset) * scale
    end = np.minimum(start + views.window[:, 2:] * scale, reduced)
    # A triangle filter reaches one output pixel, or one input pixel when enlarging; one more for rounding.
    reach = np.maximum((end - start) / output, 1.0) + 1.0
    first = np.maximum(np.floor(start - reach), 0).astype(np.int64)
    last = np.minimum(np.ceil(end + reach), reduced).astype(np.int64)
    return Regions(
        decode=np.concatenate([first, last - first], axis=1),
        resample=np.concatenate([start - first, end - first], axis=1),
    )


def find_scales(transforms: Transforms, views: Views, shapes: IntArray) -> IntArray:
    """Choose how many pixels along each axis decoding makes one of: 1, 2, 4 or 8, int64 [B].

    As many as leave one for each pixel of the finished image, along both axes.
    """
    extent = views.window[:, 2:] * shapes / transforms.resize
    fewest = extent.min(axis=1) / transforms.size
    return np.exp2(np.clip(np.floor(np.log2(fewest)), 0, 3)).astype(np.int64)
