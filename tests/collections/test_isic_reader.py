from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from fastccsa.collections.readers import Row, read_isic, tabular
from fastccsa.system.errors import InputError

WriteImage = Callable[[Path], Path]


def description(name: str, diagnosis: str | None, dataset: str | None = None) -> str:
    """Return the description of an image from the old API."""
    fields = {
        "_id": "5436e3abbae478396759f0cf",
        "_modelType": "image",
        "creator": {"_id": "5450e996bae47865794e4d0d", "name": "User 6VSN"},
        "meta": {
            "acquisition": {"image_type": "dermoscopic", "pixelsX": 1022, "pixelsY": 767},
            "clinical": {"age_approx": 55, "benign_malignant": "benign", "diagnosis": diagnosis},
            "unstructured": {"diagnosis": "must not be read"},
        },
        "name": name,
        "notes": {"tags": ["Challenge 2018: Task 1-2: Training"]},
    }
    if dataset:
        fields["dataset"] = {"_accessLevel": 0, "license": "CC-0", "name": dataset}
    return json.dumps(fields, indent=2)


def labels(folder: Path, domain: str) -> dict[str, str]:
    return {row.image.name: row.label for row in read_isic(folder, domain).rows}


def test_a_download_by_isic_cli_is_read(tmp_path: Path, isic_cli: Callable[..., Path]) -> None:
    rows = [("ISIC_0000000", "nevus"), ("ISIC_0000004", "melanoma"), ("ISIC_0000005", "")]
    collection = read_isic(isic_cli(tmp_path, rows), "UDA")
    assert collection.rows == [
        Row(tmp_path / "ISIC_0000000.jpg", "nv", "ISIC_0000000", about={"image_type": "dermoscopic"}),
        Row(tmp_path / "ISIC_0000004.jpg", "mel", "ISIC_0000004", about={"image_type": "dermoscopic"}),
    ]
    assert collection.dropped == {"no diagnosis": 1}


def test_downloads_by_isic_cli_in_several_folders_are_merged(tmp_path: Path, isic_cli: Callable[..., Path]) -> None:
    isic_cli(tmp_path / "MSK-1", [("ISIC_0000011", "nevus")])
    isic_cli(tmp_path / "MSK-2", [("ISIC_0000012", "melanoma"), ("ISIC_0000011", "nevus")])
    collection = read_isic(tmp_path, "MSK")
    assert [(row.image.parent.name, row.label) for row in collection.rows] == [
        ("MSK-1", "nv"),
        ("MSK-2", "mel"),
    ]
    assert collection.dropped == {"listed a second time": 1}


@pytest.mark.parametrize(
    ("diagnosis", "label"),
    [
        ("nevus", "nv"),
        ("melanoma", "mel"),
        ("basal cell carcinoma", "bcc"),
        ("dermatofibroma", "df"),
        ("seborrheic keratosis", "bkl"),
        ("lichenoid keratosis", "bkl"),
        ("lentigo NOS", "bkl"),
        ("lentigo simplex", "bkl"),
        ("solar lentigo", "bkl"),
        ("vascular lesion", "vasc"),
        ("angioma", "vasc"),
        ("actinic keratosis", "akiec"),
        ("  Actinic  Keratosis ", "akiec"),
    ],
)
def test_diagnoses_before_2025_map_to_classes(
    tmp_path: Path, isic_cli: Callable[..., Path], diagnosis: str, label: str
) -> None:
    isic_cli(tmp_path, [("ISIC_0000001", diagnosis)])
    assert labels(tmp_path, "MSK") == {"ISIC_0000001.jpg": label}


