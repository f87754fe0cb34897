"""benchmarks/gpu_session.sh with a stand-in for Python: which steps run, in what order, and what failures do."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_session.sh"
CORE = [
    "probe, all pairs", "tests of all pairs", "memcheck, all pairs", "tests of DALI", "probe, images",
    "epoch, A and K, 112 px",
]  # fmt: skip
REST = [
    "tests of several GPUs", "tests of the augmentation", "benchmark, augmentation", "tests of training",
    "probe, float32", "racecheck, all pairs", "probe, other widths", "probe, zipped", "probe, profile",
    "epoch, A and K, 224 px",
    "rivals, all pairs", "demo", "benchmark, images",
    "step, 64 px, 32 pairs", "step, 64 px, 256 pairs", "step, 112 px, 32 pairs",
    "step, 112 px, 256 pairs", "step, 224 px, 32 pairs", "step, 224 px, 256 pairs", "epoch, 112 px", "A and K, 112 px",
    "memcheck", "racecheck", "tests of the loss",
    "tests of the pipeline", "step, compiled", "step, graph of one", "step, no graph", "pruning", "errors, all pairs",
    "benchmark, zipped", "benchmark, all pairs", "benchmark, few pairs", "benchmark, memory", "benchmark, sweep",
]  # fmt: skip
STEPS = ["build", *CORE, *REST]
CORE_SECONDS = 240

PYTHON = """#!/bin/bash
echo "$*" >>"$CALLS"
case "$*" in
  -) cat >/dev/null; echo "fake-gpu 8.6 ${GPUS:-2}" ;;
  "-c import "*) [[ "$*" != *"$MISSING"* ]] ;;
  *--fits) exit $FITS_STATUS ;;
  setup.py*) exit $BUILD_STATUS ;;
  *gpu_probe* | *gpu_rivals* | *gpu_images*) exit 0 ;;
  *pytest*tests/training*) exit 0 ;;
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
    def run(*arguments: str, timeout: int = 300, **environment: str) -> subprocess.CompletedProcess[str]:
        tools = tmp_path / "bin"
        tools.mkdir(exist_ok=True)
        for name, text in (("python-stand-in", PYTHON), ("compute-sanitizer", SANITIZER)):
            (tools / name).write_text(text)
            (tools / name).chmod(stat.S_IRWXU)
        values = {
            "PATH": f"{tools}:{os.environ['PATH']}", "PYTHON": str(tools / "python-stand-in"),
            "OUT": str(tmp_path / "out"), "CALLS": str(tmp_path / "calls"), "MISSING": "nothing", "BUILD_STATUS": "0",
            "FITS_STATUS": "1", "BUDGET": "60", "SWEEP": "0",
        }  # fmt: skip
        command, variables = [str(SCRIPT), *arguments], os.environ | values | environment
        return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=timeout, check=False)

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
    expected = dict.fromkeys(STEPS, "passed")
    expected |= dict.fromkeys(
        [step for step in STEPS if step.startswith(("benchmark", "step", "errors", "epoch, A"))], "FAILED (status 2)"
    )
    without = ["tests of DALI", "tests of the augmentation", "tests of the pipeline"]
    expected |= dict.fromkeys(without, "skipped: no such tests")
    expected |= {"tests of the loss": "FAILED (status 1)", "benchmark, sweep": "STOPPED"}
    for step, outcome in expected.items():
        assert found[step].startswith(outcome), found
    calls = (tmp_path / "calls").read_text()
    assert "--minutes 0.00" in calls  # 9 seconds leave no time for another cell
    assert "--machine fake-gpu" in calls
    assert "probe-fake-gpu.jsonl" in calls
    log = (tmp_path / "out" / "gpu_session-fake-gpu.log").read_text()
    assert log.splitlines()[-1].startswith("benchmark, sweep")


def test_it_builds_only_for_this_gpu(session) -> None:
    assert "TORCH_CUDA_ARCH_LIST=8.6 " in session().stdout


def test_a_library_that_runs_here_is_not_built_again(session, tmp_path: Path) -> None:
    found = outcomes(session(FITS_STATUS="0"))
    assert found["build"] == "skipped: the library in the checkout runs on this GPU"
    assert list(found) == STEPS
    assert "setup.py" not in (tmp_path / "calls").read_text()
    assert outcomes(session(FITS_STATUS="0", BUILD="1"))["build"].startswith("passed")


def test_outcomes_are_written_before_the_next_step(session, tmp_path: Path) -> None:
    """A session that is killed has a log of what it did."""
    with pytest.raises(subprocess.TimeoutExpired):
        session(BUDGET="60", SWEEP="30", timeout=10)
    log = (tmp_path / "out" / "gpu_session-fake-gpu.log").read_text()
    done = [line.partition(" s: ")[2][:28].strip() for line in log.splitlines() if line.startswith("== ")]
    assert done == STEPS[:-1]


def test_tests_of_several_gpus_need_two(session) -> None:
    assert outcomes(session(GPUS="1"))["tests of several GPUs"] == "skipped: there is one GPU"
    assert outcomes(session(GPUS="2"))["tests of several GPUs"].startswith("passed")


def test_the_core_takes_at_most_four_minutes(session) -> None:
    lines = [line for line in session("--dry-run").stdout.splitlines() if line[29:33] == "core"]
    assert [line[:28].strip() for line in lines] == CORE
    assert sum(int(line.split("at most")[1].split()[0]) for line in lines) <= CORE_SECONDS


def test_without_a_build_nothing_else_runs(session, tmp_path: Path) -> None:
    result = session(BUILD_STATUS="3")
    assert result.returncode == 1
    assert list(outcomes(result)) == ["build", "everything else"]
    assert "pytest -q" not in (tmp_path / "calls").read_text()


def test_what_is_missing_is_reported(session) -> None:
    result = session(MISSING="setuptools", BUILD_STATUS="1")
    assert "setuptools is missing; carry its wheel in WHEELS" in result.stdout
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
