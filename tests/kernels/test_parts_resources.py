"""What the compilers make of the kernels that multiply float32 features in parts: registers, and spilled values."""

from __future__ import annotations

import re

import pytest

from .test_resources import compile_once

NAMES = {(name, parts) for name in ("coefficients", "gradients") for parts in (1, 2, 3)}
# Bytes that a kernel may store to local memory for want of registers, by nvcc 13.0; 0 for all others.
# 44. A thread keeps 64 products, 64 sums and, for a slab, 32 more.
SPILLS = {("coefficients", 3): 48}


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The compiler's report on parts.cu."""
    return compile_once("parts", tmp_path_factory).report


def test_no_remark_of_the_compiler(report: str) -> None:
    """It reports products that it cannot run at the same time as other work: then they are many times slower."""
    assert not re.search(r"\bC7\d\d\d\b|performance loss|serialized", report, re.IGNORECASE)


def test_registers(report: str) -> None:
    """A block of three warpgroups fits, and values are spilled within limits."""
    found = set()
    for block in report.split("Compiling entry function '")[1:]:
        match = re.search(r"parts_(coefficients|gradients)_kernelI.*?PartsI.*?Li(\d)E", block.split("'", 1)[0])
        key = match[1], int(match[2])
        (registers,), (spilled,) = (
            re.findall(r"Used (\d+) registers", block),
            re.findall(r"(\d+) bytes spill stores", block),
        )
        found.add(key)
        assert int(spilled) <= SPILLS.get(key, 0), key
        assert -(-int(registers) // 8) * 8 * 384 <= 65536, key
    assert found == NAMES
