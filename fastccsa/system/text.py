"""Text from outside on its way to people: control characters are made visible, formulas and markup quoted."""

from __future__ import annotations

import re
from collections.abc import Iterable

# C0 and C1 control characters, line and paragraph separators, and marks that reverse the direction of the text: they
# can hide or change what a terminal or an editor shows.
CONTROL = "[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]"
_CONTROL = re.compile(CONTROL)
_CONTROL_BUT_LINES = re.compile("(?![\n\t])" + CONTROL)
_SURROGATE = re.compile("[\ud800-\udfff]")  # bytes of a file's name that are not text
_MARKDOWN = re.compile(r"[\\`*_<>|~&$#@]|\](?=[(\[:])|(?<=http):|(?<=https):|(?<=www)\.")
_NUMBER = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?")


def printable(text: str, lines: bool = False) -> str:
    """Return ``text`` with control characters as escape sequences, as in ``repr``.

    Args:
        text: any text.
        lines: keep line ends and tabs.
    """
    text = (_CONTROL_BUT_LINES if lines else _CONTROL).sub(_escape, text)
    return _SURROGATE.sub(_escape, text)


def markdown(text: str) -> str:
    """Return ``text`` for Markdown, in which it then has no effect: no markup, HTML, links or cells of a table."""
    return _MARKDOWN.sub(lambda found: f"\\{found[0]}", printable(text))


def spreadsheet_row(cells: Iterable[object]) -> list[str]:
    """Return the cells of a row of a CSV file for people, as text.

    A cell that a spreadsheet program would take for a formula (it begins with ``=``, ``+``, ``-`` or ``@``) gets an
    apostrophe in front, which such programs do not show. Numbers and a single dash stay as they are.
    """
    return [_quoted(str(cell)) for cell in cells]


def _quoted(cell: str) -> str:
    if cell[:1] in ("=", "+", "-", "@", "\t", "\r") and cell != "-" and not _NUMBER.fullmatch(cell):
        return f"'{cell}"
    return cell


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
