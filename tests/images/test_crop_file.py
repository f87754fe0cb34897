"""Crops that are read from their file: the same images as from memory, and an error if the file is cut short."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from sample_images import texture

from fastccsa.collections.manifest import Manifest
from fastccsa.images import Transforms
from fastccsa.images.augment import augment, augment_file, pack_views
from fastccsa.images.crop_file import CropFile
from fastccsa.system.errors import InputError

COUNT = 24


@pytest.fixture(params=[64, 33])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Transforms, np.ndarray, CropFile]:
    transforms = Transforms(request.param)
    crops = np.stack([np.asarray(texture(transforms.crop, transforms.crop, seed)) for seed in range(5)])
    path = tmp_path / "crops.bin"
    path.write_bytes(crops.tobytes() + b"what another process appends")
    return transforms, crops, CropFile(path, 5, transforms.crop)


def test_rows_are_those_of_the_file(stored: tuple[Transforms, np.ndarray, CropFile]) -> None:
    _, crops, file = stored
    rows = np.array([3, 0, 0, 4])
    assert np.array_equal(file[rows], crops[rows])
    assert file.shape == crops.shape
    for row in (5, -1):
        with pytest.raises(IndexError):
            file[np.array([row])]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_images_from_the_file_equal_those_from_memory(
    stored: tuple[Transforms, np.ndarray, CropFile], dtype: torch.dtype
) -> None:
    transforms, crops, file = stored
    packed = pack_views(np.arange(COUNT) % 5, transforms.draw(4, 0, np.arange(COUNT), 1))
    out = torch.empty(COUNT, 3, transforms.size, transforms.size, dtype=dtype)
    found = augment_file(file, packed, transforms, out)
    assert found is out
    assert torch.equal(found, augment(torch.from_numpy(crops), packed, transforms, dtype))
    assert augment_file(file, packed[:0], transforms).shape == (0, 3, transforms.size, transforms.size)


def test_a_part_that_is_gone_is_an_error(stored: tuple[Transforms, np.ndarray, CropFile]) -> None:
    transforms, crops, file = stored
    packed = pack_views(np.arange(5), transforms.evaluation(5))
    os.truncate(file.path, 3 * crops[0].nbytes)
    augment_file(file, packed[:3], transforms)
    assert np.array_equal(file[np.arange(3)], crops[:3])
    for read in (lambda: augment_file(file, packed, transforms), lambda: file[np.arange(5)]):
        with pytest.raises(InputError, match=r"crops\.bin was cut short or damaged .* repeat the command"):
            read()


def test_rows_and_views_out_of_bounds_are_errors(stored: tuple[Transforms, np.ndarray, CropFile]) -> None:
    transforms, _, file = stored
    packed = pack_views(np.array([5]), transforms.evaluation(1))
    with pytest.raises(RuntimeError, match=r"rows\[0\] is 5, but the store has 5 crops"):
        augment_file(file, packed, transforms)
    with pytest.raises(RuntimeError, match="10 columns"):
        augment_file(file, packed[:, :9], transforms)


def test_the_file_is_closed(stored: tuple[Transforms, np.ndarray, CropFile]) -> None:
    *_, file = stored
    descriptor = file.fileno()
    file.close()
    with pytest.raises(InputError, match="is closed"):
        file[np.arange(1)]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    again = CropFile(file.path, 5, 4)
    descriptor = again.fileno()
    del again
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_the_op_passes_opcheck(stored: tuple[Transforms, np.ndarray, CropFile]) -> None:
    transforms, _, file = stored
    packed = pack_views(np.arange(2), transforms.draw(0, 0, np.arange(2), 1))
    arguments = (
        torch.empty(2, 3, transforms.size, transforms.size), file.fileno(), 5, transforms.crop, packed[:, 0],
        packed[:, 1:5], packed[:, 9], packed[:, 5:9], list(transforms.mean), list(transforms.std), [0.0] * 3,
    )  # fmt: skip
    # It cannot be traced: the file is no part of a graph, and its result is not a tensor.
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(torch.ops.fastccsa.augment_file_out.default, arguments, test_utils=checks)


def test_a_store_that_is_cut_short_while_a_loader_reads_it_ends_with_an_error(
    manifest: Manifest, tmp_path: Path
) -> None:
    """In another process, which a mapped file would end with SIGBUS."""
    manifest.write(tmp_path / "manifest.csv")
    program = """
        import os, sys
        from pathlib import Path
        from fastccsa.data import ImageLoader, Manifest, Transforms
        from fastccsa.sampling import ImageSampler
        from fastccsa.system.errors import InputError

        folder = Path(sys.argv[1])
        images = Manifest.read(folder / "manifest.csv")
        sampler = ImageSampler(images.labels, num_classes=len(images.classes), batch_size=4, shuffle=False)
        options = dict(augment=True, cache="disk", cache_dir=folder / "stores", backend="torchvision")
        with ImageLoader(images, sampler, transforms=Transforms(32), **options) as loader:
            assert len(list(loader.epoch(0))) == len(loader)
            (crops,) = folder.glob("stores/*/crops.bin")
            os.truncate(crops, crops.stat().st_size // 2)
            try:
                list(loader.epoch(1))
            except InputError as error:
                print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, (done.returncode, done.stderr)
    assert "crops.bin was cut short or damaged while it was used" in done.stdout
