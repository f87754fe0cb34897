"""The store of crops: its contents, and its behaviour when files change, runs are killed or the disk is full."""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sample_images import texture

from fastccsa.collections.manifest import Manifest
from fastccsa.images import Transforms, store_index
from fastccsa.images import store as store_module
from fastccsa.images.decode import decode
from fastccsa.images.source import ImageSource
from fastccsa.images.store import Store, open_store
from fastccsa.images.torchvision_backend import centre_crop
from fastccsa.system.errors import InputError

SMALL = Transforms(32)
ROW = SMALL.crop**2 * 3


def source_of(manifest: Manifest, on_error: str = "replace") -> ImageSource:
    return ImageSource(manifest.paths, manifest.labels, manifest.domain_indices, on_error)


def make(manifest: Manifest, folder: Path, transforms: Transforms = SMALL, **options: object) -> Store:
    return open_store(source_of(manifest), transforms, folder, **{"backend": "dali", **options})


def only_store(folder: Path) -> Path:
    """Return the folder of the only store in ``folder``."""
    (one,) = folder.iterdir()
    return one


def crops(store: Store) -> np.ndarray:
    return np.array(store.array[store.rows])


def count_made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows with each crop made from now on."""
    made: list[str] = []
    original = store_module._Builder._keep

    def keep(self: object, entry: object, content: object, pixels: object, broken: object) -> None:
        made.append(str(broken or entry.row))  # type: ignore[attr-defined]
        original(self, entry, content, pixels, broken)  # type: ignore[arg-type]

    monkeypatch.setattr(store_module._Builder, "_keep", keep)
    return made


@pytest.mark.parametrize("backend", ["dali", "torchvision"])
@pytest.mark.parametrize("size", [32, 57])
def test_crops_equal_the_literal_ones(manifest: Manifest, tmp_path: Path, backend: str, size: int) -> None:
    """torchvision's crops are equal bit for bit; DALI's within a grey level, the rounding of one resampling."""
    transforms = Transforms(size)
    stored = crops(make(manifest, tmp_path, transforms, backend=backend))
    for path, crop in zip(manifest.paths, stored, strict=True):
        literal = np.asarray(centre_crop(decode(np.fromfile(path, np.uint8)), transforms)).astype(int)
        assert np.abs(literal - crop).max() <= (0 if backend == "torchvision" else 1)


@pytest.mark.parametrize("verify", [False, True])
def test_a_complete_store_is_opened_by_several_at_once(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verify: bool
) -> None:
    expected = crops(make(manifest, tmp_path))
    folder = only_store(tmp_path)
    before = {file.name: file.stat().st_mtime_ns for file in folder.iterdir()}
    taken, flock = [], fcntl.flock
    monkeypatch.setattr(fcntl, "flock", lambda file, kind: (taken.append(kind & ~fcntl.LOCK_NB), flock(file, kind))[1])
    np.testing.assert_array_equal(crops(make(manifest, tmp_path, verify=verify)), expected)
    assert taken == [fcntl.LOCK_SH]
    assert {file.name: file.stat().st_mtime_ns for file in folder.iterdir()} == before
    damage = np.fromfile(folder / "crops.bin", np.uint8)
    damage[5] ^= 1
    times = (folder / "crops.bin").stat().st_atime_ns, (folder / "crops.bin").stat().st_mtime_ns
    damage.tofile(folder / "crops.bin")
    os.utime(folder / "crops.bin", ns=times)  # damage of the disk, which leaves the time as it was
    assert np.array_equal(crops(make(manifest, tmp_path, verify=verify)), expected) is verify


def test_no_crop_is_made_twice(manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = count_made(monkeypatch)
    first = crops(make(manifest, tmp_path))
    assert len(made) == len(manifest)
    again = make(manifest, tmp_path)
    assert len(made) == len(manifest)
    assert np.array_equal(first, crops(again))
    # A subset of the manifest in another order uses the same store.
    subset = make(manifest.take([5, 2, 17]), tmp_path)
    assert len(made) == len(manifest)
    assert np.array_equal(crops(subset), first[[5, 2, 17]])


def test_a_store_grows_with_new_images(manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = count_made(monkeypatch)
    subset = make(manifest.take(range(9)), tmp_path)
    before = crops(subset)
    whole = crops(make(manifest, tmp_path))
    assert len(made) == len(manifest)
    assert np.array_equal(whole[:9], before)
    assert np.array_equal(crops(subset), before)  # other users of the store are not affected


def test_the_array_has_one_row_per_image_on_the_disk(manifest: Manifest, tmp_path: Path) -> None:
    make(manifest, tmp_path)
    assert (only_store(tmp_path) / "crops.bin").stat().st_size == len(manifest) * ROW


@pytest.mark.parametrize("same_size", [False, True])
def test_only_the_crop_of_a_changed_file_is_made_again(
    own_manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, same_size: bool
) -> None:
    folder = tmp_path / "cache"
    old_store = make(own_manifest, folder)
    old = crops(old_store)
    made = count_made(monkeypatch)
    path = Path(own_manifest.paths[3])
    before = path.read_bytes()
    texture(243, 321, seed=99).save(path, quality=90)
    if same_size:  # bytes after the end of a JPEG are ignored
        changed = path.read_bytes()
        size = max(len(before), len(changed))
        path.write_bytes(before.ljust(size, b"\0"))
        old_store = make(own_manifest, folder)
        made.clear()
        path.write_bytes(changed.ljust(size, b"\0"))
    new = crops(make(own_manifest, folder))
    assert len(made) == 1
    assert np.array_equal(np.flatnonzero((old != new).any(axis=(1, 2, 3))), [3])
    literal = np.asarray(centre_crop(decode(np.fromfile(path, np.uint8)), SMALL)).astype(int)
    assert np.abs(new[3] - literal).max() <= 1
    assert np.array_equal(crops(old_store), old)  # users of the old row are not affected


def test_the_crop_of_a_touched_file_is_not_made_again(
    own_manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(own_manifest, tmp_path / "cache")
    made = count_made(monkeypatch)
    os.utime(own_manifest.paths[3], (1, 1))
    make(own_manifest, tmp_path / "cache")
    assert made == []
    monkeypatch.setattr(store_index, "checksum", lambda path: pytest.fail("the checksum was computed twice"))
    make(own_manifest, tmp_path / "cache")


def test_each_combination_of_settings_has_its_own_store(manifest: Manifest, tmp_path: Path) -> None:
    small = crops(make(manifest, tmp_path))
    large = crops(make(manifest, tmp_path, Transforms(48)))
    torchvision = crops(make(manifest, tmp_path, backend="torchvision"))
    assert len(list(tmp_path.iterdir())) == 3
    assert large.shape[1] == Transforms(48).crop
    assert small.shape == torchvision.shape
    # Settings that do not affect the crops share a store.
    make(manifest, tmp_path, Transforms(32, scale=(0.5, 1.0), mean=(0, 0, 0)))
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize("damage", ["a flipped bit", "truncated", "deleted"])
def test_damaged_crops_are_made_again(
    manifest: Manifest,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    damage: str,
) -> None:
    whole = crops(make(manifest, tmp_path))
    array = only_store(tmp_path) / "crops.bin"
    if damage == "deleted":
        array.unlink()
    else:
        content = bytearray(array.read_bytes())
        content[4 * ROW + 5] ^= 1
        array.write_bytes(content[: 20 * ROW + 7] if damage == "truncated" else content)
    made = count_made(monkeypatch)
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(crops(make(manifest, tmp_path)), whole)
    assert len(made) == {"a flipped bit": 1, "truncated": 3, "deleted": len(manifest)}[damage]
    assert f"{len(made)} of {len(manifest)} crops are damaged" in caplog.text


def test_damage_without_a_new_modification_time_is_found_with_verify(manifest: Manifest, tmp_path: Path) -> None:
    whole = crops(make(manifest, tmp_path))
    array = only_store(tmp_path) / "crops.bin"
    stat = array.stat()
    with open(array, "r+b") as file:
        file.write(b"\xff\x00\xff\x00")
    os.utime(array, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert not np.array_equal(crops(make(manifest, tmp_path)), whole)
    assert np.array_equal(crops(make(manifest, tmp_path, verify=True)), whole)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"settings": {}}', b"\xff\xfe"])
def test_an_unreadable_index_is_rebuilt(manifest: Manifest, tmp_path: Path, content: bytes) -> None:
    whole = crops(make(manifest, tmp_path))
    (only_store(tmp_path) / "index.json").write_bytes(content)
    assert np.array_equal(crops(make(manifest, tmp_path)), whole)


def test_broken_images_are_named_and_added_once_repaired(
    own_manifest: Manifest, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = Path(own_manifest.paths[7])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    folder = tmp_path / "cache"
    for _ in range(2):
        source = source_of(own_manifest)
        caplog.clear()
        stored = open_store(source, SMALL, folder, "dali")
        assert list(source.broken) == [str(path)]
        assert str(path) in caplog.text
        assert stored.rows[7] == -1
        assert source.shown()[7] == 13  # the next of its class and domain
    index = json.loads((only_store(folder) / "index.json").read_text())
    assert index["entries"][str(path)]["broken"] == source.broken[str(path)]
    with pytest.raises(InputError, match="image07"):
        open_store(source_of(own_manifest, "raise"), SMALL, folder, "dali")
    path.write_bytes(whole)
    source = source_of(own_manifest)
    assert open_store(source, SMALL, folder, "dali").rows[7] >= 0
    assert source.broken == {}


def test_a_full_disk_is_reported_before_crops_are_made(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    made = count_made(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(os, "posix_fallocate", full)
        with pytest.raises(InputError, match=r"crops of 22 images need .* GB are free; .*cache_dir"):
            make(manifest, tmp_path)
    assert made == []
    with monkeypatch.context() as patch:  # the disk fills up while crops are made
        patch.setattr(os, "pwrite", full)
        with pytest.raises(InputError, match="No space left on device"):
            make(manifest, tmp_path)
    make(manifest, tmp_path)


def test_an_unwritable_folder_is_reported(manifest: Manifest, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="store of crops cannot be written"):
        make(manifest, tmp_path / "file")


@pytest.mark.parametrize("name", ["lock", "crops.bin"])
@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_link_in_a_shared_cache_does_not_reach_another_file(
    manifest: Manifest, tmp_path: Path, name: str, link: Callable[[Path, Path], None]
) -> None:
    """Crops written through the link would overwrite the file, and opening the lock to write would empty it."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious" * 1000)
    make(manifest, tmp_path / "cache")
    linked = only_store(tmp_path / "cache") / name
    linked.unlink()
    link(victim, linked)
    with pytest.raises(InputError, match=rf"{name} is a (hard )?link.*: remove it"):
        make(manifest, tmp_path / "cache")
    assert victim.read_bytes() == b"precious" * 1000
    linked.unlink()
    make(manifest, tmp_path / "cache")