@pytest.mark.parametrize(
    "diagnosis",
    [
        "angiofibroma or fibrous papule",
        "atypical melanocytic proliferation",
        "cafe-au-lait macule",
        "other",
        "scar",
        "squamous cell carcinoma",
        "melanoma?",
    ],
)
def test_unknown_diagnoses_are_listed_and_never_guessed(
    tmp_path: Path, isic_cli: Callable[..., Path], diagnosis: str
) -> None:
    isic_cli(tmp_path, [("ISIC_0000001", diagnosis)])
    collection = read_isic(tmp_path, "MSK")
    assert collection.rows == []
    assert collection.dropped == {f"diagnosis {diagnosis!r} matches no class": 1}


MELANOMA = "Malignant,Malignant melanocytic proliferations (Melanoma)"


@pytest.mark.parametrize(
    ("levels", "label"),
    [
        ("Benign,Benign melanocytic proliferations,Nevus,,", "nv"),
        ('Benign,Benign melanocytic proliferations,Nevus,"Nevus, Blue",Blue nevus cellular', "nv"),
        (f'{MELANOMA},"Melanoma, NOS",,', "mel"),
        (f"{MELANOMA},Melanoma Invasive,,", "mel"),
        (f'{MELANOMA},Melanoma in situ,"Melanoma in situ, lentigo maligna type",', "mel"),
        (f"{MELANOMA},,,", "mel"),
        ("Malignant,Malignant adnexal epithelial proliferations - Follicular,Basal cell carcinoma,,", "bcc"),
        ("Benign,Benign soft tissue proliferations - Fibro-histiocytic,Dermatofibroma,,", "df"),
        ("Benign,Benign epidermal proliferations,Seborrheic keratosis,,", "bkl"),
        ("Benign,Benign epidermal proliferations,Lichen planus like keratosis,,", "bkl"),
        ("Benign,Benign epidermal proliferations,Solar lentigo,,", "bkl"),
        ("Benign,Benign soft tissue proliferations - Vascular,,,", "vasc"),
        ("Benign,Benign soft tissue proliferations - Vascular,Hemangioma,,", "vasc"),
        ("Indeterminate,Indeterminate epidermal proliferations,Solar or actinic keratosis,,", "akiec"),
    ],
)
def test_levels_of_diagnosis_since_2025_map_to_classes(
    tmp_path: Path, write_image: WriteImage, levels: str, label: str
) -> None:
    names = [f"diagnosis_{level}" for level in range(1, 6)]
    header = f"isic_id,attribution,copyright_license,{','.join(names)},sex"
    line = f"ISIC_0000001,Anonymous,CC-0,{levels},male"
    (tmp_path / "metadata.csv").write_text(f"{header}\n{line}\n")
    write_image(tmp_path / "ISIC_0000001.jpg")
    assert labels(tmp_path, "MSK") == {"ISIC_0000001.jpg": label}


def test_levels_with_no_class_or_two_classes_are_left_out(tmp_path: Path, write_image: WriteImage) -> None:
    lines = [
        "isic_id,diagnosis,diagnosis_1,diagnosis_2,diagnosis_3",
        "ISIC_1,,Benign,,",
        'ISIC_2,,Malignant,Malignant epidermal proliferations,"Squamous cell carcinoma, NOS"',
        "ISIC_3,nevus,Malignant,,Melanoma in situ",
        "ISIC_4,,,,",
    ]
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    for number in range(1, 5):
        write_image(tmp_path / f"ISIC_{number}.jpg")
    collection = read_isic(tmp_path, "UDA")
    assert collection.rows == []
    assert collection.dropped == {
        "diagnosis 'Benign' matches no class": 1,
        "diagnosis 'Squamous cell carcinoma, NOS' matches no class": 1,
        "diagnoses disagree (nevus, Melanoma in situ, Malignant)": 1,
        "no diagnosis": 1,
    }


