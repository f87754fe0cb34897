from __future__ import annotations

import sys
from pathlib import Path

import pytest

from fastccsa.collections.manifest import Manifest

sys.path.insert(0, str(Path(__file__).parent))  # where pipeline_images is; pytest's importlib mode adds nothing

from pipeline_images import make_manifest


@pytest.fixture(scope="session")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A collection that no test changes."""
    return make_manifest(tmp_path_factory.mktemp("collection"))


@pytest.fixture
def own_manifest(tmp_path: Path) -> Manifest:
    """A collection to break files of."""
    return make_manifest(tmp_path)
