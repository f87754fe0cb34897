from __future__ import annotations

import io
import random
import stat
import tracemalloc
import zipfile
from pathlib import Path

import pytest

from fastccsa.collections import archives
from fastccsa.collections.archives import Limits, is_archive, unpack
from fastccsa.system.errors import InputError


def zip_of(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


FILES = {"PH2Dataset/PH2_dataset.txt": b"|| Name ||", "PH2Dataset/images/IMD003.bmp": b"BM" * 999, "empty.txt": b""}


def test_unpacked_files_equal_the_packed_ones(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "PH2.ZIP", FILES)
    assert is_archive(archive)
    assert not is_archive(tmp_path)
    folder = unpack(archive, tmp_path / "to")
    assert folder.parent == tmp_path / "to"
    assert folder.name.startswith("PH2-")
    assert files_below(folder) == FILES


def test_entries_with_backslashes_and_dots_stay_inside(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", {"x\\": b"", "x\\y\\1.png": b"1", "./x/2.png": b"2"})
    assert files_below(unpack(archive, tmp_path)) == {"x/y/1.png": b"1", "x/2.png": b"2"}


@pytest.mark.parametrize(
    "name",
    ["../evil.png", "a/../../evil.png", "a\\..\\..\\evil.png", "/evil.png", "\\evil.png", "C:\\evil.png", "c:evil.png",
     "//host/share/evil.png", "a/.."],
)  # fmt: skip
def test_entries_outside_the_folder_are_rejected_before_anything_is_written(tmp_path: Path, name: str) -> None:
    archive = zip_of(tmp_path / "a.zip", {"good.png": b"1", name: b"2"})
    before = set(tmp_path.parent.rglob("*"))
    with pytest.raises(InputError, match=r"has the entry .* that would land outside its folder"):
        unpack(archive, tmp_path / "to" / "here")
    assert set(tmp_path.parent.rglob("*")) == before


def test_an_entry_with_a_nul_character_is_rejected(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", {"aXb.png": b"1"})
    archive.write_bytes(archive.read_bytes().replace(b"aXb.png", b"a\0b.png"))
    with pytest.raises(InputError, match="would land outside"):
        unpack(archive, tmp_path)


def test_links_and_encrypted_entries_are_rejected(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.png")
    link.create_system = 3
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "link.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(InputError, match=r"has the entry 'link.png' that is a link"):
        unpack(tmp_path / "link.zip", tmp_path)
    locked = zip_of(tmp_path / "locked.zip", {"a.png": b"1"})
    content = bytearray(locked.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + offset] |= 1
    locked.write_bytes(content)
    with pytest.raises(InputError, match=r"has the entry 'a.png' that needs a password"):
        unpack(locked, tmp_path)


def test_zip_bombs_are_rejected(tmp_path: Path) -> None:
    bomb = zip_of(tmp_path / "bomb.zip", {"zeros.png": bytes(2_000_000)})
    with pytest.raises(InputError, match=r"bomb.zip would grow \d+ times when unpacked"):
        unpack(bomb, tmp_path / "to", limits=Limits(free_bytes=1_000_000))
    with pytest.raises(InputError, match=r"has 1 files, more than 0"):
        unpack(bomb, tmp_path / "to", limits=Limits(entries=0))
    assert not (tmp_path / "to").exists()
    assert len(files_below(unpack(bomb, tmp_path / "to"))["zeros.png"]) == 2_000_000


def test_entries_with_overlapping_bytes_count_as_a_zip_bomb(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", bytes(range(256)) * 400)
        entry = archive.infolist()[0]
        archive.filelist = [entry] * 100
    with pytest.raises(InputError, match=r"would grow 9. times"):
        unpack(tmp_path / "a.zip", tmp_path / "to", limits=Limits(free_bytes=1_000_000))


def test_a_full_disk_is_reported_before_unpacking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zip_of(tmp_path / "a.zip", FILES)
    usage = archives.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda folder: usage._replace(free=10))
    with pytest.raises(InputError, match=r"needs 0.0 GB when unpacked, .* choose another folder with --unpack DIR"):
        unpack(archive, tmp_path / "to")


def test_damaged_archives_are_reported(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", {"a.png": bytes(range(256)) * 9})
    content = bytearray(archive.read_bytes())
    content[60] ^= 255
    archive.write_bytes(content)
    with pytest.raises(InputError, match=r"a.zip is not a valid .zip .*; download it again"):
        unpack(archive, tmp_path / "to")
    assert not any(path.is_file() for path in (tmp_path / "to").rglob("*"))
    archive.write_bytes(b"<html>404</html>")
    with pytest.raises(InputError, match=r"a.zip is not a valid .zip"):
        unpack(archive, tmp_path / "to")


def test_an_unsupported_compression_method_is_reported(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", {"a.png": bytes(999)})
    content = bytearray(archive.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        content[content.index(signature) + offset] = 9  # Deflate64
    archive.write_bytes(content)
    with pytest.raises(InputError, match=r"a.zip: .*compression.*; unpack it yourself and pass the folder"):
        unpack(archive, tmp_path / "to")


def test_unpacking_again_writes_only_missing_files(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "PH2.zip", FILES)
    folder = unpack(archive, tmp_path / "to")
    (folder / "PH2Dataset" / "images" / "IMD003.bmp").write_bytes(b"half")
    kept = folder / "PH2Dataset" / "PH2_dataset.txt"
    kept.write_bytes(b"|| name ||")
    assert unpack(archive, tmp_path / "to") == folder
    assert files_below(folder) == FILES | {"PH2Dataset/PH2_dataset.txt": b"|| name ||"}


def test_archives_of_the_same_name_do_not_collide(tmp_path: Path) -> None:
    folders = []
    for domain in ("MSK", "UDA"):
        (tmp_path / domain).mkdir()
        archive = zip_of(tmp_path / domain / "images.zip", {"metadata.csv": domain.encode()})
        folders.append(unpack(archive, tmp_path / "to"))
    assert [files_below(folder) for folder in folders] == [{"metadata.csv": b"MSK"}, {"metadata.csv": b"UDA"}]


def test_nested_archives_are_unpacked_once(tmp_path: Path) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as opened:
        opened.writestr("ISIC_0024306.jpg", b"1")
    archive = zip_of(tmp_path / "a.zip", {"HAM10000_metadata": b"x", "sub/images_part_1.zip": inner.getvalue()})
    folder = unpack(archive, tmp_path / "to")
    expected = {"HAM10000_metadata": b"x", "sub/images_part_1/ISIC_0024306.jpg": b"1"}
    found = files_below(folder)
    assert {name: content for name, content in found.items() if not Path(name).name.startswith(".")} == expected
    stamp = (folder / "sub" / "images_part_1" / "ISIC_0024306.jpg").stat().st_mtime_ns
    unpack(archive, tmp_path / "to")
    assert files_below(folder) == found
    assert (folder / "sub" / "images_part_1" / "ISIC_0024306.jpg").stat().st_mtime_ns == stamp


def test_entries_of_nested_archives_are_checked_too(tmp_path: Path) -> None:
    inner = zip_of(tmp_path / "inner.zip", {"../../../evil.png": b"1"})
    archive = zip_of(tmp_path / "a.zip", {"deep/inner.zip": inner.read_bytes()})
    with pytest.raises(InputError, match="would land outside its folder"):
        unpack(archive, tmp_path / "to")
    assert not list(tmp_path.rglob("evil.png"))


METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [0, 1, 4095, 3_000_000])
def test_all_compressions_of_zipfile_are_unpacked(tmp_path: Path, method: int, size: int) -> None:
    content = random.Random(size).randbytes(size // 2) + bytes(size - size // 2)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("a.png", content)
        with archive.open("streamed.png", "w") as entry:  # its header has no size yet
            entry.write(content)
    assert files_below(unpack(tmp_path / "a.zip", tmp_path / "to")) == {"a.png": content, "streamed.png": content}


@pytest.mark.parametrize("method", METHODS[1:])
def test_memory_does_not_grow_with_the_content(tmp_path: Path, method: int) -> None:
    size = 64 << 20
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("a.png", bytes(size))
    assert (tmp_path / "a.zip").stat().st_size < size / 500
    tracemalloc.start()
    try:
        folder = unpack(tmp_path / "a.zip", tmp_path / "to")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (folder / "a.png").stat().st_size == size
    assert peak < size / 4


def test_a_window_of_lzma_larger_than_the_content_takes_no_memory(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.png", b"fresh" * 100)
    content = bytearray((tmp_path / "a.zip").read_bytes())
    start = content.index(b"\5\0]") + 3  # the size of the window follows the properties of LZMA
    content[start : start + 4] = b"\xff\xff\xff\xff"
    (tmp_path / "a.zip").write_bytes(content)
    assert files_below(unpack(tmp_path / "a.zip", tmp_path / "to")) == {"a.png": b"fresh" * 100}


def test_content_longer_than_stated_is_not_written(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "a.zip", {"a.png": bytes(5_000_000)})
    content = bytearray(archive.read_bytes())
    where = content.index(b"PK\1\2") + 24
    content[where : where + 4] = (1_500_000).to_bytes(4, "little")
    archive.write_bytes(content)
    with pytest.raises(InputError, match=r"a.png differs from its size or checksum"):
        unpack(archive, tmp_path / "to")
    assert not any(path.is_file() for path in (tmp_path / "to").rglob("*"))


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damaged_bzip2_and_lzma_are_reported(tmp_path: Path, method: int) -> None:
    for seed in range(20):
        with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
            archive.writestr("a.png", bytes(range(256)) * 40)
        content = bytearray((tmp_path / "a.zip").read_bytes())
        end = content.index(b"PK\1\2")
        content[random.Random(seed).randrange(40, end)] ^= 255
        (tmp_path / "a.zip").write_bytes(content)
        with pytest.raises(InputError, match=r"a.zip is not a valid .zip|needs .* MiB of memory"):
            unpack(tmp_path / "a.zip", tmp_path / "to")


def test_all_levels_of_nesting_share_one_budget(tmp_path: Path) -> None:
    inner = zip_of(tmp_path / "inner.zip", {"zeros.png": bytes(400_000)}).read_bytes()
    archive = zip_of(tmp_path / "a.zip", {f"{number}.zip": inner for number in range(5)})
    assert len(files_below(unpack(archive, tmp_path / "one", limits=Limits(free_bytes=3_000_000)))) == 10
    with pytest.raises(InputError, match=r"2.zip would grow \d+ times when unpacked"):
        unpack(archive, tmp_path / "two", limits=Limits(free_bytes=1_000_000))
    assert sum(len(content) for content in files_below(tmp_path / "two").values()) < 1_000_000
    with pytest.raises(InputError, match=r"has 8 files, more than 7"):
        unpack(archive, tmp_path / "three", limits=Limits(entries=7))


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    inner = zip_of(tmp_path / "inner.zip", {"1.png": b"1"}).read_bytes()
    archive = zip_of(tmp_path / "a.zip", {"parts.zip": inner, "2.png": b"2"})
    folder = unpack(archive, tmp_path / "to")
    (folder / "2.png").unlink()
    (folder / "parts" / ".unpacked").unlink()
    (folder / ".unpacking-parts.zip").mkdir()
    (folder / ".unpacking-parts.zip" / "parts.zip").write_bytes(b"half")
    outside = tmp_path / "outside"
    outside.write_bytes(b"not ours")
    (folder / ".2.png.part").symlink_to(outside)
    unpack(archive, tmp_path / "to")
    assert files_below(folder) == {"parts/1.png": b"1", "parts/.unpacked": b"", "2.png": b"2"}
    assert not list(folder.rglob(".unpacking*"))
    assert outside.read_bytes() == b"not ours"
