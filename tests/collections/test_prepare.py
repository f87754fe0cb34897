from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fastccsa.cli import main
from fastccsa.collections import Manifest, prepare
from fastccsa.system.errors import InputError

Build = Callable[..., Path]


@pytest.fixture
def folders(tmp_path: Path, ham10000: Build, isic_cli: Build) -> tuple[Path, Path]:
    """HAM10000 with 20 nevi of 10 lesions and 6 melanomas; UDA with 5 nevi, 5 melanomas and two other images."""
    lesions = [(f"HAM_{number // 2}", f"ISIC_002430{number:02}", "nv") for number in range(20)]
    lesions += [(f"HAM_1{number}", f"ISIC_002440{number:02}", "mel") for number in range(6)]
    images = [(f"ISIC_00000{number:02}", ("nevus", "melanoma")[number % 2]) for number in range(10)]
    images += [("ISIC_0000011", ""), ("ISIC_0000012", "scar")]
    return ham10000(tmp_path / "ham", lesions), isic_cli(tmp_path / "uda", images)


def test_manifest_and_report_agree(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    out = tmp_path / "manifest.csv"
    ham, uda = folders
    manifest, report = prepare([("UDA", "isic", uda), ("HAM", "ham10000", ham)], out)
    assert manifest.table.equals(Manifest.read(out).table)
    assert manifest.domains == ("UDA", "HAM")
    assert manifest.summary().loc["HAM", ["nv", "mel"]].tolist() == [20, 6]
    assert report.found.equals(manifest.summary())
    assert report.splits.loc["HAM"].tolist() == [len(manifest.select(s, "HAM")) for s in report.splits.columns]
    assert report.splits.sum(axis=1).tolist() == [10, 26]
    assert report.dropped["UDA"] == {"no diagnosis": 1, "diagnosis 'scar' matches no class": 1}
    assert manifest.table["image"].iloc[0] == "uda/ISIC_0000000.jpg"
    rows = [line.split() for line in str(report).splitlines()]
    assert ["HAM", "found", "20", "6", "0", "0", "0", "0", "0", "26"] in rows
    assert ["paper", "6705", "1113", "514", "115", "1099", "142", "327", "10015"] in rows
    assert "  UDA: no diagnosis (1); diagnosis 'scar' matches no class (1)" in str(report).splitlines()


def test_the_seed_determines_every_byte(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    sources = [("HAM", "ham10000", folders[0]), ("UDA", "isic", folders[1])]
    written = []
    for name, seed in (("a.csv", 1), ("b.csv", 1), ("c.csv", 2)):
        prepare(sources, tmp_path / name, seed=seed)
        written.append((tmp_path / name).read_bytes())
    assert written[0] == written[1] != written[2]


def test_a_domain_may_have_several_folders(tmp_path: Path, isic_cli: Build) -> None:
    first = isic_cli(tmp_path / "MSK-1", [("ISIC_0000001", "nevus"), ("ISIC_0000002", "scar")])
    second = isic_cli(tmp_path / "MSK-2", [("ISIC_0000003", "melanoma"), ("ISIC_0000004", "scar")])
    sources = [("MSK", "isic", first), ("MSK", "isic", second), ("MSK", "isic", first)]
    manifest, report = prepare(sources, tmp_path / "manifest.csv")
    assert [Path(path).stem for path in manifest.paths] == ["ISIC_0000001", "ISIC_0000003"]
    assert report.dropped["MSK"]["diagnosis 'scar' matches no class"] == 3
    assert report.dropped["MSK"]["listed a second time"] == 1


def test_invalid_sources_are_reported(tmp_path: Path, folders: tuple[Path, Path], isic_cli: Build) -> None:
    uda = folders[1]
    out = tmp_path / "manifest.csv"
    with pytest.raises(InputError, match="the seed is -1; give 0 or more"):
        prepare([("UDA", "isic", "nowhere")], out, seed=-1)
    with pytest.raises(InputError, match="no collection to prepare"):
        prepare([], out)
    with pytest.raises(InputError, match="there is no domain 'XYZ'; choose one of HAM, DMF"):
        prepare([("XYZ", "isic", uda)], out)
    with pytest.raises(InputError, match="there is no reader of 'zip'; choose one of ham10000, dermofit"):
        prepare([("UDA", "zip", uda)], out)
    with pytest.raises(InputError, match="is in both UDA and SON"):
        prepare([("UDA", "isic", uda), ("SON", "isic", uda)], out)
    scars = isic_cli(tmp_path / "scars", [("ISIC_0000001", "scar")])
    with pytest.raises(InputError, match=r"scars has no usable image for MSK \(diagnosis 'scar' matches"):
        prepare([("MSK", "isic", scars)], out)
    assert not out.exists()


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["prepare", *map(str, arguments)])


def test_the_command_writes_the_same_manifest(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    out = tmp_path / "sub" / "manifest.csv"
    done = run("--ham10000", folders[0], "--isic", f"UDA={folders[1]}", "--out", out, "--seed", "3")
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith(f"Wrote 36 images to {out}\n")
    assert "paper" in done.stdout
    assert "diagnosis 'scar' matches no class (1)" in done.stdout
    expected, _ = prepare(
        [("HAM", "ham10000", folders[0]), ("UDA", "isic", folders[1])], tmp_path / "sub" / "b.csv", seed=3
    )
    assert Manifest.read(out).table.equals(expected.table)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to prepare: give a collection, such as --ham10000 DIR, or --csv NAME=FILE"),
        (["--isic", "somewhere"], "'somewhere' is not DOMAIN=DIR with DOMAIN one of MSK, SON, UDA"),
        (["--isic", "HAM=somewhere"], "'HAM=somewhere' is not DOMAIN=DIR"),
        (["--ham10000", "no such folder"], "there is no folder no such folder"),
        (["--csv", "=table.csv"], "'=table.csv' is not NAME=FILE"),
        (["--csv", "mine=no such table"], "cannot read no such table: No such file or directory"),
        (["--ham10000", __file__], "is neither a folder nor a .zip; unpack it and pass the folder"),
        (["--ham10000", ".", "--labels", "no such table"], "cannot read no such table: No such file"),
    ],
)
def test_invalid_input_on_the_command_line_is_reported_in_one_line(
    tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = run(*arguments, "--out", tmp_path / "manifest.csv")
    assert done.exit_code == 2
    assert message in done.output
    assert len(done.output.splitlines()) == 1
