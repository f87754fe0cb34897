"""``fastccsa bench``: the benchmarks of a checkout, which are not installed with the package."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import click

from fastccsa.system.errors import InputError


class Benchmarks(click.Group):
    """The commands of the checkout's folder ``benchmarks/``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of the benchmarks."""
        return list(_commands())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A benchmark; None when there is none of that name."""
        return _commands().get(cmd_name)


@click.command("bench", cls=Benchmarks)
def bench_command() -> None:
    """Compare fastccsa with other implementations, and with the limits of the machine; from a checkout."""


def _commands() -> dict[str, click.Command]:
    """The commands that the checkout around the working directory or this package defines."""
    if "benchmarks" not in sys.modules:
        roots = [root for root in (Path.cwd(), Path(__file__).parents[2]) if (root / "benchmarks/commands.py").exists()]
        if not roots:
            raise InputError(
                "the benchmarks are not part of the installed package: run `python -m benchmarks` in a checkout of "
                "fastccsa's repository"
            )
        spec = importlib.util.spec_from_file_location("benchmarks", roots[0] / "benchmarks" / "__init__.py")
        assert spec is not None
        assert spec.loader is not None
        sys.modules["benchmarks"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["benchmarks"])
    found: dict[str, click.Command] = importlib.import_module("benchmarks.commands").bench.commands
    return found
