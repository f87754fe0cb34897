"""benchmarks/gpu_session.sh with a stand-in for Python: which steps run, in what order, and what failures do."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_session.sh"
STEPS = [
    "build", "tests of the loss", "tests of all pairs", "benchmark, main cells", "benchmark, all pairs",
    "benchmark, few pairs", "benchmark, memory", "errors, all pairs", "tests of training", "demo", "step, 32 pairs",
    "step, 256 pairs", "step, compiled", "step, no graph", "pruning", "memcheck", "racecheck",
    "tests of the augmentation", "benchmark, augmentation", "tests of the pipeline", "benchmark, images",
    "benchmark, sweep",
]  # fmt: skip

PYTHON = """#!/bin/bash
echo "$*" >>"$CALLS"
case "$*" in
  -) cat >/dev/null; echo "fake-gpu 8.6" ;;
  "-c import "*) [[ "$*" != *"$MISSING"* ]] ;;
  setup.py*) exit $BUILD_STATUS ;;
  *pytest*"tests/losses --ignore"*) exit 1 ;;
  *pytest*tests/images*) exit 5 ;;
  *gpu_calls*) echo sanitized; exit 0 ;;
  *bench*--full*) sleep "$SWEEP" ;;
  *bench*) exit 2 ;;
esac
"""
SANITIZER = """#!/bin/bash
while [[ $1 != *python* ]]; do shift; done
exec "$@"
"""


@pytest.fixture
def session(tmp_path: Path):
    def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        tools = tmp_path / "bin"
        tools.mkdir(exist_ok=True)
        for name, text in (("python-stand-in", PYTHON), ("compute-sanitizer", SANITIZER)):
            (tools / name).write_text(text)
            (tools / name).chmod(stat.S_IRWXU)
        values = {
            "PATH": f"{tools}:{os.environ['PATH']}", "PYTHON": str(tools / "python-stand-in"),
            "OUT": str(tmp_path / "out"), "CALLS": str(tmp_path / "calls"), "MISSING": "nothing", "BUILD_STATUS": "0",
            "BUDGET": "60", "SWEEP": "0",
        }  # fmt: skip
        command, variables = [str(SCRIPT), *arguments], os.environ | values | environment
        return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=300, check=False)

    return run


def outcomes(result: subprocess.CompletedProcess[str]) -> dict[str, str]:
    """The lines of the summary."""
    lines = result.stdout.split("\n==== fake-gpu")[1].splitlines()[1:]
    return {line[:28].strip(): line[29:] for line in lines if line.strip()}


def test_a_failing_step_does_not_stop_the_later_ones(session, tmp_path: Path) -> None:
    result = session(BUDGET="9", SWEEP="60")
    assert result.returncode == 1
    found = outcomes(result)
    assert list(found) == STEPS
    expected = [
        "passed",
        "FAILED (status 1)",
        "passed",
        "FAILED (status 2)",
        "FAILED (status 2)",
        "FAILED (status 2)",
        "FAILED (status 2)",
        "FAILED (status 2)",
        "passed",
        "passed",
        "FAILED (status 2)",
        "FAILED (status 2)",
        "FAILED (status 2)",
        "FAILED (status 2)",
        "passed",
        "passed",
        "passed",
        "skipped: no such tests",
        "FAILED (status 2)",
        "skipped: no such tests",
        "FAILED (status 2)",
        "STOPPED",
    ]
    for step, outcome in zip(STEPS, expected, strict=True):
        assert found[step].startswith(outcome), found
    calls = (tmp_path / "calls").read_text()
    assert "--minutes 0.00" in calls  # 9 seconds leave no time for another cell
    assert "--machine fake-gpu" in calls
    assert "zipped-fake-gpu.json" in calls
    log = (tmp_path / "out" / "gpu_session-fake-gpu.log").read_text()
    assert log.splitlines()[-1].startswith("benchmark, sweep")


def test_it_builds_only_for_this_gpu(session) -> None:
    assert "TORCH_CUDA_ARCH_LIST=8.6 " in session().stdout


def test_without_a_build_nothing_else_runs(session, tmp_path: Path) -> None:
    result = session(BUILD_STATUS="3")
    assert result.returncode == 1
    assert list(outcomes(result)) == ["build", "everything else"]
    assert "pytest -q" not in (tmp_path / "calls").read_text()


def test_what_is_missing_is_reported(session) -> None:
    result = session(MISSING="pybind11", BUILD_STATUS="1")
    assert "pybind11 is missing; carry its wheel in WHEELS" in result.stdout
    result = session(MISSING="nvidia.dali")
    assert outcomes(result)["tests of the pipeline"] == "skipped: nvidia.dali is not installed"


def test_the_time_limit_is_kept(session) -> None:
    assert outcomes(session(BUDGET="3"))["build"] == "skipped: the 3 seconds are over"


def test_a_dry_run_names_every_step_and_writes_nothing(session, tmp_path: Path) -> None:
    result = session("--dry-run")
    assert result.returncode == 0
    assert [line[:28].strip() for line in result.stdout.splitlines()] == STEPS
    assert not (tmp_path / "out").exists()


def test_an_argument_it_does_not_know(session) -> None:
    result = session("--fast")
    assert result.returncode == 2
    assert "--fast" in result.stderr


def test_without_a_gpu_it_ends_at_once(session, tmp_path: Path) -> None:
    lonely = tmp_path / "python-without-gpu"
    lonely.write_text("#!/bin/bash\ncat >/dev/null; echo 'gpu_session: torch sees no GPU here' >&2; exit 1\n")
    lonely.chmod(stat.S_IRWXU)
    result = session(PYTHON=str(lonely))
    assert result.returncode == 1
    assert "no GPU" in result.stderr
    assert result.stdout == ""