def test_a_linked_index_is_replaced_and_its_target_stays(manifest: Manifest, tmp_path: Path) -> None:
    make(manifest, tmp_path / "cache")
    victim, index = tmp_path / "victim", only_store(tmp_path / "cache") / "index.json"
    victim.write_text("precious")
    index.unlink()
    index.symlink_to(victim)
    make(manifest, tmp_path / "cache")
    assert victim.read_text() == "precious"
    assert not index.is_symlink()


def test_a_fifo_in_place_of_the_lock_is_named_at_once(manifest: Manifest, tmp_path: Path) -> None:
    make(manifest, tmp_path)
    lock = only_store(tmp_path) / "lock"
    lock.unlink()
    os.mkfifo(lock)
    with pytest.raises(InputError, match="lock is not a regular file: remove it"):
        make(manifest, tmp_path)


# Builds a store slowly enough to be killed halfway, and writes the index after every image.
PROGRAM = """
    import sys, time
    import pandas as pd
    from fastccsa.collections.manifest import Manifest
    from fastccsa.images import Transforms, store, store_crops
    from fastccsa.images.source import ImageSource

    store._CHECKPOINT_SECONDS, store._CHECKPOINT_SHARE, store_crops._BATCH = 0.0, 1e9, 2
    keep = store._Builder._keep
    def slowly(self, *arguments):
        keep(self, *arguments)
        print("made", flush=True)
        time.sleep({delay})
    store._Builder._keep = slowly
    source = ImageSource({paths!r}, [0] * {count}, [0] * {count})
    print("begun", flush=True)
    store.open_store(source, Transforms(32), {folder!r}, "torchvision", 1)
    print("done", flush=True)
"""


