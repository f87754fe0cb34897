"""The index of a store of crops: which row of the array holds which image, and whether it can be trusted."""

from __future__ import annotations

import json
import logging
import os
import zlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fastccsa.system.files import write_atomically

logger = logging.getLogger("fastccsa.images")

_READ_SIZE = 1 << 20


@dataclass
class Entry:
    """What is known of one image file and its row.

    Attributes:
        row: its place in the array.
        size: bytes of the file when the row was made, or planned.
        mtime_ns: the file's time of modification then.
        content: CRC-32 of the file's bytes then; None until they are read.
        pixels: CRC-32 of the row; None until the row is on the disk.
        broken: why the file holds no image; None where it does, or is not known yet.
    """

    row: int
    size: int
    mtime_ns: int
    content: int | None = None
    pixels: int | None = None
    broken: str | None = None


@dataclass
class Index:
    """The index as it is on the disk.

    Attributes:
        settings: what the crops depend on besides the images.
        entries: absolute path of an image to its entry.
        rows: rows given away so far; those of files that changed are not given again, for another process may
            be reading them.
        array_mtime_ns: the array's time of modification when the index was written. A later one means that
            rows were written, or damaged, since: then the checksums tell which to trust.
    """

    settings: dict[str, Any]
    entries: dict[str, Entry] = field(default_factory=dict)
    rows: int = 0
    array_mtime_ns: int = 0

    @classmethod
    def read(cls, path: Path, settings: dict[str, Any]) -> Index:
        """Read an index; an empty one where there is none, or none of these settings that can be read."""
        try:
            content = json.loads(path.read_bytes())
            if content["settings"] == settings:
                entries = {name: Entry(**values) for name, values in content["entries"].items()}
                return cls(settings, entries, int(content["rows"]), int(content["array_mtime_ns"]))
            logger.warning("%s is of other settings; the crops are made anew", path)
        except FileNotFoundError:
            pass
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            logger.warning("%s cannot be read (%s); the crops are made anew", path, error)
        return cls(settings)

    def write(self, path: Path) -> None:
        """Replace the index on the disk, at once or not at all."""
        with write_atomically(path) as temporary:
            temporary.write_text(json.dumps(asdict(self), separators=(",", ":")))

    def plan(self, path: str) -> bool:
        """Make sure that an image has an entry that fits its file; a changed file gets a new row.

        Returns:
            Whether the index was changed.

        Raises:
            OSError: the file cannot be read.
        """
        stat = os.stat(path)
        known = self.entries.get(path)
        if known is not None and (known.size, known.mtime_ns) == (stat.st_size, stat.st_mtime_ns):
            return False
        if known is not None and known.pixels is not None and known.content == checksum(path):
            known.size, known.mtime_ns = stat.st_size, stat.st_mtime_ns  # touched or copied, but the same
        elif known is not None and known.pixels is None:
            self.entries[path] = Entry(known.row, stat.st_size, stat.st_mtime_ns)  # the row was not used yet
        else:
            self.entries[path] = Entry(self.rows, stat.st_size, stat.st_mtime_ns)
            self.rows += 1
        return True


def checksum(path: str) -> int:
    """CRC-32 of a file's bytes.

    Raises:
        OSError: the file cannot be read.
    """
    crc = 0
    with open(path, "rb") as file:
        while block := file.read(_READ_SIZE):
            crc = zlib.crc32(block, crc)
    return crc