def test_an_archive_from_the_site_is_read(tmp_path: Path, write_image: WriteImage) -> None:
    folder = tmp_path / "ISIC-images"
    lines = [
        "_id,name,dataset.name,meta.acquisition.image_type,meta.clinical.diagnosis,meta.unstructured.diagnosis",
        "5436e3abbae478396759f0cf,ISIC_0000000,ISIC_UDA-1_1,dermoscopic,nevus,melanoma",
        "5436e3acbae478396759f0d1,ISIC_0000001,UDA-2,dermoscopic,melanoma,",
        "558d6264bae47801cf734d2b,ISIC_0009881,MSK-1,dermoscopic,seborrheic keratosis,",
        "55943f9dbae47829fb23ac93,ISIC_0010000,ISIC_MSK-5_1,dermoscopic,nevus,",
        "55943f9dbae47829fb23ac94,ISIC_0024306,HAM10000,dermoscopic,nevus,",
    ]
    (folder / "UDA-1").mkdir(parents=True)
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    for name in ("UDA-1/ISIC_0000000", "UDA-2/ISIC_0000001", "MSK-1/ISIC_0009881"):
        write_image(folder / f"{name}.jpg")
    write_image(folder / "MSK-5" / "ISIC_0010000_downsampled.jpg")
    write_image(folder / "HAM10000" / "ISIC_0024306.jpg")
    uda = read_isic(tmp_path, "UDA")
    assert [(row.image.name, row.label) for row in uda.rows] == [
        ("ISIC_0000000.jpg", "nv"),
        ("ISIC_0000001.jpg", "mel"),
    ]
    assert uda.dropped == {
        "belongs to MSK-1, not to UDA": 1,
        "belongs to ISIC_MSK-5_1, not to UDA": 1,
        "belongs to HAM10000, not to UDA": 1,
    }
    assert labels(folder, "MSK") == {"ISIC_0009881.jpg": "bkl", "ISIC_0010000_downsampled.jpg": "nv"}


def test_json_files_from_the_old_api_are_read(tmp_path: Path, write_image: WriteImage) -> None:
    for name, diagnosis, dataset in [
        ("ISIC_0000882", "nevus", "SONIC"),
        ("ISIC_0000900", "nevus", None),
        ("ISIC_0000999", None, None),
        ("ISIC_0009881", "melanoma", "MSK-1"),
    ]:
        (tmp_path / f"{name}.json").write_text(description(name, diagnosis, dataset))
        write_image(tmp_path / f"{name}.JPG")
    collection = read_isic(tmp_path, "SON")
    assert [(row.image.name, row.label) for row in collection.rows] == [
        ("ISIC_0000882.JPG", "nv"),
        ("ISIC_0000900.JPG", "nv"),
    ]
    assert collection.dropped == {"no diagnosis": 1, "belongs to MSK-1, not to SON": 1}


def test_a_download_by_the_downloader_script_is_read(tmp_path: Path, write_image: WriteImage) -> None:
    images, descriptions = tmp_path / "Data" / "Images", tmp_path / "Data" / "Descriptions"
    descriptions.mkdir(parents=True)
    for name, dataset in [("ISIC_0000000", "UDA-1"), ("ISIC_0000001_downsampled", "ISIC_UDA-2_1")]:
        (descriptions / name).write_text(description(name, "melanoma", dataset))
    write_image(images / "ISIC_0000000.jpeg")
    write_image(images / "ISIC_0000001_downsampled.jpg")
    write_image(images / "ISIC_0000002.jpg")
    write_image(tmp_path / "Data" / "Segmentation" / "ISIC_0000000_expert.png")
    (descriptions / "ISIC_0000003").write_text('{"name": "ISIC_00')
    collection = read_isic(tmp_path, "UDA")
    about = {"image_type": "dermoscopic", "age": "55"}
    assert collection.rows == [
        Row(images / "ISIC_0000000.jpeg", "mel", "ISIC_0000000", about=about),
        Row(images / "ISIC_0000001_downsampled.jpg", "mel", "ISIC_0000001", about=about),
    ]
    assert collection.dropped == {"description is not valid JSON": 1, "image file not in the metadata": 1}


