"""Reading of the image files of a batch, with broken images replaced by others."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import get_args

import numpy as np
import numpy.typing as npt

from fastccsa.formats.files import file_problem
from fastccsa.images.choices import OnError
from fastccsa.images.decode import BrokenImageError, EncodedImage, decode, read_image, uncompressed
from fastccsa.images.transforms import IntArray, Views
from fastccsa.system.choices import check_choice
from fastccsa.system.errors import InputError

logger = logging.getLogger("fastccsa.images")

ON_ERROR = get_args(OnError)
_NAMED_AT_START = 10  # number of missing files named in the log at the start; the rest are only counted


@dataclass
class EncodedBatch:
    """The encoded images that a backend makes a batch from.

    Attributes:
        requested: int64 [B], the image requested for each row.
        indices: int64 [B], the image shown in each row, after replacements.
        images: the B encoded images.
        views: the view of each image.
        uncompressed: whether `ImageSource.uncompress` has already converted every image to uncompressed pixels.
    """

    requested: IntArray
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
    """Reads images by index. Broken images are logged, recorded and replaced.

    The replacement is the next valid image in the order of the manifest with the same class and domain; if there is
    none, the next with the same class, then with the same domain, then any. The choice depends only on which files are
    broken, not on the order in which they were found. Thread-safe.

    Args:
        paths: file of each image.
        labels: int64 [n], class of each image.
        domains: int64 [n], domain of each image.
        on_error: "replace", or "raise" to stop at the first broken image.

    Attributes:
        broken: path and reason of every image found broken so far.

    Raises:
        InputError: no image file exists or, with ``on_error="raise"``, one is missing or empty.
    """

    def __init__(
        self,
        paths: Sequence[str],
        labels: npt.ArrayLike,
        domains: npt.ArrayLike,
        on_error: str = "replace",
    ) -> None:
        check_choice("on_error", on_error, ON_ERROR)
        if not paths:
            raise InputError("the manifest has no images to load; check the split and domains that were selected")
        self.broken: dict[str, str] = {}
        self._paths = list(paths)
        self._labels = np.asarray(labels)
        self._domains = np.asarray(domains)
        self._on_error = on_error
        self._uncompressed: set[int] = set()  # images that the backend cannot decode but Pillow can
        self._lock = Lock()
        self._find_missing()

    @property
    def paths(self) -> list[str]:
        """File of each image."""
        return self._paths

    def read(self, indices: IntArray, views: Views) -> EncodedBatch:
        """Read the images of a batch.

        Raises:
            InputError: an image is broken and ``on_error`` is "raise", or no valid image is left.
        """
        read = [self._read(int(index)) for index in indices]
        shown = np.array([index for index, _ in read], np.int64)
        return EncodedBatch(np.array(indices, np.int64), shown, [image for _, image in read], views)

    def shown(self) -> IntArray:
        """Return the index of the image shown in place of each image, given the broken ones found so far: int64 [n].

        Raises:
            InputError: no valid image is left.
        """
        shown = np.arange(len(self._paths))
        for index in np.flatnonzero([path in self.broken for path in self._paths]):
            valid = (other for other in self._candidates(int(index)) if self._paths[other] not in self.broken)
            shown[index] = next(valid, -1)
            if shown[index] < 0:
                raise self._none_left(int(index))
        return shown

    def replace_broken(self, batch: EncodedBatch) -> bool:
        """Replace the images of a batch that Pillow cannot decode, in place, after a backend failed on it.

        Returns:
            Whether there are any, so that a retry makes sense.

        Raises:
            InputError: as for `read`.
        """
        changed = False
        for row, image in enumerate(batch.images):
            try:
                decode(image.data)
            except BrokenImageError as error:
                self.replace(batch, row, str(error))
                changed = True
        return changed

    def uncompress(self, batch: EncodedBatch) -> bool:
        """Pass all images of a batch, none of which is broken, to the backend as pixels, now and in later batches.

        Returns:
            Whether they were not pixels before, so that a retry makes sense.
        """
        if batch.uncompressed:
            return False
        self._uncompressed.update(batch.indices.tolist())
        batch.images = [uncompressed(image) for image in batch.images]
        batch.uncompressed = True
        return True

    def decode_uncommon(self, batch: EncodedBatch) -> None:
        """Decode the images of a batch that not every backend can decode, in place; broken ones are replaced.

        Raises:
            InputError: as for `read`.
        """
        for row in range(len(batch)):
            while not batch.images[row].is_common:
                try:
                    batch.images[row] = uncompressed(batch.images[row])
                except BrokenImageError as error:
                    self.replace(batch, row, str(error))

    def replace(self, batch: EncodedBatch, row: int, reason: str) -> None:
        """Record that the image in a row of a batch is broken, and replace it.

        Raises:
            InputError: as for `read`.
        """
        self._record(int(batch.indices[row]), reason)
        # The replacement is chosen for the requested image, not for an earlier replacement. Otherwise it would depend
        # on which of the two was found broken first.
        batch.indices[row], batch.images[row] = self._read(int(batch.requested[row]))

    def _read(self, index: int) -> tuple[int, EncodedImage]:
        for candidate in self._candidates(index):
            if self._paths[candidate] in self.broken:
                continue
            try:
                image = read_image(self._paths[candidate])
                return candidate, uncompressed(image) if candidate in self._uncompressed else image
            except BrokenImageError as error:
                self._record(candidate, str(error))
        raise self._none_left(index)

    def _none_left(self, index: int) -> InputError:
        return InputError(
            f"none of the {len(self._paths)} images can be read, the last being {self._paths[index]} "
            f"({self.broken[self._paths[index]]}); check the manifest's paths"
        )

    def _candidates(self, index: int) -> Iterator[int]:
        """Yield the image itself, then the others from the most to the least similar."""
        yield index
        other_class = self._labels != self._labels[index]
        other_domain = self._domains != self._domains[index]
        distance = (np.arange(len(self._paths)) - index) % len(self._paths)
        order = np.lexsort((distance, other_domain, other_class))
        yield from (int(candidate) for candidate in order if candidate != index)

    def _record(self, index: int, reason: str, quiet: bool = False) -> None:
        path = self._paths[index]
        if self._on_error == "raise":
            raise InputError(
                f"{path}: {reason}; fix or remove it, or replace it with --broken-images replace "
                "(in Python: on_error='replace')"
            )
        with self._lock:
            known = path in self.broken
            self.broken[path] = reason
        if not known and not quiet:
            logger.warning("%s: %s; another image is shown in its place", path, reason)

    def _find_missing(self) -> None:
        """Find files that are missing, empty, too large or not regular before loading starts."""
        for index, path in enumerate(self._paths):
            reason = file_problem(path)
            if reason is not None:
                self._record(index, reason, quiet=len(self.broken) >= _NAMED_AT_START)
        if len(self.broken) == len(set(self._paths)):
            raise InputError(
                f"none of the manifest's {len(self._paths)} image files exists, for example {self._paths[0]}; "
                "check its paths"
            )
        if len(self.broken) > _NAMED_AT_START:
            logger.warning("%d more image files are missing or empty", len(self.broken) - _NAMED_AT_START)
