"""The compiled libraries: which there are, what loading one reports, and arguments that do not fit the C types."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest

import fastccsa
from fastccsa.images import _jpeg
from fastccsa.sampling import _sampler
from fastccsa.system import native

LIBRARIES = {"images/libjpeg_regions.so", "ops/libfastccsa.so", "sampling/libsampler.so"}
TOO_LARGE = [-1, 2**64]


def test_no_library_is_built_for_one_version_of_python() -> None:
    """A module that an earlier build left there would be imported instead of the .py of its name: delete it."""
    package = Path(fastccsa.__file__).parent
    found = {path.relative_to(package).as_posix() for path in package.rglob("*.so*")}
    assert found == LIBRARIES
    for name in LIBRARIES:
        content = (package / name).read_bytes()
        assert b"libpython" not in content
        assert b"PyObject_" not in content


def test_a_library_that_was_not_built_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ImportError, match=r"compiled code is not there .*libnone\.so.*pip install"):
        native.load(str(tmp_path / "module.py"), "libnone.so", {})


def test_a_library_for_another_machine_is_reported(tmp_path: Path) -> None:
    (tmp_path / "libother.so").write_bytes(b"MZ for another machine")
    with pytest.raises(ImportError, match=r"libother\.so cannot be loaded \(.*reinstall"):
        native.load(str(tmp_path / "module.py"), "libother.so", {})


def test_reasons_become_errors() -> None:
    native.check(None)
    with pytest.raises(MemoryError):
        native.check(b"out of memory")
    with pytest.raises(ValueError, match="scale must be"):
        native.check(b"scale must be 1")


@pytest.mark.parametrize("array", [np.arange(5), np.arange(0), np.frombuffer(b"read-only", np.uint8)])
def test_addresses_are_those_of_numpy(array: np.ndarray) -> None:
    if array.size:
        assert native.address(array) == array.__array_interface__["data"][0]
    else:
        native.address(array)


@pytest.mark.parametrize("value", TOO_LARGE)
def test_numbers_that_c_would_cut_are_rejected(value: int) -> None:
    """ctypes takes the lowest bits of a number without a word."""
    sampler = _sampler.PairSampler(np.arange(4), 2, 2, 0, 0.5, True)
    with pytest.raises(ValueError, match="seed must be"):
        _sampler.permute(10, value, 0, 0, 10)
    with pytest.raises(ValueError, match="epoch"):
        _sampler.permute(10, 0, value, 0, 10)
    with pytest.raises(ValueError, match="seed must be"):
        sampler.pairs(value, 0, 0, 4)
    with pytest.raises(ValueError, match="lie in the epoch"):
        sampler.pairs(0, 0, 0, value)
    with pytest.raises(ValueError, match="seed must be"):
        _sampler.uniforms(value, 0, 0, [0], 1)
    with pytest.raises(ValueError, match="stream must be"):
        _sampler.uniforms(0, value, 0, [0], 1)
    with pytest.raises(ValueError, match="count must be"):
        _sampler.uniforms(0, 0, 0, [0], value)
    with pytest.raises(ValueError, match="must be"):
        _sampler.PairSampler(np.arange(4), value, 2, 0, 0.5, True)
    with pytest.raises(ValueError, match="not lie within the image"):
        _jpeg.read_codes(np.zeros(4, np.uint8), 0, 0, value, 1, 1)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda sampler: pickle.loads(pickle.dumps(sampler))])
def test_a_copy_draws_the_same_after_the_original_is_gone(duplicate) -> None:
    sampler = _sampler.PairSampler(np.arange(300) % 6, 3, 2, 1, 0.25, False)
    expected = [part.copy() for part in sampler.pairs(7, 2, 0, 300)]
    counts = sampler.counts()
    other = duplicate(sampler)
    del sampler
    np.testing.assert_array_equal(other.pairs(7, 2, 0, 300), expected)
    np.testing.assert_array_equal(other.counts(), counts)
    np.testing.assert_array_equal(counts, np.full((3, 2), 50))
