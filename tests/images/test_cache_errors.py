"""Crops that cannot be kept are an error of their own kind, which `--cache auto` answers with another cache."""

from __future__ import annotations

import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fastccsa.images import store as store_module
from fastccsa.images.crop_file import CacheError
from fastccsa.images.store_backend import copy_crops


def test_memory_that_is_there_but_cannot_be_had_is_reported(monkeypatch) -> None:
    """As on a GPU whose free memory is in pieces."""

    def empty(*args, **kwargs):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB.\nSee ...")

    monkeypatch.setattr(torch, "empty", empty)
    store = SimpleNamespace(array=SimpleNamespace(shape=(3, 4, 4, 3)))
    message = r"the crops of 3 images do not fit into memory \(CUDA out of memory\. .*GiB\.\); use --cache disk or"
    with pytest.raises(CacheError, match=message):
        copy_crops(store, np.arange(3), torch.device("cpu"))


def test_a_store_that_cannot_be_written_is_reported(tmp_path) -> None:
    with pytest.raises(CacheError, match="the store of crops cannot be written"), store_module._reported(tmp_path):
        raise PermissionError(13, os.strerror(13))