def test_full_size_files_are_preferred_and_the_suffix_is_ignored(tmp_path: Path, write_image: WriteImage) -> None:
    (tmp_path / "metadata.csv").write_text("isic_id,diagnosis\nISIC_0000001_downsampled,nevus\nISIC_0000002,nevus\n")
    write_image(tmp_path / "ISIC_0000001_downsampled.jpg")
    write_image(tmp_path / "full" / "ISIC_0000001.jpg")
    write_image(tmp_path / "ISIC_0000002_downsampled.JPG")
    assert labels(tmp_path, "UDA") == {"ISIC_0000001.jpg": "nv", "ISIC_0000002_downsampled.JPG": "nv"}


def test_groups_are_patients_then_lesions_then_images(tmp_path: Path, write_image: WriteImage) -> None:
    lines = [
        "isic_id,diagnosis,patient_id,lesion_id",
        "ISIC_1,nevus,IP_7,IL_1",
        "ISIC_2,nevus,IP_7,IL_2",
        "ISIC_3,nevus,,IL_3",
        "ISIC_4,nevus,,nan",
    ]
    (tmp_path / "metadata.csv").write_text("\n".join(lines))
    for number in range(1, 5):
        write_image(tmp_path / f"ISIC_{number}.jpg")
    rows = read_isic(tmp_path, "MSK").rows
    assert [row.group for row in rows] == ["IP_7", "IP_7", "IL_3", "ISIC_4"]
    assert [row.patient for row in rows] == ["IP_7", "IP_7", "", ""]
    assert [row.lesion for row in rows] == ["IL_1", "IL_2", "IL_3", ""]


def test_json_files_from_todays_api_are_read(tmp_path: Path, write_image: WriteImage) -> None:
    for number, level in enumerate(("Nevus", "Melanoma in situ")):
        name = f"ISIC_000000{number}"
        clinical = {"diagnosis_1": "Benign", "diagnosis_3": level, "patient_id": "IP_7", "lesion_id": f"IL_{number}"}
        metadata = {"acquisition": {"image_type": "dermoscopic"}, "clinical": clinical}
        text = json.dumps({"isic_id": name, "public": True, "metadata": metadata})
        (tmp_path / f"{name}.json").write_text(text)
        write_image(tmp_path / f"{name}.jpg")
    rows = read_isic(tmp_path, "MSK").rows
    assert [(row.label, row.patient, row.lesion) for row in rows] == [("nv", "IP_7", "IL_0"), ("mel", "IP_7", "IL_1")]


def test_an_image_with_contradicting_diagnoses_is_left_out(tmp_path: Path, isic_cli: Callable[..., Path]) -> None:
    isic_cli(tmp_path / "MSK-1", [("ISIC_0000001", "nevus"), ("ISIC_0000002", "nevus")])
    isic_cli(tmp_path / "MSK-2", [("ISIC_0000001", "melanoma")])
    collection = read_isic(tmp_path, "MSK")
    assert [row.group for row in collection.rows] == ["ISIC_0000002"]
    assert collection.dropped == {"listed as different classes": 1, "listed a second time": 1}


def test_other_files_in_the_folder_are_ignored(tmp_path: Path, isic_cli: Callable[..., Path]) -> None:
    isic_cli(tmp_path, [("ISIC_0000001", "nevus")])
    (tmp_path / "licenses.csv").write_text("name,license\nCC-0,public domain\n")
    (tmp_path / "package.json").write_text('{"name": "viewer", "version": "1"}')
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "attribution.txt").write_text("Anonymous")
    (tmp_path / "__MACOSX").mkdir()
    for hidden in ("._metadata.csv", "._ISIC_0000001.jpg", "__MACOSX/metadata.csv"):
        (tmp_path / hidden).write_bytes(b"\x00\x05\x16\x07\x00")
    collection = read_isic(tmp_path, "UDA")
    assert [row.image.name for row in collection.rows] == ["ISIC_0000001.jpg"]
    assert not collection.dropped


