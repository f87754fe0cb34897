"""Every test of this folder runs on one thread."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _one_thread(one_thread) -> None:
    """Networks in this folder are too small for several threads."""
