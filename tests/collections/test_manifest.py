from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import fastccsa.data
from fastccsa.collections import CLASSES, Manifest
from fastccsa.system.errors import InputError

HEADER = "image,label,domain,group,split"


def write_csv(folder: Path, *lines: str, header: str = HEADER, images: bool = True) -> Path:
    """Write a manifest by hand, with an empty file for each listed image."""
    path = folder / "manifest.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    for line in lines:
        if images and line:
            (folder / line.split(",")[0]).touch()
    return path


@pytest.fixture
def small(tmp_path: Path) -> Manifest:
    path = write_csv(
        tmp_path,
        "a.jpg,mel,UDA,1,train",
        "b.jpg,nv,UDA,2,test",
        "c.jpg,nv,HAM,3,train",
        "d.jpg,akiec,HAM,4,validation",
        "e.jpg,nv,HAM,3,train",
    )
    return Manifest.read(path)


def test_arrays_follow_the_table(small: Manifest, tmp_path: Path) -> None:
    assert small.classes == CLASSES == ("nv", "mel", "bcc", "df", "bkl", "vasc", "akiec")
    assert small.domains == ("UDA", "HAM")  # in the order of first appearance
    assert small.labels.tolist() == [1, 0, 0, 6, 0]
    assert small.domain_indices.tolist() == [0, 0, 1, 1, 1]
    assert small.labels.dtype == small.domain_indices.dtype == np.int64
    assert small.paths == [str(tmp_path / f"{name}.jpg") for name in "abcde"]
    assert len(small) == 5


def test_subsets_keep_the_classes_and_domains_of_the_manifest(small: Manifest) -> None:
    part = small.select(split="train", domains="HAM")
    assert [Path(path).name for path in part.paths] == ["c.jpg", "e.jpg"]
    assert (part.classes, part.domains) == (small.classes, small.domains)
    assert part.domain_indices.tolist() == [1, 1]
    assert part.labels.tolist() == [0, 0]
    empty = small.select(split="validation", domains=["UDA"])
    assert len(empty) == 0
    assert empty.labels.tolist() == empty.domain_indices.tolist() == empty.paths == []


def test_take_accepts_positions_in_any_order_and_masks(small: Manifest) -> None:
    assert small.take([3, 0]).labels.tolist() == [6, 1]
    assert small.take(np.array([False, True, False, False, True])).table["image"].tolist() == [
        "b.jpg",
        "e.jpg",
    ]
    assert small.take([3, 0]).take([1]).table["image"].tolist() == ["a.jpg"]
    assert len(small) == 5


def test_summary_counts_every_domain_and_class(small: Manifest) -> None:
    summary = small.summary()
    expected = pd.crosstab(small.table["domain"], small.table["label"])
    assert list(summary.index) == ["UDA", "HAM"]
    assert list(summary.columns) == list(CLASSES)
    for domain in summary.index:
        for label in summary.columns:
            present = label in expected.columns
            assert summary.loc[domain, label] == (expected.loc[domain, label] if present else 0)
    assert small.summary("train").to_numpy().tolist() == [[0, 1, 0, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0, 0]]


def test_selecting_an_unknown_split_or_domain_is_an_error(small: Manifest) -> None:
    with pytest.raises(InputError, match=r"split 'val' is not one of train, validation, test"):
        small.select(split="val")
    with pytest.raises(InputError, match=r"domain 'PH2' is not in .*manifest\.csv, which has UDA, HAM"):
        small.select(domains=["HAM", "PH2"])


def test_labels_beyond_the_papers_become_sorted_classes(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "a.png,wart,X,1,train", "b.png,nv,X,2,train")
    assert Manifest.read(path).classes == ("nv", "wart")
    assert Manifest.read(path, classes=["wart", "nv"]).labels.tolist() == [0, 1]


UNUSUAL = ["007", "1e5", "1.0", "nan", "NA", "None", "true", "ein Muttermal", "黒子", 'a "b", c', " x"]


def test_every_value_survives_writing_and_reading_as_a_string(tmp_path: Path) -> None:
    images = [tmp_path / f"{number} ä,'{number}\".jpg" for number in range(len(UNUSUAL))]
    for image in images:
        image.touch()
    table = pd.DataFrame(
        {
            "image": [str(image) for image in images],
            "label": UNUSUAL,
            "domain": ["1"] * len(UNUSUAL),
            "group": UNUSUAL,
            "split": ["train"] * len(UNUSUAL),
        }
    )
    path = tmp_path / "manifest.csv"
    Manifest(table).write(path)
    back = Manifest.read(path)
    stripped = [*UNUSUAL[:-1], "x"]  # white space around a label or group is a slip of the keyboard
    assert back.table["label"].tolist() == back.table["group"].tolist() == stripped
    assert back.table["domain"].tolist() == ["1"] * len(UNUSUAL)
    assert back.paths == [str(image) for image in images]
    written = path.read_bytes()
    back.write(path)
    assert path.read_bytes() == written


