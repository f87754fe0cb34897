"""A patient's or a lesion's images are never in two splits, whatever else the table knows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from fastccsa.cli import main
from fastccsa.collections import Manifest, prepare, split
from fastccsa.collections.groups import join_by, join_groups
from fastccsa.system.errors import InputError

WriteImage = Callable[..., Path]

NAME = st.sampled_from(["", *"abcdefgh"])


def table_of(rows: list[tuple[str, str, str]]) -> pd.DataFrame:
    """Return a table from rows (group, patient, lesion); an image without a group is its own."""
    table = pd.DataFrame(rows, columns=["group", "patient", "lesion"])
    table["group"] = [group or f"image{number}" for number, group in enumerate(table["group"])]
    return table.assign(image=[f"{number}.jpg" for number in range(len(rows))], label="nv", domain="X")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(NAME, NAME, NAME), min_size=1, max_size=25))
def test_groups_are_the_connected_images(rows: list[tuple[str, str, str]]) -> None:
    table = table_of(rows)
    # The reference: images are connected by equal names, and connections of connections by powers of their matrix.
    columns = [table[column].to_numpy() for column in ("group", "patient", "lesion")]
    linked = sum((column[:, None] == column) & (column != "") for column in columns) > 0
    reached = np.linalg.matrix_power(linked.astype(float) / len(rows), 2 * len(rows)) > 0
    groups = join_groups(table)["group"].to_numpy()
    assert ((groups[:, None] == groups) == reached).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(NAME, NAME), min_size=1, max_size=25))
def test_joined_groups_are_the_connected_images(rows: list[tuple[str, str]]) -> None:
    groups = [group or f"image{number}" for number, (group, _) in enumerate(rows)]
    values = [value for _, value in rows]
    joined = join_by(groups, values)
    linked = np.array([[a == b or (u == v != "") for b, v in zip(groups, values, strict=True)]
                       for a, u in zip(groups, values, strict=True)])  # fmt: skip
    reached = np.linalg.matrix_power(linked.astype(float) / len(rows), len(rows)) > 0
    assert (np.array([[a == b for b in joined] for a in joined]) == reached).all()
    assert set(joined) <= set(groups)


def write_table(folder: Path, header: str, lines: list[str], write_image: WriteImage) -> Path:
    for line in lines:
        write_image(folder / line.split(",", 1)[0])
    (folder / "t.csv").write_text("\n".join([header, *lines]))
    return folder / "t.csv"


def test_group_by_keeps_the_images_of_a_value_in_one_split(tmp_path: Path, write_image: WriteImage) -> None:
    lines = [f"{n}.png,nv,P{n // 3},{f'C{n // 8}' if n % 9 else ''},{n % 2}" for n in range(48)]
    table = write_table(tmp_path, "image,label,patient,Clinic,sex", lines, write_image)
    done = CliRunner().invoke(
        main, ["prepare", "--csv", f"mine={table}", "--out", str(tmp_path / "m.csv"), "--group-by", "clinic"]
    )
    assert done.exit_code == 0, done.output
    assert "Grouped by clinic: 6 images of mine without a value" in done.stdout
    frame = Manifest.read(tmp_path / "m.csv").table
    assert frame.columns.tolist() == ["image", "label", "domain", "group", "split", "patient", "clinic", "sex"]
    for column in ("clinic", "patient"):
        known = frame[frame[column] != ""]
        assert (known.groupby(column)["split"].nunique() == 1).all()
    assert json.loads((tmp_path / "m.prepare.json").read_text())["group_by"] == ["clinic"]


def test_a_column_that_no_source_knows_is_refused(tmp_path: Path, write_image: WriteImage) -> None:
    table = write_table(tmp_path, "image,label,site,notes", ["1.png,nv,arm,", "2.png,nv,leg,"], write_image)
    with pytest.raises(InputError, match=r"no source knows the column 'notes' to group by; choose one of site$"):
        prepare([("mine", "csv", table)], tmp_path / "m.csv", group_by=["notes"])
    (tmp_path / "own" / "X" / "nv").mkdir(parents=True)
    write_image(tmp_path / "own" / "X" / "nv" / "3.png")
    with pytest.raises(InputError, match=r"'site' to group by; they know no other column$"):
        prepare([("own", "folders", tmp_path / "own")], tmp_path / "m.csv", group_by=["site"])
    assert not (tmp_path / "m.csv").exists()


def test_values_of_different_sources_do_not_join(tmp_path: Path, write_image: WriteImage) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        write_table(tmp_path / name, "image,label,site", [f"{name}{n}.png,nv,arm" for n in range(3)], write_image)
    sources = [(name, "csv", tmp_path / name / "t.csv") for name in "ab"]
    manifest, _ = prepare(sources, tmp_path / "m.csv", group_by=["site"])
    assert manifest.table.groupby("domain")["group"].unique().map(len).tolist() == [1, 1]
    assert manifest.table["group"].nunique() == 2


def test_levels_that_are_not_known_are_dropped() -> None:
    table = join_groups(table_of([("g", "p", ""), ("", "p", "")]))
    assert sorted(table.columns) == ["domain", "group", "image", "label", "patient"]
    assert table["group"].tolist() == ["g", "g"]


@pytest.mark.parametrize("seed", range(3))
def test_prepare_keeps_patients_and_lesions_in_one_split(tmp_path: Path, write_image: WriteImage, seed: int) -> None:
    lines = ["image,label,group,patient,lesion"]
    for number in range(60):
        write_image(tmp_path / f"{number}.png")
        patient = f"P{number // 6}" if number % 7 else ""  # not all images say whose they are
        lines.append(f"{number}.png,nv,,{patient},L{number // 2}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    prepare([("mine", "csv", tmp_path / "t.csv")], tmp_path / "m.csv", seed=seed, duplicates="off")
    table = Manifest.read(tmp_path / "m.csv").table
    for level, count in (("patient", 10), ("lesion", 30)):
        known = table[table[level] != ""]
        assert known[level].nunique() == count
        assert (known.groupby(level)["split"].nunique() == 1).all()
    assert table["patient"].iloc[1] == "mine/P0"
    assert set(table["split"]) == {"train", "validation", "test"}


@pytest.mark.parametrize("sizes", [[1], [1, 1, 2, 3], [1, 9, 40]])
@pytest.mark.parametrize("classes", [1, 2, 7, 20])
@pytest.mark.parametrize("mixed", [0.0, 0.3])  # share of images with another class than their group's first
def test_folds_are_those_of_scikit_learn(classes: int, sizes: list[int], mixed: float) -> None:
    selection = pytest.importorskip("sklearn.model_selection")
    from fastccsa.collections.folds import stratified_folds

    random = np.random.default_rng(classes)
    weights = random.dirichlet(np.full(classes, 2.0))
    labels = np.concatenate([np.arange(classes), random.choice(classes, 400, p=weights)])
    count = random.choice(sizes, len(labels))
    group = np.repeat(np.arange(len(labels)), count)
    label = np.where(random.random(len(group)) < mixed, random.choice(classes, len(group)), labels[group])
    label = np.unique(label, return_inverse=True)[1]
    expected = np.empty(len(labels), dtype=np.int64)
    folds = selection.StratifiedGroupKFold(10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)  # of classes with fewer than ten images
        for fold, (_, members) in enumerate(folds.split(group, label, group)):
            expected[group[members]] = fold
    by_group = np.zeros((len(labels), label.max() + 1), dtype=np.int64)
    np.add.at(by_group, (group, label), 1)
    assert stratified_folds(by_group, 10).tolist() == expected.tolist()


def test_patients_with_images_of_several_classes_are_spread_over_the_splits() -> None:
    random = np.random.default_rng(0)
    patients = 400
    patient = np.repeat(np.arange(patients), random.integers(1, 30, patients))
    risk = random.random(patients) < 0.3  # every patient has nevi, and some have a melanoma among them
    label = np.where(risk[patient] & (random.random(len(patient)) < 0.2), "mel", "nv")
    table = pd.DataFrame({"image": [f"{n}.jpg" for n in range(len(patient))], "label": label, "domain": "X"})
    done = split(table.assign(group=[f"P{number}" for number in patient]))
    assert (done.groupby("group")["split"].nunique() == 1).all()
    shares = done.groupby(["label", "split"]).size() / done.groupby("label").size()
    for name in ("mel", "nv"):
        for part, share in (("train", 0.5), ("validation", 0.2), ("test", 0.3)):
            assert abs(shares[name, part] - share) < 0.02


def test_many_groups_are_split_without_comparing_all_with_all(monkeypatch: pytest.MonkeyPatch) -> None:
    comparisons = 0

    class Name(str):
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal comparisons
            comparisons += 1
            return str.__eq__(self, other)

    count = 3000
    groups = [Name(f"P{number % (count * 2 // 3)}") for number in range(count)]
    table = pd.DataFrame({"image": [f"{n}.jpg" for n in range(count)], "label": "nv", "domain": "X"})
    done = split(table.assign(group=pd.Series(groups, dtype=object)))
    assert (done.groupby("group")["split"].nunique() == 1).all()
    assert comparisons < 100 * count  # all with all are 2000 * 3000
