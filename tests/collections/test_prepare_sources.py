"""``prepare`` with every kind of source, with duplicates, and the provenance file it writes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fastccsa.cli import main
from fastccsa.collections import LabelMaps, Manifest, prepare
from fastccsa.system.errors import InputError

Build = Callable[..., Path]
WriteImage = Callable[..., Path]


@pytest.fixture
def collections(tmp_path: Path, ham10000: Build, isic_cli: Build, write_image: WriteImage) -> Path:
    """A few images of each of the seven collections, and a user's own data."""
    root = tmp_path / "collections"
    ham10000(root / "HAM", [(f"HAM_{n // 2}", f"ISIC_00243{n:02}", ("nv", "mel")[n // 10]) for n in range(20)])
    for number, domain in enumerate(("MSK", "SON", "UDA")):
        isic_cli(root / domain, [(f"ISIC_000{number}{n:03}", "nevus") for n in range(10)])
    for n in range(10):
        write_image(root / "DMF" / "ml" / f"A{n}" / f"A{n}.png")
        write_image(root / "D7P" / "images" / "NEL" / f"c{n}.JPG")
        write_image(root / "D7P" / "images" / "NEL" / f"d{n}.jpg")
        write_image(root / "PH2" / f"IMD{n:03}" / f"IMD{n:03}.bmp")
        write_image(root / "own" / "mine" / ("nv", "mel")[n % 2] / f"{n}.png", look=f"own {n}")
    (root / "DMF" / "lesionlist.txt").write_text("".join(f"{n + 1} A{n} ML\n" for n in range(10)))
    cases = "".join(f"{n},blue nevus,NEL/c{n}.jpg,NEL/d{n}.jpg\n" for n in range(10))
    (root / "D7P" / "meta.csv").write_text("case_num,diagnosis,clinic,derm\n" + cases)
    rows = "".join(f"|| IMD{n:03} ||   || {n % 3} ||\n" for n in range(10))
    (root / "PH2" / "PH2_dataset.txt").write_text("|| Name || Histological Diagnosis || Clinical Diagnosis ||\n" + rows)
    write_image(root / "table" / "1.png", look="table 1")
    write_image(root / "table" / "2.png", look="table 2")
    (root / "table" / "t.csv").write_text("image,label,split\n1.png,nv,test\n2.png,mel,train\n")
    return root


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["prepare", *map(str, arguments)])


def options(root: Path, extension: str = "") -> list[str]:
    chosen = ["--folders", f"{root}/own{extension}", "--csv", f"table={root}/table/t.csv"]
    chosen += [part for domain in ("UDA", "SON", "MSK") for part in ("--isic", f"{domain}={root}/{domain}{extension}")]
    for option, name in (("ph2", "PH2"), ("derm7pt", "D7P"), ("dermofit", "DMF"), ("ham10000", "HAM")):
        chosen += [f"--{option}", f"{root}/{name}{extension}"]
    return chosen


def test_all_kinds_of_sources_are_combined(tmp_path: Path, collections: Path) -> None:
    out = tmp_path / "manifest.csv"
    done = run(*options(collections), "--out", out)
    assert done.exit_code == 0, done.output
    manifest = Manifest.read(out)
    assert manifest.domains == ("HAM", "DMF", "D7P", "MSK", "PH2", "SON", "UDA", "table", "mine")
    assert manifest.summary().sum(axis=1).tolist() == [20, 10, 20, 10, 10, 10, 10, 2, 10]
    assert manifest.summary().loc["PH2", ["nv", "mel"]].tolist() == [7, 3]
    assert manifest.select(domains="table").table["split"].tolist() == ["test", "train"]
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["paper", "331", "76", "239", "65", "257", "121", "123", "1212"] in rows
    assert ["mine", "found", "5", "5", "0", "0", "0", "0", "0", "10"] in rows
    assert "Duplicates: none (looked for same bytes and same look)" in done.stdout
    assert done.stdout.endswith(f"Wrote 102 images to {out}\n")


def test_archives_and_folders_give_the_same_manifest(tmp_path: Path, collections: Path) -> None:
    run(*options(collections), "--out", tmp_path / "a" / "manifest.csv")
    for folder in [path for path in collections.iterdir() if path.name != "table"]:
        with zipfile.ZipFile(f"{folder}.zip", "w") as archive:
            for path in folder.rglob("*"):
                archive.write(path, Path("top") / path.relative_to(folder) if folder.name != "own" else
                              path.relative_to(folder))  # fmt: skip
        shutil.rmtree(folder)
    for unpack in (["--unpack", str(tmp_path / "elsewhere")], []):
        done = run(*options(collections, ".zip"), "--out", tmp_path / "b" / "manifest.csv", *unpack)
        assert done.exit_code == 0, done.output
        first = Manifest.read(tmp_path / "a" / "manifest.csv", check_files=False).table.drop(columns="image")
        assert Manifest.read(tmp_path / "b" / "manifest.csv").table.drop(columns="image").equals(first)
    assert len(list((tmp_path / "elsewhere").iterdir())) == len(list((tmp_path / "b" / "unpacked").iterdir())) == 8


def test_the_order_of_the_file_system_does_not_matter(
    tmp_path: Path, collections: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    walk = os.walk

    def reversed_walk(folder: Path, **options: bool):
        for parent, subfolders, names in walk(folder, **options):
            subfolders.sort(reverse=True)
            yield parent, subfolders, sorted(names, reverse=True)

    written = []
    for reverse in (False, True):
        if reverse:
            monkeypatch.setattr(os, "walk", reversed_walk)
        run(*options(collections), "--out", tmp_path / "manifest.csv")
        written.append([(tmp_path / name).read_bytes() for name in ("manifest.csv", "manifest.prepare.json")])
    assert written[0] == written[1]


def test_a_users_labels_are_applied_and_recorded(tmp_path: Path, collections: Path) -> None:
    (tmp_path / "labels.csv").write_text("collection,diagnosis,label\ndermofit,ML,df\nown,mel,-\n")
    done = run(*options(collections), "--out", tmp_path / "m.csv", "--labels", tmp_path / "labels.csv")
    assert done.exit_code == 0, done.output
    assert Manifest.read(tmp_path / "m.csv").summary().loc["DMF", "df"] == 10
    assert "  own: diagnosis 'mel' is left out by the label map (5)" in done.stdout.splitlines()
    provenance = json.loads((tmp_path / "m.prepare.json").read_text())
    assert provenance["labels"]["dermofit"]["ML"] == "df"


def test_only_own_data_without_a_collection_may_define_classes(
    tmp_path: Path, collections: Path, write_image: WriteImage
) -> None:
    for name in ("zoo/cat/1.png", "zoo/cat/2.png", "wild/dog/3.png"):
        write_image(tmp_path / "animals" / name)
    manifest, report = prepare([("animals", "folders", tmp_path / "animals")], tmp_path / "m.csv")
    assert manifest.classes == ("cat", "dog")
    assert manifest.domains == ("wild", "zoo")
    assert "paper" not in str(report)
    both = [("HAM", "ham10000", collections / "HAM"), ("animals", "folders", tmp_path / "animals")]
    with pytest.raises(InputError, match=r"no usable image for animals \(diagnosis 'cat' matches no class"):
        prepare(both, tmp_path / "m.csv")
    labels = LabelMaps({**LabelMaps.read().labels, "own": {"cat": "felis"}})
    with pytest.raises(InputError, match=r"the label 'felis' for your own data is not one of nv"):
        prepare(both, tmp_path / "m.csv", labels=labels)


@pytest.fixture
def twins(tmp_path: Path, ham10000: Build, isic_cli: Build, write_image: WriteImage) -> list[tuple[str, str, Path]]:
    """HAM10000 and UDA with copies within and across them, recompressed copies, and an undecodable image."""
    ham = ham10000(tmp_path / "HAM", [(f"HAM_{n}", f"ISIC_00243{n:02}", "nv") for n in range(40)])
    uda = isic_cli(
        tmp_path / "UDA", [(f"ISIC_00000{n:02}", "nevus") for n in range(12)] + [("ISIC_0000099", "melanoma")]
    )
    part1, part2 = ham / "HAM10000_images_part_1", ham / "HAM10000_images_part_2"
    shutil.copy(part1 / "ISIC_0024300.jpg", part2 / "ISIC_0024301.jpg")
    shutil.copy(part1 / "ISIC_0024302.jpg", uda / "ISIC_0000099.jpg")
    write_image(uda / "ISIC_0000001.jpg", look="ISIC_0024304.jpg", quality=50)
    write_image(uda / "ISIC_0000002.jpg", look="ISIC_0000003.jpg", quality=50)
    (uda / "ISIC_0000011.jpg").write_bytes(b"\xff\xd8 cut")
    return [("HAM", "ham10000", ham), ("UDA", "isic", uda)]


@pytest.mark.parametrize("seed", range(4))
def test_duplicates_are_listed_and_kept_in_one_split(
    tmp_path: Path, twins: list[tuple[str, str, Path]], seed: int
) -> None:
    out = tmp_path / "manifest.csv"
    manifest, report = prepare(twins, out, seed=seed)
    splits = dict(zip((Path(path).stem for path in manifest.paths), manifest.table["split"], strict=True))
    for first, second in (
        ("0024300", "0024301"),
        ("0024302", "0000099"),
        ("0024304", "0000001"),
        ("0000002", "0000003"),
    ):
        assert splits[f"ISIC_{first}"] == splits[f"ISIC_{second}"]
    text = str(report)
    rows = [line.split() for line in text.splitlines()]
    assert ["within", "HAM", "1", "0", "0"] in rows
    assert ["HAM", "and", "UDA", "1", "1", "0"] in rows
    assert ["within", "UDA", "0", "1", "0"] in rows
    assert "  same bytes, different label (1): ISIC_0024302.jpg (HAM nv) = ISIC_0000099.jpg (UDA mel)" in text
    assert "UDA: image file cannot be decoded (1: ISIC_0000011.jpg)" in text
    assert report.dropped["UDA"] == {"image file cannot be decoded": 1}
    provenance = json.loads((tmp_path / "manifest.prepare.json").read_text())
    assert provenance["duplicates"]["same_bytes_another_label"] == [
        ["HAM/HAM10000_images_part_1/ISIC_0024302.jpg", "UDA/ISIC_0000099.jpg"]
    ]
    assert len(provenance["duplicates"]["same_look"]) == 2


def test_the_search_for_duplicates_can_be_limited_or_disabled(
    tmp_path: Path, twins: list[tuple[str, str, Path]]
) -> None:
    _, exact = prepare(twins, tmp_path / "exact" / "m.csv", duplicates="exact")
    assert exact.duplicates is not None
    assert (len(exact.duplicates.exact), exact.duplicates.near) == (2, [])
    assert "same look" not in str(exact)
    manifest, off = prepare(twins, tmp_path / "off" / "m.csv", duplicates="off")
    assert off.duplicates is None
    assert str(off).endswith("Duplicates: not looked for")
    assert len(manifest) == 52
    assert exact.dropped["UDA"] == off.dropped["UDA"] == {"image file cannot be decoded": 1}
    assert sorted(path.name for path in (tmp_path / "off").iterdir()) == ["m.csv", "m.prepare.json"]
    with pytest.raises(InputError, match="duplicates is 'all'; choose one of 'off', 'exact', 'near'"):
        prepare(twins, tmp_path / "m.csv", duplicates="all")


def test_given_splits_that_separate_duplicates_are_kept(tmp_path: Path, write_image: WriteImage) -> None:
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name, look="one")
    (tmp_path / "t.csv").write_text("image,label,split\na.png,nv,train\nb.png,nv,test\n")
    manifest, report = prepare([("mine", "csv", tmp_path / "t.csv")], tmp_path / "m.csv")
    assert manifest.table["split"].tolist() == ["train", "test"]
    assert "not in one split, because the given splits separate them (1): a.png (mine nv) = b.png" in str(report)


def test_archives_that_are_not_unpacked_are_named_if_images_are_missing(tmp_path: Path, ham10000: Build) -> None:
    ham = ham10000(tmp_path / "HAM", [(f"HAM_{n}", f"ISIC_00243{n:02}", "nv") for n in range(12)])
    (ham / "HAM10000_images_part_2.zip").write_bytes(b"PK")
    assert "not unpacked" not in run("--ham10000", ham, "--out", tmp_path / "m.csv").stdout
    shutil.rmtree(ham / "HAM10000_images_part_2")
    done = run("--ham10000", ham, "--out", tmp_path / "m.csv")
    assert "image file missing (6: ISIC_0024301, ISIC_0024303," in done.stdout
    assert "; archive in the folder is not unpacked (1: HAM10000_images_part_2.zip)" in done.stdout


def test_a_large_group_of_images_with_the_same_look_is_reported(tmp_path: Path, write_image: WriteImage) -> None:
    for n in range(40):
        write_image(tmp_path / "own" / "A" / "nv" / f"{n}.jpg", look="one" if n < 12 else None, quality=60 + n)
    sources = [("own", "folders", tmp_path / "own")]
    _, report = prepare(sources, tmp_path / "m.csv")
    assert "  12 of the 40 images of A are in one group because of the same look; if they are not copies" in str(report)
    _, report = prepare(sources, tmp_path / "m.csv", duplicates="exact")
    assert "one group" not in str(report)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write anywhere")
def test_an_unwritable_folder_is_reported_first(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(InputError, match=r"cannot write .*; choose a folder you can write to"):
        prepare([("HAM", "ham10000", "nowhere")], tmp_path / "locked" / "m.csv")


def test_an_impossible_output_path_is_reported_first(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"it is a folder; name a file in it"):
        prepare([("HAM", "ham10000", "nowhere")], tmp_path)
    with pytest.raises(InputError, match=r"cannot write .*m.csv: .*; choose a folder you can write to"):
        prepare([("HAM", "ham10000", "nowhere")], tmp_path / "file" / "m.csv")


def test_the_provenance_file_records_how_the_manifest_was_made(tmp_path: Path, collections: Path) -> None:
    (collections / "DMF" / "ml" / "A3" / "A3.png").unlink()
    out = tmp_path / "manifest.csv"
    done = run("--dermofit", collections / "DMF", "--out", out, "--seed", "5")
    assert "DMF: image file missing (1: A3)" in done.stdout
    assert f"Wrote the provenance to {tmp_path / 'manifest.prepare.json'}" in done.stdout
    provenance = json.loads((tmp_path / "manifest.prepare.json").read_text())
    assert provenance["manifest"] == {
        "file": "manifest.csv",
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest(),
        "images": 9,
    }
    assert provenance["seed"] == 5
    assert provenance["sources"] == [{"domain": "DMF", "kind": "dermofit", "path": str(collections / "DMF")}]
    assert provenance["left_out"] == {"DMF": {"image file missing": ["A3"]}}
    assert provenance["counts"]["DMF"]["nv"] == sum(provenance["splits"]["DMF"].values()) == 9
    assert provenance["duplicates"]["looked_for"] == "near"


def test_an_output_path_is_required() -> None:
    done = run("--ham10000", "somewhere")
    assert done.exit_code == 2
    assert "no manifest to write: give --out FILE" in done.output


def test_tables_of_the_same_name_are_all_listed(tmp_path: Path, isic_cli: Build) -> None:
    folders = [isic_cli(tmp_path / f"MSK-{n}", [(f"ISIC_00{n}0{k:02}", "nevus") for k in range(n)]) for n in (3, 4)]
    _, report = prepare([("MSK", "isic", folder) for folder in folders], tmp_path / "m.csv")
    assert report.tables == {"MSK": {"metadata.csv": 3, f"{folders[1]}/metadata.csv": 4}}
    assert f"  MSK: metadata.csv (3 rows), {folders[1]}/metadata.csv (4 rows)" in str(report).splitlines()


def test_many_descriptions_are_summed_up(tmp_path: Path, isic_cli: Build, write_image: WriteImage) -> None:
    folder = isic_cli(tmp_path / "MSK", [(f"ISIC_00000{n:02}", "nevus") for n in range(3)])
    for number in range(11):
        name = f"ISIC_00001{number:02}"
        (folder / f"{name}.json").write_text(json.dumps({"isic_id": name, "diagnosis": "nevus"}))
        write_image(folder / f"{name}.jpg")
    manifest, report = prepare([("MSK", "isic", folder)], tmp_path / "m.csv")
    assert len(manifest) == 14
    assert "  MSK: metadata.csv (3 rows), 11 descriptions of one image" in str(report).splitlines()
    assert len(report.tables["MSK"]) == 12


def test_every_file_of_every_collection_is_accounted_for(tmp_path: Path, collections: Path) -> None:
    folders = [path for path in collections.iterdir() if path.name not in ("table", "own")]
    for folder in folders:
        (folder / "licence.txt").write_text("CC0")
        (folder / "more.csv").write_text("a,b\n1,2\n")
        (folder / "page.html").write_text("<html>")
    out = tmp_path / "m.csv"
    done = run(*options(collections), "--out", out)
    assert done.exit_code == 0, done.output
    provenance = json.loads(out.with_suffix(".prepare.json").read_text())
    images = {str(path) for path in Manifest.read(out).paths}
    for folder in folders:
        left_out = provenance["left_out"][folder.name]
        assert left_out.pop("table that the reader does not use") == ["more.csv"]
        assert sorted(left_out.pop("not an image")) == ["licence.txt", "page.html"]
        assert not left_out
        files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
        read = {name for name in files if str(folder / name) in images}
        tables = provenance["tables"][folder.name]
        assert files - read - tables.keys() == {"licence.txt", "more.csv", "page.html"}
        rows = 2 if folder.name == "D7P" else 1  # images of a row
        assert sum(tables.values()) * rows == len(read)
