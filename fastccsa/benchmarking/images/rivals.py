"""The same job as others' documentation has it done: endless streams of batches on the device."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_image
from torchvision.transforms import v2

from fastccsa.benchmarking.images.files import Files
from fastccsa.images import Transforms

T = Transforms()
_LENGTH = 1 << 14  # of a data set's epoch

__all__ = ["CannotRun", "Stream", "dali", "kornia", "torchvision_pil", "torchvision_tensors"]

Stream = Iterator[Tensor]


class CannotRun(Exception):
    """A contestant needs what is not here; the message says what."""


class _Pictures(Dataset[Tensor]):
    """The paper's steps with torchvision.transforms.v2, as its documentation composes such steps."""

    def __init__(self, files: Files, tensors: bool, augment: bool = True) -> None:
        self._paths = files.paths
        self._tensors = tensors
        prefix = [v2.Resize((T.resize, T.resize), antialias=True), v2.CenterCrop(T.crop)]
        self._transform = v2.Compose([*prefix, *_augmentation(tensors)] if augment else prefix)

    def __len__(self) -> int:
        return _LENGTH

    def __getitem__(self, index: int) -> Tensor:
        path = str(self._paths[index % len(self._paths)])
        if self._tensors:
            return self._transform(decode_image(path, ImageReadMode.RGB))
        with Image.open(path) as image:
            return self._transform(image.convert("RGB"))


def _augmentation(tensors: bool) -> list[Any]:
    return [
        v2.RandomResizedCrop(T.size, T.scale, T.ratio, antialias=True),
        v2.RandomHorizontalFlip(),
        v2.RandomVerticalFlip(),
        v2.RandomChoice([v2.RandomRotation((angle, angle)) for angle in (0, 90, 180, 270)]),
        *([] if tensors else [v2.PILToTensor()]),
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize(T.mean, T.std),
        v2.RandomErasing(1.0, scale=((T.cutout / T.size) ** 2,) * 2, ratio=(1.0, 1.0)),
    ]


def _loader(pictures: _Pictures, batch: int, threads: int, device: torch.device) -> Stream:
    loader = DataLoader(pictures, batch, num_workers=threads, pin_memory=device.type == "cuda")
    while True:
        for images in loader:
            yield images.to(device, non_blocking=True)


def torchvision_pil(files: Files, batch: int, threads: int, device: torch.device) -> Stream:
    """Torchvision on PIL images, in a DataLoader with a worker process a thread."""
    return _loader(_Pictures(files, tensors=False), batch, threads, device)


def torchvision_tensors(files: Files, batch: int, threads: int, device: torch.device) -> Stream:
    """Torchvision on tensors from its own decoder, likewise."""
    return _loader(_Pictures(files, tensors=True), batch, threads, device)


def kornia(files: Files, batch: int, threads: int, device: torch.device) -> Stream:
    """Decoded, resized and centre cropped by torchvision's workers; kornia augments whole batches on the device."""
    try:
        import kornia.augmentation as K
    except ImportError:
        raise CannotRun("kornia is not installed (pip install kornia)") from None
    if device.type != "cuda":
        raise CannotRun("kornia is measured where it is meant to run, on a GPU")
    augment = torch.nn.Sequential(
        K.RandomResizedCrop((T.size, T.size), scale=T.scale, ratio=T.ratio),
        K.RandomHorizontalFlip(),
        K.RandomVerticalFlip(),
        K.RandomRotation90((0, 3), p=1.0),
        K.Normalize(torch.tensor(T.mean), torch.tensor(T.std)),
        K.RandomErasing(scale=((T.cutout / T.size) ** 2,) * 2, ratio=(1.0, 1.0), p=1.0),
    ).to(device)

    def stream() -> Stream:
        for images in _loader(_Pictures(files, tensors=True, augment=False), batch, threads, device):
            yield augment(images.float() / 255)

    return stream()


def dali(files: Files, batch: int, threads: int, device: torch.device) -> Stream:
    """DALI as in its documentation's ImageNet example: whole images are decoded, each step is an operator."""
    try:
        from nvidia.dali import fn
        from nvidia.dali.pipeline import pipeline_def
        from nvidia.dali.types import DALIDataType, DALIImageType
    except ImportError:
        raise CannotRun("DALI is not installed (pip install nvidia-dali-cuda130)") from None
    gpu = device.type == "cuda"

    settings: dict[str, Any] = {"device_id": device.index if gpu else None, "exec_dynamic": True}

    @pipeline_def(batch_size=batch, num_threads=threads, **settings)
    def pipeline() -> Any:
        paths = [str(path) for path in files.paths]
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

    def stream() -> Stream:
        made = pipeline()
        made.build()
        for _ in itertools.count():
            (images,) = made.run()
            yield torch.from_dlpack(images.as_tensor()).to(device)

    return stream()
