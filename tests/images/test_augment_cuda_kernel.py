"""The CUDA augmentation kernel, run in the emulator on the CPU and compared with the CPU kernel."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_images import texture

from fastccsa.images import Transforms
from fastccsa.images.augment import augment, pack_views

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
EMULATOR = HERE.parent / "emulator"

Run = Callable[..., None]


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Return the kernel and the emulator as a library."""
    compiler = shutil.which("g++")
    if compiler is None or not EMULATOR.exists():
        pytest.skip("g++ or the emulator is missing")
    library = tmp_path_factory.mktemp("kernel") / "augment.so"
    sources = [*sorted(EMULATOR.glob("*.cpp")), HERE / "run_augment_kernel.cpp"]
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas", "-fPIC", "-shared", "-pthread"]
    command = [
        compiler,
        *flags,
        f"-I{EMULATOR / 'include'}",
        f"-I{CSRC}",
        f"-I{HERE.parent}",
        *map(str, sources),
        "-o",
        str(library),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[:6000]
    return ctypes.CDLL(str(library))


@pytest.fixture(params=[1, 2048], ids=["tiles-in-groups", "single-tiles"])
def run(compiled: ctypes.CDLL, request: pytest.FixtureRequest) -> Run:
    """Return a function like `augment` with ``out`` that runs the CUDA kernel in the emulator.

    Where one block is enough, each takes as many tiles as it can.
    """

    def run(
        store: torch.Tensor,
        packed: torch.Tensor,
        transforms: Transforms,
        out: torch.Tensor,
        order: int = 0,
        processors: int = 1,
    ) -> None:
        sizes = [len(store), store.shape[1], len(out), out.shape[2], *out.stride(), order, processors, request.param]
        numbers = torch.tensor(sizes, dtype=torch.int64)
        scale = 1 / (255 * torch.tensor(transforms.std, dtype=torch.float64))
        shift = -torch.tensor(transforms.mean, dtype=torch.float64) / torch.tensor(transforms.std)
        fill = torch.tensor(transforms.fill) * scale + shift
        colours = torch.cat([scale, shift, fill]).float()
        pointers = [ctypes.c_void_p(t.data_ptr()) for t in (out, store, packed, numbers, colours)]
        assert compiled.run_augment(pointers[0], int(out.dtype == torch.bfloat16), *pointers[1:]) == 0

    return run


def make_store(transforms: Transforms, count: int = 3) -> torch.Tensor:
    crops = [np.asarray(texture(transforms.crop, transforms.crop, seed)) for seed in range(count)]
    return torch.from_numpy(np.stack(crops))


def every_symmetry(transforms: Transforms) -> torch.Tensor:
    """Return 16 random views that include all 8 symmetries."""
    packed = pack_views(np.arange(16) % 3, transforms.draw(6, 0, np.arange(16), 1))
    packed[:, 9] = torch.arange(16) % 8
    return packed


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("size", [64, 45, 8])
def test_the_cuda_kernel_equals_the_cpu_kernel(run: Run, size: int, dtype: torch.dtype, channels_last: bool) -> None:
    """Sizes with and without aligned rows, and images that tiles do not divide."""
    transforms = Transforms(size)
    store, packed = make_store(transforms), every_symmetry(transforms)
    expected = augment(store, packed, transforms, dtype, channels_last)
    images = torch.full_like(expected, float("nan"))
    run(store, packed, transforms, images)
    tolerance = 2**-6 if dtype == torch.bfloat16 else 1e-4  # rounding
    torch.testing.assert_close(images, expected, rtol=0, atol=tolerance)


def test_the_papers_size_equals_the_cpu_kernel(run: Run) -> None:
    transforms = Transforms()
    store, packed = make_store(transforms), every_symmetry(transforms)[4:6]
    images = torch.empty(2, 3, 224, 224)
    run(store, packed, transforms, images)
    torch.testing.assert_close(images, augment(store, packed, transforms), rtol=0, atol=1e-4)


@pytest.mark.parametrize(("side", "size"), [(3, 330), (330, 45), (350, 340)])
def test_images_larger_than_a_tile_equal_the_cpu_kernel(run: Run, side: int, size: int) -> None:
    transforms = Transforms(size)
    store = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, side, side, 3)).astype(np.uint8))
    packed = torch.tensor([[0, 0, 0, side, side, 1, 2, size - 3, 4, 5], [0, 1, 0, side - 1, side - 2, 0, 0, 0, 0, 2]])
    images = torch.empty(2, 3, size, size)
    run(store, packed, transforms, images)
    torch.testing.assert_close(images, augment(store, packed, transforms), rtol=0, atol=2e-4)


