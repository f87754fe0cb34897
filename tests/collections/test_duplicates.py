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

from fastccsa.collections.duplicates import NEAR, Duplicates, find_duplicates, unite_groups
from fastccsa.collections.fingerprints import (
    FLAT,
    NOT_LOOKED_AT,
    UNREADABLE,
    Fingerprint,
    fingerprint,
    look_bits,
    perceptual_hash,
)
from fastccsa.data import fingerprints, split
from fastccsa.system.errors import InputError

WriteImage = Callable[..., Path]


def picture(seed: int, size: tuple[int, int] = (300, 200)) -> Image.Image:
    """Return a picture with detail at many scales, as photographs have."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size[1], size[0], 3))
    for cells in (3, 6, 12, 24):
        noise = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        total += np.asarray(noise.resize(size, Image.Resampling.BICUBIC), dtype=float) / cells
    return Image.fromarray((255 * (total - total.min()) / np.ptp(total)).astype(np.uint8))


def bits_apart(first: Image.Image, second: Image.Image) -> int:
    bits = look_bits([perceptual_hash(first), perceptual_hash(second)])
    return int((bits[0] != bits[1]).sum())


def test_the_hash_is_the_median_of_scipys_cosine_transform() -> None:
    fft = pytest.importorskip("scipy.fft")
    image = picture(0)
    grey = np.asarray(image.convert("L").resize((64, 64), Image.Resampling.LANCZOS), dtype=float)
    low = fft.dctn(grey, type=2)[:16, :16]
    # The scale of the rows and columns does not change a sign, but it does the median: undo scipy's, which is 2 x 2.
    expected = (low / 4 > np.median(low / 4)).ravel()
    assert look_bits([perceptual_hash(image)])[0].tolist() == expected.astype(int).tolist()


def test_a_picture_at_another_size_quality_and_brightness_is_near(tmp_path: Path) -> None:
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
        assert bits_apart(image, changed) <= NEAR


def test_other_pictures_are_far() -> None:
    assert min(bits_apart(picture(i), picture(j)) for i, j in combinations(range(12), 2)) > 3 * NEAR


def test_flat_and_broken_files(tmp_path: Path) -> None:
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
    with pytest.raises(InputError, match=r"cannot read the image .*none.png: No such file"):
        fingerprint([str(tmp_path / "none.png")], tmp_path / "cache.csv")


def test_only_changed_files_are_read_again(
    tmp_path: Path, write_image: WriteImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(write_image(tmp_path / f"{name}.jpg")) for name in "abc"]
    cache = tmp_path / "cache.csv"
    read: list[str] = []
    original = fingerprints._fingerprint
    monkeypatch.setattr(fingerprints, "_fingerprint", lambda path, look: read.append(path) or original(path, look))
    quick = fingerprint(paths, cache, look=False)
    assert [one.look for one in quick] == [NOT_LOOKED_AT] * 3
    whole = fingerprint(paths, cache)
    assert [one.content for one in whole] == [one.content for one in quick]
    assert sorted(read) == sorted(paths * 2)
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


def test_an_interrupted_run_keeps_what_it_did(
    tmp_path: Path, write_image: WriteImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [str(write_image(tmp_path / f"{name}.jpg")) for name in "abcdef"]
    cache = tmp_path / "cache.csv"
    original = fingerprints._fingerprint

    def interrupted(path: str, look: bool) -> Fingerprint:
        if path == paths[3]:
            raise KeyboardInterrupt
        return original(path, look)

    monkeypatch.setattr(fingerprints, "_fingerprint", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fingerprint(paths, cache, workers=1)
    lines = cache.read_text().splitlines()[1:]
    assert [line.split(",")[0] for line in lines] == paths[:3]


def test_pairs_are_those_of_a_plain_search() -> None:
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


def test_pairs_across_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    looks = [rng.bytes(32).hex() for _ in range(40)]
    looks += looks[:5]
    prints = [Fingerprint(f"{number:064}", look) for number, look in enumerate(looks)]
    whole = find_duplicates(prints).near
    monkeypatch.setattr("fastccsa.collections.duplicates._BLOCK", 7)
    assert find_duplicates(prints).near == whole == [(number, 40 + number) for number in range(5)]


def test_groups_of_duplicates_are_united_along_chains() -> None:
    table = pd.DataFrame({"group": ["d", "c", "b", "a", "x", "d"], "split": [""] * 6})
    united, duplicates = unite_groups(table, Duplicates(exact=[(0, 1)], near=[(1, 2), (2, 3)]))
    assert united["group"].tolist() == ["a", "a", "a", "a", "x", "a"]
    assert duplicates.torn == []
    assert table["group"].iloc[0] == "d"


def test_given_splits_stay_and_torn_pairs_are_told() -> None:
    table = pd.DataFrame({"group": list("abcd"), "split": ["train", "", "test", "test"]})
    united, duplicates = unite_groups(table, Duplicates(exact=[(0, 1), (1, 2), (2, 3)]))
    assert united["group"].tolist() == ["a", "a", "c", "c"]
    assert duplicates.torn == [(1, 2)]


def test_given_splits_hold_for_their_groups() -> None:
    rows = [("a", "x", "test"), ("b", "x", ""), ("c", "y", "")] + [(f"i{n}", f"g{n}", "") for n in range(20)]
    table = pd.DataFrame(rows, columns=["image", "group", "split"]).assign(label="nv", domain="A")
    done = split(table)
    assert done["split"].tolist()[:2] == ["test", "test"]
    assert set(done["split"]) == {"train", "validation", "test"}
    table.loc[1, "split"] = "train"
    with pytest.raises(InputError, match="group 'x' is given both to test and to train; choose one"):
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
def test_no_split_parts_duplicates_or_groups(images: Images, pairs: list[tuple[int, int]], random: object) -> None:
    """Whatever the groups, the duplicates and the given splits: what belongs together is, and order is nothing."""
    rows = [
        (f"{number:03}.png", label, domain, f"{group}{given}", given)
        for number, (domain, label, group, given) in enumerate(images)
    ]
    table = pd.DataFrame(rows, columns=["image", "label", "domain", "group", "split"])
    near = sorted({(min(i, j), max(i, j)) for i, j in pairs if i != j and max(i, j) < len(rows)})
    united, duplicates = unite_groups(table, Duplicates(near=near))
    done = split(united, seed=1)
    home = done["split"].tolist()
    assert (done.groupby("group")["split"].nunique() == 1).all()
    assert all(home[i] == home[j] for i, j in set(near) - set(duplicates.torn))
    given = table["split"] != ""
    assert (done["split"][given] == table["split"][given]).all()
    assert set(home) <= {"train", "validation", "test"}
    if not duplicates.torn:
        order = list(range(len(rows)))
        random.shuffle(order)
        where = {old: new for new, old in enumerate(order)}
        moved = [tuple(sorted((where[i], where[j]))) for i, j in near]
        again, _ = unite_groups(table.iloc[order].reset_index(drop=True), Duplicates(near=moved))
        assert split(again, seed=1).sort_values("image")["split"].tolist() == home
