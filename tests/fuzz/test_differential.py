"""The comparison of decoders at the size of a unit test; `differential.py` says how to run it in full."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from fastccsa.images.jpeg import decode_region

HERE = Path(__file__).parent
CHOICES = 5  # bytes before the file in an input of the fuzz target


@pytest.fixture(scope="module")
def differential():
    spec = importlib.util.spec_from_file_location("differential", HERE / "differential.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["differential"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["differential"]


@pytest.mark.filterwarnings("ignore")
def test_files_that_both_decoders_read_have_the_same_pixels(differential) -> None:
    ends, wrong = differential.run(400, seed=2)
    assert wrong == []
    assert ends["valid, decoded by both"] > 30
    assert ends["mutated, decoded by both"] > 40
    assert ends["mutated, refused by Pillow"] < 8


def test_the_corpus_of_the_fuzz_target_has_every_kind_of_file(differential) -> None:
    """Pixels like Pillow's where a file is read; RGB and progressive files are declined."""
    read = set()
    for file in (HERE / "corpus").iterdir():
        data = file.read_bytes()[CHOICES:]
        size, expected = differential.size_of(data), differential.pillow(data)
        made = decode_region(np.frombuffer(data, np.uint8), (0, 0, *size), size=size)
        assert made is None or np.array_equal(made, expected), file.name
        read |= {file.name} if made is not None else set()
    assert {file.name for file in (HERE / "corpus").iterdir()} - read == {"progressive", "rgb"}
