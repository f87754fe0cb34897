"""DALI on a GPU compared with DALI on the CPU: decoding, every transform, crops, stores, and broken files.

The CPU's pixels are compared with the literal composition in test_parity.py and test_store.py. The GPU's may differ by
one grey level, the rounding of a resampling.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sample_images import grey_levels, texture

pytest.importorskip("nvidia.dali")

from nvidia.dali import fn, pipeline_def
from nvidia.dali.types import DALIDataType

from fastccsa.collections.manifest import Manifest
from fastccsa.images import PairLoader, Transforms, Views, store_crops
from fastccsa.images import dali as dali_module
from fastccsa.images.dali import DaliBackend, DaliCrops, dali_errors
from fastccsa.images.source import EncodedBatch, ImageSource
from fastccsa.images.store import open_complete_store, open_store
from fastccsa.sampling import PairSampler

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)
SUBSAMPLING = {"4:4:4": 0, "4:2:2": 1, "4:2:0": 2}
SMALL = Transforms(64)


@pytest.fixture(scope="module", params=[*SUBSAMPLING, "grey"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ImageSource:
    """JPEGs of several sizes and qualities, with one kind of subsampling."""
    folder = tmp_path_factory.mktemp("jpegs")
    paths = []
    for number, (height, width) in enumerate([(150, 200), (451, 601), (333, 250), (97, 64), (900, 1200)]):
        image = texture(height, width, seed=number)
        options = {"quality": (70, 92, 85, 95, 90)[number]}
        if request.param == "grey":
            image = image.convert("L")
        else:
            options["subsampling"] = SUBSAMPLING[request.param]
        paths.append(str(folder / f"{number}.jpg"))
        image.save(paths[-1], **options)
    return ImageSource(paths, [0] * len(paths), [0] * len(paths))


def every_view(transforms: Transforms, count: int) -> Views:
    """Draw random windows and cutouts, with every combination of flips and quarter turns."""
    drawn = transforms.draw(3, 0, np.arange(count), stream=1)
    number = np.arange(count)
    return Views(drawn.window, np.stack([number & 1, number & 2], axis=1) > 0, number // 4 % 4, drawn.cutout)


def batch_of(source: ImageSource, views: Views) -> EncodedBatch:
    """Read a batch in which the files of the source repeat."""
    return source.read(np.arange(len(views)) % len(source.paths), views)


def make(
    device: torch.device, batch: EncodedBatch, source: ImageSource, transforms: Transforms, mode: str
) -> torch.Tensor:
    backend = DaliBackend(source, transforms, device, mode, batch_size=len(batch), num_threads=2, prefetch=1)
    ((_, images),) = backend.run(iter([batch]))
    assert images.device == device
    found = grey_levels(images, transforms).cpu()
    backend.close()
    return found


def make_crops(device: torch.device, source: ImageSource, transforms: Transforms) -> torch.Tensor:
    side, count = transforms.crop, len(source.paths)
    upright = transforms.evaluation(count)
    views = Views(np.tile(np.array([0, 0, side, side]), (count, 1)), upright.flips, upright.turns, upright.cutout)
    backend = DaliCrops(source, transforms, device, batch_size=count, num_threads=2, prefetch=1)
    ((_, crops),) = backend.run(iter([source.read(np.arange(count), views)]))
    assert crops.device.type == "cpu"
    assert crops.dtype == torch.uint8
    found = crops.clone()
    backend.close()
    return found


@pytest.mark.cuda
@pytest.mark.parametrize("mode", ["exact", "fused"])
@pytest.mark.parametrize("size", [64, 224])
def test_images_are_those_of_the_cpu(source: ImageSource, mode: str, size: int) -> None:
    transforms = Transforms(size)
    batch = batch_of(source, every_view(transforms, 32))
    difference = make(GPU, batch, source, transforms, mode) - make(CPU, batch, source, transforms, mode)
    assert difference.abs().max() < 1.01
    assert difference.abs().mean() < 0.1


@pytest.mark.cuda
def test_evaluation_images_are_those_of_the_cpu(source: ImageSource) -> None:
    batch = batch_of(source, SMALL.evaluation(5))
    difference = make(GPU, batch, source, SMALL, "exact") - make(CPU, batch, source, SMALL, "exact")
    assert difference.abs().max() < 1.01


@pytest.mark.cuda
@pytest.mark.parametrize("size", [64, 112])
def test_crops_are_those_of_the_cpu(source: ImageSource, size: int) -> None:
    transforms = Transforms(size)
    gpu, cpu = (make_crops(device, source, transforms).int() for device in (GPU, CPU))
    assert gpu.float().std() > 10
    assert (gpu - cpu).abs().max() <= 1


def regions_of(device: torch.device, contents: list[np.ndarray], region: list[int]) -> list[np.ndarray]:
    """Decode a region of each file as the backends do."""

    @pipeline_def(batch_size=len(contents), num_threads=2, device_id=device.index, prefetch_queue_depth=1)
    def graph() -> Any:
        encoded = fn.external_source(name="encoded", dtype=DALIDataType.UINT8, ndim=1)
        decode = fn.external_source(name="decode", dtype=DALIDataType.INT32, ndim=1)
        return dali_module._decode_regions(encoded, decode, "mixed" if device.type == "cuda" else "cpu")

    pipeline = graph(exec_dynamic=True)
    pipeline.build()
    pipeline.feed_input("encoded", contents)
    pipeline.feed_input("decode", np.tile(np.array(region, np.int32), (len(contents), 1)))
    pipeline.schedule_run()
    (images,) = pipeline.outputs()
    images = images if device.type == "cpu" else images.as_cpu()
    return [np.array(images.at(number)).astype(int) for number in range(len(contents))]


@pytest.mark.cuda
def test_decoded_regions_are_those_of_the_cpu(source: ImageSource) -> None:
    """Everything above is within a grey level only if the decoders are."""
    contents = [np.fromfile(path, np.uint8) for path in source.paths]
    gpu, cpu = (regions_of(device, contents, [11, 7, 80, 50]) for device in (GPU, CPU))
    for one, other in zip(gpu, cpu, strict=True):
        assert one.shape == other.shape == (80, 50, 3)
        assert np.abs(one - other).max() <= 1


@pytest.mark.cuda
def test_an_image_does_not_depend_on_its_batch(source: ImageSource) -> None:
    """The GPU's JPEG engine takes all images that it can decode, not a share of each batch."""
    views = every_view(SMALL, 40)
    whole = make(GPU, batch_of(source, views), source, SMALL, "fused")
    for row in (0, 1, 22, 39):
        alone = source.read(np.array([row % len(source.paths)]), views.take([row]))
        assert torch.equal(make(GPU, alone, source, SMALL, "fused")[0], whole[row])


