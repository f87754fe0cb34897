from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from fastccsa.cli import main
from fastccsa.collections.labels import LEFT_OUT, LabelMap, LabelMaps
from fastccsa.collections.taxonomy import CLASSES
from fastccsa.system.errors import InputError


def overridden(tmp_path: Path, text: str) -> LabelMaps:
    (tmp_path / "labels.csv").write_bytes(text.encode())
    return LabelMaps.read(tmp_path / "labels.csv")


def test_every_map_reaches_the_classes_of_its_collection() -> None:
    maps = LabelMaps.read()
    later = ("challenge", "milk10k", "bcn20000", "pad-ufes-20", "ddi", "fitzpatrick17k")
    assert tuple(maps.labels) == ("ham10000", "dermofit", "derm7pt", "ph2", "isic", *later, "own")
    reached = {collection: set(entries.values()) - {LEFT_OUT} for collection, entries in maps.labels.items()}
    for collection in ("ham10000", "dermofit", "isic", "milk10k", "bcn20000", "ddi", "fitzpatrick17k", "own"):
        assert reached[collection] == set(CLASSES)
    assert reached["challenge"] == {*CLASSES, "benign", "malignant"}
    assert reached["pad-ufes-20"] == set(CLASSES) - {"df", "vasc"}
    assert reached["derm7pt"] == set(CLASSES) - {"akiec"}
    assert reached["ph2"] == {"nv", "mel"}


@pytest.mark.parametrize(
    ("diagnosis", "label"),
    [
        ("blue nevus", "nv"),
        ("  Blue \n NEVUS", "nv"),
        ("melanoma (0.76 to 1.5 mm)", "mel"),
        ("melanoma", "mel"),
        ("Melanosis", LEFT_OUT),
        ("amelanotic melanoma", None),
        ("nevus", None),
        ("", None),
    ],
)
def test_derm7pts_map_finds_diagnoses(diagnosis: str, label: str | None) -> None:
    assert LabelMaps.read().of("derm7pt").find(diagnosis) == label


def test_the_most_specific_entry_decides() -> None:
    labels = LabelMap({"mel*": "mel", "melanos*": LEFT_OUT, "melanosis x": "bkl"})
    assert [labels.find(name) for name in ("melanoma", "melanosis", "melanosis X", "me")] == [
        "mel",
        LEFT_OUT,
        "bkl",
        None,
    ]


def test_with_any_label_unknown_diagnoses_are_classes() -> None:
    labels = LabelMap({"nv": "nv", "junk": LEFT_OUT}, any_label=True)
    assert [labels.find(name) for name in ("NV", "Junk", "Cat  B")] == ["nv", LEFT_OUT, "Cat B"]


def test_overrides_replace_and_add_rows(tmp_path: Path) -> None:
    text = "\ufeffCollection;Diagnosis;Label\r\ndermofit;scc;akiec\r\nisic; Scar ;-\r\n\r\nown;cat;felis\r\n"
    maps = overridden(tmp_path, text)
    assert maps.of("dermofit").find("SCC") == "akiec"
    assert "scc" not in maps.labels["dermofit"]
    assert maps.of("isic").find("scar") == LEFT_OUT
    assert maps.of("own").find("cat") == "felis"
    untouched = LabelMaps.read()
    assert maps.labels["ph2"] == untouched.labels["ph2"]
    assert untouched.of("dermofit").find("SCC") == LEFT_OUT


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("collection,diagnosis\nisic,scar\n", r"labels.csv: line 1 lacks label; a label map needs the columns"),
        ("", r"line 1 lacks collection, diagnosis, label; .* \(fastccsa prepare --show-labels prints one\)"),
        ("collection,diagnosis,label\nisik,scar,nv\n", r"line 2: collection 'isik' is not one of ham10000, dermofit"),
        ("collection,diagnosis,label\nisic,nevus,nv\nisic,scar,naevus\n", r"line 3: label 'naevus' is not one of nv"),
        ("collection,diagnosis,label\nisic,scar,\n", r"line 2: no label for 'scar'; give a class, or - to leave"),
        ("collection,diagnosis,label\nisic,,nv\n", r"line 2: no diagnosis; name the one that the label is for"),
        (
            "collection,diagnosis,label\nisic,scar,nv\nisic,Scar,mel\n",
            r"line 3: 'Scar' is already in line 2; keep one of the two",
        ),
    ],
)
def test_invalid_overrides_are_reported_by_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        overridden(tmp_path, text)
    with pytest.raises(InputError, match=r"cannot read .*none\.csv: No such file or directory"):
        LabelMaps.read(tmp_path / "none.csv")


def test_show_labels_prints_a_table_that_labels_can_read(tmp_path: Path) -> None:
    shown = CliRunner().invoke(main, ["prepare", "--show-labels"])
    assert shown.exit_code == 0
    assert "dermofit,PYO,vasc\n" in shown.stdout
    assert overridden(tmp_path, shown.stdout).labels == LabelMaps.read().labels
    (tmp_path / "mine.csv").write_text("collection,diagnosis,label\ndermofit,PYO,-\n")
    shown = CliRunner().invoke(main, ["prepare", "--show-labels", "--labels", str(tmp_path / "mine.csv")])
    assert "dermofit,PYO,-\n" in shown.stdout
    assert "dermofit,PYO,vasc\n" not in shown.stdout
