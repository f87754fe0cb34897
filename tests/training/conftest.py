"""Every test of this folder runs on one thread."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread(one_thread) -> None:
    """Networks in this folder are too small for several threads."""


@pytest.fixture
def deterministic(monkeypatch):
    """Let GPUs compute the same bits in every run."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
