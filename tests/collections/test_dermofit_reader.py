from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from fastccsa.collections.readers import Row, read_dermofit
from fastccsa.collections.taxonomy import TABLE1
from fastccsa.system.errors import InputError

WriteImage = Callable[..., Path]

# Number of images of each class in the published collection, 1300 in total.
SIZES = {
    "AK": 45, "BCC": 239, "ML": 331, "SCC": 88, "SK": 257, "IEC": 78, "PYO": 24, "VASC": 97, "DF": 65, "MEL": 76,
}  # fmt: skip


@pytest.fixture
def dermofit(write_image: WriteImage) -> Callable[..., Path]:
    """Build Dermofit from lesions (id, CLASS), with a mask next to each image."""

    def build(folder: Path, lesions: list[tuple[str, str]], separator: str = "   ", end: str = "\n") -> Path:
        lines = [separator.join((str(number), *lesion)) for number, lesion in enumerate(lesions, start=1)]
        for name, kind in lesions:
            lesion_folder = folder / kind.lower() / name
            write_image(lesion_folder / f"{name}.png")
            write_image(lesion_folder / f"{name}mask.png")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "lesionlist.txt").write_bytes((end.join(lines) + end).encode())
        return folder

    return build


def test_images_are_labelled_by_class(tmp_path: Path, dermofit: Callable[..., Path]) -> None:
    dermofit(tmp_path, [("A1", "ML"), ("B545a", "AK"), ("P2", "PYO"), ("S3", "SCC")])
    collection = read_dermofit(tmp_path)
    assert collection.rows == [
        Row(tmp_path / "ml" / "A1" / "A1.png", "nv", "DMF_A1"),
        Row(tmp_path / "ak" / "B545a" / "B545a.png", "akiec", "DMF_B545A"),
        Row(tmp_path / "pyo" / "P2" / "P2.png", "vasc", "DMF_P2"),
    ]
    assert collection.dropped == {"diagnosis 'SCC' is left out by the label map": 1}


def test_the_label_map_gives_the_counts_of_table_1(tmp_path: Path) -> None:
    lines = []
    for kind, size in SIZES.items():
        for number in range(size):
            name = f"{kind}{number}"
            image = tmp_path / kind.lower() / name / f"{name}.png"
            image.parent.mkdir(parents=True)
            image.touch()
            lines.append(f"{len(lines) + 1} {name} {kind}")
    (tmp_path / "lesionlist.txt").write_text("\n".join(lines))
    collection = read_dermofit(tmp_path)
    assert len(lines) == 1300
    assert Counter(row.label for row in collection.rows) == TABLE1["DMF"]
    assert len(collection.rows) == 1212
    assert sum(collection.dropped.values()) == 88


@pytest.mark.parametrize(("separator", "end"), [("\t", "\r\n"), (" \t ", "\n"), (", ", "\r\n"), (" ", "\r")])
def test_any_separator_and_line_ending_is_accepted(
    tmp_path: Path, dermofit: Callable[..., Path], separator: str, end: str
) -> None:
    dermofit(tmp_path, [("A1", "ML"), ("A2", "MEL")], separator, end)
    assert [row.label for row in read_dermofit(tmp_path).rows] == ["nv", "mel"]


def test_extensions_case_folders_and_a_byte_order_mark_do_not_matter(tmp_path: Path, write_image: WriteImage) -> None:
    (tmp_path / "LesionList.TXT").write_bytes(b"\xef\xbb\xbf1 a1 ml\r\n\r\n2 A2 Mel \r\n")
    write_image(tmp_path / "ML" / "A1" / "A1.PNG")
    write_image(tmp_path / "deep" / "er" / "mel" / "a2.Jpg")
    write_image(tmp_path / "deep" / "er" / "mel" / "a2MASK.PNG")
    assert [(row.image.name, row.label) for row in read_dermofit(tmp_path).rows] == [
        ("A1.PNG", "nv"),
        ("a2.Jpg", "mel"),
    ]


def test_images_that_cannot_be_labelled_are_named(tmp_path: Path, write_image: WriteImage) -> None:
    lines = ["number id CLASS", "1 A1 ML", "2 A2 XYZ", "3 A3 ML", "4 A4 ML", "5 A5 ML", "6 A5 MEL", "7 A6"]
    (tmp_path / "lesionlist.txt").write_text("\n".join(lines))
    for name in ("ml/A1/A1", "xyz/A2/A2", "bcc/A4/A4", "A5", "ml/A9/A9"):
        write_image(tmp_path / f"{name}.png")
    collection = read_dermofit(tmp_path)
    assert [row.group for row in collection.rows] == ["DMF_A1"]
    assert sorted(collection.left_out) == sorted(
        [
            ("diagnosis 'XYZ' matches no class", "A2"),
            ("image file missing", "A3"),
            ("image file not in the metadata", "A9"),
            ("listed a second time", "A5"),
            ("listed as different classes", "A5"),
            ("lesionlist.txt and the folder name different classes", "A4"),
            ("line of lesionlist.txt is not NUMBER ID CLASS", "line 1"),
            ("line of lesionlist.txt is not NUMBER ID CLASS", "line 8"),
        ]
    )


def test_a_folder_without_a_list_of_lesions_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no lesionlist.txt below .*; pass the folder that contains Dermofit's"):
        read_dermofit(tmp_path)
    (tmp_path / "lesionlist.txt").write_text("A1;ML\n")
    with pytest.raises(InputError, match=r"lists no lesion; its lines should be NUMBER ID CLASS"):
        read_dermofit(tmp_path)
