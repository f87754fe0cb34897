"""Collections of a table with a row per image: BCN20000, PAD-UFES-20, DDI, Fitzpatrick17k, and HAM10000 by isic-cli."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from fastccsa.collections.readers import (
    Collection,
    read_bcn20000,
    read_ddi,
    read_fitzpatrick17k,
    read_ham10000,
    read_pad_ufes_20,
)
from fastccsa.system.errors import InputError


def write(folder: Path, name: str, lines: Iterable[str], images: Iterable[str]) -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text("\n".join(lines) + "\n")
    for image in images:
        (folder / "images").mkdir(exist_ok=True)
        (folder / "images" / image).touch()
    return folder


def labels(collection: Collection) -> dict[str, str]:
    return {row.image.name: row.label for row in collection.rows}


def test_bcn20000_from_figshare(tmp_path: Path) -> None:
    header = "bcn_filename,age_approx,anatom_site_general,diagnosis,lesion_id,capture_date,sex,split"
    codes = ("NV", "MEL", "BCC", "BKL", "AK", "SCC", "DF", "VASC")
    names = [f"BCN_{number:010}.jpg" for number in range(10)]
    rows = [f"{names[n]},55.0,anterior torso,{code},BCN_{n // 2},2012-05-16,male,train" for n, code in enumerate(codes)]
    write(tmp_path, "bcn_20k_train.csv", [header, *rows], names)
    test = f"{names[8]},,,,BCN_9,2012-05-16,,test"
    write(tmp_path, "bcn_20k_test.csv", [header, test], [])
    collection = read_bcn20000(tmp_path)
    expected = ("nv", "mel", "bcc", "bkl", "akiec", None, "df", "vasc")
    assert labels(collection) == {name: label for name, label in zip(names, expected, strict=False) if label}
    assert [row.group for row in collection.rows] == ["BCN_0", "BCN_0", "BCN_1", "BCN_1", "BCN_2", "BCN_3", "BCN_3"]
    assert collection.rows[0].about == {"age": "55", "site": "anterior torso", "sex": "male"}
    assert collection.dropped == {
        "no diagnosis": 1,
        "diagnosis 'SCC' is left out by the label map": 1,
        "image file not in the metadata": 1,
    }


def test_bcn20000_from_the_isic_archive(tmp_path: Path) -> None:
    lines = [
        "isic_id,diagnosis_1,diagnosis_2,diagnosis_3,lesion_id,image_type",
        'ISIC_1,Malignant,Malignant melanocytic proliferations (Melanoma),"Melanoma, NOS",IL_1,dermoscopic',
        "ISIC_2,Indeterminate,Indeterminate epidermal proliferations,Solar or actinic keratosis,IL_2,dermoscopic",
        'ISIC_3,Malignant,Malignant epidermal proliferations,"Squamous cell carcinoma, NOS",IL_3,dermoscopic',
        "ISIC_4,Benign,Benign melanocytic proliferations,Nevus,IL_1,dermoscopic",
    ]
    write(tmp_path, "metadata.csv", lines, [f"ISIC_{number}.jpg" for number in range(1, 5)])
    collection = read_bcn20000(tmp_path)
    assert labels(collection) == {"ISIC_1.jpg": "mel", "ISIC_2.jpg": "akiec", "ISIC_4.jpg": "nv"}
    assert [row.lesion for row in collection.rows] == ["IL_1", "IL_2", "IL_1"]


def test_pad_ufes_20(tmp_path: Path) -> None:
    header = "patient_id,lesion_id,smoke,age,gender,fitspatrick,region,diagnostic,img_id,biopsed"
    codes = {"NEV": "nv", "MEL": "mel", "BCC": "bcc", "SEK": "bkl", "ACK": "akiec", "SCC": None}
    rows = [f"PAT_{n // 2},{n},,55,FEMALE,2.0,NECK,{code},PAT_{n // 2}_{n}_7.png,True" for n, code in enumerate(codes)]
    names = [f"PAT_{n // 2}_{n}_7.png" for n in range(6)]
    collection = read_pad_ufes_20(write(tmp_path, "metadata.csv", [header, *rows], names))
    expected = {name: label for name, label in zip(names, codes.values(), strict=True) if label}
    assert labels(collection) == expected
    assert [(row.group, row.patient, row.lesion) for row in collection.rows[:3]] == [
        ("PAD_PAT_0", "PAD_PAT_0", "PAD_0"),
        ("PAD_PAT_0", "PAD_PAT_0", "PAD_1"),
        ("PAD_PAT_1", "PAD_PAT_1", "PAD_2"),
    ]
    about = {"age": "55", "sex": "FEMALE", "fitzpatrick": "2", "site": "NECK", "confirmed_by": "True"}
    assert collection.rows[0].about == about
    assert collection.dropped == {"diagnosis 'SCC' is left out by the label map": 1}


def test_ddi(tmp_path: Path) -> None:
    diseases = {
        "melanocytic-nevi": "nv",
        "nodular-melanoma-(nm)": "mel",
        "melanoma-acral-lentiginous": "mel",
        "basal-cell-carcinoma-superficial": "bcc",
        "dermatofibroma": "df",
        "seborrheic-keratosis-irritated": "bkl",
        "angioma": "vasc",
        "squamous-cell-carcinoma-in-situ": "akiec",
        "squamous-cell-carcinoma": None,
        "mycosis-fungoides": None,
    }
    lines = [",DDI_ID,DDI_file,skin_tone,malignant,disease"]
    lines += [f"{n},{n + 1},{n + 1:06}.png,{(12, 34, 56)[n % 3]},False,{name}" for n, name in enumerate(diseases)]
    names = [f"{n + 1:06}.png" for n in range(10)]
    collection = read_ddi(write(tmp_path, "ddi_metadata.csv", lines, names))
    assert labels(collection) == {n: label for n, label in zip(names, diseases.values(), strict=True) if label}
    assert [row.about["skin_tone"] for row in collection.rows[:3]] == ["12", "34", "56"]
    # The first column has no name, and is not the patient's.
    assert [(row.group, row.patient, row.lesion) for row in collection.rows[:2]] == [
        ("DDI_000001", "", ""),
        ("DDI_000002", "", ""),
    ]
    assert collection.dropped == {
        "diagnosis 'squamous-cell-carcinoma' is left out by the label map": 1,
        "diagnosis 'mycosis-fungoides' matches no class": 1,
    }


def test_fitzpatrick17k(tmp_path: Path) -> None:
    names = [f"{number:032x}" for number in range(6)]
    lines = [
        "md5hash,fitzpatrick_scale,fitzpatrick_centaur,label,nine_partition_label,three_partition_label,qc,url",
        f"{names[0]},3,3,lentigo maligna,malignant melanoma,malignant,,http://a",
        f"{names[1]},-1,2,granuloma pyogenic,benign dermal,benign,1 Diagnostic,http://a",
        f"{names[2]},6,6,halo nevus,benign melanocyte,benign,3 Wrongly labelled,http://a",
        f"{names[3]},1,1,psoriasis,inflammatory,non-neoplastic,,http://a",
        f"{names[4]},1,1,basal cell carcinoma morpheiform,malignant epidermal,malignant,,",
    ]
    images = [f"{name}.jpg" for name in (*names[:4], names[5])]
    collection = read_fitzpatrick17k(write(tmp_path, "fitzpatrick17k.csv", lines, images))
    assert labels(collection) == {images[0]: "mel", images[1]: "vasc"}
    assert [row.about for row in collection.rows] == [{"fitzpatrick": "3"}, {"fitzpatrick": ""}]
    assert {(reason, name.lower()) for reason, name in collection.left_out} == {
        ("diagnosis 'psoriasis' matches no class", names[3]),
        ("image file missing", names[4]),
        ("image file not in the metadata", names[5]),
        ("marked as wrongly labelled by the collection", names[2]),
    }


def test_ham10000_from_the_isic_archive(tmp_path: Path) -> None:
    """There, actinic keratosis and squamous cell carcinoma together are HAM10000's akiec."""
    old = {
        "nevus": "nv",
        "melanoma": "mel",
        "basal cell carcinoma": "bcc",
        "dermatofibroma": "df",
        "pigmented benign keratosis": "bkl",
        "vascular lesion": "vasc",
        "actinic keratosis": "akiec",
        "squamous cell carcinoma": "akiec",
    }
    lines = ["isic_id,attribution,diagnosis,lesion_id,patient_id"]
    lines += [f"ISIC_{n},ViDIR,{name},IL_{n},{'IP_1' if n < 2 else ''}" for n, name in enumerate(old)]
    collection = read_ham10000(write(tmp_path, "metadata.csv", lines, [f"ISIC_{n}.JPG" for n in range(8)]))
    assert [row.label for row in collection.rows] == list(old.values())
    assert [row.group for row in collection.rows[:3]] == ["IP_1", "IP_1", "IL_2"]


