"""Attacks that `attacks.py` carries out: each does what an attacker or a fault would, and returns what came of it.

A replay raises AssertionError, or any other error, if the outcome is not what SECURITY.md promises.
"""

from __future__ import annotations

import io
import json
import os
import re
import resource
import stat
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from broken_files import Material, cut_while_reading, resume, store_backend, warm_start
from click.testing import CliRunner

from fastccsa.cli import main as command_line
from fastccsa.collections import Manifest
from fastccsa.collections.archives import unpack
from fastccsa.runs.locks import try_lock
from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically
from fastccsa.system.text import spreadsheet_row


@dataclass(frozen=True)
class Scene:
    """What there is to attack: a finished run with its images and crops, and an empty folder for each attack."""

    material: Material
    folder: Path

    @property
    def run(self) -> Path:
        """The run folder."""
        return self.material.run


def said(error: BaseException) -> str:
    """Return an error's message, without the names of folders."""
    return re.sub(r"/\S+/", ".../", str(error))


def refused(call: Callable[[], object], pattern: str, kind: type[Exception] = InputError) -> str:
    """Make a call that must be refused with one line; return what was said."""
    with pytest.raises(kind, match=pattern) as caught:
        call()
    assert "\n" not in str(caught.value), "more than one line"
    return f"refused: {said(caught.value)}"


def command(*arguments: object) -> str:
    """Run a command; return its output. It must not end in a traceback."""
    result = CliRunner().invoke(command_line, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 0, result.output
    return result.output


def refused_command(pattern: str, *arguments: object) -> str:
    """Run a command that must be refused; return the last line of what it said."""
    result = CliRunner().invoke(command_line, [str(argument) for argument in arguments])
    assert isinstance(result.exception, SystemExit), repr(result.exception)
    assert result.exit_code == 2, result.output
    line = result.stderr.strip().splitlines()[-1]
    assert re.search(pattern, line), line
    return f"refused: {re.sub(r'/[^ :,;]+/', '.../', line.removeprefix('fastccsa: error: '))}"


def zipped(*files: tuple[str, bytes]) -> bytes:
    """Return a .zip file."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return stream.getvalue()


def evaluate(scene: Scene, to: Path) -> None:
    """Score the run, and write the scores to a file."""
    command("evaluate", "--run", scene.run, "--json", to, "--device", "cpu", "--workers", 1)


# ---- 1: output goes where it was sent ----


def device(scene: Scene) -> str:
    """Write to a device. A node of its own stands in for /dev/null; without the right to make one, a FIFO does."""
    node = scene.folder / "null"
    try:
        os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        return fifo(scene)
    evaluate(scene, node)
    assert stat.S_ISCHR(node.stat().st_mode)
    return "written into; the device stays"


def fifo(scene: Scene) -> str:
    """Write to a FIFO that somebody reads."""
    node, got = scene.folder / "fifo", []
    os.mkfifo(node)
    reader = threading.Thread(target=lambda: got.append(node.read_text()))
    reader.start()
    evaluate(scene, node)
    reader.join(20)
    assert stat.S_ISFIFO(node.stat().st_mode)
    assert "domains" in json.loads(got[0])
    return "written into; the FIFO stays"


def link(scene: Scene) -> str:
    """Write to a link."""
    to = scene.folder / "scores.json"
    (scene.folder / "link").symlink_to(to)
    evaluate(scene, scene.folder / "link")
    assert (scene.folder / "link").is_symlink()
    assert json.loads(to.read_text())
    return "its target is written; the link stays"


def linked_cache(scene: Scene) -> str:
    """Put links to another user's file into the places of a shared cache's lock and crops."""
    victim = scene.folder / "victim"
    victim.write_text("precious")
    (store,) = (file.parent for file in scene.material.images.folder.glob(".fastccsa-cache/*/index.json"))
    outcome = ""
    for name in ("lock", "crops.bin"):
        kept = (store / name).read_bytes()
        (store / name).unlink()
        (store / name).symlink_to(victim)
        try:
            outcome = refused(lambda: store_backend(scene.material), "link")
        finally:
            (store / name).unlink()
            (store / name).write_bytes(kept)
        assert victim.read_text() == "precious", name
    return outcome


def umask(scene: Scene) -> str:
    """Write a file while nobody may set the umask of the process."""
    mask = int(next(line for line in Path("/proc/self/status").read_text().splitlines() if "Umask" in line)[6:], 8)
    original, calls = os.umask, []
    os.umask = lambda mask: calls.append(mask) or original(mask)
    try:
        with write_atomically(scene.folder / "new") as temporary:
            temporary.write_text("x")
    finally:
        os.umask = original
    assert not calls
    assert stat.S_IMODE((scene.folder / "new").stat().st_mode) == 0o666 & ~mask
    return f"mode {0o666 & ~mask:o} follows the umask, which is not set"


# ---- 2: nothing in a file is trusted ----


@contextmanager
def checkpoint(scene: Scene, change: Callable[[dict[str, Any]], object], digest: bool = False) -> Iterator[None]:
    """Change the run's checkpoint within the block, without its digest unless it is to be kept."""
    file = scene.run / "last.pt"
    content = file.read_bytes()
    saved = torch.load(io.BytesIO(content), weights_only=True)
    if not digest:
        saved.pop("digest")
    change(saved)
    torch.save(saved, file)
    try:
        yield
    finally:
        file.write_bytes(content)


def moments(scene: Scene) -> str:
    """Resume from moments of another shape, which the fused optimiser would write past."""

    def shorten(saved: dict[str, Any]) -> None:
        state = saved["optimizer"]["state"]
        state[next(iter(state))]["exp_avg"] = torch.zeros(1)

    with checkpoint(scene, shorten):
        return refused(lambda: resume(scene.material), "exp_avg")


def other_run(scene: Scene) -> str:
    """Resume from the checkpoint of a run with another seed."""

    def reseed(saved: dict[str, Any]) -> None:
        saved["config"] = json.dumps(json.loads(saved["config"]) | {"seed": 7})

    with checkpoint(scene, reseed):
        return refused(lambda: resume(scene.material), "another run")


def init_digest(scene: Scene) -> str:
    """Start from weights of which one was changed after the digest was made."""

    def change(saved: dict[str, Any]) -> None:
        next(value for value in saved["model"].values() if value.is_floating_point()).add_(1)

    with checkpoint(scene, change, digest=True):
        return refused(lambda: warm_start(scene.material), "last.pt")


def short_crops(scene: Scene) -> str:
    """Cut the crops short while they are read."""
    file = next(scene.material.images.folder.glob(".fastccsa-cache/*/crops.bin"))
    content = file.read_bytes()
    try:
        return refused(lambda: cut_while_reading(scene.material), "cut short")
    finally:
        file.write_bytes(content)


# ---- 6: one writer ----


def second_writer(scene: Scene) -> str:
    """Train into a folder that another process writes to."""
    out = scene.folder / "run"
    hold = "import sys,time; from pathlib import Path; from fastccsa.runs.locks import lock_run\n"
    hold += "with lock_run(Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", hold, str(out)], stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "locked\n"
            with try_lock(out) as acquired:
                assert not acquired
            manifest = scene.material.config.manifest
            outcome = refused_command(
                f"process {other.pid}", "train", "--manifest", manifest, "--out", out, "--device", "cpu"
            )
        finally:
            other.kill()
    assert not (out / "config.json").exists()
    return re.sub(r"process \d+ on \S+ \(.*?\)", "process ...", outcome)


