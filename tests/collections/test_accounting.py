"""``prepare`` accounts for every file it saw: used, or left out with a reason and a name."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image, features

from fastccsa.cli import main
from fastccsa.collections import Manifest, prepare
from fastccsa.collections.fingerprints import _fingerprint
from fastccsa.system.errors import InputError

Build = Callable[..., Path]
WriteImage = Callable[..., Path]


@pytest.fixture
def own(tmp_path: Path, write_image: WriteImage) -> Path:
    """Ten images of two classes in folders domain/class."""
    for n in range(10):
        write_image(tmp_path / "own" / "S" / "ab"[n % 2] / f"{n}.png")
    return tmp_path / "own"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["prepare", *map(str, arguments)])


def left_out(manifest: Path) -> dict[str, list[str]]:
    """Return the names by reason in the provenance file of a manifest with one source."""
    (reasons,) = json.loads(manifest.with_suffix(".prepare.json").read_text())["left_out"].values()
    return reasons


def bad_tiff(path: Path) -> None:
    """Write a TIFF whose StripOffsets are said to be text, for which Pillow raises a TypeError."""
    Image.new("RGB", (32, 32), "red").save(path)
    content = bytearray(path.read_bytes())
    (start,) = struct.unpack("<I", content[4:8])
    (entries,) = struct.unpack("<H", content[start : start + 2])
    for entry in range(start + 2, start + 2 + 12 * entries, 12):
        if content[entry : entry + 2] == struct.pack("<H", 273):
            content[entry + 2] = 2
    path.write_bytes(content)


@pytest.mark.parametrize("duplicates", ["near", "exact", "off"])
def test_a_broken_image_or_link_costs_one_image(tmp_path: Path, own: Path, duplicates: str) -> None:
    bad_tiff(own / "S" / "a" / "bad.tif")
    (own / "S" / "a" / "empty.png").touch()
    (own / "S" / "a" / "text.jpg").write_text("<html>404</html>")
    (own / "S" / "a" / "gone.png").symlink_to(".git/annex/objects/xx")
    (own / "S" / "b" / "linked.png").symlink_to(own / "S" / "b" / "1.png")
    out = tmp_path / "m.csv"
    done = run("--folders", own, "--out", out, "--duplicates", duplicates)
    assert done.exit_code == 0, done.output
    assert done.stdout.endswith(f"Wrote 11 images to {out}\n")
    assert "image file cannot be decoded (3: bad.tif, empty.png, text.jpg)" in done.stdout
    assert "link leads nowhere (1: S/a/gone.png)" in done.stdout
    assert len(Manifest.read(out)) == 11


def test_any_error_of_a_decoder_makes_an_image_unreadable(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for error in (RuntimeError, TypeError, struct.error, MemoryError, OverflowError, IndexError):
        monkeypatch.setattr(Image, "open", lambda _, error=error: (_ for _ in ()).throw(error("broken")))
        assert _fingerprint(str(own / "S" / "a" / "0.png")).look == "unreadable"


def test_files_that_are_no_images_are_counted_and_named(tmp_path: Path, own: Path) -> None:
    for name in ("x.jxl", "y.NII", "notes.txt", "Thumbs.db", ".hidden", "more.zip"):
        (own / "S" / "a" / name).write_bytes(b"PK")
    os.mkfifo(own / "S" / "b" / "pipe.png")
    (own / "S" / "b" / os.fsdecode(b"caf\xe9.png")).write_bytes((own / "S" / "b" / "1.png").read_bytes())
    (own / "S" / "b" / "two\nlines\x1b[2J.png").write_bytes((own / "S" / "b" / "1.png").read_bytes())
    out = tmp_path / "m.csv"
    done = run("--folders", own, "--out", out)
    assert done.exit_code == 0, done.output
    assert "\x1b" not in done.output
    assert left_out(out) == {
        "image of a kind that cannot be decoded here": ["S/a/x.jxl", "S/a/y.NII"],
        "not an image": ["S/a/Thumbs.db", "S/a/notes.txt"],
        "archive in the folder is not unpacked": ["more.zip"],
        "neither a file nor a folder": ["S/b/pipe.png"],
        "file name is not UTF-8 or has control characters; rename it": [
            "S/b/caf\\udce9.png",
            "S/b/two\\nlines\\x1b[2J.png",
        ],
    }
    assert "image of a kind that cannot be decoded here (2: S/a/x.jxl, S/a/y.NII)" in done.stdout


@pytest.mark.parametrize(
    ("extension", "decoder"), [("webp", "webp"), ("gif", None), ("jp2", "jpg_2000"), ("avif", "avif"), ("jfif", None)]
)
def test_formats_that_pillow_reads_are_taken(
    tmp_path: Path, own: Path, write_image: WriteImage, extension: str, decoder: str | None
) -> None:
    if decoder is not None and not features.check(decoder):
        pytest.skip(f"this Pillow has no decoder {decoder}")
    write_image(own / "S" / "a" / f"new.{extension}")
    manifest, report = prepare([("own", "folders", own)], tmp_path / "m.csv")
    assert f"own/S/a/new.{extension}" in manifest.table["image"].tolist()
    assert not report.left_out["own"]


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scandir = os.scandir

    def refused(path: str | os.PathLike[str]):
        if os.fspath(path).endswith(f"{os.sep}b"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refused)
    manifest, report = prepare([("own", "folders", own)], tmp_path / "m.csv")
    assert len(manifest) == 5
    assert report.left_out["own"] == [("folder cannot be listed (Permission denied)", "S/b")]
    assert "folder cannot be listed (Permission denied) (1: S/b)" in str(report)


def test_other_files_of_a_collection_are_counted(tmp_path: Path, ham10000: Build, write_image: WriteImage) -> None:
    ham = ham10000(tmp_path / "HAM", [(f"HAM_{n}", f"ISIC_00243{n:02}", "nv") for n in range(12)])
    write_image(ham / "masks" / "ISIC_0024300_segmentation.png")
    write_image(ham / "ISIC_0099999.jpg")
    (ham / "readme.pdf").write_bytes(b"%PDF")
    prepare([("HAM", "ham10000", ham)], tmp_path / "m.csv")
    assert left_out(tmp_path / "m.csv") == {
        "image file not in the metadata": ["ISIC_0099999"],
        "image file that belongs to no record, such as a mask": ["masks/ISIC_0024300_segmentation.png"],
        "not an image": ["readme.pdf"],
    }


def test_no_invalid_manifest_is_left_on_disk(tmp_path: Path, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastccsa.collections import preparation

    def vanishing(table, seed):
        shutil.rmtree(own)
        return split(table, seed)

    split = preparation.split
    monkeypatch.setattr(preparation, "split", vanishing)
    with pytest.raises(InputError, match="no image file"):
        prepare([("own", "folders", own)], tmp_path / "m.csv", duplicates="off")
    assert not list(tmp_path.iterdir())


def test_a_table_that_cannot_be_read_does_not_hide_the_others(tmp_path: Path, isic_cli: Build) -> None:
    folder = isic_cli(tmp_path / "MSK", [(f"ISIC_00000{n:02}", "nevus") for n in range(10)])
    (folder / "other.csv").write_bytes(b"\x81\x8d\x00")
    manifest, report = prepare([("MSK", "isic", folder)], tmp_path / "m.csv")
    assert len(manifest) == 10
    assert "table cannot be used (1: " in str(report)


def test_files_that_attack_their_reader_cost_themselves(tmp_path: Path, own: Path) -> None:
    folder = own / "S" / "a"
    (folder / "zero.jpg").symlink_to("/dev/zero")
    with open(folder / "sparse.jpg", "wb") as file:
        file.truncate(2**40)
    (folder / "script.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n")
    (folder / "large.bmp").write_bytes(b"BM" + struct.pack("<IIIIiiHH", 0, 0, 54, 40, 20000, 20000, 1, 24) + bytes(99))
    os.mkfifo(folder / "pipe.jpg")
    done = run("--folders", own, "--out", tmp_path / "m.csv")
    assert done.exit_code == 0, done.output
    assert "image file cannot be decoded (3: large.bmp, script.jpg, sparse.jpg)" in done.stdout
    assert "neither a file nor a folder (2: S/a/pipe.jpg, S/a/zero.jpg)" in done.stdout
    assert len(Manifest.read(tmp_path / "m.csv")) == 10


def test_a_fifo_in_a_table_is_named(tmp_path: Path, own: Path) -> None:
    os.mkfifo(own / "pipe.jpg")
    rows = [f"{path.relative_to(own)},{path.parent.name}" for path in sorted(own.rglob("*.png"))]
    (own / "own.csv").write_text("\n".join(["image,label", *rows, "pipe.jpg,a", "gone.jpg,b"]) + "\n")
    done = run("--csv", f"S={own / 'own.csv'}", "--out", tmp_path / "m.csv")
    assert done.exit_code == 0, done.output
    assert left_out(tmp_path / "m.csv") == {
        "neither a file nor a folder": ["pipe.jpg"],
        "image file missing": ["gone.jpg"],
    }


def test_a_fifo_that_appears_while_images_are_read_is_named(tmp_path: Path, own: Path, monkeypatch) -> None:
    from fastccsa.collections import preparation

    def swapped(paths, *rest):
        Path(paths[0]).unlink()
        os.mkfifo(paths[0])
        return fingerprint(paths, *rest)

    fingerprint = preparation.fingerprint
    monkeypatch.setattr(preparation, "fingerprint", swapped)
    done = run("--folders", own, "--out", tmp_path / "m.csv")
    assert done.exit_code == 0, done.output
    assert "image file cannot be read (1: 0.png)" in done.stdout