def start(manifest: Manifest, folder: Path, delay: float = 0.004) -> subprocess.Popen[str]:
    """Build a store in another process."""
    text = textwrap.dedent(PROGRAM).format(paths=manifest.paths, count=len(manifest), folder=str(folder), delay=delay)
    text = text.replace(repr(str(folder)), f"__import__('pathlib').Path({str(folder)!r})")
    return subprocess.Popen([sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_build_killed_at_random_moments_resumes_to_the_same_bytes(manifest: Manifest, tmp_path: Path) -> None:
    make(manifest, tmp_path / "whole", backend="torchvision")
    expected = (only_store(tmp_path / "whole") / "crops.bin").read_bytes()
    rng = random.Random(5)
    killed = 0
    for _ in range(3):
        process = start(manifest, tmp_path / "killed")
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        for _ in range(rng.randrange(1, 7)):
            process.stdout.readline()
        time.sleep(0.006 * rng.random())
        process.send_signal(signal.SIGKILL)
        output, errors = process.communicate()
        assert "Traceback" not in errors
        killed += "done" not in output
    assert killed == 3
    folder = only_store(tmp_path / "killed")
    index = json.loads((folder / "index.json").read_text())
    assert 0 < sum(entry["pixels"] is not None for entry in index["entries"].values()) < len(manifest)
    make(manifest, tmp_path / "killed", backend="torchvision")
    assert (folder / "crops.bin").read_bytes() == expected
    assert sorted(path.name for path in folder.iterdir()) == ["crops.bin", "index.json", "lock"]


def test_of_two_concurrent_builds_one_makes_the_crops(manifest: Manifest, tmp_path: Path) -> None:
    make(manifest, tmp_path / "whole", backend="torchvision")
    expected = (only_store(tmp_path / "whole") / "crops.bin").read_bytes()
    both = [start(manifest, tmp_path / "shared", delay=0.02) for _ in range(2)]
    outputs = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert sorted(output.count("made") for output, _ in outputs) == [0, len(manifest)]
    assert all(output.endswith("done\n") for output, _ in outputs)
    assert (only_store(tmp_path / "shared") / "crops.bin").read_bytes() == expected
