"""Crops that cannot be kept are an error of their own kind, which `--cache auto` answers with another cache."""

from __future__ import annotations

import os
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fastccsa.images import store as store_module
from fastccsa.images import store_backend
from fastccsa.images.crop_file import CacheError, CropFile, DamagedCropsError
from fastccsa.images.store import Store
from fastccsa.images.store_backend import copy_crops

CPU = torch.device("cpu")


def test_memory_that_is_there_but_cannot_be_had_is_reported(monkeypatch) -> None:
    """As on a GPU whose free memory is in pieces."""

    def empty(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.\nSee ...")

    monkeypatch.setattr(torch, "empty", empty)
    store = SimpleNamespace(array=SimpleNamespace(shape=(3, 4, 4, 3)))
    message = r"the crops of 3 images do not fit into memory \(CUDA out of memory\. .*GiB\.\); use --cache disk or"
    with pytest.raises(CacheError, match=message):
        copy_crops(store, np.arange(3), CPU)


@pytest.mark.parametrize("device", [CPU, pytest.param(torch.device("cuda", 0), marks=pytest.mark.cuda)])
def test_crops_are_copied_in_the_order_of_their_rows_and_verified(tmp_path, monkeypatch, device) -> None:
    monkeypatch.setattr(store_backend, "_CHUNK", 4)
    crops = np.random.default_rng(0).integers(0, 256, (11, 5, 5, 3), np.uint8)
    (tmp_path / "crops.bin").write_bytes(crops.tobytes())
    sums = {row: zlib.crc32(crop) for row, crop in enumerate(crops)}
    store = Store(CropFile(tmp_path / "crops.bin", 11, 5), np.arange(11), sums)
    rows = np.array([7, 0, 10, 3, 1, 2, 9, 8, 4])
    with torch.inference_mode():  # only in this thread
        assert np.array_equal(copy_crops(store, rows, device).cpu().numpy(), crops[rows])
    sums[9], sums[2], sums[5] = 1, 2, 3  # of which row 5 is not used
    with pytest.raises(DamagedCropsError, match="2 of 9 crops are damaged"):
        copy_crops(store, rows, device)


def test_a_store_that_cannot_be_written_is_reported(tmp_path) -> None:
    with pytest.raises(CacheError, match="the store of crops cannot be written"), store_module._reported(tmp_path):
        raise PermissionError(13, os.strerror(13))
