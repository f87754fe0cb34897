"""Endless streams of batches on the device: fastccsa, other libraries used as in their documentation, and floors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_image, decode_jpeg, read_file
from torchvision.transforms import v2

from benchmarks.harness.benchmark import CannotRun
from benchmarks.harness.results import FLOOR, OURS, RIVAL
from benchmarks.images.files import Files
from fastccsa._build_info import CUDA_VERSION
from fastccsa.images import ImageLoader, Transforms, jpeg
from fastccsa.images.readahead import read_ahead
from fastccsa.images.transforms import find_regions, find_scales
from fastccsa.sampling import ImageSampler

LENGTH = 1 << 14  # of an epoch of torchvision's dataset
BEYOND_CACHES = 1 << 28  # bytes

Stream = Iterator[Tensor]


class Job(NamedTuple):
    """What is to be streamed: batches of so many images of the files, with this many threads."""

    files: Files
    batch: int
    threads: int
    device: torch.device
    transforms: Transforms = Transforms()


Start = Callable[[Job], Stream]


# ---- fastccsa ----


def loader(**settings: Any) -> Start:
    """Use `ImageLoader` with some settings; stores are kept next to the files, and making them is not timed."""

    def stream(job: Job) -> Stream:
        device = torch.device(settings.get("device", job.device))
        if settings.get("cache") == "gpu" and (device.type != "cuda" or not CUDA_VERSION):
            raise CannotRun("needs a GPU and a build with CUDA code")
        manifest = job.files.manifest()
        sampler = ImageSampler(manifest.labels, num_classes=1, batch_size=job.batch)
        options = {
            "device": device,
            "num_threads": job.threads,
            "cache_dir": job.files.folder / "stores",
            "transforms": job.transforms,
            **settings,
        }
        with ImageLoader(manifest, sampler, True, **options) as images:
            for epoch in itertools.count():
                for made in images.epoch(epoch):
                    yield made["images"]

    return stream


# ---- rivals ----


class Pictures(Dataset[Tensor]):
    """Images with the paper's transforms, composed as in the documentation of torchvision.transforms.v2."""

    def __init__(self, job: Job, tensors: bool, augment: bool = True) -> None:
        self._paths, self._tensors = job.files.paths, tensors
        self._transform = v2.Compose(steps(job.transforms, tensors) if augment else fixed_steps(job.transforms))

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> Tensor:
        path = str(self._paths[index % len(self._paths)])
        if self._tensors:
            return self._transform(decode_image(path, ImageReadMode.RGB))
        with Image.open(path) as image:
            return self._transform(image.convert("RGB"))


def fixed_steps(transforms: Transforms) -> list[Any]:
    """Return the paper's transforms that are the same in every epoch."""
    return [v2.Resize((transforms.resize,) * 2, antialias=True), v2.CenterCrop(transforms.crop)]


def steps(transforms: Transforms, tensors: bool) -> list[Any]:
    """Return all of the paper's transforms."""
    return [*fixed_steps(transforms), *augmentation(transforms, tensors)]


def augmentation(transforms: Transforms, tensors: bool) -> list[Any]:
    """Return the paper's random transforms for tensors or PIL images, and the normalisation."""
    return [
        v2.RandomResizedCrop(transforms.size, transforms.scale, transforms.ratio, antialias=True),
        v2.RandomHorizontalFlip(),
        v2.RandomVerticalFlip(),
        v2.RandomChoice([v2.RandomRotation((angle, angle)) for angle in (0, 90, 180, 270)]),
        *([] if tensors else [v2.PILToTensor()]),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(transforms.mean, transforms.std),
        v2.RandomErasing(1.0, scale=((transforms.cutout / transforms.size) ** 2,) * 2, ratio=(1.0, 1.0)),
    ]


def torchvision(tensors: bool, augment: bool = True) -> Start:
    """Use torchvision on tensors from its decoder, or on PIL images, in a DataLoader with one worker per thread."""

    def stream(job: Job) -> Stream:
        pictures, pinned = Pictures(job, tensors, augment), job.device.type == "cuda"
        loader = DataLoader(pictures, job.batch, num_workers=job.threads, pin_memory=pinned)
        while True:
            for images in loader:
                yield images.to(job.device, non_blocking=True)

    return stream


def torchvision_gpu(job: Job) -> Stream:
    """Decode batches with torchvision's decoder on the GPU, and transform its images there one by one."""
    if job.device.type != "cuda":
        raise CannotRun("needs a GPU")
    transform = v2.Compose(steps(job.transforms, tensors=True))
    paths = [str(path) for path in job.files.paths]

    def read(start: int) -> list[Tensor]:
        return [read_file(paths[number % len(paths)]) for number in range(start, start + job.batch)]

    with ThreadPoolExecutor(job.threads) as readers:
        for contents in read_ahead(read, itertools.count(0, job.batch), readers, 2):
            try:
                images = decode_jpeg(contents, ImageReadMode.RGB, device=job.device)
            except RuntimeError as error:
                reason = str(error).strip().partition("\n")[0]
                raise CannotRun(f"torchvision cannot decode on this GPU: {reason}") from error
            yield torch.stack([transform(image) for image in images])


def kornia(job: Job) -> Stream:
    """Augment whole batches on the device with kornia; torchvision's workers decode, resize and crop the images."""
    try:
        import kornia.augmentation as K
    except ImportError:
        raise CannotRun("kornia is not installed (pip install kornia)") from None
    if job.device.type != "cuda":
        raise CannotRun("kornia is measured where it is meant to run, on a GPU")
    T = job.transforms
    augment = torch.nn.Sequential(
        K.RandomResizedCrop((T.size, T.size), scale=T.scale, ratio=T.ratio),
        K.RandomHorizontalFlip(),
        K.RandomVerticalFlip(),
        K.RandomRotation90((0, 3), p=1.0),
        K.Normalize(torch.tensor(T.mean), torch.tensor(T.std)),
        K.RandomErasing(scale=((T.cutout / T.size) ** 2,) * 2, ratio=(1.0, 1.0), p=1.0),
    ).to(job.device)
    for images in torchvision(tensors=True, augment=False)(job):
        yield augment(images.float() / 255)


