"""``fastccsa prepare``: folders of collections in, one manifest out."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from fastccsa.data.prepare import Source, prepare
from fastccsa.data.taxonomy import ISIC_COLLECTIONS


class DomainFolder(click.ParamType):
    """A value ``DOMAIN=DIR``, such as ``UDA=data/uda``."""

    name = "DOMAIN=DIR"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Return domain key and folder, or fail with what was expected."""
        domain, equals, folder = value.partition("=")
        if not equals or not folder or domain not in ISIC_COLLECTIONS:
            choices = ", ".join(ISIC_COLLECTIONS)
            self.fail(f"{value!r} is not DOMAIN=DIR with DOMAIN one of {choices}", param, ctx)
        return domain, folder


@click.command()
@click.option("--ham10000", metavar="DIR", help="HAM10000: its metadata and images, at any depth.")
@click.option(
    "--isic",
    type=DomainFolder(),
    multiple=True,
    help="A download of the ISIC archive for the domain MSK, SON or UDA; may be repeated.",
)
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The CSV file to write.")
@click.option("--seed", default=0, show_default=True, help="Which images train, validate and test.")
def prepare_command(ham10000: str | None, isic: tuple[tuple[str, str], ...], out: Path, seed: int) -> None:
    """Make a manifest: every image with its label, domain, group and split (50/20/30 in each domain).

    Prints the class counts beside the paper's, and how many images were left out for which reason.
    """
    sources: list[Source] = [("HAM", "ham10000", ham10000)] if ham10000 else []
    sources += [(domain, "isic", folder) for domain, folder in isic]
    if not sources:
        raise click.UsageError("nothing to prepare: give --ham10000 DIR, --isic DOMAIN=DIR, or both")
    manifest, report = prepare(sources, out, seed, progress=sys.stderr.isatty())
    click.echo(report)
    click.echo(f"\nWrote {len(manifest)} images to {out}")
