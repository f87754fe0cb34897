"""What the compilers make of the fused kernels: registers, spilled values, instructions of tensor cores."""

from __future__ import annotations

import os
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
from filelock import FileLock

from .nvcc import CSRC, HOPPER, Compiled, Kernel, compile_source

DTYPES = ("bfloat16", "half")
# Width, rows and columns of a tile. The names are those of C++'s shapes.
MMA = {
    "Mma64": (64, 64, 64), "Mma128": (128, 64, 64), "Mma256": (256, 64, 32),
    "Mma512Small": (512, 32, 32), "Mma512": (512, 64, 32), "Mma512Large": (512, 64, 64),
}  # fmt: skip
WGMMA = (128, 256, 512)
# Slabs of 64 values that stay (6: of features of more than 512 columns), the terms (of FusedTerms), and whether there
# are weights; and columns of gradients.
COEFFICIENTS = [(slabs, terms, weighted) for slabs in (6, 8) for terms in (2, 3) for weighted in (0, 1)]
GRADIENTS = (128, 256)
# The same for other GPUs: the kernels take any number of slabs, and 128 columns of gradients.
MMA_COEFFICIENTS = [(terms, weighted) for terms in (2, 3) for weighted in (0, 1)]
# Registers of the threads that compute, and of the other ones, and how many warps of both a block has: see
# take_registers() and give_registers().
TAKEN = {"coefficients": (112, 16, 32, 4), "gradients": (232, 8, 40, 4), "wgmma": (232, 8, 40, 4)}
REGISTERS_OF_PROCESSOR = 65536

# Bytes that a kernel may store to local memory for want of registers, by nvcc 13.0; 0 for all others.
SPILLS = {
    # 352 (bfloat16) and 360 (float16). A thread keeps 128 sums and 32 products in its 232 registers. What is stored
    # belongs to the whole pass and to pairs that are computed again; it is not touched between products.
    ("wgmma", 512): 384,
    # 304 (bfloat16) and 312 (float16); with both terms 204 and 224, and with weights 220 and 228. Four computing
    # warpgroups leave 112 registers, 64 of them for products. What is stored belongs to the whole run of tiles, and to
    # pieces with near pairs; of each piece of a tile, the places where it is read and stored are loaded again.
    ("coefficients", 8, 2, 0): 320,
    ("coefficients", 8, 2, 1): 320,
    ("coefficients", 8, 3, 0): 240,
    ("coefficients", 8, 3, 1): 240,
    # 404 of both types; with both terms 284 and 280, and with weights 296. The loop over slabs that do not stay has the
    # places of two stages besides, and loads its own place in the ring again for each slab.
    ("coefficients", 6, 2, 0): 424,
    ("coefficients", 6, 2, 1): 424,
    ("coefficients", 6, 3, 0): 320,
    ("coefficients", 6, 3, 1): 320,
    # 148 of both types. Two blocks of threads on a processor leave 128 registers, 64 of them for sums.
    ("mma", 256, 64, 32): 160,
    # 16 (bfloat16) and 0, for the same reason.
    ("mma", 128, 64, 64): 32,
    # 0 and 28 (float16), which also scales its coefficients. 128 registers are for sums, of at most 255.
    ("mma", 512, 64, 64): 40,
}


def key_of(mangled: str) -> tuple[object, ...]:
    pattern = r"\d+(?:fused_(\w+?)|((?:mma_)?(?:coefficients|gradients)|order_jobs))_kernelINS_\d+(bfloat16|half)E"
    fused, other, dtype = re.search(pattern, mangled).groups()
    return (dtype, fused or other, *(int(n) for n in re.findall(r"(?:Li|Lb|FusedTermsE)(\d+)E", mangled)))


