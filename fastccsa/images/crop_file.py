"""The crops of a store, read from their file with each access.

They are not memory-mapped: if a mapped file is cut short while it is used, touching the part that is gone ends the
process (SIGBUS), and no check in advance prevents that. Reading the same part fails with an error instead, after which
a run is saved and can be resumed. Each thread reads a window of a crop just before it resamples it, while the crop is
in its cache.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path

import numpy as np

from fastccsa.images.transforms import IntArray
from fastccsa.system.errors import InputError

_CHANNELS = 3


class CacheError(InputError):
    """Crops cannot be kept: their folder cannot be written, or there is no room on the disk or in memory."""


class DamagedCropsError(CacheError):
    """Crops in a store do not have their checksums. Opened with ``verify``, the store makes them again."""


class CropFile:
    """A file of crops, uint8 [rows, side, side, 3]; rows that other processes append later are not part of it.

    Attributes:
        path: the file.
        shape: rows, side, side, 3.

    Args:
        path: the file.
        rows: number of crops.
        side: side length of a crop in pixels.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, rows: int, side: int) -> None:
        self.path = path
        self.shape = (rows, side, side, _CHANNELS)
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._close = weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return self.shape[0]

    def fileno(self) -> int:
        """Return the descriptor of the open file.

        Raises:
            InputError: the file was closed.
        """
        if not self._close.alive:
            raise InputError(f"{self.path} is closed: create a new loader")
        return self._file

    def __getitem__(self, rows: IntArray) -> np.ndarray:
        """Read crops: uint8 [k, side, side, 3] for positions [k], each in [0, rows).

        Raises:
            InputError: the file was cut short, or cannot be read.
        """
        found = np.empty((len(rows), *self.shape[1:]), np.uint8)
        self.read(rows, found)
        return found

    def read(self, rows: IntArray, out: np.ndarray) -> None:
        """Read crops as by indexing, but into ``out``, which must be contiguous. Thread-safe."""
        for crop, row in zip(out, rows.tolist(), strict=True):
            if not 0 <= row < len(self):
                raise IndexError(f"row {row} of {len(self)}")
            self._read(crop.reshape(-1), row * crop.nbytes)

    def cut_short(self) -> InputError:
        """Return the error for a file of which a part is missing or unreadable."""
        return InputError(
            f"{self.path} was cut short or damaged while it was used: repeat the command, which makes the missing "
            "crops again"
        )

    def close(self) -> None:
        """Close the file. It cannot be read afterwards."""
        self._close()

    def _read(self, to: np.ndarray, offset: int) -> None:
        while to.size:
            try:
                count = os.preadv(self.fileno(), [to.data], offset)
            except OSError as error:
                raise self.cut_short() from error
            if count == 0:
                raise self.cut_short()
            to, offset = to[count:], offset + count
