"""One writer: a second process that trains or prunes into the same folder is told who is there."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastccsa.pruning import prune
from fastccsa.runs import locks
from fastccsa.runs.folder import SCORES_FILE
from fastccsa.runs.locks import is_locked, lock_file, lock_run, try_lock
from fastccsa.system.errors import InputError
from fastccsa.training import train

HOLD = """
import sys, time
from pathlib import Path
from fastccsa.runs.locks import lock_run
with lock_run(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[str]]]:
    """Processes to end after the test."""
    monkeypatch.setattr(locks, "_PATIENCE_SECONDS", 0.01)
    processes: list[subprocess.Popen[str]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def hold(folder: Path, processes: list[subprocess.Popen[str]]) -> int:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True)
    processes.append(process)
    assert process.stdout is not None
    assert process.stdout.readline() == "locked\n"
    return process.pid


def test_a_second_training_says_who_holds_the_folder(make_config, other_process) -> None:
    config = make_config(alignment="-", epochs=1)
    pid = hold(Path(config.out), other_process)
    message = rf"run is in use by process {pid} on \S+ \(\S+, since 20.*\): wait until it has ended, or choose another"
    with pytest.raises(InputError, match=message):
        train(config, progress=False)
    assert not (Path(config.out) / "config.json").exists()
    assert is_locked(Path(config.out))


def test_a_training_holds_the_lock_from_before_its_first_file_to_its_last(make_config, monkeypatch) -> None:
    config = make_config(alignment="-", epochs=1)
    folder = Path(config.out)
    seen = []
    replace = os.replace

    def watched(source: object, target: object) -> None:
        if Path(str(target)).parent == folder:
            seen.append(is_locked(folder))
        replace(source, target)

    monkeypatch.setattr(os, "replace", watched)
    train(config, progress=False)
    assert len(seen) > 5
    assert all(seen)
    assert not is_locked(folder)


def test_a_second_pruning_says_who_holds_the_folder(make_config, tmp_path, other_process) -> None:
    config = make_config(alignment="-", epochs=1, backbone="resnet18")
    train(config, progress=False)
    pid = hold(tmp_path / "pruned", other_process)
    with pytest.raises(InputError, match=f"pruned is in use by process {pid} on "):
        prune(config.out, tmp_path / "pruned", rate=0.5, device="cpu", progress=False)
    assert not (tmp_path / "pruned").exists()


def test_a_finished_run_needs_no_lock(make_config, monkeypatch) -> None:
    """Its folder may be read-only."""
    config = make_config(alignment="-", epochs=1)
    expected = train(config, progress=False)
    lock_file(Path(config.out)).unlink()
    assert train(config, progress=False) == expected
    assert not lock_file(Path(config.out)).exists()
    assert (Path(config.out) / SCORES_FILE).exists()


def test_the_same_thread_gets_the_lock_again_and_keeps_it(tmp_path: Path) -> None:
    """`prune` trains the run that it has locked, and an experiment trains and prunes within its own lock."""
    folder = tmp_path / "run"
    with try_lock(folder) as acquired:
        assert acquired
        with lock_run(folder), lock_run(folder):
            assert is_locked(folder)
        assert is_locked(folder)
    assert not is_locked(folder)


def test_another_thread_of_the_same_process_does_not(tmp_path: Path) -> None:
    found = []

    def other() -> None:
        with try_lock(tmp_path / "run") as acquired:
            found.append(acquired)

    with lock_run(tmp_path / "run"):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert found == [False]


def test_two_names_of_a_folder_have_one_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    monkeypatch.chdir(tmp_path / "run")
    assert lock_file(tmp_path / "link") == lock_file(tmp_path / "run") == lock_file(Path()) == tmp_path / ".run.lock"


def test_only_the_folder_itself_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, how: Path(path) != tmp_path and access(path, how))
    assert lock_file(folder) == folder / ".lock"
    with lock_run(folder):
        assert is_locked(folder)


def test_a_linked_lock_file_is_refused_and_its_target_stays(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    lock_file(tmp_path / "run").symlink_to(victim)
    with pytest.raises(InputError, match=r"\.run\.lock is a link, which is not followed"), lock_run(tmp_path / "run"):
        pytest.fail("locked")
    assert victim.read_text() == "precious"


def test_the_note_of_a_lock_cannot_write_to_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["fastccsa", "train", "\x1b[2J", "x" * 10_000])
    with lock_run(tmp_path / "run"):
        note = lock_file(tmp_path / "run").read_bytes()
    assert b"\x1b" not in note
    assert len(note) <= 500


def test_without_locks_of_the_file_system_a_warning_says_so(tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(locks, "try_flock", lambda file, shared=False: None)
    with caplog.at_level(logging.WARNING), lock_run(tmp_path / "run"):
        assert not is_locked(tmp_path / "run")
    assert "is on a file system without locks: make sure that no other process writes there" in caplog.text
