"""Processes that have used DALI end: neither its threads nor batches that were not collected keep them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LIMIT = 300  # seconds after which a process counts as hanging; it takes a few

TESTS = '''
import sys

import numpy as np
import pytest
import torch

sys.path.insert(0, {here!r})
from sample_images import make_manifest

from fastccsa.images import ImageLoader, Transforms
from fastccsa.images.dali import DaliBackend
from fastccsa.images.source import ImageSource
from fastccsa.sampling import ImageSampler

SMALL = Transforms(32)
kept = []


@pytest.fixture(scope="session")
def manifest(tmp_path_factory):
    return make_manifest(tmp_path_factory.mktemp("collection"))


def test_a_loader_that_is_left_in_the_middle_of_an_epoch(manifest):
    sampler = ImageSampler(manifest.labels, num_classes=3, batch_size=4)
    loader = ImageLoader(manifest, sampler, True, transforms=SMALL, backend="dali", num_threads=2)
    batches = loader.epoch(0)
    assert len(next(batches)["images"]) == 4
    kept.extend([loader, batches])


def test_a_pipeline_with_batches_that_nobody_collects(manifest):
    source = ImageSource(manifest.paths, manifest.labels, manifest.domain_indices)
    backend = DaliBackend(source, SMALL, torch.device("cpu"), "exact", batch_size=4, num_threads=2, prefetch=3)
    for _ in range(3):
        backend._submit(source.read(np.arange(4), SMALL.evaluation(4)))
    backend.itself = backend  # freed by the garbage collector only
    kept.append(backend)


def test_that_fails(manifest):
    """Its traceback keeps the loader."""
    sampler = ImageSampler(manifest.labels, num_classes=3, batch_size=4)
    loader = ImageLoader(manifest, sampler, True, transforms=SMALL, backend="dali", num_threads=2)
    assert next(loader.epoch(0)) is None
'''


@pytest.mark.parametrize("processes", [0, 2])
def test_a_process_of_pytest_ends(tmp_path: Path, processes: int) -> None:
    """With and without workers of pytest-xdist, although loaders and pipelines of DALI are left open."""
    pytest.importorskip("nvidia.dali")
    if processes:
        pytest.importorskip("xdist")
    (tmp_path / "test_dali.py").write_text(TESTS.format(here=str(Path(__file__).parent)))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_dali.py"]
    if processes:
        command += ["-n", str(processes)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 2 passed" in done.stdout
