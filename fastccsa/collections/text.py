"""Reading of text files in the encodings that spreadsheet programs write."""

from __future__ import annotations

import codecs
import csv
import io
import logging
from functools import lru_cache
from pathlib import Path

from fastccsa.system.errors import InputError
from fastccsa.system.reading import check_regular

logger = logging.getLogger("fastccsa.collections")

# UTF-32 first: its little-endian mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_FALLBACK = "cp1252"  # of Windows in Western Europe and America; contains the letters of Latin-1
_SEPARATORS = ",;\t"
_START = 1 << 16  # bytes read to see a table's header


def read_text(path: Path, what: str = "") -> str:
    """Read a text file in UTF-8, in UTF-16 or UTF-32 with a byte order mark, or in Windows-1252.

    A warning names files in Windows-1252, because other encodings of one byte per letter cannot be told from it. No
    letter is ever replaced.

    Args:
        path: the file.
        what: what the file is, for the message if it cannot be read.

    Raises:
        InputError: the file cannot be read, or is in none of these encodings; the message names the line.
    """
    try:
        check_regular(path)  # a pipe would wait forever
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {what}{path}: {error.strerror}") from error
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding != "utf-8":
            raise InputError(
                f"{path} starts as {encoding.upper()} but is damaged at byte {error.start}; save it as CSV in UTF-8"
            ) from error
        text = _western(path, content, error.start)
    if "\0" in text:
        raise InputError(
            f"{path}: line {_line(text[: text.index(chr(0))])} has NUL characters, so it is not text, or UTF-16 "
            "without a byte order mark; save it as CSV in UTF-8"
        )
    return text


def start_of_text(path: Path) -> str:
    """Return the first 64 KiB of a text file for a look at its header; "" if the file is not readable text."""
    try:
        check_regular(path)
        with path.open("rb") as file:
            content = file.read(_START)
    except OSError:
        return ""
    encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
    text = content.decode(encoding, errors="replace")
    return "" if "\0" in text else text


def separator_of(text: str) -> str:
    """Return the separator (comma, semicolon or tab) that splits the header of a table into the most fields."""

    def fields(separator: str) -> int:
        return len(next(csv.reader(io.StringIO(text, newline=""), delimiter=separator), []))

    return max(_SEPARATORS, key=fields)


def _western(path: Path, content: bytes, first: int) -> str:
    try:
        text = content.decode(_FALLBACK)
    except UnicodeDecodeError as error:
        line = _line(content[: error.start].decode(_FALLBACK))
        raise InputError(
            f"{path}: line {line} has the byte 0x{content[error.start]:02x}, which is neither UTF-8 nor Windows-1252; "
            "save the file as CSV in UTF-8"
        ) from error
    _say_western(str(path), _line(text[:first]), text[first])
    return text


@lru_cache(maxsize=256)  # a file is named once, although several readers may look at it
def _say_western(path: str, line: int, letter: str) -> None:
    logger.warning(
        "%s is not UTF-8 and was read as Windows-1252: line %d has %r; save it in UTF-8 if that letter is wrong",
        path, line, letter,
    )  # fmt: skip


def _line(before: str) -> int:
    """Return the number of the line that follows the text ``before`` it."""
    return before.replace("\r\n", "\n").replace("\r", "\n").count("\n") + 1
