"""From image numbers to the bytes of a batch, with whole images in the place of broken ones."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np
import numpy.typing as npt

from fastccsa.images.decode import BrokenImageError, EncodedImage, decode, read_image, uncompressed
from fastccsa.images.transforms import IntArray, Views
from fastccsa.system.errors import InputError

logger = logging.getLogger("fastccsa.images")

ON_ERROR = ("replace", "raise")
_NAMED_AT_START = 10  # further files found missing at the start are counted, not named, in the log


@dataclass
class EncodedBatch:
    """What a backend makes a batch of images from.

    Attributes:
        asked: int64 [B], the image that each row was to show.
        indices: int64 [B], the image that each row really shows, after replacement.
        images: the B encoded images.
        views: how each is to be seen.
        uncompressed: whether every image has been handed over uncompressed already.
    """

    asked: IntArray
    indices: IntArray
    images: list[EncodedImage]
    views: Views
    uncompressed: bool = False

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shapes(self) -> IntArray:
        """Height and width of the upright images, int64 [B, 2]."""
        return np.array([(image.height, image.width) for image in self.images], np.int64).reshape(-1, 2)


class ImageSource:
    """Reads images by number; a broken one is named in the log, remembered, and replaced.

    The replacement is the next image, in the manifest's order, of the same class and domain; where that
    group has no whole image, of the same class, else of the same domain, else any. It depends on the broken
    files alone, not on when they were found. Safe to use from several threads.

    Args:
        paths: file of each image.
        labels: int64 [n], class of each image.
        domains: int64 [n], domain of each image.
        on_error: "replace", or "raise" to stop at the first broken image.

    Attributes:
        broken: path to reason, of every image found broken so far.

    Raises:
        InputError: no image file is there at all, or (with ``on_error="raise"``) one is not, or is empty.
    """

    def __init__(
        self,
        paths: Sequence[str],
        labels: npt.ArrayLike,
        domains: npt.ArrayLike,
        on_error: str = "replace",
    ) -> None:
        if on_error not in ON_ERROR:
            raise InputError(f"on_error is {on_error!r}; give one of {', '.join(ON_ERROR)}")
        if not paths:
            raise InputError("the manifest has no images to load; check the split and domains it was reduced to")
        self.broken: dict[str, str] = {}
        self._paths = list(paths)
        self._labels = np.asarray(labels)
        self._domains = np.asarray(domains)
        self._on_error = on_error
        self._undecodable: set[int] = set()  # by this machine's DALI, though Pillow can
        self._lock = Lock()
        self._find_missing()

    @property
    def paths(self) -> list[str]:
        """File of each image."""
        return self._paths

    def read(self, indices: IntArray, views: Views) -> EncodedBatch:
        """Read the images of a batch.

        Raises:
            InputError: an image is broken and ``on_error`` is "raise", or no whole image is left.
        """
        read = [self._read(int(index)) for index in indices]
        used = np.array([index for index, _ in read], np.int64)
        return EncodedBatch(np.array(indices, np.int64), used, [image for _, image in read], views)

    def shown(self) -> IntArray:
        """Which image is shown for each, as far as broken ones are known: int64 [n].

        Raises:
            InputError: no whole image is left.
        """
        shown = np.arange(len(self._paths))
        for index in np.flatnonzero([path in self.broken for path in self._paths]):
            whole = (other for other in self._candidates(int(index)) if self._paths[other] not in self.broken)
            shown[index] = next(whole, -1)
            if shown[index] < 0:
                raise self._none_left(int(index))
        return shown

    def repair(self, batch: EncodedBatch) -> bool:
        """After a backend failed on a batch, make it decodable, in place.

        Images that Pillow cannot decode either are replaced. Where there are none, all are handed over
        uncompressed, now and whenever they come again.

        Returns:
            Whether anything was changed, so that trying again makes sense.

        Raises:
            InputError: as `read`.
        """
        changed = False
        for row, image in enumerate(batch.images):
            try:
                decode(image.data)
            except BrokenImageError as error:
                self.replace(batch, row, str(error))
                changed = True
        if changed or batch.uncompressed:
            return changed
        self._undecodable.update(batch.indices.tolist())
        batch.images = [uncompressed(image) for image in batch.images]
        batch.uncompressed = True
        return True

    def replace(self, batch: EncodedBatch, row: int, reason: str) -> None:
        """Record that the image a row shows is broken, and put another in its place.

        Raises:
            InputError: as `read`.
        """
        self._record(int(batch.indices[row]), reason)
        # In the place of what was asked for, not of what stood in for it: which of the two was found broken first
        # would else decide.
        batch.indices[row], batch.images[row] = self._read(int(batch.asked[row]))

    def _read(self, index: int) -> tuple[int, EncodedImage]:
        for candidate in self._candidates(index):
            if self._paths[candidate] in self.broken:
                continue
            try:
                image = read_image(self._paths[candidate])
                return candidate, uncompressed(image) if candidate in self._undecodable else image
            except BrokenImageError as error:
                self._record(candidate, str(error))
        raise self._none_left(index)

    def _none_left(self, index: int) -> InputError:
        return InputError(
            f"none of the {len(self._paths)} images can be read, the last being {self._paths[index]} "
            f"({self.broken[self._paths[index]]}); check the manifest's paths"
        )

    def _candidates(self, index: int) -> Iterator[int]:
        """Yield the image itself, then the others from the most to the least alike."""
        yield index
        other_class = self._labels != self._labels[index]
        other_domain = self._domains != self._domains[index]
        distance = (np.arange(len(self._paths)) - index) % len(self._paths)
        order = np.lexsort((distance, other_domain, other_class))
        yield from (int(candidate) for candidate in order if candidate != index)

    def _record(self, index: int, reason: str, quiet: bool = False) -> None:
        path = self._paths[index]
        if self._on_error == "raise":
            raise InputError(f"{path}: {reason}; mend or remove it, or load with on_error='replace'")
        with self._lock:
            known = path in self.broken
            self.broken[path] = reason
        if not known and not quiet:
            logger.warning("%s: %s; another image is shown in its place", path, reason)

    def _find_missing(self) -> None:
        """Find missing and empty files before any work is done."""
        for index, path in enumerate(self._paths):
            try:
                reason = None if os.stat(path).st_size else "the file is empty"
            except OSError as error:
                reason = error.strerror or str(error)
            if reason is not None:
                self._record(index, reason, quiet=len(self.broken) >= _NAMED_AT_START)
        if len(self.broken) == len(set(self._paths)):
            raise InputError(
                f"none of the manifest's {len(self._paths)} image files is there, such as {self._paths[0]}; "
                "check its paths"
            )
        if len(self.broken) > _NAMED_AT_START:
            logger.warning("%d more image files are missing or empty", len(self.broken) - _NAMED_AT_START)