def leftovers(scene: Scene) -> str:
    """Write and unpack where killed processes left files."""
    part = scene.folder / ".model.onnx.part"
    part.write_bytes(b"half")
    with write_atomically(scene.folder / "model.onnx") as temporary:
        temporary.write_bytes(b"whole")
    (scene.folder / "a.zip").write_bytes(zipped(("parts.zip", zipped(("a.png", b"1")))))
    to = unpack(scene.folder / "a.zip", scene.folder / "to")
    (to / "parts" / ".unpacked").unlink()  # as if it had been killed before the end
    unpacking = to / ".unpacking-parts.zip"
    unpacking.mkdir()
    (unpacking / "half.png").write_bytes(b"half")
    unpack(scene.folder / "a.zip", scene.folder / "to")
    assert not part.exists()
    assert not unpacking.exists()
    return "removed by the next start"


# ---- 8: the command line and pages ----


def odd_numbers(scene: Scene) -> str:
    """Give infinities, NaN, huge and empty values."""
    outcome = ""
    for option, value in (("--lr", "inf"), ("--lr", "nan"), ("--lr", "1e20"), ("--epochs", "1000000000000"),
                          ("--init", ""), ("--out", "")):  # fmt: skip
        given = ["--manifest", scene.material.config.manifest, "--out", scene.folder / "x", option, value]
        outcome = refused_command(option.strip("-"), "train", *given)
        assert not (scene.folder / "x").exists()
    return outcome


def full_disk(scene: Scene) -> str:
    """Write to a disk without room: a limit of the system on the size of files."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        return refused_command("cannot write", "evaluate", "--run", scene.run, "--json", scene.folder / "scores.json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def control_characters(scene: Scene) -> str:
    """Read a manifest with the escape sequences of a terminal."""
    (scene.folder / "m.csv").write_text("image,label,domain,group,split\na.jpg,n\x1b[2Jv,HAM,1,train\n")
    outcome = refused(lambda: Manifest.read(scene.folder / "m.csv", check_files=False), "control character")
    assert "\x1b" not in outcome
    return outcome


def formulas(scene: Scene) -> str:
    """Write cells that a spreadsheet program would compute."""
    row = spreadsheet_row(["=cmd()", "@sum", "-1.5", "+x"])
    assert row == ["'=cmd()", "'@sum", "-1.5", "'+x"]
    return f"quoted: {row[0]}"