@pytest.mark.cuda
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_exif_orientation_is_applied_before_the_crop(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "camera.jpg"
    texture(150, 200, seed=0).save(path, quality=92, exif=exif)
    source = ImageSource([str(path)], [0], [0])
    batch = batch_of(source, every_view(SMALL, 8))
    difference = make(GPU, batch, source, SMALL, "fused") - make(CPU, batch, source, SMALL, "fused")
    assert difference.abs().max() < 1.01


def files_of_all_kinds(folder: Path) -> list[str]:
    """Write files that the GPU does not decode itself: progressive and CMYK JPEGs, and others."""
    save: dict[str, Callable[[Image.Image, Path], None]] = {
        "progressive.jpg": lambda image, path: image.save(path, quality=90, progressive=True),
        "cmyk.jpg": lambda image, path: image.convert("CMYK").save(path, quality=90),
        "picture.png": lambda image, path: image.save(path),
        "palette.png": lambda image, path: image.quantize(64).save(path),
        "picture.bmp": lambda image, path: image.save(path),
        "lossy.webp": lambda image, path: image.save(path, quality=80),
        "picture.gif": lambda image, path: image.save(path),
        "restarts.jpg": lambda image, path: image.save(path, quality=90, restart_marker_blocks=7),
    }
    for number, (name, write) in enumerate(save.items()):
        write(texture(200, 260, seed=number), folder / name)
    return [str(folder / name) for name in save]


@pytest.mark.cuda
def test_files_that_the_gpu_does_not_decode_itself(tmp_path: Path) -> None:
    paths = files_of_all_kinds(tmp_path)
    source = ImageSource(paths, [0] * len(paths), [0] * len(paths))
    batch = batch_of(source, every_view(SMALL, 2 * len(paths)))
    difference = make(GPU, batch, source, SMALL, "exact") - make(CPU, batch, source, SMALL, "exact")
    assert difference.abs().amax(dim=(1, 2, 3)).tolist() == pytest.approx([0] * len(difference), abs=1.01)
    assert source.broken == {}
    gpu, cpu = (make_crops(device, source, SMALL).int() for device in (GPU, CPU))
    assert (gpu - cpu).abs().max() <= 1


@pytest.mark.cuda
def test_a_store_is_made_on_the_gpu(manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    devices = []

    class Recorded(DaliCrops):
        def __init__(self, source: ImageSource, transforms: Transforms, device: torch.device, **options: Any) -> None:
            devices.append(device)
            super().__init__(source, transforms, device, **options)

    monkeypatch.setattr(dali_module, "DaliCrops", Recorded)
    monkeypatch.setattr(store_crops, "_GPU_BATCH", 5)  # several batches, of which the last is smaller
    options = {"transforms": SMALL, "cache_dir": tmp_path / "gpu", "num_threads": 2}
    sampler = PairSampler(manifest.labels, manifest.domain_indices, num_classes=3, batch_size=4, seed=1)
    with PairLoader(manifest, sampler, device="cuda", cache="ram", **options) as loader:
        batches = list(loader.epoch(0))
    assert devices == [GPU]
    assert all(batch["images1"].isfinite().all() for batch in batches)
    source = ImageSource(manifest.paths, manifest.labels, manifest.domain_indices)
    assert open_complete_store(source, SMALL, tmp_path / "gpu", "dali") is not None
    gpu, cpu = (open_store(source, SMALL, tmp_path / name, "dali", verify=True) for name in ("gpu", "cpu"))
    assert devices == [GPU, CPU]  # the first is complete
    difference = np.abs(gpu.array[gpu.rows].astype(int) - cpu.array[cpu.rows].astype(int))
    assert difference.max() <= 1


@pytest.mark.cuda
def test_a_broken_file_costs_only_that_image(own_manifest: Manifest, tmp_path: Path) -> None:
    """It is found broken by the decoder, in the middle of a batch on the GPU."""
    path = Path(own_manifest.paths[4])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 3] + whole[-2:])  # complete by its end marker
    truncated = Path(own_manifest.paths[9])
    truncated.write_bytes(truncated.read_bytes()[:1000])
    stored = {}
    for device in (GPU, CPU):
        source = ImageSource(own_manifest.paths, own_manifest.labels, own_manifest.domain_indices)
        store = open_store(source, SMALL, tmp_path / device.type, "dali", device=device)
        assert str(truncated) in source.broken
        stored[device.type] = store.array[np.delete(store.rows, [4, 9])].astype(int)
    assert np.abs(stored["cuda"] - stored["cpu"]).max() <= 1


