"""``fastccsa check``: what was built and what is usable here."""

from __future__ import annotations

import click


@click.command("check")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON, for a bug report or a program.")
def check_command(as_json: bool) -> None:
    """Show what was built, what is usable here, which extras are installed, and how to get what is missing."""
    from fastccsa.system.doctor import check

    report = check()
    click.echo(report.as_json() if as_json else str(report))
    if not report.usable:
        raise SystemExit(1)
