"""``fastccsa prepare``: make one manifest from one or more collections."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from fastccsa.cli.options import choice, data_seed_type
from fastccsa.collections.choices import DuplicateSearch
from fastccsa.collections.taxonomy import DOMAINS, ISIC_COLLECTIONS

if TYPE_CHECKING:
    from fastccsa.collections.sources import Source

# Option -> key of the domain, for the collections that are one domain.
_DOMAIN_OF = {
    "ham10000": "HAM",
    "dermofit": "DMF",
    "derm7pt": "D7P",
    "ph2": "PH2",
    "milk10k": "MILK",
    "bcn20000": "BCN",
    "pad_ufes_20": "PAD",
    "ddi": "DDI",
    "fitzpatrick17k": "F17K",
}
_YEARS = tuple(domain.removeprefix("ISIC") for domain in DOMAINS if domain.startswith("ISIC"))


class NamedPath(click.ParamType):
    """A value ``NAME=PATH``, such as ``UDA=data/uda``."""

    def __init__(self, what: str, names: tuple[str, ...] = ()) -> None:
        self.name = what
        self._names = names

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Return name and path, or fail with a message that says what was expected."""
        name, equals, path = value.partition("=")
        if not equals or not path or not name.strip() or (self._names and name not in self._names):
            choices = f" with {self.name.partition('=')[0]} one of {', '.join(self._names)}" if self._names else ""
            self.fail(f"{value!r} is not {self.name}{choices}", param, ctx)
        return name, path


@click.command()
@click.option("--ham10000", metavar="DIR", help="HAM10000: metadata (or isic-cli's) and images, at any depth.")
@click.option("--dermofit", metavar="DIR", help="Dermofit: lesionlist.txt and the class folders.")
@click.option("--derm7pt", metavar="DIR", help="Derm7pt: release_v0, with meta/meta.csv and images/.")
@click.option("--ph2", metavar="DIR", help="PH2: PH2_dataset.txt or .xlsx, and the images.")
@click.option(
    "--isic",
    type=NamedPath("DOMAIN=DIR", tuple(ISIC_COLLECTIONS)),
    multiple=True,
    help="A download of the ISIC archive for the domain MSK, SON or UDA; may be repeated.",
)
@click.option(
    "--challenge",
    type=NamedPath("YEAR=DIR", _YEARS),
    multiple=True,
    help="An ISIC challenge, 2016 to 2020: ground truth and images; may be repeated.",
)
@click.option("--milk10k", metavar="DIR", help="MILK10k: ground truth, metadata and images.")
@click.option("--bcn20000", metavar="DIR", help="BCN20000: bcn_20k_train.csv (or isic-cli's metadata) and images.")
@click.option("--pad-ufes-20", metavar="DIR", help="PAD-UFES-20: metadata.csv and images.")
@click.option("--ddi", metavar="DIR", help="Diverse Dermatology Images: ddi_metadata.csv and images.")
@click.option("--fitzpatrick17k", metavar="DIR", help="Fitzpatrick17k: fitzpatrick17k.csv and the images it links to.")
@click.option(
    "--csv",
    "tables",
    type=NamedPath("NAME=FILE"),
    multiple=True,
    help="Your own images: a table with the columns image, label and optionally domain (default NAME), group, split, "
    "patient, lesion. Other columns are kept; may be repeated.",
)
@click.option(
    "--folders", metavar="DIR", multiple=True, help="Your own images, in folders domain/class/; may be repeated."
)
@click.option("--out", metavar="FILE", type=click.Path(path_type=Path), help="The CSV file to write.")
@click.option(
    "--seed",
    type=data_seed_type,
    default=0,
    show_default=True,
    help="Seed of the split into training, validation and test images.",
)
@click.option(
    "--labels", metavar="FILE", type=click.Path(path_type=Path), help="CSV with rows that override the label maps."
)
@click.option("--show-labels", is_flag=True, help="Print the label maps, including --labels, and stop.")
@click.option(
    "--duplicates",
    type=choice(DuplicateSearch),
    default="near",
    show_default=True,
    help="Keep images in one split that have the same bytes (exact), or also those that look the same (near); off does "
    "neither.",
)
@click.option(
    "--group-by",
    metavar="COLUMN",
    multiple=True,
    help="Never put images with the same value of this column into two splits, such as site; may be repeated. Patients "
    "and lesions are kept together in any case.",
)
@click.option(
    "--unpack",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder to unpack .zip files into.  [default: unpacked, next to the manifest]",
)
@click.option(
    "--pseudonym-key",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="File with the secret key of the pseudonyms of DICOM patients and studies.  [default: a key of your own, made "
    "in ~/.config/fastccsa]",
)
def prepare_command(
    isic: tuple[tuple[str, str], ...],
    challenge: tuple[tuple[str, str], ...],
    tables: tuple[tuple[str, str], ...],
    folders: tuple[str, ...],
    out: Path | None,
    seed: int,
    labels: Path | None,
    show_labels: bool,
    duplicates: str,
    group_by: tuple[str, ...],
    unpack: Path | None,
    pseudonym_key: Path | None,
    **collections: str | None,
) -> None:
    """Make a manifest: every image with its label, domain, group and split (50/20/30 in each domain).

    Every DIR may also be a .zip file. The command prints the class counts next to the paper's, how many images
    were left out and why, and which images are duplicates. Next to manifest.csv it writes
    manifest.prepare.json, which records how the manifest was made.
    """
    from fastccsa.collections import LabelMaps, prepare
    from fastccsa.collections.provenance import provenance_path

    maps = LabelMaps.read(labels)
    if show_labels:
        click.echo(maps.to_csv(), nl=False)
        return
    sources: list[Source] = [
        (_DOMAIN_OF[option], option.replace("_", "-"), path) for option, path in collections.items() if path
    ]
    sources += [(domain, "isic", path) for domain, path in isic]
    sources += [(f"ISIC{year}", "challenge", path) for year, path in challenge]
    sources.sort(key=lambda source: list(DOMAINS).index(source[0]))
    sources += [(name, "csv", path) for name, path in tables]
    sources += [(Path(path).stem or "folders", "folders", path) for path in folders]
    if not sources:
        raise click.UsageError("nothing to prepare: give a collection, such as --ham10000 DIR, or --csv NAME=FILE")
    if out is None:
        raise click.UsageError("no manifest to write: give --out FILE")
    manifest, report = prepare(
        sources,
        out,
        seed,
        sys.stderr.isatty(),
        labels=maps,
        duplicates=duplicates,
        unpack_to=unpack,
        group_by=group_by,
        pseudonym_key=pseudonym_key,
    )
    click.echo(report)
    click.echo(f"\nWrote the provenance to {provenance_path(out)}")
    click.echo(f"Wrote {len(manifest)} images to {out}")
