from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fastccsa.collections.readers import Row, read_ham10000
from fastccsa.system.errors import InputError

HEADER = "lesion_id,image_id,dx,dx_type,age,sex,localization"


def test_two_parts_and_metadata_without_an_extension(tmp_path: Path, ham10000: Callable[..., Path]) -> None:
    rows = [
        ("HAM_0000118", "ISIC_0027419", "bkl"),
        ("HAM_0000118", "ISIC_0025030", "bkl"),
        ("HAM_0002730", "ISIC_0026769", "akiec"),
    ]
    folder = ham10000(tmp_path / "dataverse files", rows)
    collection = read_ham10000(folder)
    part1, part2 = folder / "HAM10000_images_part_1", folder / "HAM10000_images_part_2"
    about = {"confirmed_by": "histo", "age": "80", "sex": "male", "site": "scalp", "origin": "vidir_modern"}
    assert collection.rows == [
        Row(part1 / "ISIC_0027419.jpg", "bkl", "HAM_0000118", lesion="HAM_0000118", about=about),
        Row(part2 / "ISIC_0025030.jpg", "bkl", "HAM_0000118", lesion="HAM_0000118", about=about),
        Row(part1 / "ISIC_0026769.jpg", "akiec", "HAM_0002730", lesion="HAM_0002730", about=about),
    ]
    assert not collection.dropped


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("HAM10000_metadata.csv", f"{HEADER}\nHAM_1,ISIC_0000001,nv,histo,80.0,male,scalp\n"),
        ("ham10000_metadata.CSV", f"\ufeff{HEADER}\r\nHAM_1,ISIC_0000001,nv,histo,80.0,male,scalp\r\n"),
        ("HAM10000_metadata", '"image_id","dx","lesion_id"\n"ISIC_0000001","nv","HAM_1"\n'),
        ("HAM10000_metadata.tab", 'lesion_id\timage_id\tdx\n"HAM_1"\t"ISIC_0000001"\t"nv"\n'),
    ],
)
@pytest.mark.parametrize("image", ["HAM10000_images/ISIC_0000001.JPG", "ISIC_0000001.jpeg"])
def test_published_names_and_extensions_are_accepted(
    tmp_path: Path, write_image: Callable[[Path], Path], name: str, content: str, image: str
) -> None:
    (tmp_path / name).write_text(content, encoding="utf-8", newline="")
    write_image(tmp_path / image)
    (row,) = read_ham10000(tmp_path).rows
    assert row[:-1] == Row(tmp_path / image, "nv", "HAM_1", lesion="HAM_1")[:-1]
    assert row.about.get("site", "scalp") == "scalp"


def test_images_that_cannot_be_used_are_counted_by_reason(tmp_path: Path, write_image: Callable[[Path], Path]) -> None:
    rows = [
        "HAM_1,ISIC_0000001,nv",
        "HAM_1,ISIC_0000001,nv",
        "HAM_2,ISIC_0000002,scc",
        "HAM_3,ISIC_0000003,",
        "HAM_4,ISIC_0000004,mel",
        "HAM_5,ISIC_0000005",  # truncated
        ",ISIC_0000006,df",
    ]
    (tmp_path / "HAM10000_metadata.csv").write_text("\n".join(["lesion_id,image_id,dx", *rows]))
    for number in (1, 2, 3, 5, 6, 7):
        write_image(tmp_path / f"ISIC_000000{number}.jpg")
    write_image(tmp_path / "masks" / "ISIC_0000001_segmentation.png")
    collection = read_ham10000(tmp_path)
    assert [(row.image.stem, row.label, row.group) for row in collection.rows] == [
        ("ISIC_0000001", "nv", "HAM_1"),
        ("ISIC_0000006", "df", "ISIC_0000006"),  # no lesion, so a separate group
    ]
    assert collection.dropped == {
        "listed a second time": 1,
        "diagnosis 'scc' matches no class": 1,
        "no diagnosis": 2,
        "image file missing": 1,
        "image file not in the metadata": 1,
    }


def test_links_to_another_disk_are_followed(tmp_path: Path, ham10000: Callable[..., Path]) -> None:
    folder = ham10000(tmp_path / "here", [("HAM_1", "ISIC_0000001", "nv")])
    disk = tmp_path / "disk" / "part"
    disk.parent.mkdir()
    (folder / "HAM10000_images_part_1").rename(disk)
    (folder / "HAM10000_images_part_1").symlink_to(disk)
    (disk / "cycle").symlink_to(folder)
    assert [row.label for row in read_ham10000(folder).rows] == ["nv"]


def test_folders_that_are_not_ham10000_are_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"there is no folder .*nowhere; pass the one"):
        read_ham10000(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no HAM10000_metadata.csv \(or HAM10000_metadata\) below"):
        read_ham10000(tmp_path)
    metadata = tmp_path / "HAM10000_metadata.csv"
    for content in ("", "image,label\n1,2\n"):
        metadata.write_text(content)
        with pytest.raises(InputError, match=r"HAM10000_metadata.csv has no column lesion_id, image_id, dx"):
            read_ham10000(tmp_path)
