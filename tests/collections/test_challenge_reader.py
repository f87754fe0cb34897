"""The ISIC challenges: small tables in the forms in which they were published."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastccsa.collections.readers import Collection, read_challenge
from fastccsa.system.errors import InputError

CLASSES_2018 = "MEL,NV,BCC,AKIEC,BKL,DF,VASC"
CLASSES_2019 = "MEL,NV,BCC,AK,BKL,DF,VASC,SCC,UNK"


def write(folder: Path, tables: dict[str, str], images: int = 12) -> Path:
    for name, text in tables.items():
        (folder / name).write_text(text)
    for number in range(images):
        (folder / f"ISIC_{number:07}.jpg").touch()
    return folder


def image(number: int) -> str:
    return f"ISIC_{number:07}"


def one_hot(classes: str, marked: list[str]) -> str:
    lines = [f"image,{classes}"]
    for number, name in enumerate(marked):
        values = ("1.0" if name == column else "0.0" for column in classes.split(","))
        lines.append(f"{image(number)},{','.join(values)}")
    return "\n".join(lines) + "\n"


def labels(collection: Collection) -> dict[int, str]:
    return {int(row.image.stem[5:]): row.label for row in collection.rows}


def test_2016_has_no_header_and_two_spellings(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "ISBI2016_ISIC_Part3_Training_GroundTruth.csv": f"{image(0)},benign\n{image(1)},malignant\n",
            "ISBI2016_ISIC_Part3_Test_GroundTruth.csv": f"{image(2)},0.0\n{image(3)},1.0\n{image(4)},maybe\n",
        },
        images=5,
    )
    collection = read_challenge(tmp_path)
    assert labels(collection) == {0: "benign", 1: "malignant", 2: "benign", 3: "malignant"}
    assert [row.about["part"] for row in collection.rows] == ["test", "test", "train", "train"]
    assert collection.left_out == [("diagnosis 'maybe' matches no class", image(4))]
    assert sorted(collection.tables.values()) == [2, 3]


def test_2017_calls_neither_a_nevus(tmp_path: Path) -> None:
    table = f"image_id,melanoma,seborrheic_keratosis\n{image(0)},1.0,0.0\n{image(1)},0.0,1.0\n{image(2)},0.0,0.0\n"
    ages = f"image_id,age_approximate,sex\n{image(0)},55,female\n{image(1)},unknown,male\n"
    tables = {"ISIC-2017_Training_Part3_GroundTruth.csv": table, "ISIC-2017_Training_Data_metadata.csv": ages}
    collection = read_challenge(write(tmp_path, tables, images=3))
    assert labels(collection) == {0: "mel", 1: "bkl", 2: "nv"}
    about = {int(row.image.stem[5:]): dict(row.about) for row in collection.rows}
    assert about[0] == {"age": "55", "sex": "female", "part": "train"}
    assert about[1] == {"age": "", "sex": "male", "part": "train"}
    assert about[2] == {"part": "train"}


def test_2018_with_its_lesions(tmp_path: Path) -> None:
    truth = one_hot(CLASSES_2018, CLASSES_2018.split(","))
    groups = "image,lesion_id,diagnosis_confirm_type\n" + "".join(
        f"{image(number)},HAM_{number // 2},histopathology\n" for number in range(7)
    )
    tables = {"ISIC2018_Task3_Training_GroundTruth.csv": truth, "ISIC2018_Task3_Training_LesionGroupings.csv": groups}
    collection = read_challenge(write(tmp_path, tables, images=7))
    assert labels(collection) == dict(enumerate(("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc")))
    assert [row.group for row in collection.rows] == [f"HAM_{number // 2}" for number in range(7)]
    assert [row.lesion for row in collection.rows] == [row.group for row in collection.rows]
    assert collection.rows[0].about == {"confirmed_by": "histopathology", "part": "train"}
    assert not collection.left_out


def test_2019_leaves_out_what_has_no_class_here(tmp_path: Path) -> None:
    classes = CLASSES_2019.split(",")
    truth = one_hot(CLASSES_2019, [*classes, "", "NV"]).replace(image(10), f"{image(10)}_downsampled")
    # The table for the test images has two more columns.
    weighted = "\n".join(
        line + (",score_weight,validation_weight" if number == 0 else ",1.0,0.0")
        for number, line in enumerate(truth.splitlines())
    )
    collection = read_challenge(write(tmp_path, {"ISIC_2019_Test_GroundTruth.csv": weighted}, images=11))
    assert labels(collection) == {0: "mel", 1: "nv", 2: "bcc", 3: "akiec", 4: "bkl", 5: "df", 6: "vasc", 10: "nv"}
    assert collection.left_out == [
        ("diagnosis 'scc' is left out by the label map", image(7)),
        ("diagnosis 'unk' is left out by the label map", image(8)),
        ("no diagnosis", image(9)),
    ]


def test_2020_knows_patients_and_lesions(tmp_path: Path) -> None:
    header = "image_name,patient_id,lesion_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant"
    lines = [
        f"{image(0)},IP_1,IL_1,female,45.0,torso,nevus,benign,0",
        f"{image(1)},IP_1,IL_2,female,45.0,head/neck,melanoma,malignant,1",
        f"{image(2)},IP_2,IL_3,male,,,unknown,benign,0",
        f"{image(3)},IP_3,IL_4,male,50.0,torso,lentigo NOS,benign,0",
    ]
    table = "\n".join([f"{header},target", *lines])
    collection = read_challenge(write(tmp_path, {"ISIC_2020_Training_GroundTruth_v2.csv": table}, images=4))
    assert labels(collection) == {0: "nv", 1: "mel", 3: "bkl"}
    assert [(row.group, row.patient, row.lesion) for row in collection.rows] == [
        ("IP_1", "IP_1", "IL_1"),
        ("IP_1", "IP_1", "IL_2"),
        ("IP_3", "IP_3", "IL_4"),
    ]
    assert collection.rows[0].about == {"sex": "female", "age": "45", "site": "torso", "part": "train"}
    assert collection.dropped == {"diagnosis 'unknown' is left out by the label map": 1}


def test_predictions_do_not_hide_the_ground_truth(tmp_path: Path) -> None:
    truth = one_hot(CLASSES_2018, ["NV", "MEL"])
    predictions = truth.replace("1.0", "0.93").replace("0.0", "0.01")
    write(tmp_path, {"a_submission.csv": predictions, "z_GroundTruth.csv": truth}, images=2)
    collection = read_challenge(tmp_path)
    assert labels(collection) == {0: "nv", 1: "mel"}
    ((reason, text),) = collection.left_out
    assert reason == "table cannot be used"
    assert text.startswith(f"{tmp_path / 'a_submission.csv'}: line 2: mel is 0.01, neither 0 nor 1, so these are")
    assert list(collection.tables) == [tmp_path / "z_GroundTruth.csv"]
    (tmp_path / "z_GroundTruth.csv").unlink()
    with pytest.raises(InputError, match="these are predictions and not the ground truth"):
        read_challenge(tmp_path)


def test_a_folder_without_ground_truth_is_reported(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no ground truth of an ISIC challenge .* below .*; pass the folder"):
        read_challenge(tmp_path)
    (tmp_path / "metadata.csv").write_text("img_id,diagnostic,patient_id,lesion_id,fitspatrick\n")
    with pytest.raises(InputError, match=r"; metadata.csv is a table of PAD-UFES-20: use --pad-ufes-20$"):
        read_challenge(tmp_path)
