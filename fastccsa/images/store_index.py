"""The index of a store of crops: the row of each image, with checksums of the file and the row."""

from __future__ import annotations

import json
import logging
import os
import zlib
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from fastccsa.formats.files import open_regular
from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically
from fastccsa.system.reading import load_json, read_bytes
from fastccsa.system.schema import Mismatch, build

logger = logging.getLogger("fastccsa.images")

_READ_SIZE = 1 << 20
_MOST_CHANGES = 64  # rows per image beyond which an index whose array was cut short is not believed


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

    def is_of(self, path: str) -> bool:
        """Return whether the row is on the disk, and the image file is as it was when the row was made."""
        return self.pixels is not None and self.describes(path)

    def describes(self, path: str) -> bool:
        """Return whether the image file is as it was when the row was made or planned."""
        try:
            status = os.stat(path)
        except OSError:
            return False
        return (self.size, self.mtime_ns) == (status.st_size, status.st_mtime_ns)


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
    def read(cls, path: Path, settings: dict[str, Any], stored: int = 0, quiet: bool = False) -> Index:
        """Read an index. If there is no readable index with these settings, return an empty one.

        Args:
            path: the file.
            settings: the settings that it must have.
            stored: number of rows that the array has room for.
            quiet: do not log why it cannot be read.
        """
        level = logging.DEBUG if quiet else logging.WARNING
        try:
            content = load_json(read_bytes(path))
            if not isinstance(content, dict) or not isinstance(content.get("entries"), dict):
                raise Mismatch("it does not have entries")
            if content.get("settings") == settings:
                entries = {name: _entry(name, values) for name, values in content["entries"].items()}
                rows, mtime = (build(int, content.get(name), name) for name in ("rows", "array_mtime_ns"))
                _check_rows(entries, rows, stored)
                return cls(settings, entries, rows, mtime)
            logger.log(level, "%s has other settings; making all crops again", path)
        except FileNotFoundError:
            pass
        except (OSError, InputError) as error:
            logger.log(level, "%s cannot be read (%s); making all crops again", path, error)
        return cls(settings)

    def write(self, path: Path) -> None:
        """Replace the index on the disk atomically."""
        with write_atomically(path, follow_links=False) as temporary:
            # `asdict` would copy every value, which takes a third of the time of making small crops.
            content = vars(self) | {"entries": {path: vars(entry) for path, entry in self.entries.items()}}
            temporary.write_text(json.dumps(content, separators=(",", ":")))

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


# Types of the fields of an entry; an index may have a million of them, so that they are not read by a schema.
_TYPES = {
    "row": (int,),
    "size": (int,),
    "mtime_ns": (int,),
    "content": (int, type(None)),
    "pixels": (int, type(None)),
    "broken": (str, type(None)),
}


def _entry(name: str, values: Any) -> Entry:
    if not isinstance(values, dict) or values.keys() != _TYPES.keys():
        raise Mismatch(f"the entry of {name!r} does not have the fields of an entry")
    for field_name, types in _TYPES.items():
        value = values[field_name]
        if type(value) not in types or (type(value) is int and not -(2**63) <= value < 2**63):
            raise Mismatch(f"the {field_name} of {name!r} has another type or range")
    return Entry(**values)


def _check_rows(entries: dict[str, Entry], rows: int, stored: int) -> None:
    """Check that each entry has a row of its own, and that the array of all rows is not larger than it can be."""
    taken = sorted(entry.row for entry in entries.values())
    if any(row == following for row, following in pairwise(taken)):
        raise Mismatch("two images have the same row")
    # Rows are assigned in order, so that the last one belongs to an entry. A file that changes gets a new row.
    if (taken and taken[0] < 0) or rows != (taken[-1] + 1 if taken else 0):
        raise Mismatch(f"its entries do not match its {rows} rows")
    if rows > max(stored, _MOST_CHANGES * (len(entries) + _MOST_CHANGES)):
        raise Mismatch(f"it has {rows} rows for {len(entries)} images")


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