def test_integer_labels_are_classes_in_the_order_of_their_values() -> None:
    numbers = [10, 2, 0, 11, 1, -1, 3]
    columns = {"domain": "x", "group": range(7), "split": "train"}
    table = pd.DataFrame({"image": [f"{number}.png" for number in numbers], "label": numbers, **columns})
    manifest = Manifest(table)
    assert manifest.classes == ("-1", "0", "1", "2", "3", "10", "11")
    assert manifest.labels.tolist() == [5, 3, 1, 6, 2, 0, 4]
    mixed = Manifest(table.assign(label=[*map(str, numbers[:-1]), "3a"]))
    assert mixed.classes == ("-1", "0", "1", "10", "11", "2", "3a")


def test_white_space_around_values_does_not_make_classes_or_groups(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "a.jpg,nv,X,1,train", "b.jpg, nv ,X ,2\t, test", "c.jpg,nv\u00a0,X, 1,train ")
    manifest = Manifest.read(path)
    assert (set(manifest.table["label"]), manifest.domains) == ({"nv"}, ("X",))
    assert manifest.table[["group", "split"]].to_numpy().tolist() == [["1", "train"], ["2", "test"], ["1", "train"]]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252"])
def test_a_manifest_is_read_as_spreadsheet_programs_save_it(tmp_path: Path, separator: str, encoding: str) -> None:
    lines = [HEADER, "ä.jpg,naïf,Köln,1,train", "ö.jpg,côté,Köln,2,test"]
    for name in "äö":
        (tmp_path / f"{name}.jpg").touch()
    path = tmp_path / "manifest.csv"
    path.write_bytes("\r\n".join(lines).replace(",", separator).encode(encoding))
    manifest = Manifest.read(path)
    assert manifest.table["label"].tolist() == ["naïf", "côté"]
    assert manifest.domains == ("Köln",)
    path.write_bytes("\r\n".join([*lines, "a,b"]).replace(",", separator).encode(encoding))
    with pytest.raises(InputError, match="line 4 has 2 fields where the header has 5; put quotes around fields with"):
        Manifest.read(path)


def test_numbers_in_a_table_become_strings() -> None:
    table = pd.DataFrame({"image": ["a"], "label": [3], "domain": [1], "group": [7], "split": ["train"]})
    manifest = Manifest(table)
    assert manifest.classes == ("3",)
    assert manifest.table.loc[0, ["label", "domain", "group"]].tolist() == ["3", "1", "7"]
    assert table["label"].tolist() == [3]  # the caller's table is unchanged


def test_images_below_the_manifest_move_with_its_folder(tmp_path: Path) -> None:
    inside, outside = tmp_path / "data" / "ham" / "in.jpg", tmp_path / "data2" / "out.jpg"
    for image in (inside, outside):
        image.parent.mkdir(parents=True)
        image.touch()
    table = pd.DataFrame(
        [
            (str(inside), "nv", "HAM", "1", "train"),
            (str(outside), "nv", "HAM", "2", "train"),
        ],
        columns=HEADER.split(","),
    )
    Manifest(table).write(tmp_path / "data" / "manifest.csv")
    shutil.move(tmp_path / "data", tmp_path / "moved")
    moved = Manifest.read(tmp_path / "moved" / "manifest.csv")
    assert moved.table["image"].tolist() == ["ham/in.jpg", str(outside)]
    assert moved.paths == [str(tmp_path / "moved" / "ham" / "in.jpg"), str(outside)]


def test_relative_paths_stay_valid_when_written_elsewhere(small: Manifest, tmp_path: Path) -> None:
    elsewhere = tmp_path / "sub" / "part.csv"
    small.take([1]).write(elsewhere)
    assert Manifest.read(elsewhere).paths == [str(tmp_path / "b.jpg")]


def test_byte_order_mark_blank_lines_and_extra_columns_are_read(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "a.jpg,nv,HAM,1,train,8 %", "", header=f"{HEADER}, note")
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    manifest = Manifest.read(path)
    assert manifest.table["note"].tolist() == ["8 %"]
    manifest.write(path)
    assert path.read_text() == f"{HEADER},note\na.jpg,nv,HAM,1,train,8 %\n"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a.jpg,nv,HAM,1,train", "", "b.jpg,,HAM,2,train"], "line 4: no label"),
        (["a.jpg,nv,HAM,1,train", "b.jpg,nv,HAM, ,train"], "line 3: no group"),
        (["a.jpg,nv,HAM,1,val"], "line 2: split 'val' is not one of train, validation, test"),
        (
            ["a.jpg,nv,HAM,1,train", "./a.jpg,nv,HAM,1,train"],
            r"line 3: image /.*/a.jpg is listed a second time",
        ),
        (
            ["a.jpg,nv,HAM,L1,train", "b.jpg,nv,HAM,L1,test"],
            "line 3: group 'L1' is in test here and in train above",
        ),
        (["a.jpg,n\x1b[2Jv,HAM,1,train"], r"line 2: label 'n\\x1b\[2Jv' has a control character"),
        (["a.jpg,nv,\u202eHAM,1,train"], r"line 2: domain '\\u202eHAM' has a control character"),
        (['a.jpg,nv,HAM,"1\n2",train'], r"line 3: group '1\\n2' has a control character"),
        (  # the same lesion in two domains
            ["a.jpg,nv,HAM,L1,train", "b.jpg,nv,UDA,L1,validation"],
            "line 3: group 'L1' is in validation here and in train above",
        ),
    ],
)
def test_problems_are_reported_by_line(tmp_path: Path, lines: list[str], message: str) -> None:
    path = write_csv(tmp_path, *lines)
    with pytest.raises(InputError, match=rf"manifest\.csv: {message}$"):
        Manifest.read(path)


