"""Files that several processes share: they are opened without following links and without emptying them."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from fastccsa.system.errors import InputError
from fastccsa.system.locks import open_shared, try_flock


def test_content_stays(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("content")
    os.close(open_shared(path))
    assert path.read_text() == "content"


def test_a_missing_file_is_made(tmp_path: Path) -> None:
    os.close(open_shared(tmp_path / "lock"))
    assert (tmp_path / "lock").read_bytes() == b""


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_refused(tmp_path: Path, there: bool) -> None:
    victim = tmp_path / "victim"
    if there:
        victim.write_text("precious")
    (tmp_path / "lock").symlink_to(victim)
    with pytest.raises(InputError, match="lock is a link, which is not followed here: remove it"):
        open_shared(tmp_path / "lock")
    assert victim.exists() == there


def test_a_hard_link_is_refused(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    os.link(victim, tmp_path / "crops.bin")
    with pytest.raises(InputError, match="is a hard link to another file, which would be changed too"):
        open_shared(tmp_path / "crops.bin")


def test_a_fifo_and_a_folder_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path):
        with pytest.raises(InputError, match="is not a regular file: remove it"):
            open_shared(path)


def test_a_lock_excludes_others_until_it_is_closed(tmp_path: Path) -> None:
    first, second = open_shared(tmp_path / "lock"), open_shared(tmp_path / "lock")
    assert try_flock(first) is True
    assert try_flock(second) is False
    assert try_flock(second, shared=True) is False
    os.close(first)
    assert try_flock(second) is True
    os.close(second)


def test_a_file_system_without_locks_is_told_from_a_held_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    file = open_shared(tmp_path / "lock")
    assert try_flock(file) is None
    os.close(file)
