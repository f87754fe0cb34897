"""The index of a store is believed only if its rows can be those of its images."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastccsa.images.store_index import Entry, Index

SETTINGS = {"format": 1}


@pytest.fixture
def written(tmp_path: Path) -> Path:
    index = Index(SETTINGS, {f"/{row}.jpg": Entry(row, 10, 20, 30, 40) for row in range(3)}, 3, 50)
    index.write(tmp_path / "index.json")
    return tmp_path / "index.json"


def test_what_was_written_is_read(written: Path) -> None:
    index = Index.read(written, SETTINGS)
    assert (index.rows, index.array_mtime_ns) == (3, 50)
    assert index.entries["/2.jpg"] == Entry(2, 10, 20, 30, 40)
    assert Index.read(written, {"format": 2}).entries == {}


def entry(**changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["entries"]["/1.jpg"].update(changes)


CRAFTED: dict[str, Callable[[dict[str, Any]], object]] = {
    "a row twice": entry(row=0),
    "a negative row": entry(row=-1),
    "a row that is text": entry(row="1"),
    "a row that is a truth value": entry(row=True),
    "a size that is a list": entry(size=[]),
    "a time beyond 64 bits": entry(mtime_ns=10**30),
    "a checksum that is text": entry(pixels="40"),
    "a reason that is a number": entry(broken=3),
    "another field": entry(surprise=1),
    "a field less": lambda content: content["entries"]["/1.jpg"].pop("size"),
    "an entry that is a list": lambda content: content["entries"].update({"/1.jpg": [1]}),
    "more rows than images": lambda content: content.update(rows=9),
    "a million rows": lambda content: (entry(row=10**6)(content), content.update(rows=10**6 + 1)),
    "rows that are text": lambda content: content.update(rows="3"),
    "entries that are a list": lambda content: content.update(entries=[1]),
    "a time that is text": lambda content: content.update(array_mtime_ns="now"),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_index_is_not_believed(written: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    content = json.loads(written.read_text())
    CRAFTED[name](content)
    written.write_text(json.dumps(content))
    assert Index.read(written, SETTINGS) == Index(SETTINGS)
    assert "cannot be read" in caplog.text
    assert "making all crops again" in caplog.text


def test_an_index_of_many_rows_is_believed_if_the_array_has_them(written: Path) -> None:
    """Files that change get new rows."""
    content = json.loads(written.read_text())
    CRAFTED["a million rows"](content)
    written.write_text(json.dumps(content))
    assert len(Index.read(written, SETTINGS, stored=10**6 + 1).entries) == 3


@pytest.mark.parametrize("content", [b"[" * 200_000, b'{"entries": {}, "settings": "\xff"}', None])
def test_other_files_are_no_index(written: Path, caplog: pytest.LogCaptureFixture, content: bytes | None) -> None:
    if content is None:
        written.unlink()
        os.mkfifo(written)
    else:
        written.write_bytes(content)
    assert Index.read(written, SETTINGS) == Index(SETTINGS)
    assert "cannot be read" in caplog.text