def compile_once(name: str, tmp_path_factory: pytest.TempPathFactory, architecture: str = HOPPER) -> Compiled:
    """Compile a source of the fused kernels once for all workers; skip the test if there is no compiler."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with FileLock(folder / f"{name}-{architecture}.lock"):
        try:
            return compile_source(CSRC / f"all_pairs/cuda/fused/{name}.cu", architecture, folder)
        except FileNotFoundError as error:
            pytest.skip(str(error))


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """fused.cu."""
    return compile_once("fused", tmp_path_factory)


@pytest.fixture(scope="module")
def kernels(compiled: Compiled) -> dict[tuple[object, ...], Kernel]:
    """The report on each kernel by type and name: ``("half", "mma", 512, 64, 32)``; others have no sizes."""
    return {key_of(name): kernel for name, kernel in compiled.kernels().items()}


def disassemble(compiled: Compiled) -> dict[str, list[str]]:
    """Return the machine instructions of each kernel, without predicates and operands."""
    try:
        return compiled.instructions()
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def instructions(compiled: Compiled) -> dict[tuple[object, ...], list[str]]:
    """The machine instructions of each kernel."""
    return {key_of(name): code for name, code in disassemble(compiled).items()}


def test_no_remark_of_the_compiler(compiled: Compiled) -> None:
    """It reports products that it cannot run at the same time as other work: then they are many times slower."""
    assert not re.search(r"\bC7\d\d\d\b|performance loss|serialized", compiled.report, re.IGNORECASE)


def test_every_kernel_is_compiled(kernels) -> None:
    names = [("wgmma", width) for width in WGMMA] + [("mma", *shape) for shape in MMA.values()]
    names += [("coefficients", *sizes) for sizes in COEFFICIENTS] + [("gradients", columns) for columns in GRADIENTS]
    names += [("mma_coefficients", *sizes) for sizes in MMA_COEFFICIENTS] + [("mma_gradients",)]
    assert {(dtype, *name) for dtype in DTYPES for name in names} <= kernels.keys()


@pytest.mark.parametrize("architecture", [HOPPER, "80", "120"])
def test_registers_are_spilled_within_limits(architecture: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The kernels for Hopper are empty on other GPUs."""
    for mangled, kernel in compile_once("fused", tmp_path_factory, architecture).kernels().items():
        dtype, *name = key_of(mangled)
        assert kernel.spilled <= SPILLS.get(tuple(name), 0), (dtype, *name)


