"""The tests of this folder at the size of a unit test; the scripts say how to run them in full."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def run(script: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, str(HERE / script), *arguments], capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_training_killed_at_random_ends_with_the_same_bits() -> None:
    printed = run("interrupts.py", "--kills", "4", "--epochs", "1", "--seed", "1")
    assert "not bit-identical           0" in printed


def test_two_processes_one_of_them_killed_train_as_one_process_does() -> None:
    printed = run("ranks.py", "--processes", "2", "--quick")
    assert "2 processes, one killed" in printed


def test_a_training_under_faults_at_random_loses_nothing_and_leaves_nothing_behind() -> None:
    printed = run("soak.py", "--steps", "24", "--every", "3", "--seed", "2")
    assert "wrong                                0" in printed


def test_no_file_that_is_read_can_be_broken_in_a_way_that_is_not_answered() -> None:
    printed = run("broken_files.py", "--files", "57", "--seed", "3")
    ends = dict(zip(("InputError", "read", "traceback", "crash"), printed.split("readings")[1].split(), strict=False))
    assert (ends["traceback"], ends["crash"]) == ("0", "0")
    assert int(ends["InputError"]) > 20


def test_every_attack_is_answered() -> None:
    printed = run("attacks.py", "--short")
    assert "34 of 34 attacks answered" in printed


def test_commands_killed_at_random_end_as_undisturbed_ones() -> None:
    printed = run("kills.py", "--kills", "15", "--seed", "1")
    assert re.search(r"^kills +15$", printed, re.M)
    assert re.search(r"^differ +0 *$", printed, re.M)
