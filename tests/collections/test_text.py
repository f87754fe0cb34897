from __future__ import annotations

import logging
from pathlib import Path

import pytest

from fastccsa.collections.tables import read_table
from fastccsa.collections.text import read_text
from fastccsa.system.errors import InputError

LETTERS = "image,label\n1.png,côté\n2.png,câté\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_unicode_is_read_without_a_word(tmp_path: Path, encoding: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes((LETTERS + "3.png,黒子\n").encode(encoding))
    assert read_text(path) == LETTERS + "3.png,黒子\n"
    assert not caplog.records


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252"])
def test_western_letters_are_kept_and_said(tmp_path: Path, encoding: str, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(LETTERS.encode(encoding))
    with caplog.at_level(logging.WARNING, "fastccsa.collections"):
        assert [row["label"] for row in read_table(path).rows] == ["côté", "câté"]
    (record,) = caplog.records
    assert f"{path} is not UTF-8 and was read as Windows-1252: line 2 has 'ô'" in record.getMessage()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"image,label\r\n1.png,a\r\n2.png,\x81\r\n", r"line 3 has the byte 0x81, which is neither UTF-8 nor"),
        ("image,label\n1.png,a\n".encode("utf-16-le"), r"line 1 has NUL characters"),
        (b"image,label\n1.png,a\n2.png,\0\n", r"line 3 has NUL characters"),
        ("image,label\n".encode("utf-16") + b"\x00", r"starts as UTF-16 but is damaged at byte 26"),
    ],
)
def test_what_is_not_text_is_refused_with_its_place(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_text(path)


def test_an_open_quote_does_not_swallow_the_rows_below(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('image,label\n1.png,"a\n2.png,b\n3.png,c\n')
    with pytest.raises(InputError, match=r"t\.csv is not a table: line 4: unexpected end of data; check its quotes"):
        read_table(path)


def test_old_line_ends_of_the_mac_separate_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"image\tlabel\r1.png\ta\r2.png\tb\r")
    assert [row["label"] for row in read_table(path).rows] == ["a", "b"]
