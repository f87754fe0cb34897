"""The entry point of the command line: the list of commands, and the exit status of each outcome.

The module of a command is imported when the command is called, so that ``fastccsa --help`` is fast.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NoReturn

import click

from fastccsa._version import __version__
from fastccsa.system.errors import InputError, Interrupted
from fastccsa.system.extras import install_advice
from fastccsa.system.full_disk import disk_error
from fastccsa.system.gpu_memory import ran_out
from fastccsa.system.logs import log_to_terminal
from fastccsa.system.text import printable

# The summaries are kept here because reading them from the commands would import every command.
SUMMARIES = {
    "prepare": "Make a manifest from folders of dermatology datasets.",
    "render": "Draw seven synthetic collections, with a manifest.",
    "preview": "Draw augmented training pairs as a PNG.",
    "train": "Train a baseline or a CCSA model; the same command again resumes.",
    "sweep": "Search for settings of the training, with a fixed budget.",
    "evaluate": "Score a trained run on every domain.",
    "experiment": "Run rows of the paper's table of experiments, A to V.",
    "prune": "Prune channels of a trained run and fine-tune the rest.",
    "export": "Write a run's model as ONNX, for torch.export or ExecuTorch.",
    "latency": "Time exported models on this machine.",
    "compare": "Compare runs: metrics with intervals, differences with tests.",
    "report": "Print a table of the runs in a folder, and write an HTML page.",
    "bench": "Benchmark losses, images, training steps and pruned models.",
    "check": "Show what was built, what is usable here, and what is missing.",
    "demo": "Train, score and report on images the package renders itself.",
}

INTERRUPTED = 130  # 128 + SIGINT, the status a shell expects after Ctrl-C


class CommandGroup(click.Group):
    """A group whose commands are ``fastccsa.cli.<name>.<name>_command``.

    Exit statuses: 0 for success; 2 for bad input, a missing extra, or a full disk or GPU; 130 if interrupted, 143 if
    terminated, 129 if the terminal was closed. Except for 0, one line on stderr says why. Any other error keeps its
    traceback, because it is a bug.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names, in the order in which a user needs them."""
        return list(SUMMARIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command; None if there is no such command."""
        if cmd_name not in SUMMARIES:
            return None
        module = importlib.import_module(f"fastccsa.cli.{cmd_name}")
        command: click.Command = getattr(module, f"{cmd_name}_command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, and check that none of its arguments is empty.

        No option has a meaning for an empty text, but click would take it for a missing value or the current folder.
        """
        name, command, rest = super().resolve_command(ctx, args)
        previous = ""
        for argument in rest:
            option, equals, value = argument.partition("=")
            with_value = argument.startswith("--") and equals
            if not (value if with_value else argument).strip():
                where = option if with_value else previous
                what = f"the value of {where}" if where.startswith("-") else "an argument"
                raise click.UsageError(f"{what} is empty: give a value, or omit it", ctx)
            previous = argument
        return name, command, rest

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands for --help without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(SUMMARIES.items()))

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command.

        A missing package of an extra becomes an `InputError` with the pip command, Ctrl-C becomes `click.Abort`, and
        `Interrupted` exits with its own status.
        """
        try:
            with install_advice(), log_to_terminal():
                return super().invoke(ctx)
        except Interrupted as stop:
            with suppress(OSError):  # the terminal was closed
                click.echo(f"fastccsa: {printable(str(stop))}", err=True)
            ctx.exit(stop.status)
        except KeyboardInterrupt as interruption:
            # Click's own handler would print an empty line before the message.
            raise click.Abort from interruption
        except EOFError as error:
            # Click would treat it as Ctrl-D at a prompt and hide it, but no command has a prompt.
            raise RuntimeError("a file ended unexpectedly") from error

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line; with ``standalone_mode``, the default, exit instead of returning."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        try:
            status = super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        except click.UsageError as error:
            fail(error.format_message(), hint=error.ctx)
        except click.ClickException as error:
            fail(error.format_message())
        except InputError as error:
            fail(str(error))
        except click.Abort:
            click.echo("fastccsa: interrupted", err=True)
            sys.exit(INTERRUPTED)
        except Exception as error:
            if (message := describe_system_error(error)) is None:
                raise
            fail(message)
        finish_output()
        sys.exit(status if isinstance(status, int) else 0)


def describe_system_error(error: Exception) -> str | None:
    """Return one line about a file that cannot be opened, or a disk or GPU that is full; None for any other error."""
    if "torch" in sys.modules and ran_out(error):  # without torch, the error is another one
        reason = str(error).strip().split("\n")[0].rstrip(".")
        return (
            f"the GPU's memory is full ({reason}): end other programs that use it, take smaller batches or images, "
            "another GPU, or --device cpu"
        )
    file = getattr(error, "filename", None)
    if isinstance(error, FileNotFoundError | NotADirectoryError | IsADirectoryError | PermissionError):
        return None if file is None else f"{file}: {error.strerror}"
    number = disk_error(error)
    if number is None:
        return None
    advice = "check the disk" if number == errno.EIO else "make room, or choose another folder"
    return f"cannot write {file or 'the output'}: {os.strerror(number)}; {advice}"


def finish_output() -> None:
    """Write what is still buffered for stdout, which may be a file on a full disk or a closed terminal."""
    try:
        sys.stdout.flush()
    except OSError as error:
        # The interpreter would try again at its end, and print a traceback.
        with suppress(OSError, AttributeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno != errno.EIO:
            fail(f"cannot write the output: {error.strerror}")


def fail(message: str, hint: click.Context | None = None) -> NoReturn:
    """Print ``message`` as one line on stderr, with a hint at the help of the command, and exit with status 2."""
    line = printable(" ".join(message.split()))
    if hint is not None:
        line = f"{line.rstrip('.')} (see '{hint.command_path} --help')"
    click.echo(f"fastccsa: error: {line}", err=True)
    sys.exit(2)


@click.group(cls=CommandGroup, invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="fastccsa", message="%(prog)s %(version)s")
@click.pass_context
def main(ctx: click.Context) -> None:
    """Train skin-lesion classifiers that hold across hospitals: CCSA with sampling-aware weights."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())
