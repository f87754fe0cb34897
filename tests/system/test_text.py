"""Text from outside on its way to terminals and spreadsheets."""

from __future__ import annotations

import pytest

from fastccsa.system.text import markdown, printable, spreadsheet_row


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nævus Ünï 黒色腫 😀", "nævus Ünï 黒色腫 😀"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x9b31m\x7f", r"\x9b31m\x7f"),
        ("\u2028\u202egpj.exe\u2066", r"\u2028\u202egpj.exe\u2066"),
        ("\udcff.jpg", r"\udcff.jpg"),
    ],
)
def test_control_characters_are_shown_as_escapes(text: str, shown: str) -> None:
    assert printable(text) == shown
    shown.encode()  # can be printed


def test_lines_may_stay() -> None:
    assert printable("a\n\tb\x07\rc", lines=True) == "a\n\tb\\x07\\rc"


def test_formulas_are_quoted_and_numbers_are_not() -> None:
    formulas = ["=1+1", "@SUM(A1)", "+x", "-x", "-2+3", "\t=1", "=HYPERLINK(1)", "+1+1"]
    assert spreadsheet_row(formulas) == [f"'{cell}" for cell in formulas]
    others = ["-1.5", "+2", "-3e-5", "-", "", "K", "a=b", 4, -1, True]
    assert spreadsheet_row(others) == [str(cell) for cell in others]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("K, 0.5 (a-b)", "K, 0.5 (a-b)"),
        ("a|b_c*d`e~f#g$h", r"a\|b\_c\*d\`e\~f\#g\$h"),
        ("<b>&amp;[x](y)", r"\<b\>\&amp;[x\](y)"),
        ("1.5 [1.0, 2.0] ![x][y] [x]: z", r"1.5 [1.0, 2.0] ![x\][y] [x\]: z"),
        ("http://a www.b c@d 1:2", r"http\://a www\.b c\@d 1:2"),
        ("\\|", r"\\\|"),
        ("\u202e", r"\\u202e"),
    ],
)
def test_markdown_shows_text_as_it_is(text: str, shown: str) -> None:
    assert markdown(text) == shown