def test_missing_image_files_are_reported_only_if_checked(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "a.jpg,nv,HAM,1,train", images=False)
    with pytest.raises(InputError, match=r"line 2: no image file /.*/a\.jpg$"):
        Manifest.read(path)
    manifest = Manifest.read(path, check_files=False)
    with pytest.raises(InputError, match=r"line 2: no image file"):
        manifest.validate()


def test_a_label_outside_the_given_classes_is_an_error(tmp_path: Path) -> None:
    path = write_csv(tmp_path, "a.jpg,nv,HAM,1,train", "b.jpg,scar,HAM,2,train")
    with pytest.raises(InputError, match=r"line 3: label 'scar' is not one of nv, mel"):
        Manifest.read(path, classes=CLASSES)
    table = Manifest.read(path).table
    with pytest.raises(InputError, match=r"line 3: label 'scar' is not among the classes nv, mel"):
        _ = Manifest(table, classes=CLASSES).labels


def test_a_subset_reports_the_lines_of_its_file(small: Manifest) -> None:
    Path(small.paths[3]).unlink()
    with pytest.raises(InputError, match=r"manifest\.csv: line 5: no image file"):
        small.select(split="validation").validate()


def test_ten_problems_are_listed_and_all_are_counted(tmp_path: Path) -> None:
    path = write_csv(tmp_path, *(f"{number}.jpg,nv,HAM,{number},never" for number in range(25)))
    with pytest.raises(InputError) as caught:
        Manifest.read(path)
    message = str(caught.value)
    assert "25 problems" in message
    assert message.count("; line ") == 9
    assert "line 11:" in message
    assert "line 12:" not in message
    assert message.endswith("and 15 more")
    assert "\n" not in message


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; a manifest starts with the line image,label,domain,group,split"),
        (b"image,label,domain,group,split\n", "lists no images"),
        (b"image,label,domain\na.jpg,nv,HAM\n", "line 1 lacks group, split"),
        (b"image,label,domain,group,split,label\n", "line 1 names label twice"),
        (
            b"image,label,domain,group,split\na,b.jpg,nv,HAM,1,train\n",
            "line 2 has 6 fields where the header has 5",
        ),
        (b"image,label,domain,group,split\n\x81.jpg,nv,HAM,1,train\n", "which is neither UTF-8 nor"),
    ],
)
def test_files_that_are_not_manifests_are_reported(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "manifest.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"manifest\.csv.* {message}"):
        Manifest.read(path)


def test_a_missing_file_and_a_folder_are_reported(tmp_path: Path, small: Manifest) -> None:
    with pytest.raises(InputError, match=r"cannot read the manifest .*none\.csv: No such file.*fastccsa prepare"):
        Manifest.read(tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"cannot read the manifest .*: it is a folder"):
        Manifest.read(tmp_path)
    with pytest.raises(InputError, match=r"it is a folder; name a file in it"):
        small.write(tmp_path)
    with pytest.raises(InputError, match=r"table lacks the columns label, split"):
        Manifest(small.table.drop(columns=["label", "split"]))


@pytest.mark.parametrize("package", ["fastccsa.collections", "fastccsa.data"])
def test_importing_the_package_loads_no_heavy_library(package: str) -> None:
    heavy = "{'torch', 'nvidia.dali', 'sklearn', 'matplotlib'}"
    code = f"import sys, {package}; print({heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_every_exported_name_of_the_facade_exists() -> None:
    assert set(fastccsa.data.__all__) <= set(dir(fastccsa.data))
    for name in fastccsa.data.__all__:
        assert name == "CLASSES" or getattr(fastccsa.data, name).__name__ == name
    with pytest.raises(AttributeError, match=r"'fastccsa.data' has no attribute 'Loader'"):
        _ = fastccsa.data.Loader


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    """Reading one would wait for a writer, forever."""
    pipe = tmp_path / "manifest.csv"
    os.mkfifo(pipe)
    with pytest.raises(InputError, match=r"cannot read the manifest .*manifest\.csv: it is not a regular file"):
        Manifest.read(pipe)
