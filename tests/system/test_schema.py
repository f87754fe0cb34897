"""Values read from files are compared with annotations; everything that differs is named."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from fastccsa.system.errors import InputError
from fastccsa.system.reading import load_json, read_bytes, reported
from fastccsa.system.schema import Count, Filled, PathText, Range, Share, build


@dataclass(frozen=True)
class Inner:
    number: Count
    share: Share | None = None


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner
    kind: Literal["a", "b"] = "a"
    rows: tuple[tuple[float, ...], ...] = ()
    names: Annotated[tuple[str, ...], Filled()] = ("x",)
    three: tuple[int, int, int] = (1, 2, 3)
    by_name: Mapping[str, Inner] = field(default_factory=dict)
    count: int | Literal["all"] = "all"
    path: PathText = ""
    switch: bool = False
    size: Annotated[int, Range(1, 9)] = 1
    anything: Any = None


GOOD = {"name": "n", "inner": {"number": 3, "share": 0.5}}


def test_a_whole_record_is_read() -> None:
    values = GOOD | {
        "kind": "b", "rows": [[1, 2.5], []], "three": [4, 5, 6], "by_name": {"HAM": {"number": 0}}, "count": 7,
        "path": "a\udc80\nb", "switch": True, "size": 9, "anything": [{"deep": [1, None]}],
    }  # fmt: skip
    assert build(Outer, values) == Outer(
        "n", Inner(3, 0.5), "b", ((1, 2.5), ()), ("x",), (4, 5, 6), {"HAM": Inner(0)}, 7, "a\udc80\nb", True, 9,
        [{"deep": [1, None]}],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, "name is 3: it must be text"),
        ({"name": "a\0"}, r"name is 'a\\x00': it must be text without control"),
        ({"name": "\x1b[2J"}, "without control"),
        ({"name": "\ud800"}, "without control"),
        ({"path": "a\0"}, "path is"),
        ({"inner": {"number": True}}, r"inner\.number is True: it must be a whole number"),
        ({"inner": {"number": 1.0}}, "a whole number"),
        ({"inner": {"number": 10**30}}, "a whole number"),
        ({"inner": {"number": -1}}, r"inner\.number is -1: it must be at least 0"),
        ({"inner": {"number": 1, "share": 1.5}}, "between 0 and 1"),
        ({"inner": {"number": 1, "share": float("nan")}}, "inner.share is nan: it must be a number"),
        ({"inner": {"number": 1, "share": 10**400}}, "a number"),
        ({"inner": {}}, "number is missing in inner"),
        ({"inner": None}, "inner is None: it must be an object"),
        ({"surprise": 1}, "fields that this version does not know: 'surprise'"),
        ({"kind": "c"}, "kind is 'c': it must be one of 'a', 'b'"),
        ({"rows": [[1], [None]]}, r"rows\[1\]\[0\] is None"),
        ({"rows": "12"}, "rows is '12': it must be a list"),
        ({"names": []}, "names is .*: it must be filled in"),
        ({"three": [1, 2]}, "three is .*: it must be a list of 3"),
        ({"by_name": {"HAM": 1}}, "by_name.HAM is 1"),
        ({"by_name": {"\0": {"number": 0}}}, "a name in by_name"),
        ({"count": "some"}, "count is 'some': it must be a whole number or one of 'all'"),
        ({"count": True}, "count is True"),
        ({"switch": 1}, "switch is 1: it must be true or false"),
        ({"size": 10}, "size is 10: it must be between 1 and 9"),
        ({"anything": eval("[" * 40 + "]" * 40)}, "anything is nested more than"),
        ({"anything": {1, 2}}, "that JSON can hold"),
    ],
)
def test_what_differs_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build(Outer, GOOD | change)


def test_a_message_is_short_whatever_the_value() -> None:
    with pytest.raises(InputError) as caught:
        build(Outer, GOOD | {"name": {"x" * 9999: ["y" * 9999] * 9999}})
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\xff", "not UTF-8 text: byte 0 is 0xff"),
        (b"[" * 200_000, "nested too deeply"),
        (b"{", "not valid JSON"),
        (b"9" * 5000, "not valid JSON"),
        (b"", "not valid JSON"),
    ],
)
def test_bytes_that_are_not_json(content: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_json(content)


@pytest.mark.parametrize("what", ["folder", "pipe", "link to itself", "too large"])
def test_only_regular_files_up_to_a_size_are_read(tmp_path: Path, what: str) -> None:
    """A pipe would otherwise wait for a writer for ever."""
    file = tmp_path / "file"
    if what == "pipe":
        os.mkfifo(file)
    elif what == "folder":
        file.mkdir()
    elif what == "too large":
        file.write_bytes(b"12345")
    else:
        file.symlink_to("file")
    with pytest.raises(InputError, match=r"file is broken \(.+\); remove it"), reported(file, "is broken", "remove it"):
        read_bytes(file, limit=4)
