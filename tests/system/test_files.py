"""Writing files: what is replaced, what is written into, permissions, and what a killed process leaves."""

from __future__ import annotations

import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastccsa.system import files
from fastccsa.system.destinations import destination_of
from fastccsa.system.errors import InputError, WriteError
from fastccsa.system.files import remove_leftovers, scratch_folder, write_atomically

HOLDER = """
import sys, time
from pathlib import Path
from fastccsa.system.files import scratch_folder, write_atomically
with {what} as there:
    {fill}
    print(there, flush=True)
    time.sleep(60)
"""


def write(path: Path, text: str = "new", **options: object) -> None:
    with write_atomically(path, **options) as temporary:
        temporary.write_text(text)


def write_half(path: Path) -> None:
    with write_atomically(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError("after half of it")


def start(code: str) -> tuple[subprocess.Popen[str], Path]:
    """Start a process that writes, and return it with the temporary path that it has made."""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "scores.json"
    path.write_text("old")
    with pytest.raises(RuntimeError, match="after half"):
        write_half(path)
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["scores.json"]


def test_a_new_file_has_the_permissions_of_the_umask(tmp_path: Path, umask: None) -> None:
    write(tmp_path / "new")
    assert mode(tmp_path / "new") == 0o640


def test_a_replaced_file_keeps_its_permissions_and_is_never_readable_meanwhile(tmp_path: Path, umask: None) -> None:
    path = tmp_path / "private"
    path.write_text("old")
    path.chmod(0o600)
    with write_atomically(path) as temporary:
        assert mode(temporary) == 0o600
        temporary.write_text("new")
    assert (path.read_text(), mode(path)) == ("new", 0o600)


def test_a_read_only_file_stays_read_only(tmp_path: Path) -> None:
    path = tmp_path / "published"
    path.write_text("old")
    path.chmod(0o444)
    write(path)
    assert (path.read_text(), mode(path)) == ("new", 0o444)


def test_the_umask_of_the_process_is_not_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "umask", lambda mask: pytest.fail("another thread would create files with this mask"))
    write(tmp_path / "new")


def test_a_fifo_is_written_into(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(fifo.read_bytes()), daemon=True)
    reader.start()
    write(fifo, "all of it")
    reader.join(10)
    assert found == [b"all of it"]
    assert stat.S_ISFIFO(fifo.lstat().st_mode)


def test_a_fifo_without_the_whole_content_gets_none_of_it(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(RuntimeError, match="after half"):
        write_half(fifo)
    assert stat.S_ISFIFO(fifo.lstat().st_mode)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make devices")
def test_a_device_is_written_into(tmp_path: Path) -> None:
    """With a device of its own, which behaves as /dev/null does."""
    device = tmp_path / "null"
    try:
        os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
        device.write_bytes(b"")
    except PermissionError:
        pytest.skip("devices cannot be made here")
    write(device)
    assert stat.S_ISCHR(device.lstat().st_mode)
    assert os.listdir(tmp_path) == ["null"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /proc")
def test_the_names_of_the_open_files_lead_to_descriptors(tmp_path: Path) -> None:
    """Only looked up: a fault must not replace a device of the machine that runs the tests."""
    (tmp_path / "link").symlink_to("/dev/stdout")
    for name in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", f"/proc/{os.getpid()}/fd/1", tmp_path / "link"):
        assert destination_of(Path(name)) == 1
    assert destination_of(Path("/dev/stderr")) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no /proc")
@pytest.mark.parametrize("name", ["/proc/self/fd/1", "link"])
def test_stdout_is_written_where_it_stands(tmp_path: Path, name: str) -> None:
    """The text stands between what was printed before and after, in a file and in a pipe."""
    place = tmp_path / "link" if name == "link" else Path(name)
    if name == "link":
        place.symlink_to("/proc/self/fd/1")
    code = (
        "import sys\nfrom fastccsa.system.files import write_atomically\n"
        "print('before')\n"
        "with write_atomically(sys.argv[1]) as file:\n    file.write_text('scores\\n')\n"
        "print('after')\n"
    )
    command = [sys.executable, "-c", code, str(place)]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    piped = subprocess.run(command, stdout=subprocess.PIPE, env=env, check=True)
    assert piped.stdout == b"before\nscores\nafter\n"
    with open(tmp_path / "output", "wb") as output:
        subprocess.run(command, stdout=output, env=env, check=True)
    assert (tmp_path / "output").read_bytes() == b"before\nscores\nafter\n"


def test_a_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    target, link = tmp_path / "disk" / "report.html", tmp_path / "report.html"
    target.parent.mkdir()
    target.write_text("old")
    middle = tmp_path / "middle"
    middle.symlink_to("disk/report.html")
    link.symlink_to("middle")
    write(link)
    assert link.is_symlink()
    assert middle.is_symlink()
    assert target.read_text() == "new"
    assert os.listdir(target.parent) == ["report.html"]


def test_a_link_to_nothing_yet_makes_the_file(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("later/file")
    write(link)
    assert (tmp_path / "later" / "file").read_text() == "new"


def test_links_in_a_circle_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(InputError, match="its links lead in a circle"):
        write(tmp_path / "a")


def test_in_a_shared_cache_a_link_is_replaced_and_its_target_untouched(tmp_path: Path) -> None:
    victim, link = tmp_path / "victim", tmp_path / "index.json"
    victim.write_text("precious")
    link.symlink_to(victim)
    write(link, follow_links=False)
    assert victim.read_text() == "precious"
    assert not link.is_symlink()
    assert link.read_text() == "new"


@pytest.mark.parametrize("options", [{"follow_links": False}, {"keep": "before"}])
def test_a_fifo_in_place_of_an_own_file_is_an_error(tmp_path: Path, options: dict[str, object]) -> None:
    os.mkfifo(tmp_path / "last.pt")
    with pytest.raises(InputError, match=r"last\.pt: it is not a regular file; remove it"):
        write(tmp_path / "last.pt", **options)


def test_a_folder_is_an_error_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it is a folder; name a file in it"), write_atomically(tmp_path):
        pytest.fail("the work began")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "full"), "No space left on device"),
        (OSError(errno.EDQUOT, "quota"), "Disk quota exceeded"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "No space left on device"),
        (RuntimeError('IoError(Os { code: 27, kind: FileTooLarge, message: "File too large" })'), "File too large"),
    ],
)
def test_a_full_disk_is_an_error_with_advice(tmp_path: Path, error: Exception, reason: str) -> None:
    message = rf"cannot write {tmp_path}/page: {reason} \(\d+\.\d\d GB free\); make room, or choose another folder"
    with pytest.raises(WriteError, match=message) as found, write_atomically(tmp_path / "page"):
        raise error
    assert isinstance(found.value, InputError)
    assert os.strerror(found.value.errno or 0) == reason
    assert not os.listdir(tmp_path)


