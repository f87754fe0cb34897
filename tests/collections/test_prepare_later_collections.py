"""``prepare`` with the collections that came after the paper: options, accounting of every file and row, classes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fastccsa.cli import main
from fastccsa.cli.prepare import prepare_command
from fastccsa.collections import Manifest, prepare
from fastccsa.collections.sources import READERS
from fastccsa.system.errors import InputError

WriteImage = Callable[..., Path]

MILK_CLASSES = "AKIEC,BCC,BEN_OTH,BKL,DF,INF,MAL_OTH,MEL,NV,SCCKA,VASC"
COUNT = 12

# Option -> domain, file name of an image from its number, and its tables, with {image} for the name without extension.
# Images alternate between nevus and melanoma; the last one has a diagnosis that is left out.
OPTIONS: dict[str, tuple[str, str, dict[str, tuple[str, list[str]]]]] = {
    "--challenge=2018={}": (
        "ISIC2018",
        "ISIC_{:07}.jpg",
        {
            "ISIC2018_Task3_Training_GroundTruth.csv": (
                "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC",
                ["{image},0,1,0,0,0,0,0", "{image},1,0,0,0,0,0,0", "{image},0,0,0,0,0,0,0"],
            )
        },
    ),
    "--milk10k={}": (
        "MILK",
        "ISIC_{:07}.jpg",
        {
            "MILK10k_Training_GroundTruth.csv": (
                f"lesion_id,{MILK_CLASSES}",
                ["L{image},0,0,0,0,0,0,0,0,1,0,0", "L{image},0,0,0,0,0,0,0,1,0,0,0", "L{image},0,0,0,0,0,0,0,0,0,1,0"],
            ),
            "MILK10k_Training_Metadata.csv": ("isic_id,lesion_id,sex", ["{image},L{image},male"] * 3),
        },
    ),
    "--bcn20000={}": (
        "BCN",
        "BCN_{:010}.jpg",
        {
            "bcn_20k_train.csv": (
                "bcn_filename,diagnosis,lesion_id",
                [f"{{image}}.jpg,{c},L{{image}}" for c in ("NV", "MEL", "SCC")],
            )
        },
    ),
    "--pad-ufes-20={}": (
        "PAD",
        "PAT_{0}_{0}_7.png",
        {
            "metadata.csv": (
                "patient_id,lesion_id,diagnostic,img_id,fitspatrick",
                [f"P{{image}},L{{image}},{c},{{image}}.png,2.0" for c in ("NEV", "MEL", "SCC")],
            )
        },
    ),
    "--ddi={}": (
        "DDI",
        "{:06}.png",
        {
            "ddi_metadata.csv": (
                "DDI_file,skin_tone,disease",
                [f"{{image}}.png,12,{c}" for c in ("blue-nevus", "melanoma", "wart")],
            )
        },
    ),
    "--fitzpatrick17k={}": (
        "F17K",
        "{:032x}.jpg",
        {
            "fitzpatrick17k.csv": (
                "md5hash,fitzpatrick_scale,label,qc",
                [f"{{image}},1,{c}," for c in ("halo nevus", "melanoma", "psoriasis")],
            )
        },
    ),
}  # fmt: skip


def build(root: Path, option: str, write_image: WriteImage) -> Path:
    """Write a collection of twelve images, of which the last has no class here."""
    domain, pattern, tables = OPTIONS[option]
    folder = root / domain
    for name, (header, kinds) in tables.items():
        lines = [header]
        for number in range(COUNT):
            image = write_image(folder / "images" / pattern.format(number), look=f"{domain} {number}")
            kind = kinds[2] if number == COUNT - 1 else kinds[number % 2]
            lines.append(kind.format(image=image.stem))
        (folder / name).write_text("\n".join(lines) + "\n")
    return folder


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["prepare", *map(str, arguments)])


@pytest.mark.parametrize("option", OPTIONS)
def test_every_file_and_row_is_accounted_for(tmp_path: Path, write_image: WriteImage, option: str) -> None:
    domain, pattern, tables = OPTIONS[option]
    folder = build(tmp_path, option, write_image)
    (folder / "images" / pattern.format(3)).unlink()
    (folder / "images" / pattern.format(4)).write_bytes(b"not an image")
    write_image(folder / "images" / pattern.format(99))
    write_image(folder / "masks" / "mask.png")
    (folder / "readme.pdf").write_bytes(b"%PDF")
    (folder / "other.csv").write_text("a,b\n1,2\n")
    (folder / "scan.nii").write_bytes(b"")
    (folder / "gone.jpg").symlink_to("nowhere")
    done = run(option.format(folder), "--out", tmp_path / "m.csv")
    assert done.exit_code == 0, done.output
    provenance = json.loads((tmp_path / "m.prepare.json").read_text())
    table = Manifest.read(tmp_path / "m.csv").table
    assert len(table) == COUNT - 3
    assert table["label"].value_counts().to_dict() == {"nv": 5, "mel": 4}
    assert set(table["domain"]) == {domain}
    assert provenance["tables"] == {domain: dict.fromkeys(sorted(tables), COUNT)}
    left_out = provenance["left_out"][domain]
    # Every file below the folder is an image of the manifest, a table that was read, or named.
    named = " ".join(name for names in left_out.values() for name in names).lower()
    for path in folder.rglob("*"):
        if path.is_symlink() or path.is_file():
            read = f"{domain}/images/{path.name}" in set(table["image"]) or path.name in tables
            assert read or path.stem.lower() in named, path
    # Every row is an image of the manifest, or left out for a reason of its own.
    stem = {number: Path(pattern.format(number)).stem for number in (3, 4, COUNT - 1)}
    assert [name.lower() for name in left_out["image file missing"]] == [stem[3].lower()]
    assert left_out["image file cannot be decoded"] == [pattern.format(4)]
    (reason,) = (key for key in left_out if re.match("diagnosis|no diagnosis", key))
    assert [name.lower() for name in left_out[reason]] == [stem[COUNT - 1].lower()]
    assert left_out["table that the reader does not use"] == ["other.csv"]
    assert left_out["link leads nowhere"] == ["gone.jpg"]
    assert left_out["image of a kind that cannot be decoded here"] == ["scan.nii"]
    assert f"  {domain}: " + ", ".join(f"{name} ({COUNT} rows)" for name in sorted(tables)) in done.stdout.splitlines()


def test_all_of_them_are_combined(tmp_path: Path, write_image: WriteImage) -> None:
    chosen = [option.format(build(tmp_path, option, write_image)) for option in OPTIONS]
    done = run(*reversed(chosen), "--out", tmp_path / "m.csv")
    assert done.exit_code == 0, done.output
    manifest = Manifest.read(tmp_path / "m.csv")
    assert manifest.domains == ("ISIC2018", "MILK", "BCN", "PAD", "DDI", "F17K")
    assert manifest.summary().sum(axis=1).tolist() == [COUNT - 1] * 6
    columns = {"part", "sex", "fitzpatrick", "skin_tone", "patient", "lesion"}
    assert columns <= set(manifest.table.columns)
    known = manifest.table.set_index("domain")
    assert set(known.loc["PAD", "fitzpatrick"]) == {"2"}
    assert set(known.loc["DDI", "fitzpatrick"]) == {""}
    assert set(known.loc["ISIC2018", "part"]) == {"train"}


def test_benign_and_malignant_are_classes_of_their_own(tmp_path: Path, write_image: WriteImage) -> None:
    lines = []
    for number in range(12):
        write_image(tmp_path / "2016" / f"ISIC_{number}.jpg", look=f"2016 {number}")
        lines.append(f"ISIC_{number},{('benign', 'malignant')[number % 2]}")
    (tmp_path / "2016" / "GroundTruth.csv").write_text("\n".join(lines))
    alone = ("--challenge", f"2016={tmp_path / '2016'}", "--out", tmp_path / "m.csv")
    assert run(*alone).exit_code == 0
    assert Manifest.read(tmp_path / "m.csv").classes == ("benign", "malignant")
    ddi = build(tmp_path, "--ddi={}", write_image)
    done = run(*alone, "--ddi", ddi)
    assert done.exit_code != 0
    assert (
        "the images of ISIC2016 are labelled benign, malignant, which are not among the classes of the others"
        in str(done.exception.__context__ or done.exception)
    )
    (tmp_path / "labels.csv").write_text("collection,diagnosis,label\nchallenge,malignant,mel\nchallenge,benign,-\n")
    assert run(*alone, "--ddi", ddi, "--labels", tmp_path / "labels.csv").exit_code == 0
    assert Manifest.read(tmp_path / "m.csv").summary().loc["ISIC2016", "mel"] == 6


def test_a_domain_with_too_few_groups_is_named(tmp_path: Path, write_image: WriteImage) -> None:
    for name in ("A/nv/1.png", "A/nv/2.png", "B/nv/3.png", "B/nv/4.png", "B/nv/5.png"):
        write_image(tmp_path / "own" / name)
    _, report = prepare([("own", "folders", tmp_path / "own")], tmp_path / "m.csv")
    assert "A has no validation image: it has too few groups of images" in str(report).splitlines()
    assert "B has no" not in str(report)


def test_rare_reasons_are_summed_up(tmp_path: Path, write_image: WriteImage) -> None:
    lines = ["DDI_file,disease"]
    for number in range(30):
        write_image(tmp_path / "ddi" / f"{number:06}.png")
        lines.append(f"{number:06}.png,{f'disease {number}' if number else 'melanoma'}")
    (tmp_path / "ddi" / "ddi_metadata.csv").write_text("\n".join(lines))
    (tmp_path / "ddi" / "notes.pdf").write_bytes(b"")
    _, report = prepare([("DDI", "ddi", tmp_path / "ddi")], tmp_path / "m.csv")
    assert str(report).count("matches no class") == 10
    assert "; 19 rarer reasons (19)" in str(report)
    assert "not an image (1: notes.pdf)" in str(report)


def test_the_kinds_of_sources_are_those_of_the_command_line() -> None:
    options = {name for parameter in prepare_command.params for name in parameter.opts}
    assert {f"--{kind}" for kind in READERS} <= options
    with pytest.raises(InputError, match=r"there is no domain 'X'; choose one of HAM, .*, F17K"):
        prepare([("X", "ddi", "nowhere")], "m.csv")
