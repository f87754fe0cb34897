"""What the compilers make of the kernels that multiply float32 features in parts: registers, spills, products."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

import pytest

from .nvcc import Compiled
from .test_resources import compile_once, disassemble

NAMES = {(name, parts) for name in ("coefficients", "gradients") for parts in (1, 2, 3)}
# Bytes that a kernel may store to local memory for want of registers, by nvcc 13.0; 0 for all others.
# 44. A thread keeps 64 products, 64 sums and, for a slab, 32 more.
SPILLS = {("coefficients", 3): 44}
# Products of parts: see parts.cuh.
PRODUCTS = {1: 1, 2: 3, 3: 6}


def name_of(mangled: str) -> tuple[str, int]:
    match = re.search(r"parts_(coefficients|gradients)_kernelI.*?PartsI.*?Li(\d)E", mangled)
    return match[1], int(match[2])


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """parts.cu."""
    return compile_once("parts", tmp_path_factory)


@pytest.fixture(scope="module")
def instructions(compiled: Compiled) -> dict[tuple[str, int], list[str]]:
    return {name_of(name): code for name, code in disassemble(compiled).items()}


def test_no_remark_of_the_compiler(compiled: Compiled) -> None:
    """It reports products that it cannot run at the same time as other work: then they are many times slower."""
    assert not re.search(r"\bC7\d\d\d\b|performance loss|serialized", compiled.report, re.IGNORECASE)


def test_registers(compiled: Compiled) -> None:
    """A block of three warpgroups fits, and values are spilled within limits."""
    kernels = {name_of(name): kernel for name, kernel in compiled.kernels().items()}
    assert kernels.keys() == NAMES
    for key, kernel in kernels.items():
        assert kernel.spilled <= SPILLS.get(key, 0), key
        assert -(-kernel.registers // 8) * 8 * 384 <= 65536, key


def test_products_of_coefficients(instructions) -> None:
    """Each slab has four steps of 16 values. Code for slabs beside pieces, and for all others."""
    slabs = {1: 8 + 1, 2: 8 + 1, 3: 2 + 1}
    for parts, count in slabs.items():
        code = instructions["coefficients", parts]
        multiplied = Counter(name.split(".")[1] for name in code if name.startswith("HGMMA"))
        assert multiplied == {"64x128x16": count * PRODUCTS[parts] * 4}, parts
        # With descriptors in each thread's registers, 8 to 12 instructions are between two products.
        places = [k for k, name in enumerate(code) if name.startswith("HGMMA")]
        between = sorted(b - a - 1 for a, b in pairwise(places))
        assert between[len(between) // 2] <= 5, parts


def test_products_of_gradients(instructions) -> None:
    """Four steps for a block of 64 rows, with coefficients as they are and transposed; for all columns and for half."""
    for parts in PRODUCTS:
        code = instructions["gradients", parts]
        multiplied = Counter(name.split(".")[1] for name in code if name.startswith("HGMMA"))
        columns = 128 if parts == 3 else 256
        blocks = 1 if parts == 3 else 2  # of a tile: the compiler unrolls the loop where there is one sum
        count = 2 * blocks * PRODUCTS[parts] * 4
        assert multiplied == {f"64x{columns}x16": count, f"64x{columns // 2}x16": count}, parts
