from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from openpyxl import Workbook

from fastccsa.collections.readers import Row, read_ph2
from fastccsa.collections.taxonomy import TABLE1
from fastccsa.system.errors import InputError

WriteImage = Callable[..., Path]

TEXT_HEADER = (
    "||   Name || Histological Diagnosis || Clinical Diagnosis || Asymmetry | Pigment Network | Dots/Globules | "
    "Streaks | Regression Areas | Blue-Whitish Veil ||           Colors ||"
)
LEGENDS = """
Legends:

Histological Diagnosis:
Clinical Diagnosis:
\t0 - Common Nevus;
\t1 - Atypical Nevus;
\t2 - Melanoma.

Asymmetry: 0 - Fully Symmetric; 1 - Symmetric in 1 axes; 2 - Fully Asymmetric
Pigment Network: AT - Atypical; T - Typical || A - Absent
"""


def text_row(name: str, diagnosis: object) -> str:
    middle = "         0 |               T |             A |       A |                A |                 A "
    return f"|| {name} ||                        ||                  {diagnosis} || {middle}||                4 ||"


def write_text(folder: Path, rows: list[tuple[str, object]], end: str = "\n", mark: bytes = b"") -> None:
    lines = [TEXT_HEADER, *(text_row(*row) for row in rows), *LEGENDS.splitlines()]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "PH2_dataset.txt").write_bytes(mark + (end.join(lines) + end).encode())


def write_spreadsheet(path: Path, rows: list[tuple[str, str, str, str]]) -> None:
    """Write the table as published: the header in row 13 below the legends, with line breaks in its cells."""
    book = Workbook()
    sheet = book.active
    sheet["A1"] = "PH² Database"
    sheet["B3"], sheet["C3"] = "Legends", "Melanoma"
    sheet["C12"], sheet["F12"] = "Clinical Diagnosis", "Dermoscopic Criteria"
    header = [
        "Image Name",
        "Histological\nDiagnosis",
        "Common\nNevus",
        "Atypical Nevus ",
        "Melanoma",
        "Asymmetry\n(0/1/2)",
    ]
    for column, title in enumerate(header, start=1):
        sheet.cell(13, column, title)
    for number, (name, *marks) in enumerate(rows, start=14):
        sheet.cell(number, 1, name)
        for column, mark in enumerate(marks, start=3):
            sheet.cell(number, column, mark or None)
        sheet.cell(number, 6, 0)
    sheet.cell(15 + len(rows), 1, "Total")
    book.create_sheet("notes")["A1"] = "empty"
    book.save(path)


@pytest.fixture
def ph2_images(write_image: WriteImage) -> Callable[..., None]:
    def build(folder: Path, *names: str) -> None:
        for name in names:
            image_folder = folder / "PH2 Dataset images" / name
            write_image(image_folder / f"{name}_Dermoscopic_Image" / f"{name}.bmp")
            write_image(image_folder / f"{name}_lesion" / f"{name}_lesion.bmp")
            write_image(image_folder / f"{name}_roi" / f"{name}_R1_Label3.bmp")

    return build


@pytest.mark.parametrize(("end", "mark"), [("\n", b""), ("\r\n", b"\xef\xbb\xbf")])
def test_the_text_table_is_read(tmp_path: Path, ph2_images: Callable[..., None], end: str, mark: bytes) -> None:
    write_text(tmp_path, [("IMD003", 0), ("IMD009", 1), ("IMD058", 2)], end, mark)
    ph2_images(tmp_path, "IMD003", "IMD009", "IMD058")
    collection = read_ph2(tmp_path)
    images = tmp_path / "PH2 Dataset images"
    assert collection.rows == [
        Row(images / "IMD003" / "IMD003_Dermoscopic_Image" / "IMD003.bmp", "nv", "IMD003"),
        Row(images / "IMD009" / "IMD009_Dermoscopic_Image" / "IMD009.bmp", "nv", "IMD009"),
        Row(images / "IMD058" / "IMD058_Dermoscopic_Image" / "IMD058.bmp", "mel", "IMD058"),
    ]
    assert not collection.left_out