def test_registers_suffice_for_all_blocks_of_threads(kernels) -> None:
    """As many as are to run at the same time: two up to width 256, and one of three warpgroups on Hopper.

    Those that store coefficients elsewhere have four warps, and two of them run.
    """
    for (_, name, *sizes), kernel in kernels.items():
        in_warp = -(-kernel.registers // 8) * 8 * 32  # registers are given to warps in units of 8 per thread
        if name in TAKEN:
            computing, computing_warps, other, other_warps = TAKEN[name]
            warps, blocks = computing_warps + other_warps, 1
            taken = (computing * computing_warps + other * other_warps) * 32
            assert taken <= in_warp * warps, (name, sizes)  # what some give, others take
        elif name in ("mma_coefficients", "mma_gradients"):
            warps, blocks = 4, 2
        else:
            warps, blocks = 8, 1 if sizes and sizes[0] == 512 else 2
        assert in_warp * warps * blocks <= REGISTERS_OF_PROCESSOR, (name, sizes)


def test_only_small_kernels_reserve_shared_memory(kernels) -> None:
    """The main kernels' is allocated at the launch: its limits are asserted in launch.cuh."""
    for (_, name, *_), kernel in kernels.items():
        main = name in ("mma", "wgmma", "coefficients", "gradients", "mma_coefficients", "mma_gradients")
        assert kernel.shared == 0 if main else kernel.shared <= 8192, name


@pytest.mark.parametrize("architecture", [HOPPER, "80", "120"])
def test_four_blocks_of_the_augmentation_run_on_a_processor(architecture: str, tmp_path: Path) -> None:
    """They hide each other's waiting for memory. Only the kernels for many taps may spill a value or two."""
    try:
        kernels = compile_source(CSRC / "augment/cuda.cu", architecture, tmp_path).kernels()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert len(kernels) == 4  # of two dtypes, for few and many taps
    for name, kernel in kernels.items():
        assert kernel.spilled <= (0 if "Li3E" in name else 16), name
        assert kernel.registers * 256 * 4 <= REGISTERS_OF_PROCESSOR, name


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WGMMA)
def test_products_of_hopper(instructions, width: int, dtype: str) -> None:
    """Each step multiplies 16 columns: of the width in the first product, of a tile of 64 in the second."""
    code = instructions[dtype, "wgmma", width]
    counted = Counter(name.split(".")[1] for name in code if name.startswith("HGMMA"))
    # The first tile and the second; both groups multiply back both, and group 1 also tiles without a second one.
    expected = Counter({"64x64x16": 2 * width // 16})
    expected[f"64x{width // 2}x16"] += 5 * 64 // 16
    assert counted == expected
    assert not any(name.startswith("HMMA") for name in code)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", WGMMA)
def test_products_of_hopper_follow_each_other(instructions, width: int, dtype: str) -> None:
    """A step costs 5 instructions. With descriptors in each thread's registers it is 8 to 12, and products wait."""
    code = instructions[dtype, "wgmma", width]
    places = [k for k, name in enumerate(code) if name.startswith("HGMMA")]
    between = sorted(b - a - 1 for a, b in pairwise(places))
    # 9 products: the two halves of both first products, and 5 second ones.
    within = between[: len(between) - 8]
    assert within[len(within) // 2] <= 5
    assert within[-1] <= 8


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_of_kernels_that_store_coefficients(instructions, dtype: str) -> None:
    """Of coefficients: those of a tile, and sums of coefficients by row and, twice 8 at a time, by column."""
    for sizes in COEFFICIENTS:
        code = instructions[(dtype, "coefficients", *sizes)]
        multiplied = Counter(name.split(".")[1] for name in code if name.startswith("HGMMA"))
        # The products of slabs that do not stay are in a loop.
        assert multiplied == {"64x128x16": (sizes[0] + (sizes[0] < 8)) * 64 // 16}, sizes
        pieces = (2 if sizes[1] == 2 else 1) * (128 // 16 + 1)  # of each kind of tile; one code for near pairs
        counted = Counter(name.split(".")[0] for name in code)
        assert counted["HMMA"] == 3 * pieces
        assert counted["STSM"] == counted["LDSM"] == pieces
    for columns in GRADIENTS:
        code = instructions[dtype, "gradients", columns]
        multiplied = Counter(name.split(".")[1] for name in code if name.startswith("HGMMA"))
        # Four steps for each of two blocks of a tile, with coefficients as they are and transposed.
        assert multiplied == {f"64x{columns}x16": 2 * 2 * 4}


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_kernel_that_reads_columns_once(kernels, instructions, dtype: str) -> None:
    """Products in steps of 16: of the width for distances; of a tile of 64, in two parts, for gradients."""
    kernel = kernels[dtype, "streamed"]
    assert kernel.registers * 512 <= REGISTERS_OF_PROCESSOR
    # Of the warpgroups that compute coefficients and gradients, and of the copying one, by what they take and give.
    taken = 120 + 2 * 176 + 40
    assert taken <= 4 * kernel.registers
    code = instructions[dtype, "streamed"]
    multiplied = Counter(name.split(".")[1] for name in code if name.startswith("HGMMA"))
    assert multiplied == {"64x64x16": 512 // 16, "64x128x16": 2 * 64 // 16}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", MMA.values(), ids=MMA.keys())
def test_products_of_other_gpus(instructions, shape: tuple[int, int, int], dtype: str) -> None:
    """The instructions of one of 8 warps for a tile: 16 x 8 results and 16 columns each."""
    width, rows, columns = shape
    code = instructions[dtype, "mma", width, rows, columns]
    multiplied = sum(name.startswith("HMMA.16816.F32") for name in code)
    assert multiplied == 2 * (rows // 16) * (columns // 8) * (width // 16) // 8
    # They are loaded 4 at a time; each multiplies 2 or more.
    assert 0 < sum(name.startswith("LDSM.16.M") for name in code) < multiplied
    assert not any(name.startswith("HGMMA") for name in code)


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_of_other_gpus_that_store_coefficients(instructions, dtype: str) -> None:
    """A warp has 64 x 64 results, in two steps of 16 values for each slab: 32 products for 8 loads of factors."""
    slab, loads = 2 * 32, 2 * 8
    for terms, weighted in MMA_COEFFICIENTS:
        code = instructions[dtype, "mma_coefficients", terms, weighted]
        # Each sum of 16 rows x 16 columns is a product: in 8 pieces of two, and again for pieces with near pairs.
        sums = (2 if terms == 2 else 1) * (8 + 1) * 2
        assert sum(name.startswith("HMMA.16816.F32") for name in code) == slab + sums
        assert sum(name.startswith("LDSM.16.M") for name in code) == loads + 8  # the first ones of a tile
    code = instructions[dtype, "mma_gradients"]
    assert sum(name.startswith("HMMA.16816.F32") for name in code) == 2 * slab  # of each side
    loaded = Counter(name for name in code if name.startswith("LDSM.16.M"))
    # The second factor is transposed, and for the other side also the first.
    assert loaded == {"LDSM.16.MT88.4": 3 * (loads + 8) // 2, "LDSM.16.M88.4": (loads + 8) // 2}
