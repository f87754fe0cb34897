from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fastccsa.collections.manifest import Manifest

sys.path.insert(0, str(Path(__file__).parent))  # for sample_images; pytest's importlib mode adds no paths

from sample_images import make_manifest


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A collection that no test may modify."""
    return make_manifest(tmp_path_factory.mktemp("collection"))


@pytest.fixture
def own_manifest(tmp_path: Path) -> Manifest:
    """A collection whose files a test may modify."""
    return make_manifest(tmp_path)
