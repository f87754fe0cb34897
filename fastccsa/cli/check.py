"""``fastccsa check``."""

from __future__ import annotations

import click


@click.command("check")
def check_command() -> None:
    """Show what was built, what is usable here, and what to do about the rest."""
    from fastccsa.system.doctor import check

    report = check()
    click.echo(str(report))
    if not report.usable:
        raise SystemExit(1)
