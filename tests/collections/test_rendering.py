"""The synthetic collections: what is written, reproducibility, and whether a classifier can learn from them."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import recall_score

from fastccsa.collections import CLASSES, Manifest, render_collections
from fastccsa.collections.rendering.scene import Picture, render
from fastccsa.system.errors import InputError

# The paper's Table 1 in its order of classes, with two errors corrected: Derm7pt's 84 bcc, MSK's 452 bkl.
TABLE1 = {
    "HAM": (6705, 1113, 514, 115, 1099, 142, 327),
    "DMF": (331, 76, 239, 65, 257, 121, 123),
    "D7P": (1150, 504, 84, 40, 90, 58, 0),
    "MSK": (2241, 826, 32, 0, 452, 0, 0),
    "PH2": (160, 40, 0, 0, 0, 0, 0),
    "SON": (9251, 0, 0, 0, 0, 0, 0),
    "UDA": (408, 193, 0, 0, 0, 0, 0),
}
SIZES = {
    "HAM": (64, 48), "DMF": (58, 48), "D7P": (74, 49), "MSK": (80, 60),
    "PH2": (70, 53), "SON": (80, 60), "UDA": (80, 60),
}  # fmt: skip
SCALE, MINIMUM, WIDTH = 0.02, 12, 64
TINY = {"scale": 1e-9, "minimum": 10}


def draw(out: Path, **changes) -> Manifest:
    arguments = {"scale": SCALE, "minimum": MINIMUM, "width": WIDTH, "progress": False} | changes
    return render_collections(out, **arguments)


def images(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.glob("*/*.jpg"))}


@pytest.fixture(scope="module")
def collections(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return draw(tmp_path_factory.mktemp("synthetic") / "out")


def test_class_proportions_are_those_of_table_1(collections):
    counts = collections.summary()
    assert tuple(counts.index) == tuple(TABLE1)
    assert tuple(counts.columns) == CLASSES
    for domain, row in TABLE1.items():
        scale = max(SCALE, 5 * MINIMUM / sum(row))
        expected = [max(MINIMUM, round(scale * count)) if count else 0 for count in row]
        assert counts.loc[domain].tolist() == expected, domain


def test_the_returned_manifest_is_the_one_on_disk(collections):
    read = Manifest.read(collections.folder / "manifest.csv")
    assert read.table.equals(collections.table)
    assert read.paths == collections.paths
    assert len(images(collections.folder)) == len(collections)


def test_every_split_of_a_domain_has_all_its_classes(tmp_path):
    manifest = draw(tmp_path, **TINY)
    for split in ("train", "validation", "test"):
        counts = manifest.summary(split)
        for domain, row in TABLE1.items():
            assert [count > 0 for count in counts.loc[domain]] == [count > 0 for count in row], (domain, split)


def test_lesions_have_as_many_views_as_in_the_originals(collections):
    for domain, groups in collections.table.groupby("domain")["group"]:
        sizes = groups.value_counts()
        if domain == "D7P":
            assert (sizes == 2).mean() > 0.9
        elif domain == "HAM":
            # HAM10000 has 10015 images of 7470 lesions.
            assert len(groups) / len(sizes) == pytest.approx(10015 / 7470, abs=0.02)
        else:
            assert (sizes == 1).all()


def test_files_are_marked_jpegs_of_the_right_size(collections):
    for path, domain in zip(collections.paths, collections.table["domain"], strict=True):
        with Image.open(path) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", SIZES[domain])
            assert b"Synthetic" in image.info["comment"]
        assert "synthetic" in Path(path).name
    assert "Synthetic" in (collections.folder / "README.txt").read_text()


def test_bytes_do_not_depend_on_the_number_of_workers(tmp_path):
    one, many = tmp_path / "one", tmp_path / "many"
    draw(one, workers=1, **TINY)
    draw(many, workers=5, **TINY)
    assert images(one) == images(many)
    assert (one / "manifest.csv").read_bytes() == (many / "manifest.csv").read_bytes()


def test_another_seed_changes_every_picture(collections, tmp_path):
    draw(tmp_path, seed=1, **TINY)
    ours = images(collections.folder)
    assert not any(ours[name] == content for name, content in images(tmp_path).items())


def test_a_larger_scale_adds_to_the_pictures_of_a_smaller_one(collections, tmp_path):
    draw(tmp_path, **TINY)
    small, large = images(tmp_path), images(collections.folder)
    assert len(small) < len(large)
    assert all(large[name] == content for name, content in small.items())


def test_an_interrupted_run_resumes_with_the_same_bytes(tmp_path):
    manifest = draw(tmp_path, **TINY)
    before = images(tmp_path)
    lost, truncated, emptied = (Path(path) for path in manifest.paths[:3])
    lost.unlink()
    truncated.write_bytes(truncated.read_bytes()[:500])
    emptied.write_bytes(b"")
    leftover = lost.with_name(f".{lost.name}.a1b2c3")
    leftover.write_bytes(b"\xff\xd8 half a picture")
    (tmp_path / "manifest.csv").unlink()
    kept = {path: Path(path).stat().st_mtime_ns for path in manifest.paths[3:]}

    again = draw(tmp_path, **TINY)

    assert images(tmp_path) == before
    assert again.table.equals(manifest.table)
    assert {path: Path(path).stat().st_mtime_ns for path in kept} == kept
    Manifest.read(tmp_path / "manifest.csv")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"scale": 0}, "scale"),
        ({"scale": -1}, "scale"),
        ({"scale": float("nan")}, "scale"),
        ({"scale": float("inf")}, "scale"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**32}, "seed"),
        ({"width": 63}, "width"),
        ({"minimum": 9}, "minimum"),
        ({"workers": 0}, "workers"),
    ],
)
def test_invalid_arguments_are_reported_before_anything_is_written(tmp_path, changes, name):
    with pytest.raises(InputError, match=name):
        draw(tmp_path / "out", **changes)
    assert not (tmp_path / "out").exists()


def test_pictures_with_different_settings_are_not_mixed(tmp_path):
    draw(tmp_path, **TINY)
    before = images(tmp_path)
    for changes in ({"seed": 1}, {"width": 65}):
        with pytest.raises(InputError, match="other settings"):
            draw(tmp_path, **changes)
    assert images(tmp_path) == before


def test_folder_with_other_files_is_left_unchanged(tmp_path):
    mine = tmp_path / "manifest.csv"
    mine.write_text("my own")
    with pytest.raises(InputError, match="other files"):
        draw(tmp_path)
    with pytest.raises(InputError, match="is a file"):
        draw(mine)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.csv"]
    assert mine.read_text() == "my own"


def test_domains_differ_in_mean_colour():
    """The nevi of any two domains differ in the mean of red, green or blue (Welch's t-test)."""
    colours = {
        domain: [np.mean(render(Picture(domain, "nv", lesion, 0), 0, WIDTH)[0], axis=(0, 1)) for lesion in range(40)]
        for domain in TABLE1
    }
    for one, other in itertools.combinations(colours, 2):
        p = stats.ttest_ind(colours[one], colours[other], equal_var=False).pvalue
        assert p.min() < 0.001 / 21, (one, other, p)


def test_width_changes_the_resolution_but_not_the_content():
    for label in CLASSES:
        small, _ = render(Picture("HAM", label, 3, 0), seed=0, width=120)
        large, _ = render(Picture("HAM", label, 3, 0), seed=0, width=240)
        shrunk = np.asarray(large.resize(small.size, Image.Resampling.BOX), dtype=float)
        assert np.abs(shrunk - np.asarray(small)).mean() < 6, label


def test_views_of_a_lesion_share_its_colours():
    """Two views are different photographs, but on average closer than pictures of different lesions."""

    def colour(lesion: int, view: int) -> np.ndarray:
        image, _ = render(Picture("HAM", "nv", lesion, view), seed=0, width=64)
        return np.asarray(image)[16:32, 24:40].mean(axis=(0, 1))

    first = np.array([colour(lesion, 0) for lesion in range(40)])
    second = np.array([colour(lesion, 1) for lesion in range(40)])
    same = np.abs(first - second).sum(axis=1)
    different = np.abs(first - np.roll(second, 1, axis=0)).sum(axis=1)
    assert (same > 0).all()
    assert same.mean() < 0.8 * different.mean()


def test_classes_can_be_learnt_and_generalise_worse_to_other_domains():
    """A forest on simple features classifies HAM well above chance (1/7), and the other domains less well."""
    forest = RandomForestClassifier(300, random_state=0)
    forest.fit(*features_and_labels("HAM", range(50)))

    def recall(domain: str) -> float:
        features, labels = features_and_labels(domain, range(50, 65))
        return recall_score(labels, forest.predict(features), average="macro")

    own_domain = recall("HAM")
    other_domains = [recall(domain) for domain in ("DMF", "D7P", "MSK", "PH2")]
    assert 0.45 < own_domain < 0.95
    assert np.mean(other_domains) < own_domain - 0.1


def features_and_labels(domain: str, lesions: range) -> tuple[np.ndarray, np.ndarray]:
    pictures = [Picture(domain, label, lesion, 0) for label in CLASSES for lesion in lesions]
    features = [describe(np.asarray(render(picture, seed=0, width=64)[0])) for picture in pictures]
    return np.array(features), np.array([CLASSES.index(picture.label) for picture in pictures])


def describe(image: np.ndarray) -> np.ndarray:
    """Return moments and quantiles of the colours in the middle, relative to the mean of the picture."""
    height, width = image.shape[:2]
    middle = image[height // 3 : -height // 3, width // 3 : -width // 3].reshape(-1, 3).astype(float)
    around = image.reshape(-1, 3).mean(axis=0)
    quantiles = np.quantile(middle, (0.05, 0.25, 0.5, 0.75, 0.95), axis=0)
    return np.concatenate([(quantiles - around).ravel(), middle.std(axis=0), np.corrcoef(middle.T)[0, 1:]])
