"""``fastccsa check``: what was built and what is usable here."""

from __future__ import annotations

import click


@click.command("check")
def check_command() -> None:
    """Show what was built, what is usable here, which extras are installed, and how to get what is missing."""
    from fastccsa.system.doctor import check

    report = check()
    click.echo(str(report))
    if not report.usable:
        raise SystemExit(1)
