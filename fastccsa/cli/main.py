"""The entry point of the command line: the list of commands, and the exit status of each outcome.

The module of a command is imported when the command is called, so that ``fastccsa --help`` is fast.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from fastccsa._version import __version__
from fastccsa.system.errors import InputError, Interrupted
from fastccsa.system.extras import install_advice

# The summaries are kept here because reading them from the commands would import every command.
SUMMARIES = {
    "prepare": "Make a manifest from folders of dermatology datasets.",
    "render": "Draw seven synthetic collections, with a manifest.",
    "preview": "Draw augmented training pairs as a PNG.",
    "train": "Train a baseline or a CCSA model; the same command again resumes.",
    "evaluate": "Score a trained run on every domain.",
    "experiment": "Run rows of the paper's table of experiments, A to V.",
    "prune": "Prune channels of a trained run and fine-tune the rest.",
    "export": "Write a run's model as ONNX, for torch.export or ExecuTorch.",
    "latency": "Time exported models on this machine.",
    "report": "Print a table of the runs in a folder, and write an HTML page.",
    "bench": "Benchmark losses, images, training steps and pruned models.",
    "check": "Show what was built, what is usable here, and what is missing.",
    "demo": "Train, score and report on images the package renders itself.",
}

INTERRUPTED = 130  # 128 + SIGINT, the status a shell expects after Ctrl-C


class CommandGroup(click.Group):
    """A group whose commands are ``fastccsa.cli.<name>.<name>_command``.

    Exit statuses: 0 for success, 2 for bad input or a missing extra, 130 if interrupted, 143 if terminated. Except for
    0, one line on stderr says why. Any other error keeps its traceback, because it is a bug.
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
            with install_advice():
                return super().invoke(ctx)
        except Interrupted as stop:
            click.echo(f"fastccsa: {stop}", err=True)
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
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError) as error:
            if error.filename is None:
                raise
            fail(f"{error.filename}: {error.strerror}")
        except click.Abort:
            click.echo("fastccsa: interrupted", err=True)
            sys.exit(INTERRUPTED)
        sys.exit(status if isinstance(status, int) else 0)


def fail(message: str, hint: click.Context | None = None) -> NoReturn:
    """Print ``message`` as one line on stderr, with a hint at the help of the command, and exit with status 2."""
    line = " ".join(message.split())
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