@pytest.mark.parametrize("offset", [0, 1, 2, 3])
@pytest.mark.parametrize("size", [6, 9, 12, 15])
def test_a_store_at_any_address_equals_the_cpu_kernel(run: Run, size: int, offset: int) -> None:
    """Rows of 8, 12, 16 and 20 pixels or other numbers; words at the end of the store are read byte by byte."""
    transforms = Transforms(8)
    object.__setattr__(transforms, "size", size)
    for side in (transforms.crop, transforms.crop + 1):
        count = 2 * side * side * 3
        memory = torch.from_numpy(np.random.default_rng(side).integers(0, 256, offset + count).astype(np.uint8))
        store = memory[offset:].view(2, side, side, 3)
        packed = torch.tensor(
            [[row, top, left, side - top, side - left, 0, 0, 0, 0, symmetry]
             for symmetry, (row, top, left) in enumerate([(0, 0, 0), (1, 0, 0), (1, 1, 2), (1, 2, 3), (0, 1, 1)])]
        )  # fmt: skip
        images = torch.empty(5, 3, size, size)
        run(store, packed, transforms, images)
        torch.testing.assert_close(images, augment(store, packed, transforms), rtol=0, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_tile_is_written_in_whole_or_value_by_value(run: Run, dtype: torch.dtype) -> None:
    """Images in aligned memory, and in memory where packs of 16 bytes would not be aligned, have the same bits."""
    transforms = Transforms(48)
    store, packed = make_store(transforms), every_symmetry(transforms)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        aligned = torch.empty((16, 3, 48, 48), dtype=dtype, memory_format=memory_format)
        run(store, packed, transforms, aligned)
        shifted = torch.empty(aligned.numel() + 1, dtype=dtype)[1:].as_strided(aligned.shape, aligned.stride(), 1)
        run(store, packed, transforms, shifted)
        assert torch.equal(aligned, shifted)


def test_any_strides_are_written_correctly(run: Run) -> None:
    transforms = Transforms(16)
    store, packed = make_store(transforms), every_symmetry(transforms)
    large = torch.full((32, 3, 16, 32), 7.0)
    run(store, packed, transforms, large[::2, :, :, ::2].transpose(2, 3))
    expected = augment(store, packed, transforms)
    torch.testing.assert_close(large[::2, :, :, ::2].transpose(2, 3), expected, rtol=0, atol=1e-4)
    assert (large[1::2] == 7).all()
    assert (large[..., 1::2] == 7).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tiles_that_begin_at_any_column(run: Run, dtype: torch.dtype) -> None:
    """The tiles have 121 and 120 columns, in rows that are padded to whole packs. A misaligned pack would crash."""
    transforms = Transforms(241)
    store = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 325, 325, 3)).astype(np.uint8))
    packed = torch.tensor([[0, 0, 0, 325, 325, 0, 0, 0, 0, 0]])
    images = torch.empty(1, 241, 248, 3, dtype=dtype)[:, :, :241].permute(0, 3, 1, 2)
    run(store, packed, transforms, images)
    tolerance = 2**-6 if dtype == torch.bfloat16 else 2e-4
    torch.testing.assert_close(images, augment(store, packed, transforms, dtype), rtol=0, atol=tolerance)


def test_a_view_out_of_bounds_gives_nan(run: Run) -> None:
    transforms = Transforms(16)
    store, good = make_store(transforms), every_symmetry(transforms)[:3]
    expected = augment(store, good, transforms)
    faults = [(0, 3), (0, -1), (1, -1), (2, 1 << 40), (3, 0), (4, 22), (5, -1), (7, 17), (9, 8), (9, -1)]
    for column, value in faults:
        bad = good.clone()
        bad[1, column] = value
        images = torch.zeros(3, 3, 16, 16)
        run(store, bad, transforms, images)
        assert images[1].isnan().all()
        torch.testing.assert_close(images[[0, 2]], expected[[0, 2]], rtol=0, atol=1e-4)


@pytest.mark.parametrize(("order", "processors"), [(1, 1), (2, 1), (2, 2)])
def test_the_order_of_threads_and_blocks_does_not_change_the_result(run: Run, order: int, processors: int) -> None:
    """This fails if a barrier is missing."""
    transforms = Transforms(40)
    store, packed = make_store(transforms), every_symmetry(transforms)
    forward, other = torch.empty(2, 16, 3, 40, 40)
    run(store, packed, transforms, forward)
    run(store, packed, transforms, other, order, processors)
    assert torch.equal(forward, other)