def dali(job: Job) -> Stream:
    """Use DALI as in its documentation's ImageNet example: it decodes whole images, and each step is an operator."""
    try:
        from nvidia.dali import fn
        from nvidia.dali.pipeline import pipeline_def
        from nvidia.dali.types import DALIDataType, DALIImageType
    except ImportError:
        raise CannotRun("DALI is not installed (pip install nvidia-dali-cuda130)") from None
    gpu, T = job.device.type == "cuda", job.transforms
    settings: dict[str, Any] = {"device_id": (job.device.index or 0) if gpu else None, "exec_dynamic": True}

    @pipeline_def(batch_size=job.batch, num_threads=job.threads, **settings)
    def pipeline() -> Any:
        paths = [str(path) for path in job.files.paths]
        encoded, _ = fn.readers.file(files=paths, random_shuffle=True, name="Reader")
        image: Any = fn.decoders.image(encoded, device="mixed" if gpu else "cpu", output_type=DALIImageType.RGB)
        image = fn.resize(image, size=[T.resize, T.resize])
        image = fn.crop(image, crop=[T.crop, T.crop])
        image = fn.random_resized_crop(image, size=[T.size, T.size], random_area=T.scale, random_aspect_ratio=T.ratio)
        image = fn.flip(image, horizontal=fn.random.coin_flip(), vertical=fn.random.coin_flip())
        image = fn.rotate(image, angle=90.0 * fn.random.uniform(range=(0, 4), dtype=DALIDataType.INT32), keep_size=True)
        anchor, side = fn.random.uniform(range=(0.0, 1.0 - T.cutout / T.size), shape=2), [T.cutout / T.size] * 2
        image = fn.erase(image, anchor=anchor, shape=side, normalized=True, axis_names="HW", fill_value=list(T.fill))
        mean, std = ([255 * value for value in values] for values in (T.mean, T.std))
        return fn.crop_mirror_normalize(image, dtype=DALIDataType.FLOAT, output_layout="CHW", mean=mean, std=std)

    made = pipeline()
    made.build()
    while True:
        (images,) = made.run()
        yield torch.from_dlpack(images.as_tensor()).to(job.device)


# ---- floors ----


def copy(job: Job) -> Stream:
    """Copy as many bytes as the store reads and writes, outside the processor's caches: the floor of the store."""
    T, batch, device = job.transforms, job.batch, job.device
    windows = T.draw(0, 0, np.arange(4096), 1).window
    read = round(3 * np.prod(windows[:, 2:], axis=1).mean())
    part = batch * (read + 4 * 3 * T.size**2) // 2  # a copy both reads and writes
    source = torch.zeros(max(BEYOND_CACHES, 2 * part), dtype=torch.uint8, device=device)
    to, counted, start = source.clone(), torch.empty(batch, device=device), 0
    while True:
        start = start + part if start + 2 * part <= len(source) else 0
        to[start : start + part].copy_(source[start : start + part])
        yield counted


def codes(job: Job) -> Stream:
    """Read a JPEG's codes down to the last row of the region, and make no pixels: the floor of decoding on the CPU."""
    T, batch, files = job.transforms, job.batch, job.files
    contents = [np.fromfile(path, np.uint8) for path in files.paths]
    shapes = np.array([Image.open(path).size[::-1] for path in files.paths], np.int64)

    def one(arguments: tuple[int, list[int], int]) -> None:
        number, (top, left, height, width), scale = arguments
        if not jpeg.read_codes(contents[number], (top, left, height, width), scale):
            raise CannotRun(f"{files.paths[number]} is not a JPEG of the kind that fastccsa decodes itself")

    counted = torch.empty(batch)
    with ThreadPoolExecutor(job.threads) as workers:
        for start in itertools.count(0, batch):
            which = np.arange(start, start + batch) % len(contents)
            views = T.draw(0, 0, np.arange(start, start + batch), 1)
            scales = find_scales(T, views, shapes[which])
            regions = find_regions(T, views, shapes[which], np.array([T.size, T.size]), scales).decode
            list(workers.map(one, zip(which.tolist(), regions.tolist(), scales.tolist(), strict=True)))
            yield counted


class Contestant(NamedTuple):
    """A way from files to batches; the first ``warm_up`` batches of a turn do not count, as they may be made ahead."""

    kind: str
    warm_up: int
    start: Start


CONTESTANTS = {
    "fused": Contestant(OURS, 4, loader(mode="fused")),
    "fused, DALI": Contestant(OURS, 4, loader(mode="fused", backend="dali")),
    "exact": Contestant(OURS, 4, loader(mode="exact")),
    "disk": Contestant(OURS, 8, loader(cache="disk")),
    "ram": Contestant(OURS, 8, loader(cache="ram")),
    "gpu": Contestant(OURS, 8, loader(cache="gpu")),
    "DALI, literal": Contestant(RIVAL, 3, dali),
    "torchvision, PIL": Contestant(RIVAL, 3, torchvision(tensors=False)),
    "torchvision, tensors": Contestant(RIVAL, 3, torchvision(tensors=True)),
    "torchvision, GPU": Contestant(RIVAL, 3, torchvision_gpu),
    "kornia": Contestant(RIVAL, 3, kornia),
    "codes read": Contestant(FLOOR, 1, codes),
    "bytes copied": Contestant(FLOOR, 8, copy),
}
