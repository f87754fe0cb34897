from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fastccsa.collections.labels import LabelMaps
from fastccsa.collections.readers import Row, read_own_csv, read_own_folders
from fastccsa.system.errors import InputError

WriteImage = Callable[..., Path]


def table(folder: Path, text: str) -> Path:
    path = folder / "table.csv"
    path.write_bytes(text.encode())
    return path


def test_the_columns_image_and_label_suffice(tmp_path: Path, write_image: WriteImage) -> None:
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "sub" / "b.JPG")
    path = table(tmp_path, f"label,image\nnv,a.png\n MEL ,sub\\b.JPG\nbcc,{tmp_path}/c.png\n")
    write_image(tmp_path / "c.png")
    assert read_own_csv(path, "mine").rows == [
        Row(tmp_path / "a.png", "nv", "mine/a.png", "mine"),
        Row(tmp_path / "sub" / "b.JPG", "mel", "mine/sub\\b.JPG", "mine"),
        Row(tmp_path / "c.png", "bcc", f"mine/{tmp_path}/c.png", "mine"),
    ]


def test_all_columns_semicolons_and_a_byte_order_mark_are_read(tmp_path: Path, write_image: WriteImage) -> None:
    for name in "abc":
        write_image(tmp_path / f"{name}.png")
    text = (
        '\ufeffImage;"Label\r\n";Domain;Group;Split;notes\r\n'
        'a.png;nv;clinic A;7;train;"x;y"\r\n;;\r\nb.png;mel;;7;train\r\nc.png;nv;clinic A;;test;\r\n'
    )
    assert read_own_csv(table(tmp_path, text), "mine").rows == [
        Row(tmp_path / "a.png", "nv", "mine/7", "clinic A", "train", about={"notes": "x;y"}),
        Row(tmp_path / "b.png", "mel", "mine/7", "mine", "train", about={"notes": ""}),
        Row(tmp_path / "c.png", "nv", "mine/c.png", "clinic A", "test", about={"notes": ""}),
    ]


def test_images_that_cannot_be_labelled_are_named(tmp_path: Path, write_image: WriteImage) -> None:
    for name in "abc":
        write_image(tmp_path / f"{name}.png")
    path = table(tmp_path, "image,label\na.png,naevus\nb.png,\nd.png,nv\nc.png,nv\n./c.png,mel\n")
    assert read_own_csv(path, "mine").left_out == [
        ("diagnosis 'naevus' matches no class", "a.png"),
        ("no diagnosis", "b.png"),
        ("image file missing", "d.png"),
        ("listed as different classes", "c.png"),
        ("listed as different classes", "./c.png"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "file,label\n",
            r"line 1 lacks image; the columns are image, label and, optionally, domain, group, split, patient, lesion",
        ),
        ("image,label,label\n", r"line 1 names label twice"),
        ("image,label\na.png,nv\n,mel\n", r"line 3 names no image; fill the column image"),
        ("image,label,split\na.png,nv,val\n", r"line 2: split 'val' is not one of train, validation, test"),
        (
            "image,label,split\na.png,nv,\nb.png,nv,train\n",
            r"line 3: fill the column split for every image",
        ),
        (
            "image,label,group,split\na.png,nv,1,test\nb.png,nv,1,train\n",
            r"line 3: group '1' is in train here and in test above",
        ),
        (
            "image,label,patient,lesion,split\na.png,nv,7,1,test\nb.png,nv,7,2,train\n",
            r"line 3: patient '7' is in train here and in test above",
        ),
    ],
)
def test_invalid_tables_are_reported_by_line(tmp_path: Path, write_image: WriteImage, text: str, message: str) -> None:
    write_image(tmp_path / "a.png")
    with pytest.raises(InputError, match=message):
        read_own_csv(table(tmp_path, text), "mine")


def test_folders_name_domain_and_class(tmp_path: Path, write_image: WriteImage) -> None:
    for name in ("A/nv/1.png", "A/MEL/deep/2.jpeg", "B/nv/1.png", "B/scar/3.png", "B/4.png", "5.png"):
        write_image(tmp_path / name)
    (tmp_path / "A" / "nv" / "notes.txt").write_text("not an image")
    collection = read_own_folders(tmp_path, "mine")
    assert sorted(collection.rows) == [
        Row(tmp_path / "A" / "MEL" / "deep" / "2.jpeg", "mel", "mine/A/MEL/deep/2.jpeg", "A"),
        Row(tmp_path / "A" / "nv" / "1.png", "nv", "mine/A/nv/1.png", "A"),
        Row(tmp_path / "B" / "nv" / "1.png", "nv", "mine/B/nv/1.png", "B"),
    ]
    assert sorted(collection.left_out) == [
        ("diagnosis 'scar' matches no class", "B/scar/3.png"),
        ("image outside domain/class folders", "5.png"),
        ("image outside domain/class folders", "B/4.png"),
    ]
    with pytest.raises(InputError, match="there is no folder"):
        read_own_folders(tmp_path / "none", "mine")


def test_only_empty_cells_are_empty(tmp_path: Path, write_image: WriteImage) -> None:
    for name in "abcd":
        write_image(tmp_path / f"{name}.png")
    path = table(tmp_path, "image,label,domain,group\na.png,none,NA,null\nb.png,NA,,null\nc.png,null,n/a,\nd.png, ,,\n")
    collection = read_own_csv(path, "mine", LabelMaps.read().of("own", any_label=True))
    assert [row[1:4] for row in collection.rows] == [
        ("none", "mine/null", "NA"),
        ("NA", "mine/null", "mine"),
        ("null", "mine/c.png", "n/a"),
    ]
    assert collection.left_out == [("no diagnosis", "d.png")]


def test_a_field_too_many_is_refused_with_its_line(tmp_path: Path, write_image: WriteImage) -> None:
    write_image(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"line 3 has more fields than the 2 columns of line 1; put quotes"):
        read_own_csv(table(tmp_path, "image,label\na.png,nv,,\na.png,nevus, blue\n"), "mine")
