from __future__ import annotations

import os
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance

from fastccsa.collections import fingerprints
from fastccsa.collections.duplicates import NEAR, Duplicates, find_duplicates, unite_groups
from fastccsa.collections.fingerprints import (
    FLAT,
    NOT_COMPUTED,
    UNREADABLE,
    Fingerprint,
    fingerprint,
    look_bits,
    perceptual_hash,
)
from fastccsa.collections.near import near_pairs
from fastccsa.collections.splits import split
from fastccsa.system.errors import InputError

WriteImage = Callable[..., Path]


def picture(seed: int, size: tuple[int, int] = (300, 200)) -> Image.Image:
    """Return a picture with detail at many scales, like a photograph."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size[1], size[0], 3))
    for cells in (3, 6, 12, 24):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        total += np.asarray(noise.resize(size, Image.Resampling.BICUBIC), dtype=float) / cells
    return Image.fromarray((255 * (total - total.min()) / np.ptp(total)).astype(np.uint8))


def distance(first: Image.Image, second: Image.Image) -> int:
    bits = look_bits([perceptual_hash(first), perceptual_hash(second)])
    return int((bits[0] != bits[1]).sum())


def test_the_hash_compares_scipys_cosine_transform_with_its_median() -> None:
    fft = pytest.importorskip("scipy.fft")
    image = picture(0)
    grey = np.asarray(image.convert("L").resize((64, 64), Image.Resampling.LANCZOS), dtype=float)
    low = fft.dctn(grey, type=2)[:16, :16]
    expected = (low > np.median(low)).ravel()  # SciPy's factor of 2 per axis cancels
    assert look_bits([perceptual_hash(image)])[0].tolist() == expected.astype(int).tolist()


def test_changes_of_size_quality_and_colour_keep_the_hash_close(tmp_path: Path) -> None:
    image = picture(1)
    image.save(tmp_path / "low.jpg", quality=40)
    for changed in (
        image.resize((150, 100)),
        image.resize((613, 407)),
        Image.open(tmp_path / "low.jpg"),
        ImageEnhance.Brightness(image).enhance(0.8),
        image.convert("L"),
        image.convert("P"),
    ):
        assert distance(image, changed) <= NEAR


def test_different_pictures_have_distant_hashes() -> None:
    assert min(distance(picture(i), picture(j)) for i, j in combinations(range(12), 2)) > 3 * NEAR


def test_flat_and_broken_files_have_no_hash(tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), (90, 80, 70)).save(tmp_path / "flat.jpg")
    picture(0).save(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:2000])
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "empty.png").touch()
    names = ["flat.jpg", "whole.jpg", "cut.jpg", "text.png", "empty.png"]
    prints = fingerprint([str(tmp_path / name) for name in names], tmp_path / "cache.csv")
    assert [prints[position].look for position in (0, 2, 3, 4)] == [FLAT, UNREADABLE, UNREADABLE, UNREADABLE]
    assert len(prints[1].look) == 64
    assert find_duplicates(prints) == Duplicates()
    assert fingerprint([str(tmp_path / "none.png")], tmp_path / "cache.csv") == [Fingerprint("", UNREADABLE)]
    masked = fingerprint([str(tmp_path / name) for name in names], None, look=False)
    assert [one.look for one in masked] == [NOT_COMPUTED] * 2 + [UNREADABLE] * 3
    # A decoder may be installed later.
    kept = (tmp_path / "cache.csv").read_text().splitlines()[1:]
    assert [Path(line.split(",")[0]).name for line in kept] == ["flat.jpg", "whole.jpg"]


def test_only_changed_files_are_read_again(
    tmp_path: Path, write_image: WriteImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(write_image(tmp_path / f"{name}.jpg")) for name in "abc"]
    cache = tmp_path / "cache.csv"
    read: list[str] = []
    original = fingerprints._fingerprint
    monkeypatch.setattr(fingerprints, "_fingerprint", lambda path: read.append(path) or original(path))
    quick = fingerprint(paths, cache, look=False)
    assert [one.look for one in quick] == [NOT_COMPUTED] * 3
    whole = fingerprint(paths, cache)
    assert [one.content for one in whole] == [one.content for one in quick]
    assert sorted(read) == sorted(paths)
    read.clear()
    assert fingerprint(paths, cache) == whole
    assert fingerprint(paths, cache, look=False) == quick
    assert not read
    write_image(tmp_path / "b.jpg", look="another")
    os.utime(tmp_path / "b.jpg", ns=(1, 1))
    changed = fingerprint(paths[::-1], cache)[::-1]
    assert read == [paths[1]]
    assert [one == before for one, before in zip(changed, whole, strict=True)] == [True, False, True]
    for damage in (b"\xff\xfe", b"image,bytes\n1,2\n", cache.read_bytes()[:-30]):
        cache.write_bytes(damage)
        assert fingerprint(paths, cache) == changed


def test_an_interrupted_run_keeps_its_fingerprints(
    tmp_path: Path, write_image: WriteImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(write_image(tmp_path / f"{name}.jpg")) for name in "abcdef"]
    cache = tmp_path / "cache.csv"
    original = fingerprints._fingerprint

    def interrupted(path: str) -> Fingerprint:
        if path == paths[3]:
            raise KeyboardInterrupt
        return original(path)

    monkeypatch.setattr(fingerprints, "_fingerprint", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fingerprint(paths, cache, workers=1)
    lines = cache.read_text().splitlines()[1:]
    assert [line.split(",")[0] for line in lines] == paths[:3]


def test_exact_and_near_pairs_are_found_up_to_the_limit() -> None:
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (60, 256), dtype=np.uint8)
    for copy, flips in ((50, 0), (51, 1), (52, NEAR), (53, NEAR + 1), (54, 60)):
        bits[copy] = bits[copy - 50]
        bits[copy, rng.choice(256, flips, replace=False)] ^= 1
    looks = [np.packbits(row).tobytes().hex() for row in bits]
    prints = [Fingerprint(f"{number % 58:064}", look) for number, look in enumerate(looks)]
    found = find_duplicates(prints)
    assert found.exact == [(0, 58), (1, 59)]
    assert found.near == [(0, 50), (1, 51), (2, 52)]


def test_pairs_across_blocks_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    looks = [rng.bytes(32).hex() for _ in range(40)]
    looks += looks[:5]
    prints = [Fingerprint(f"{number:064}", look) for number, look in enumerate(looks)]
    whole = find_duplicates(prints).near
    monkeypatch.setattr("fastccsa.collections.near._CHUNK", 7)
    assert find_duplicates(prints).near == whole == [(number, 40 + number) for number in range(5)]


@pytest.mark.parametrize(("width", "limit"), [(256, NEAR), (256, 0), (256, 7), (64, 10), (40, 39), (8, 8)])
def test_near_pairs_are_those_of_comparing_all_with_all(width: int, limit: int) -> None:
    rng = np.random.default_rng(width + limit)
    # Rows around a few centres, and constant columns, so that there are pairs on both sides of the limit.
    centres = rng.integers(0, 2, (12, width))
    bits = centres[rng.integers(0, 12, 300)] ^ (rng.random((300, width)) < rng.random((300, 1)) * limit / width)
    bits[:, ::5] = 1
    bits = bits.astype(np.uint8)
    distances = (bits[:, None] != bits[None]).sum(axis=2)
    expected = [(i, j) for i, j in combinations(range(300), 2) if distances[i, j] <= limit]
    assert expected or limit == 0
    assert near_pairs(bits, limit) == expected
    assert near_pairs(bits[:0], limit) == near_pairs(bits[:1], limit) == []


def test_groups_are_merged_along_chains_of_duplicates() -> None:
    table = pd.DataFrame({"group": ["d", "c", "b", "a", "x", "d"], "split": [""] * 6})
    united, duplicates = unite_groups(table, Duplicates(exact=[(0, 1)], near=[(1, 2), (2, 3)]))
    assert united["group"].tolist() == ["a", "a", "a", "a", "x", "a"]
    assert duplicates.separated == []
    assert table["group"].iloc[0] == "d"


def test_given_splits_are_kept_and_separated_pairs_are_listed() -> None:
    table = pd.DataFrame({"group": list("abcd"), "split": ["train", "", "test", "test"]})
    united, duplicates = unite_groups(table, Duplicates(exact=[(0, 1), (1, 2), (2, 3)]))
    assert united["group"].tolist() == ["a", "a", "c", "c"]
    assert duplicates.separated == [(1, 2)]


def test_given_splits_apply_to_the_whole_group() -> None:
    rows = [("a", "x", "test"), ("b", "x", ""), ("c", "y", "")] + [(f"i{n}", f"g{n}", "") for n in range(20)]
    table = pd.DataFrame(rows, columns=["image", "group", "split"]).assign(label="nv", domain="A")
    done = split(table)
    assert done["split"].tolist()[:2] == ["test", "test"]
    assert set(done["split"]) == {"train", "validation", "test"}
    table.loc[1, "split"] = "train"
    with pytest.raises(InputError, match="group 'x' is assigned to both test and train; choose one"):
        split(table)


Images = list[tuple[str, str, int, str]]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["A", "B"]),
            st.sampled_from(["nv", "mel", "df"]),
            st.integers(0, 15),
            st.sampled_from(["", "", "", "train", "test"]),
        ),
        min_size=2,
        max_size=40,
    ),
    st.lists(st.tuples(st.integers(0, 39), st.integers(0, 39)), max_size=15),
    st.randoms(use_true_random=False),
)
def test_splits_never_separate_duplicates_or_groups(
    images: Images, pairs: list[tuple[int, int]], random: object
) -> None:
    """For any groups, duplicates and given splits, what belongs together stays together, in any order of the rows."""
    rows = [
        (f"{number:03}.png", label, domain, f"{group}{given}", given)
        for number, (domain, label, group, given) in enumerate(images)
    ]
    table = pd.DataFrame(rows, columns=["image", "label", "domain", "group", "split"])
    near = sorted({(min(i, j), max(i, j)) for i, j in pairs if i != j and max(i, j) < len(rows)})
    united, duplicates = unite_groups(table, Duplicates(near=near))
    done = split(united, seed=1)
    splits = done["split"].tolist()
    assert (done.groupby("group")["split"].nunique() == 1).all()
    assert all(splits[i] == splits[j] for i, j in set(near) - set(duplicates.separated))
    given = table["split"] != ""
    assert (done["split"][given] == table["split"][given]).all()
    assert set(splits) <= {"train", "validation", "test"}
    if not duplicates.separated:
        order = list(range(len(rows)))
        random.shuffle(order)
        position = {old: new for new, old in enumerate(order)}
        moved = [tuple(sorted((position[i], position[j]))) for i, j in near]
        again, _ = unite_groups(table.iloc[order].reset_index(drop=True), Duplicates(near=moved))
        assert split(again, seed=1).sort_values("image")["split"].tolist() == splits
