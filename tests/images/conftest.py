from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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


@pytest.fixture(scope="session")
def decode_with_dali() -> Callable[[np.ndarray], np.ndarray]:
    """Return DALI's decoder of a file's bytes, uint8 [n], to RGB."""
    from nvidia.dali import fn, pipeline_def
    from nvidia.dali.types import DALIDataType, DALIImageType

    @pipeline_def(batch_size=1, num_threads=1, device_id=None, prefetch_queue_depth=1)
    def graph() -> Any:
        encoded = fn.external_source(name="encoded", dtype=DALIDataType.UINT8, ndim=1)
        return fn.decoders.image(encoded, output_type=DALIImageType.RGB)

    pipeline = graph()

    def run(data: np.ndarray) -> np.ndarray:
        pipeline.feed_input("encoded", [data])
        pipeline.schedule_run()
        return np.array(pipeline.outputs()[0][0])

    return run
