"""The Makefile's own decisions, in a folder where nothing is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")
def test_a_disk_too_small_is_said_before_anything_is_fetched(tmp_path: Path) -> None:
    """pip takes a full disk for a broken connection, after minutes of trying."""
    shutil.copy(ROOT / "Makefile", tmp_path)

    def program(path: str, said: str) -> None:
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"#!/bin/sh\n{said}\n", encoding="utf-8")
        (tmp_path / path).chmod(0o755)

    program(".venv/bin/python", 'echo "python $@" >> said')
    program("path/df", "echo 'Filesystem 1024-blocks Used Available Capacity Mounted'; echo '/dev/a 9 1 3145728 1% /'")

    def make(*arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{tmp_path / 'path'}:{os.environ['PATH']}"}  # none of an outer make's variables
        command = ["make", ".venv/.torch", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    ended = make()
    assert ended.returncode != 0
    assert f"needs 12 GB of disk, and {tmp_path} has 3 left" in ended.stdout
    assert "DISK_GB=0" in ended.stdout
    assert not (tmp_path / "said").exists()
    assert make("DISK_GB=3").returncode == 0
    assert "-m pip install" in (tmp_path / "said").read_text(encoding="utf-8")