def test_an_error_that_has_nothing_to_do_with_the_disk_stays_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"code: 7$"), write_atomically(tmp_path / "page"):
        raise RuntimeError("the model says code: 7")


def test_what_a_killed_write_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    process, temporary = start(HOLDER.format(what=f"write_atomically({str(path)!r})", fill="there.write_text('half')"))
    kill(process)
    assert os.listdir(tmp_path) == [temporary.name]
    write(path)
    assert os.listdir(tmp_path) == ["model.onnx"]


def test_the_temporary_file_of_a_living_write_stays(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    process, theirs = start(HOLDER.format(what=f"write_atomically({str(path)!r})", fill="there.write_text('half')"))
    try:
        with write_atomically(path) as mine:
            mine.write_text("mine")
            assert mine != theirs
        remove_leftovers(tmp_path)
        assert (path.read_text(), theirs.read_text()) == ("mine", "half")
    finally:
        kill(process)
    remove_leftovers(tmp_path)
    assert os.listdir(tmp_path) == ["model.onnx"]


def test_only_own_regular_files_are_leftovers(tmp_path: Path) -> None:
    (tmp_path / ".folder.part").mkdir()
    (tmp_path / "download.part").write_text("of another program")
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".link.part").symlink_to(victim)
    os.mkfifo(tmp_path / ".fifo.part")
    (tmp_path / ".x.abc.part").write_text("of an older version")
    remove_leftovers(tmp_path)
    assert sorted(os.listdir(tmp_path)) == [".fifo.part", ".folder.part", ".link.part", "download.part", "victim"]


def test_a_link_in_place_of_the_temporary_file_is_passed_over(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    with write_atomically(tmp_path / "out") as temporary:
        name = temporary.name
    (tmp_path / name).symlink_to(victim)
    write(tmp_path / "out")
    assert (victim.read_text(), (tmp_path / "out").read_text()) == ("precious", "new")


def test_without_locks_names_are_unique_and_nothing_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "try_flock", lambda file: None)
    (tmp_path / ".out.part").write_text("perhaps in use")
    with write_atomically(tmp_path / "out") as first, write_atomically(tmp_path / "out") as second:
        assert first != second
        first.write_text("one")
        second.write_text("two")
    assert sorted(os.listdir(tmp_path)) == [".out.part", "out"]


def test_scratch_folders_of_killed_processes_are_removed_and_living_ones_stay(tmp_path: Path) -> None:
    code = HOLDER.format(
        what=f"scratch_folder(Path({str(tmp_path)!r}), '.unpacking-')", fill="(there / 'a.zip').write_text('half')"
    )
    killed, left = start(code)
    kill(killed)
    living, theirs = start(code)
    try:
        assert not left.exists()
        with scratch_folder(tmp_path, ".unpacking-") as mine:
            assert (theirs / "a.zip").read_text() == "half"
            assert mine.is_dir()
        assert not mine.exists()
    finally:
        living.send_signal(signal.SIGKILL)
        kill(living)