def test_an_edited_or_foreign_table_does_not_hide_a_good_one(tmp_path: Path) -> None:
    good = ["lesion_id,image_id,dx", *(f"HAM_{n},ISIC_{n},{'nv' if n else 'mel'}" for n in range(4))]
    write(tmp_path, "deep/down/HAM10000_metadata.csv", good, [f"ISIC_{n}.jpg" for n in range(4)])
    write(tmp_path, "HAM10000_metadata.csv", ["image;label", "ISIC_0;mel"], [])
    write(tmp_path, "hmnist_28_28.csv", [",".join(f"pixel{n:04}" for n in range(784)), "1"], [])
    write(tmp_path, "words.csv", ["lesion_id,image_id,dx", "HAM_0,ISIC_0,Hautkrebs"], [])
    write(tmp_path, "other.csv", ["lesion_id,image_id,dx,age", "HAM_0,ISIC_0,,50", "HAM_1,ISIC_1,mel,60"], [])
    collection = read_ham10000(tmp_path)
    # Tables may differ in words, but not in the class.
    assert labels(collection) == {"ISIC_0.jpg": "mel", "ISIC_2.jpg": "nv", "ISIC_3.jpg": "nv"}
    assert next(row for row in collection.rows if row.image.stem == "ISIC_0").about == {"age": "50"}
    assert collection.dropped == {
        "listed as different classes": 1,
        "listed a second time": 2,
        "table cannot be used": 1,
    }
    (text,) = (name for reason, name in collection.left_out if reason == "table cannot be used")
    assert text == f"{tmp_path / 'HAM10000_metadata.csv'} has no column lesion_id, image_id, dx; download it again"
    assert sorted(path.name for path in collection.tables) == ["HAM10000_metadata.csv", "other.csv", "words.csv"]


