"""The index of a store of crops: the row of each image, with checksums of the file and the row."""

from __future__ import annotations

import json
import logging
import os
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fastccsa.formats.files import open_regular
from fastccsa.system.files import write_atomically

logger = logging.getLogger("fastccsa.images")

_READ_SIZE = 1 << 20


@dataclass
class Entry:
    """The state of one image file and its row.

    Attributes:
        row: position in the array.
        size: size of the file in bytes when the row was made or planned.
        mtime_ns: modification time of the file at that time.
        content: CRC-32 of the file's bytes at that time; None until they are read.
        pixels: CRC-32 of the row; None until the row is on the disk.
        broken: why the file is broken; None if it is not, or not known to be.
    """

    row: int
    size: int
    mtime_ns: int
    content: int | None = None
    pixels: int | None = None
    broken: str | None = None


@dataclass
class Index:
    """The index as stored on the disk.

    Attributes:
        settings: everything that the crops depend on besides the images.
        entries: the entry of each image by absolute path.
        rows: number of rows assigned so far. Rows of changed files are not reused, because another process may be
            reading them.
        array_mtime_ns: modification time of the array when the index was written. If the array was modified later,
            rows may be new or damaged, and must be verified with their checksums.
    """

    settings: dict[str, Any]
    entries: dict[str, Entry] = field(default_factory=dict)
    rows: int = 0
    array_mtime_ns: int = 0

    @classmethod
    def read(cls, path: Path, settings: dict[str, Any]) -> Index:
        """Read an index. If there is no readable index with these settings, return an empty one."""
        try:
            content = json.loads(path.read_bytes())
            if content["settings"] == settings:
                entries = {name: Entry(**values) for name, values in content["entries"].items()}
                return cls(settings, entries, int(content["rows"]), int(content["array_mtime_ns"]))
            logger.warning("%s has other settings; making all crops again", path)
        except FileNotFoundError:
            pass
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            logger.warning("%s cannot be read (%s); making all crops again", path, error)
        return cls(settings)

    def write(self, path: Path) -> None:
        """Replace the index on the disk atomically."""
        with write_atomically(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), separators=(",", ":")))

    def plan(self, path: str) -> bool:
        """Ensure that an image has an entry that matches its file; a changed file gets a new row.

        Returns:
            Whether the index changed.

        Raises:
            OSError: the file cannot be read.
        """
        stat = os.stat(path)
        known = self.entries.get(path)
        if known is not None and (known.size, known.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            return False
        if known is not None and known.pixels is not None and known.content == checksum(path):
            known.size, known.mtime_ns = stat.st_size, stat.st_mtime_ns  # only the modification time changed
        elif known is not None and known.pixels is None:
            self.entries[path] = Entry(known.row, stat.st_size, stat.st_mtime_ns)  # the row has not been written yet
        else:
            self.entries[path] = Entry(self.rows, stat.st_size, stat.st_mtime_ns)
            self.rows += 1
        return True


def checksum(path: str) -> int:
    """Compute the CRC-32 of a file's bytes.

    Raises:
        OSError: the file cannot be read, or is not a regular file.
    """
    crc = 0
    with open_regular(path) as file:
        while block := file.read(_READ_SIZE):
            crc = zlib.crc32(block, crc)
    return crc
