"""The Makefile's own decisions, in a folder where nothing is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
Make = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")


def program(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Run make in a copy whose virtual environment records the calls of its programs, and whose disk has 3 GB."""
    shutil.copy(ROOT / "Makefile", tmp_path)
    for name in ("setup.py", "CMakeLists.txt", "pyproject.toml"):
        (tmp_path / name).touch()
    (tmp_path / "tests").mkdir()
    for name in ("python", "fastccsa", "pytest"):
        program(tmp_path / ".venv" / "bin" / name, f'echo "{name} $@" >> {tmp_path}/calls')
    table = "Filesystem 1024-blocks Used Available Capacity Mounted\n/dev/a 9 1 3145728 1% /"
    program(tmp_path / "path" / "df", f"echo '{table}'")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{tmp_path / 'path'}:{os.environ['PATH']}"}  # without the variables of an outer make
        return subprocess.run(
            ["make", *arguments], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    return run


def calls(folder: Path) -> list[str]:
    """Return the arguments of the programs since the last call of this function."""
    path = folder / "calls"
    found = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return found


def test_a_disk_too_small_is_reported_before_any_download(make: Make, tmp_path: Path) -> None:
    """pip reports a full disk as a broken connection, after minutes of attempts."""
    ended = make(".venv/.torch")
    assert ended.returncode != 0
    assert f"needs 12 GB of disk, and {tmp_path} has 3 left" in ended.stdout
    assert "DISK_GB=0" in ended.stdout
    assert calls(tmp_path) == []
    assert make(".venv/.torch", "DISK_GB=3").returncode == 0
    assert "-m pip install" in calls(tmp_path)[0]


def test_each_target_installs_the_extra_it_needs(make: Make, tmp_path: Path) -> None:
    """The demo installs no test tools; the tests, after the demo, install only what is missing."""

    def installed(target: str) -> list[str]:
        ended = make(target, "DISK_GB=0", "FASTCCSA_CUDA=0")
        assert ended.returncode == 0, ended.stderr
        return [call.split()[-1] for call in calls(tmp_path) if " pip install " in call]

    assert installed("demo") == ["torchvision", ".", "fastccsa[train]"]
    assert installed("demo") == []
    assert installed("test") == ["fastccsa[test]"]
    assert installed("test") == []
    (tmp_path / "pyproject.toml").touch()
    os.utime(tmp_path / ".venv" / ".installed", (0, 0))
    assert installed("demo") == [".", "fastccsa[train]"]


def test_the_demo_runs_outside_the_checkout(make: Make, tmp_path: Path) -> None:
    """In the checkout Python would import the folder fastccsa/ instead of the installed package."""
    program(tmp_path / ".venv" / "bin" / "fastccsa", f'echo "$PWD $@" >> {tmp_path}/calls')
    assert make("demo", "DISK_GB=0", "FASTCCSA_CUDA=0").returncode == 0
    assert calls(tmp_path)[-1] == f"/ demo --out {tmp_path}/demo"