def test_folders_without_isic_metadata_are_reported(tmp_path: Path, write_image: WriteImage) -> None:
    write_image(tmp_path / "ISIC_0000001.jpg")
    with pytest.raises(InputError, match=r"no ISIC metadata below .*; looked for a CSV file with the column isic_id"):
        read_isic(tmp_path, "UDA")
    with pytest.raises(InputError, match="HAM is not an ISIC domain; choose one of MSK, SON, UDA"):
        read_isic(tmp_path, "HAM")


def test_pages_of_the_apis_results_are_read(tmp_path: Path, write_image: WriteImage) -> None:
    def of(name: str, diagnosis: str) -> dict[str, object]:
        clinical = {"diagnosis_1": "Benign", "diagnosis_3": diagnosis, "sex": "male", "anatom_site_general": "torso"}
        metadata = {"clinical": clinical, "acquisition": {"image_type": "dermoscopic", "pixels_x": 1022}}
        return {"isic_id": name, "files": {"full": {"size": 1}}, "metadata": metadata}

    results = [of("ISIC_0000001", "Nevus"), of("ISIC_0000002", "Dermatofibroma")]
    page = {"count": 3, "next": "https://api", "results": results}
    (tmp_path / "page1.json").write_text(json.dumps(page))
    (tmp_path / "list.json").write_text(json.dumps([of("ISIC_0000003", "Melanoma in situ"), {"name": "other"}, 7]))
    for number in (1, 2, 3):
        write_image(tmp_path / f"ISIC_000000{number}.jpg")
    collection = read_isic(tmp_path, "MSK")
    assert {row.image.stem[-1]: row.label for row in collection.rows} == {"1": "nv", "2": "df", "3": "mel"}
    assert collection.rows[0].about == {"sex": "male", "site": "torso", "image_type": "dermoscopic"}
    assert not collection.left_out
    assert {path.name: count for path, count in collection.tables.items()} == {"page1.json": 2, "list.json": 1}


def test_json_nested_too_deeply_is_not_a_traceback(tmp_path: Path, isic_cli: Callable[..., Path]) -> None:
    isic_cli(tmp_path, [("ISIC_0000001", "nevus")])
    (tmp_path / "a.json").write_text("[" * 100_000)
    (tmp_path / "b.json").write_text('{"a":' * 900 + "1" + "}" * 900)
    collection = read_isic(tmp_path, "UDA")
    assert len(collection.rows) == 1
    assert ("description is not valid JSON", "a.json") in collection.left_out


def test_tables_beside_the_metadata_add_to_it(
    tmp_path: Path, isic_cli: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    isic_cli(tmp_path / "images", [("ISIC_0000001", "nevus"), ("ISIC_0000002", "melanoma")])
    (tmp_path / "a_supplement.csv").write_text("isic_id,lesion_id,fitzpatrick_skin_type\nISIC_0000001,IL_7,III\n")
    (tmp_path / "boxes.csv").write_text("isic_id,x,y\nISIC_0000002,1,2\n")
    (tmp_path / "pixels.csv").write_text("label,pixel0,pixel1\n" + "1,2,3\n" * 20_000)
    read: list[str] = []
    original = tabular.read_table
    monkeypatch.setattr(tabular, "read_table", lambda path, keep: read.append(path.name) or original(path, keep))
    collection = read_isic(tmp_path, "UDA")
    assert [(row.label, row.group, row.lesion) for row in collection.rows] == [
        ("nv", "IL_7", "IL_7"),
        ("mel", "ISIC_0000002", ""),
    ]
    assert collection.rows[0].about == {"fitzpatrick": "III", "image_type": "dermoscopic"}
    assert not collection.left_out
    assert sorted(read) == ["a_supplement.csv", "boxes.csv", "metadata.csv"]
