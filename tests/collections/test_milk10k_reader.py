from __future__ import annotations

from pathlib import Path

import pytest

from fastccsa.collections.readers import read_milk10k
from fastccsa.system.errors import InputError

CLASSES = ("AKIEC", "BCC", "BEN_OTH", "BKL", "DF", "INF", "MAL_OTH", "MEL", "NV", "SCCKA", "VASC")


def truth(marked: dict[str, str], value: str = "1.0") -> str:
    lines = [f"lesion_id,{','.join(CLASSES)}"]
    for lesion, name in marked.items():
        lines.append(f"{lesion},{','.join(value if name == column else '0.0' for column in CLASSES)}")
    return "\n".join(lines) + "\n"


def metadata(lesions: list[str], folder: Path) -> str:
    lines = ["lesion_id,image_type,isic_id,attribution,age_approx,sex,skin_tone_class,site,MONET_hair"]
    for number, lesion in enumerate(lesions):
        for kind, image_type in enumerate(("clinical: close-up", "dermoscopic")):
            image = f"ISIC_{number}{kind}"
            lines.append(f"{lesion},{image_type},{image},MILK study team,70,male,3,trunk,0.1")
            path = folder / "MILK10k_Training_Input" / lesion / f"{image}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize(
    ("truth_name", "metadata_name"),
    [
        ("MILK10k_Training_GroundTruth.csv", "MILK10k_Training_Metadata.csv"),
        ("supplements/training_gt.csv", "metadata.csv"),  # as isic-cli names them
    ],
)
def test_each_class_has_two_images_of_a_lesion(tmp_path: Path, truth_name: str, metadata_name: str) -> None:
    lesions = {f"IL_{number}": name for number, name in enumerate(CLASSES)}
    (tmp_path / "supplements").mkdir()
    (tmp_path / truth_name).write_text(truth(lesions))
    (tmp_path / metadata_name).write_text(metadata([*lesions, "IL_99"], tmp_path))
    (tmp_path / "MILK10k_Training_Supplement.csv").write_text(
        "isic_id,diagnosis_confirm_type\nISIC_01,histopathology\n"
    )
    (tmp_path / "MILK10k_Sample_Submit.csv").write_text(truth(dict.fromkeys(["IL_98", "IL_99"], "")))
    collection = read_milk10k(tmp_path)
    rows = sorted(collection.rows, key=lambda row: (int(row.lesion[3:]), row.image.name))
    assert [row.label for row in rows[::2]] == ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]
    assert [row.label for row in rows[1::2]] == [row.label for row in rows[::2]]
    first, second = rows[:2]
    assert first.group == second.group == first.lesion == "IL_0"
    known = {"age": "70", "sex": "male", "skin_tone_class": "3", "site": "trunk"}
    assert first.about == known | {"image_type": "clinical: close-up"}
    assert second.about == known | {"image_type": "dermoscopic", "confirmed_by": "histopathology"}
    left_out = {
        f"diagnosis {name!r} is left out by the label map": 2 for name in ("ben_oth", "inf", "mal_oth", "sccka")
    }
    assert collection.dropped == left_out | {"no diagnosis": 2}
    assert sorted(collection.tables.values()) == [1, 2, 11, 24]


def test_two_tables_of_ground_truth_that_contradict_each_other(tmp_path: Path) -> None:
    (tmp_path / "gt.csv").write_text(truth({"IL_0": "MEL", "IL_1": "NV"}))
    (tmp_path / "gt_edited.csv").write_text(truth({"IL_0": "NV", "IL_1": "NV"}))
    (tmp_path / "predictions.csv").write_text(truth({"IL_1": "MEL"}, value="0.8"))
    (tmp_path / "metadata.csv").write_text(metadata(["IL_0", "IL_1"], tmp_path))
    collection = read_milk10k(tmp_path)
    assert [row.label for row in collection.rows] == ["nv", "nv"]
    assert collection.dropped == {"diagnoses disagree (mel, nv)": 2, "table cannot be used": 1}


def test_both_tables_are_needed(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text(metadata(["IL_0"], tmp_path))
    with pytest.raises(InputError, match=r"no ground truth of MILK10k .* below .*; pass the folder that contains both"):
        read_milk10k(tmp_path)