@pytest.mark.parametrize("name", ["PH2_dataset.xlsx", "ph2_Dataset.XLSX"])
def test_the_spreadsheet_is_read(tmp_path: Path, ph2_images: Callable[..., None], name: str) -> None:
    rows = [("IMD003", "X", "", ""), ("IMD009", "", "x ", ""), ("IMD058", "", "", "X")]
    write_spreadsheet(tmp_path / name, rows)
    ph2_images(tmp_path, "IMD003", "IMD009", "IMD058")
    collection = read_ph2(tmp_path)
    assert [(row.group, row.label) for row in collection.rows] == [
        ("IMD003", "nv"),
        ("IMD009", "nv"),
        ("IMD058", "mel"),
    ]
    assert not collection.left_out


def test_the_label_map_gives_the_counts_of_table_1(tmp_path: Path) -> None:
    codes = [0] * 80 + [1] * 80 + [2] * 40
    names = [f"IMD{number:03}" for number in range(200)]
    write_text(tmp_path, list(zip(names, codes, strict=True)))
    for name in names:
        (tmp_path / f"{name}.bmp").touch()
    counts = Counter(row.label for row in read_ph2(tmp_path).rows)
    assert counts == {label: count for label, count in TABLE1["PH2"].items() if count}


def test_images_that_cannot_be_labelled_are_named(tmp_path: Path, ph2_images: Callable[..., None]) -> None:
    text, sheet = tmp_path / "text", tmp_path / "sheet"
    write_text(text, [("IMD003", 0), ("IMD009", 3), ("IMD058", ""), ("IMD060", 2)])
    ph2_images(text, "IMD003", "IMD009", "IMD058", "IMD099")
    collection = read_ph2(text)
    assert [row.group for row in collection.rows] == ["IMD003"]
    assert sorted(collection.left_out) == [
        ("diagnosis '3' matches no class", "IMD009"),
        ("image file missing", "IMD060"),
        ("image file not in the metadata", "IMD099"),
        ("no diagnosis", "IMD058"),
    ]
    ph2_images(sheet, "IMD003", "IMD009", "IMD058")
    write_spreadsheet(
        sheet / "PH2_dataset.xlsx",
        [("IMD003", "X", "", "X"), ("IMD009", "X", "", "?"), ("IMD058", "", "", "")],
    )
    collection = read_ph2(sheet)
    assert not collection.rows
    assert sorted(collection.left_out) == [
        ("diagnoses disagree (common nevus, melanoma)", "IMD003"),
        ("diagnosis 'melanoma marked ?' matches no class", "IMD009"),
        ("no diagnosis", "IMD058"),
    ]


def test_tables_that_are_not_ph2s_are_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no PH2_dataset.txt or PH2_dataset.xlsx below"):
        read_ph2(tmp_path)
    (tmp_path / "PH2_dataset.xlsx").write_bytes(b"<html>404</html>")
    with pytest.raises(InputError, match=r"PH2_dataset.xlsx is not a spreadsheet"):
        read_ph2(tmp_path)
    (tmp_path / "PH2_dataset.txt").write_text("<html>404</html>")
    with pytest.raises(InputError, match=r"has no header row with name, clinical diagnosis"):
        read_ph2(tmp_path)
    (tmp_path / "PH2_dataset.txt").write_text(TEXT_HEADER)
    with pytest.raises(InputError, match=r"lists no image such as IMD003"):
        read_ph2(tmp_path)


def test_an_edited_text_table_does_not_hide_the_spreadsheet(tmp_path: Path, write_image: WriteImage) -> None:
    (tmp_path / "PH2_dataset.txt").write_text("Name\tClinical Diagnosis\nIMD003\t0\n")
    book = Workbook()
    book.active.append(["Image Name", "Common Nevus", "Atypical Nevus", "Melanoma"])
    book.active.append(["IMD003", None, None, "X"])
    book.save(tmp_path / "PH2_dataset.xlsx")
    write_image(tmp_path / "IMD003.bmp")
    collection = read_ph2(tmp_path)
    assert [(row.image.name, row.label) for row in collection.rows] == [("IMD003.bmp", "mel")]
    ((reason, problem),) = collection.left_out
    assert reason == "table cannot be used"
    assert "PH2_dataset.txt has no header row with name, clinical diagnosis" in problem
