from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from fastccsa.collections.readers import read_derm7pt
from fastccsa.collections.taxonomy import TABLE1
from fastccsa.system.errors import InputError

WriteImage = Callable[..., Path]

# The columns of release_v0/meta/meta.csv, in its order.
HEADER = (
    "case_num,diagnosis,seven_point_score,pigment_network,streaks,pigmentation,regression_structures,"
    "dots_and_globules,blue_whitish_veil,vascular_structures,level_of_diagnostic_difficulty,elevation,location,sex,"
    "management,clinic,derm,case_id,notes"
)

# Number of cases of each diagnosis in the published table, 1011 in total.
SIZES = {
    "basal cell carcinoma": 42,
    "blue nevus": 28,
    "clark nevus": 399,
    "combined nevus": 13,
    "congenital nevus": 17,
    "dermal nevus": 33,
    "recurrent nevus": 6,
    "reed or spitz nevus": 79,
    "melanoma": 1,
    "melanoma (in situ)": 64,
    "melanoma (less than 0.76 mm)": 102,
    "melanoma (0.76 to 1.5 mm)": 53,
    "melanoma (more than 1.5 mm)": 28,
    "melanoma metastasis": 4,
    "dermatofibroma": 20,
    "lentigo": 24,
    "melanosis": 16,
    "miscellaneous": 8,
    "vascular lesion": 29,
    "seborrheic keratosis": 45,
}


def line(case: object, diagnosis: str, clinic: str, derm: str) -> str:
    criteria = "1,absent,absent,absent,absent,irregular,absent,absent,low,nodular,abdomen,female,excision"
    return f'{case},{diagnosis},{criteria},{clinic},{derm},,"a note, with a comma"'


def write_table(folder: Path, lines: list[str], end: str = "\n") -> Path:
    table = folder / "release_v0" / "meta" / "meta.csv"
    table.parent.mkdir(parents=True)
    table.write_bytes((end.join([HEADER, *lines]) + end).encode())
    (table.parent / "train_indexes.csv").write_text("indexes\n0\n1\n")
    return folder / "release_v0" / "images"


def test_both_images_of_a_case_are_in_one_group(tmp_path: Path, write_image: WriteImage) -> None:
    images = write_table(
        tmp_path,
        [
            line(1, "basal cell carcinoma", "NEL/NEL025.JPG", "NEL/Nel026.jpg"),
            line(2, "melanoma (less than 0.76 mm)", "Fcl/Fcl068.jpg", "Fcl/Fcl069.jpg"),
        ],
        end="\r\n",
    )
    # The files differ from the table in extension and case.
    for name in ("NEL/NEL025.jpg", "NEL/Nel026.JPG", "FCL/fcl068.jpg", "FCL/Fcl069.png"):
        write_image(images / name)
    collection = read_derm7pt(tmp_path)
    assert [(row.image.name, row.label, row.group) for row in collection.rows] == [
        ("NEL025.jpg", "bcc", "D7P_1"),
        ("Nel026.JPG", "bcc", "D7P_1"),
        ("fcl068.jpg", "mel", "D7P_2"),
        ("Fcl069.png", "mel", "D7P_2"),
    ]
    assert not collection.left_out


def test_the_label_map_gives_the_counts_of_table_1(tmp_path: Path) -> None:
    lines: list[str] = []
    images = tmp_path / "release_v0" / "images" / "NEL"
    images.mkdir(parents=True)
    for diagnosis, size in SIZES.items():
        for _ in range(size):
            number = len(lines)
            (images / f"c{number}.jpg").touch()
            (images / f"d{number}.jpg").touch()
            lines.append(line(number + 1, diagnosis, f"NEL/c{number}.jpg", f"NEL/d{number}.jpg"))
    write_table(tmp_path, lines)
    collection = read_derm7pt(tmp_path)
    assert len(lines) == 1011
    # Twice 42 bcc: the paper prints 82, but its total requires 84.
    expected = {label: count for label, count in TABLE1["D7P"].items() if count} | {"bcc": 84}
    assert Counter(row.label for row in collection.rows) == expected
    assert len(collection.rows) == 1926
    assert collection.dropped == {
        "diagnosis 'lentigo' is left out by the label map": 48,
        "diagnosis 'melanosis' is left out by the label map": 32,
        "diagnosis 'miscellaneous' is left out by the label map": 16,
    }


def test_images_that_cannot_be_labelled_are_named(tmp_path: Path, write_image: WriteImage) -> None:
    images = write_table(
        tmp_path,
        [
            line(1, "clark nevus", "", "A/d1.jpg"),
            line(2, "naevus", "A/c2.jpg", "A/d2.jpg"),
            line(3, "clark nevus", "A/c3.jpg", "A\\d3.jpg"),
            line(4, "", "A/c4.jpg", "A/c3.jpg"),
        ],
    )
    for name in ("d1", "c2", "d2", "d3", "c4", "c9"):
        write_image(images / "A" / f"{name}.jpg")
    collection = read_derm7pt(tmp_path)
    assert [row.image.name for row in collection.rows] == ["d1.jpg", "d3.jpg"]
    assert sorted(collection.left_out) == [
        ("diagnosis 'naevus' matches no class", "a/c2"),
        ("diagnosis 'naevus' matches no class", "a/d2"),
        ("image file missing", "D7P_1 clinic"),
        ("image file missing", "a/c3"),
        ("image file not in the metadata", "a/c9"),
        ("listed a second time", "a/c3"),
        ("no diagnosis", "a/c4"),
    ]


def test_columns_are_found_by_name(tmp_path: Path, write_image: WriteImage) -> None:
    text = '\ufeff"Derm";"Clinic";"Diagnosis\n";"case_num"\r\nA/d.jpg;A/c.jpg;Blue  Nevus;7\r\n;;;\r\n'
    (tmp_path / "cases.csv").write_bytes(text.encode())
    write_image(tmp_path / "A" / "c.jpg")
    write_image(tmp_path / "A" / "d.jpg")
    collection = read_derm7pt(tmp_path)
    assert [(row.image.name, row.label, row.group) for row in collection.rows] == [
        ("c.jpg", "nv", "D7P_7"),
        ("d.jpg", "nv", "D7P_7"),
    ]


def test_a_folder_without_the_table_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no table of cases \(meta.csv, with the columns diagnosis, clinic, derm\)"):
        read_derm7pt(tmp_path)
