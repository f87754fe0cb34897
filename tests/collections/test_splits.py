from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastccsa.collections import CLASSES, Manifest, nested_subset, split
from fastccsa.system.errors import InputError

SHARE = {"train": 0.5, "validation": 0.2, "test": 0.3}


def table_of(rows: list[tuple[str, str, str]]) -> pd.DataFrame:
    """Return a table without splits from rows (label, domain, group)."""
    table = pd.DataFrame(rows, columns=["label", "domain", "group"])
    return table.assign(image=[f"{number:05}.jpg" for number in range(len(rows))])


def lesions(domain: str, counts: dict[str, int], sizes: list[int], seed: int = 0) -> list[tuple[str, str, str]]:
    """Return rows (label, domain, group) with the given counts, in lesions of random ``sizes``."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[str, str, str]] = []
    for label, count in counts.items():
        left, lesion = count, 0
        while left:
            size = min(left, int(rng.choice(sizes)))
            rows += [(label, domain, f"{domain}_{label}_{lesion}")] * size
            left, lesion = left - size, lesion + 1
    return rows


def splits_of_groups(table: pd.DataFrame) -> pd.Series:
    return table.groupby("group")["split"].nunique()


# The class counts of HAM10000; the sizes below give about its share of lesions with several images.
HAM = {"nv": 6705, "mel": 1113, "bcc": 514, "df": 115, "bkl": 1099, "vasc": 142, "akiec": 327}


@pytest.fixture(scope="module")
def ham() -> pd.DataFrame:
    return split(table_of(lesions("HAM", HAM, sizes=[1, 1, 1, 1, 1, 2, 2, 3])))


def test_shares_by_class_are_50_20_30(ham: pd.DataFrame) -> None:
    shares = pd.crosstab(ham["label"], ham["split"], normalize="index")
    for name, share in SHARE.items():
        for label in CLASSES:
            tolerance = 0.02 if HAM[label] > 300 else 0.04
            assert abs(shares.loc[label, name] - share) < tolerance, (label, name)


def test_lesions_are_not_split(ham: pd.DataFrame) -> None:
    assert (splits_of_groups(ham) == 1).all()
    assert ham["group"].nunique() < len(ham)


def test_twenty_single_images_split_exactly() -> None:
    done = split(table_of([("nv", "X", str(number)) for number in range(20)]))
    assert Counter(done["split"]) == {"train": 10, "validation": 4, "test": 6}


@pytest.mark.parametrize(
    ("size", "train", "validation", "test"),
    [(1, 1, 0, 0), (2, 1, 0, 1), (3, 1, 1, 1), (4, 2, 1, 1), (5, 2, 1, 2), (6, 3, 1, 2), (9, 4, 2, 3)],
)
def test_few_groups_go_to_training_then_test_then_validation(size: int, train: int, validation: int, test: int) -> None:
    common = [("nv", "X", f"nv{number}") for number in range(40)]
    rare = [("df", "X", f"df{number}") for number in range(size)]
    for rows in (rare, common + rare):
        done = split(table_of(rows))
        counts = Counter(done.loc[done["label"] == "df", "split"])
        assert (counts["train"], counts["validation"], counts["test"]) == (train, validation, test)


def test_the_result_depends_only_on_the_images_and_the_seed() -> None:
    rows = lesions("MSK", {"nv": 90, "mel": 40, "bcc": 4}, sizes=[1, 2]) + lesions("UDA", {"nv": 30}, sizes=[1])
    table = table_of(rows)
    done = split(table, seed=3)
    pd.testing.assert_frame_equal(done, split(table, seed=3))
    shuffled = table.sample(frac=1, random_state=1)
    pd.testing.assert_frame_equal(split(shuffled, seed=3).sort_index(), done)
    uda = table[table["domain"] == "UDA"]
    pd.testing.assert_frame_equal(split(uda, seed=3), done.loc[uda.index])
    assert (split(table, seed=4)["split"] != done["split"]).any()
    assert "split" not in table.columns


def test_a_group_in_two_domains_is_in_one_split() -> None:
    rows = [("nv", "A", f"lesion{number}") for number in range(20)]
    rows += [("nv", "B", f"lesion{number}") for number in range(10, 40)]
    done = split(table_of(rows))
    assert (splits_of_groups(done) == 1).all()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("AB"), st.sampled_from(CLASSES), st.integers(0, 12), st.integers(1, 3)),
        min_size=1,
        max_size=30,
    ),
    st.integers(0, 5),
)
def test_splits_of_any_small_table_are_valid(lesion_list: list[tuple[str, str, int, int]], seed: int) -> None:
    rows = [
        (label, domain, f"{domain}{label}{number}") for domain, label, number, size in lesion_list for _ in range(size)
    ]
    done = split(table_of(rows), seed)
    assert set(done["split"]) <= SHARE.keys()
    assert (splits_of_groups(done) == 1).all()
    for _, cell in done.groupby(["domain", "label"]):
        found = set(cell["split"])
        assert "train" in found
        assert "test" in found or cell["group"].nunique() < 2
        assert "validation" in found or cell["group"].nunique() < 3


def test_a_lesion_with_two_diagnoses_is_not_split() -> None:
    rows = [("nv", "X", str(number)) for number in range(30)] + [("mel", "X", str(number)) for number in range(12)]
    done = split(table_of(rows))
    assert (splits_of_groups(done) == 1).all()
    assert len(done) == 42


def test_split_rejects_invalid_arguments() -> None:
    table = table_of([("nv", "X", "1")])
    with pytest.raises(InputError, match="the seed is -1; give 0 or more"):
        split(table, seed=-1)
    with pytest.raises(InputError, match="the table to split lacks group"):
        split(table.drop(columns="group"))


@pytest.fixture
def manifest() -> Manifest:
    rows = lesions("HAM", {"nv": 50, "mel": 20}, sizes=[1, 2])
    rows += lesions("UDA", {"nv": 40, "mel": 12}, sizes=[1])
    rows += lesions("MSK", {"nv": 60, "bkl": 30, "df": 1}, sizes=[1, 2])
    shuffled = split(table_of(rows)).sample(frac=1, random_state=0)
    return Manifest(shuffled)


def images(manifest: Manifest) -> list[str]:
    return manifest.table["image"].tolist()


def test_a_subset_has_at_most_n_images_of_each_secondary_class(manifest: Manifest) -> None:
    whole = manifest.summary("train")
    for n in (0, 1, 3, 10):
        subset = nested_subset(manifest, n, primary="HAM").summary("train")
        assert subset.loc["HAM"].tolist() == whole.loc["HAM"].tolist()
        for domain in ("UDA", "MSK"):
            assert subset.loc[domain].tolist() == np.minimum(whole.loc[domain], n).tolist()


def test_subsets_are_nested_and_keep_the_order(manifest: Manifest) -> None:
    before: set[str] = set()
    for n in range(8):
        subset = images(nested_subset(manifest, n, primary="HAM", seed=5))
        assert before <= set(subset)
        assert subset == [image for image in images(manifest) if image in set(subset)]
        before = set(subset)
    assert images(nested_subset(manifest, 1000, primary="HAM")) == images(manifest)
    assert images(nested_subset(manifest, None, primary="HAM")) == images(manifest)


def test_a_subset_keeps_all_validation_and_test_images(manifest: Manifest) -> None:
    subset = nested_subset(manifest, 1, primary="HAM")
    for name in ("validation", "test"):
        assert images(subset.select(name)) == images(manifest.select(name))
    assert (subset.classes, subset.domains) == (manifest.classes, manifest.domains)


def test_the_seed_determines_the_subset_in_any_order_of_rows(manifest: Manifest) -> None:
    subset = set(images(nested_subset(manifest, 3, primary="HAM", seed=1)))
    reversed_rows = manifest.take(np.arange(len(manifest))[::-1])
    assert set(images(nested_subset(reversed_rows, 3, primary="HAM", seed=1))) == subset
    assert set(images(nested_subset(manifest, 3, primary="HAM", seed=2))) != subset


def test_nested_subset_rejects_invalid_arguments(manifest: Manifest) -> None:
    with pytest.raises(InputError, match="n_sec is -1; give 0 or more"):
        nested_subset(manifest, -1, primary="HAM")
    with pytest.raises(InputError, match="primary domain 'PH2' is not in the manifest, which has"):
        nested_subset(manifest, 1, primary="PH2")
    with pytest.raises(InputError, match="seed"):
        nested_subset(manifest, 1, primary="HAM", seed=-1)
