"""Fixtures: the options of a benchmark, and whole runs of benchmarks in a separate process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchmarks.commands import flags_of, options_of

ROOT = Path(__file__).resolve().parents[2]

Options = Callable[..., SimpleNamespace]
Bench = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def options() -> Options:
    """Make the options of a benchmark: its defaults with less time, and the given ones."""

    def make(name: str, **given: object) -> SimpleNamespace:
        quick = {"threads": 1, "rounds": 3, "seconds": 0.0}
        return SimpleNamespace(**vars(options_of(name, dict.fromkeys(flags_of(name)))) | quick | given)

    return make


@pytest.fixture(scope="session")
def bench() -> Bench:
    """Run ``python -m benchmarks`` in the checkout, or pytest on its folder; fails unless the status is as expected."""

    def run(*arguments: str, status: int = 0, module: str = "benchmarks") -> subprocess.CompletedProcess[str]:
        # pytest-benchmark would be off in what looks like a worker of pytest-xdist.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
        command = [sys.executable, "-m", module, *arguments]
        result = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert result.returncode == status, result.stdout + result.stderr
        return result

    return run