def test_a_table_of_other_images_beside_ham10000_adds_none(tmp_path: Path) -> None:
    """Dataverse offers the challenge's test images beside HAM10000, in a table of the same columns."""
    header = "lesion_id,image_id,dx,dx_type,age,sex,localization,dataset"
    names = [f"ISIC_{n}.jpg" for n in range(4)]
    write(tmp_path, "HAM10000_metadata.tab", [header, "HAM_0,ISIC_0,nv,,,,,", "HAM_1,ISIC_1,mel,,,,,"], names)
    write(tmp_path, "ISIC2018_Task3_Test_GroundTruth.tab", [header, "HAM_2,ISIC_2,nv,,,,,"], [])
    write(tmp_path, "ages.csv", [header, "HAM_0,ISIC_0,,,30,,,", "HAM_3,ISIC_3,,,40,,,"], [])
    collection = read_ham10000(tmp_path)
    assert labels(collection) == {"ISIC_0.jpg": "nv", "ISIC_1.jpg": "mel"}
    assert collection.rows[0].about["age"] == "30"
    assert {path.name: count for path, count in collection.tables.items()} == {
        "HAM10000_metadata.tab": 2,
        "ages.csv": 2,
    }
    assert collection.left_out == [
        ("image file not in the metadata", "ISIC_2"),
        ("image file not in the metadata", "ISIC_3"),
        ("row about an image that the collection's own table does not list", "ISIC_3"),
    ]
    # Without HAM10000's own table, all tables of its form count.
    (tmp_path / "HAM10000_metadata.tab").unlink()
    assert labels(read_ham10000(tmp_path)) == {"ISIC_2.jpg": "nv"}


READERS: dict[str, tuple[Callable[[Path], Collection], str]] = {
    "BCN20000": (read_bcn20000, r"no bcn_20k_train.csv \(with the column bcn_filename\) below"),
    "PAD-UFES-20": (read_pad_ufes_20, "no metadata.csv with the columns img_id, diagnostic, patient_id and lesion_id"),
    "DDI": (read_ddi, "no ddi_metadata.csv below"),
    "Fitzpatrick17k": (read_fitzpatrick17k, "no fitzpatrick17k.csv below"),
    "HAM10000": (read_ham10000, r"no HAM10000_metadata.csv \(or HAM10000_metadata\) below"),
}


@pytest.mark.parametrize("name", READERS)
def test_a_folder_of_another_collection_is_named(tmp_path: Path, name: str) -> None:
    reader, message = READERS[name]
    with pytest.raises(InputError, match=rf"{message}.*; pass the folder that contains {name}'s [^;]*$"):
        reader(tmp_path)
    (tmp_path / "gt.csv").write_text("image,MEL,NV,BCC,AKIEC,BKL,DF,VASC\n")
    with pytest.raises(InputError, match=r"; gt.csv is a table of an ISIC challenge: use --challenge YEAR=$"):
        reader(tmp_path)