@pytest.mark.parametrize("late", [False, True])
def test_without_a_usable_gpu_the_crops_are_made_on_the_cpu(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, late: bool
) -> None:
    """The GPU fails when it is first used, or after a batch, of which nothing is lost."""

    def fail() -> None:
        with dali_errors(GPU):
            raise RuntimeError("CUDA driver\nversion is insufficient")

    class Fails(DaliCrops):
        def __init__(self, source: ImageSource, transforms: Transforms, device: torch.device, **options: Any) -> None:
            self.on_gpu = device.type == "cuda"
            if self.on_gpu and not late:
                fail()
            super().__init__(source, transforms, CPU, **options)

        def run(self, batches: Iterator[EncodedBatch]) -> Generator[tuple[EncodedBatch, torch.Tensor], None, None]:
            for number, made in enumerate(super().run(batches)):
                if self.on_gpu and number == 1:
                    fail()
                yield made

    monkeypatch.setattr(dali_module, "DaliCrops", Fails)
    monkeypatch.setattr(store_crops, "_GPU_BATCH", 5)
    source = ImageSource(manifest.paths, manifest.labels, manifest.domain_indices)
    with caplog.at_level(logging.WARNING):
        fallen_back = open_store(source, SMALL, tmp_path / "gpu", "dali", device=torch.device("cuda"))
    assert "DALI cannot use cuda:0 (CUDA driver version is insufficient); the crops are made on the CPU" in caplog.text
    on_cpu = open_store(source, SMALL, tmp_path / "cpu", "dali")
    assert np.array_equal(fallen_back.array[fallen_back.rows], on_cpu.array[on_cpu.rows])
