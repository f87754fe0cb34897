"""The command line: what it loads, what it prints on bad input, and its exit status."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

import fastccsa.reporting
from fastccsa import InputError, __version__
from fastccsa.cli import main

COMMANDS = (
    "prepare",
    "render",
    "preview",
    "train",
    "sweep",
    "evaluate",
    "experiment",
    "prune",
    "export",
    "latency",
    "compare",
    "report",
    "bench",
    "check",
    "demo",
)
HEAVY = ("torch", "pandas", "matplotlib", "sklearn", "nvidia.dali", "jinja2", "rich")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)


def assert_one_line_error(result: Result, *parts: str) -> None:
    assert result.exit_code == 2
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("fastccsa: error: ")
    for part in parts:
        assert part in line


@pytest.fixture
def failing_report(monkeypatch: pytest.MonkeyPatch):
    """Make ``fastccsa report`` raise a given exception."""

    def fail_with(error: BaseException) -> None:
        def report(*arguments: object) -> None:
            raise error

        monkeypatch.setattr(fastccsa.reporting, "report", report)

    return fail_with


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], []])
def test_help_lists_the_commands(arguments: Sequence[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 0
    listed = [line.split()[0] for line in result.stdout.split("Commands:")[1].splitlines() if line.strip()]
    assert listed == list(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_has_help(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage:")


@pytest.mark.parametrize(
    "arguments", [["--help"], ["train", "--help"], ["prune", "--help"], ["render", "--help"], ["report", "--help"]]
)
def test_help_loads_no_heavy_package(arguments: Sequence[str]) -> None:
    result = python(
        "import sys\n"
        "from fastccsa.cli import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit as end:\n    assert end.code == 0\n"
        f"print('LOADED', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert result.stdout.splitlines()[-1] == "LOADED []", result.stderr


def test_it_runs_as_a_module_and_prints_its_version() -> None:
    result = subprocess.run(
        [sys.executable, "-m", "fastccsa", "--version"], capture_output=True, text=True, timeout=300, check=True
    )
    assert result.stdout == f"fastccsa {__version__}\n"


def test_an_unknown_command() -> None:
    assert_one_line_error(run("trian"), "trian", "--help")


def test_an_unknown_option() -> None:
    assert_one_line_error(run("report", "--nonsense"), "--nonsense", "report --help")


def test_a_missing_argument() -> None:
    assert_one_line_error(run("report"), "RUNS")


def test_a_value_outside_its_choices_is_still_one_line() -> None:
    assert_one_line_error(run("report", "runs", "--format", "excel"), "excel", "text", "markdown")


def test_a_value_outside_its_range() -> None:
    assert_one_line_error(run("demo", "--epochs", "0"), "--epochs")


def test_a_missing_folder(tmp_path: Path) -> None:
    assert_one_line_error(run("report", str(tmp_path / "nowhere")), "nowhere")


def test_an_input_error_of_several_lines_becomes_one(failing_report) -> None:
    failing_report(InputError("two rows are wrong:\n  line 3\n  line 4"))
    assert_one_line_error(run("report", "runs"), "two rows are wrong: line 3 line 4")


@pytest.mark.parametrize("error", [FileNotFoundError, PermissionError, NotADirectoryError, IsADirectoryError])
def test_a_file_that_cannot_be_opened_is_named(failing_report, error: type[OSError]) -> None:
    failing_report(error(2, "the reason", "some/file.csv"))
    assert_one_line_error(run("report", "runs"), "some/file.csv", "the reason")


@pytest.mark.parametrize("error", [ValueError("a bug"), FileNotFoundError("no name"), OSError(22, "no", "f")])
def test_an_unforeseen_error_keeps_its_traceback(failing_report, error: Exception) -> None:
    failing_report(error)
    result = run("report", "runs")
    assert result.exception is error


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has ...\nmore about it"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
    ],
)
def test_a_full_gpu_is_said_plainly(failing_report, error: Exception) -> None:
    failing_report(error)
    assert_one_line_error(run("report", "runs"), "the GPU's memory is full (CUDA", "smaller batches", "--device cpu")


def test_a_full_disk_is_said_plainly(failing_report) -> None:
    failing_report(OSError(errno.ENOSPC, "No space left on device", "some/page.html"))
    assert_one_line_error(run("report", "runs"), "cannot write some/page.html: No space left on device; make room")


def test_a_full_disk_behind_the_error_of_a_library_is_said_plainly(failing_report) -> None:
    """As safetensors reports it, which only quotes the system's error."""
    failing_report(RuntimeError("I/O error: No space left on device (os error 28)"))
    assert_one_line_error(run("report", "runs"), "No space left on device; make room, or choose another folder")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
@pytest.mark.parametrize("arguments", [["--help"], ["prepare", "--show-labels"]])
def test_a_full_disk_behind_stdout_is_said_plainly(arguments: Sequence[str]) -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "fastccsa", *arguments],
            stdout=full, stderr=subprocess.PIPE, text=True, timeout=300, check=False,
        )  # fmt: skip
    (line,) = result.stderr.splitlines()
    assert line.startswith("fastccsa: error: cannot write the output: No space left on device")
    assert result.returncode == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_a_full_disk_is_noticed_when_the_buffer_of_stdout_is_written() -> None:
    code = (
        "from pathlib import Path\n"
        "import fastccsa.reporting\n"
        "from fastccsa.cli import main\n"
        "fastccsa.reporting.report = lambda *arguments: print('the table') or Path('page')\n"
        "main(['report', 'runs'])"
    )
    env = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-c", code],
            stdout=full,
            stderr=subprocess.PIPE,
            env=env,
            text=True,
            timeout=300,
            check=False,
        )
    assert result.stderr.splitlines() == [
        "Wrote page", "fastccsa: error: cannot write the output: No space left on device"
    ]  # fmt: skip
    assert result.returncode == 2


def test_control_characters_of_a_message_are_made_visible(failing_report) -> None:
    failing_report(InputError("the run \x1b]0;title\x07 is \x9b31m strange"))
    assert_one_line_error(run("report", "runs"), r"the run \x1b]0;title\x07 is \x9b31m strange")


def test_a_log_message_stays_on_its_line() -> None:
    result = python(
        "import logging\n"
        "from fastccsa.system.logs import log_to_terminal\n"
        "with log_to_terminal():\n"
        "    logging.getLogger('fastccsa.images').warning('%s', 'a\\nfastccsa: \\x1b[2Jdone')\n"
        "    logging.getLogger('fastccsa.images').info('not shown')\n"
    )
    assert result.stderr == r"a\nfastccsa: \x1b[2Jdone" + "\n"


def test_a_truncated_file_is_not_taken_for_an_interruption(failing_report) -> None:
    failing_report(EOFError("ran out of input"))
    result = run("report", "runs")
    assert isinstance(result.exception, RuntimeError)


def test_ctrl_c_is_one_line_and_status_130(tmp_path: Path) -> None:
    result = python(
        "import os, signal, time\n"
        # Background jobs of a shell, and their children, start with SIGINT ignored.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from fastccsa.cli import main\n"
        "def report(*arguments):\n"
        f"    os.kill(os.getpid(), {signal.SIGINT:d})\n"
        "    time.sleep(60)\n"
        "import fastccsa.reporting\n"
        "fastccsa.reporting.report = report\n"
        f"main(['report', {str(tmp_path)!r}])"
    )
    assert (result.returncode, result.stdout, result.stderr) == (130, "", "fastccsa: interrupted\n")


def test_from_python_the_group_raises_instead_of_exiting(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        main(["report", str(tmp_path / "nowhere")], standalone_mode=False)
