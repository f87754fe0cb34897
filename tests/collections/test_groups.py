"""A patient's or a lesion's images are never in two splits, whatever else the table knows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastccsa.collections import Manifest, prepare, split
from fastccsa.collections.groups import join_groups

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
def test_folds_are_those_of_scikit_learn(classes: int, sizes: list[int]) -> None:
    selection = pytest.importorskip("sklearn.model_selection")
    from fastccsa.collections.folds import stratified_folds

    random = np.random.default_rng(classes)
    weights = random.dirichlet(np.full(classes, 2.0))
    labels = np.concatenate([np.arange(classes), random.choice(classes, 400, p=weights)])
    count = random.choice(sizes, len(labels))
    group = np.repeat(np.arange(len(labels)), count)
    expected = np.empty(len(labels), dtype=np.int64)
    folds = selection.StratifiedGroupKFold(10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)  # of classes with fewer than ten images
        for fold, (_, members) in enumerate(folds.split(group, labels[group], group)):
            expected[group[members]] = fold
    assert stratified_folds(labels, count, 10).tolist() == expected.tolist()


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
