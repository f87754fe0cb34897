"""The transforms in NVIDIA DALI, on the CPU or a GPU, where everything after reading the files is done."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastccsa.images.backend import DaliError
from fastccsa.images.source import EncodedBatch, ImageSource
from fastccsa.images.transforms import Transforms, find_regions

_WITHOUT = (
    "decode with --image-backend auto, native or torchvision (in Python: backend='auto', backend='native' with "
    "mode='fused', or backend='torchvision')"
)

try:
    from nvidia.dali import fn
    from nvidia.dali.backend import ReleaseUnusedMemory  # type: ignore[attr-defined]
    from nvidia.dali.pipeline import pipeline_def
    from nvidia.dali.plugin.pytorch.torch_utils import feed_ndarray
    from nvidia.dali.types import DALIDataType, DALIImageType
except (ImportError, OSError, RuntimeError) as error:  # also of libraries that it cannot load
    is_missing = isinstance(error, ModuleNotFoundError) and error.name in ("nvidia", "nvidia.dali")
    reason = " ".join(str(error).split())[:200]
    raise DaliError(
        "DALI is not installed" if is_missing else f"DALI cannot be imported ({reason})",
        "pip install nvidia-dali-cuda130 for CUDA 13, nvidia-dali-cuda120 for CUDA 12 (either works without a GPU), or "
        f"{_WITHOUT}",
    ) from error


@pipeline_def(enable_conditionals=True)
def image_pipeline(transforms: Transforms, exact: bool, decoder: str) -> Any:
    """Define the graph from encoded images and their views to normalised float32 images (HWC).

    With ``exact``, images are resampled twice as in the paper, but of the 650 x 650 image only the pixels that the
    random crop keeps are computed, which gives the same values. Otherwise a single resampling does both steps.

    Args:
        transforms: the transforms.
        exact: resample to the size of the window first.
        decoder: DALI's device for decoding: "cpu", or "mixed", which keeps everything after it on the GPU.
    """
    encoded = fn.external_source(name="encoded", dtype=DALIDataType.UINT8, ndim=1)
    decode = fn.external_source(name="decode", dtype=DALIDataType.INT32, ndim=1)
    start = fn.external_source(name="start", dtype=DALIDataType.FLOAT, ndim=1)
    end = fn.external_source(name="end", dtype=DALIDataType.FLOAT, ndim=1)
    transpose = fn.external_source(name="transpose", dtype=DALIDataType.BOOL, ndim=0)
    cutout = fn.external_source(name="cutout", dtype=DALIDataType.FLOAT, ndim=1)
    size = [transforms.size, transforms.size]

    image: Any = _decode_regions(encoded, decode, decoder)
    # If a region's start is after its end, it is resampled backwards; this implements flips.
    if exact:
        window = fn.external_source(name="window", dtype=DALIDataType.FLOAT, ndim=1)
        image = fn.resize(image, size=window, roi_start=start, roi_end=end, antialias=True)
        image = fn.resize(image, size=size, antialias=True)
    else:
        image = fn.resize(image, size=size, roi_start=start, roi_end=end, antialias=True)
    if transpose:
        image = fn.transpose(image, perm=[1, 0, 2], transpose_layout=False)
    image = fn.erase(image, anchor=cutout[0:2], shape=cutout[2:4], axis_names="HW", fill_value=list(transforms.fill))
    return fn.crop_mirror_normalize(
        image,
        dtype=DALIDataType.FLOAT,
        output_layout="HWC",
        mean=[255 * mean for mean in transforms.mean],
        std=[255 * std for std in transforms.std],
    )


@pipeline_def()
def crop_pipeline(transforms: Transforms, decoder: str) -> Any:
    """Define the graph from encoded images to their centre crops, uint8 (HWC): the steps that never change.

    Args:
        transforms: the transforms.
        decoder: as for `image_pipeline`.
    """
    encoded = fn.external_source(name="encoded", dtype=DALIDataType.UINT8, ndim=1)
    decode = fn.external_source(name="decode", dtype=DALIDataType.INT32, ndim=1)
    start = fn.external_source(name="start", dtype=DALIDataType.FLOAT, ndim=1)
    end = fn.external_source(name="end", dtype=DALIDataType.FLOAT, ndim=1)
    image: Any = _decode_regions(encoded, decode, decoder)
    return fn.resize(image, size=[transforms.crop] * 2, roi_start=start, roi_end=end, antialias=True)


def _decode_regions(encoded: Any, decode: Any, decoder: str) -> Any:
    """Decode only the rows and columns of the regions, with the same pixels as in the full images."""
    return fn.decoders.image_slice(
        encoded,
        decode[0:2],
        decode[2:4],
        axis_names="HW",
        device=decoder,
        output_type=DALIImageType.RGB,
        jpeg_fancy_upsampling=True,  # on the GPU too, as on the CPU
        # A GPU's JPEG engine, if it has one, gets all that it can decode. With a share, which is the default, the place
        # of an image in the batch would choose its decoder, and the other decoder keeps CPU cores busy.
        hw_decoder_load=1.0,
    )


@contextmanager
def dali_errors(device: torch.device) -> Iterator[None]:
    """Turn an error of DALI into a `DaliError`."""
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        where = f"cannot use {device}" if device.type == "cuda" else "failed"
        raise DaliError(f"DALI {where} ({reason})", _WITHOUT) from error


class DaliBackend:
    """Makes batches with DALI.

    The pipeline is stateless, because the bytes and random parameters of each batch are fed to it. So an epoch can
    start and stop at any step, and its last batch can be smaller.

    Args:
        source: provides the replacements of broken images.
        transforms: the transforms.
        device: where images are made; a CUDA device decodes JPEGs with its own decoder.
        mode: "fused" or "exact".
        batch_size: maximum number of images in a batch.
        num_threads: number of DALI's CPU threads.
        prefetch: number of batches prepared ahead.

    Raises:
        DaliError: DALI cannot use the device.
    """

    _dtype = torch.float32

    def __init__(
        self,
        source: ImageSource,
        transforms: Transforms,
        device: torch.device,
        mode: str,
        *,
        batch_size: int,
        num_threads: int,
        prefetch: int,
    ) -> None:
        self._source = source
        self._transforms = transforms
        self._device = device
        self._exact = mode == "exact"
        self._prefetch = prefetch
        self._settings: dict[str, Any] = {
            "batch_size": batch_size,
            "num_threads": num_threads,
            "device_id": device.index,
        }
        self._pending: deque[EncodedBatch] = deque()
        self._pipeline: Any = self._build()

    def run(self, batches: Iterator[EncodedBatch]) -> Generator[tuple[EncodedBatch, Tensor], None, None]:
        """Yield each batch in order with its finished images, float32 [B, 3, size, size].

        Raises:
            DaliError: DALI fails on images that are not broken.
        """
        try:
            if self._pipeline is None:
                self._pipeline = self._build()
            for batch in batches:
                self._submit(batch)
                if len(self._pending) > self._prefetch:
                    yield self._collect()
            while self._pending:
                yield self._collect()
        finally:
            self._abandon()

    def close(self) -> None:
        """Stop DALI's threads and free its memory."""
        self._pipeline = None
        if self._device.type == "cuda":
            ReleaseUnusedMemory()  # DALI keeps what it has allocated, also of the GPU, for its next pipeline

    def _build(self) -> Any:
        with dali_errors(self._device):
            pipeline = self._define(
                # On its first run, DALI prefetches as many batches as its queue is deep. With 1, it runs only what is
                # scheduled here.
                prefetch_queue_depth=1,
                exec_dynamic=True,  # the executor whose outputs stay valid while they are referenced
                **self._settings,
            )
            pipeline.build()
        return pipeline

    @property
    def _decoder(self) -> str:
        return "mixed" if self._device.type == "cuda" else "cpu"

    def _define(self, **settings: Any) -> Any:
        return image_pipeline(self._transforms, self._exact, self._decoder, **settings)

    def _submit(self, batch: EncodedBatch) -> None:
        """Feed a batch to the pipeline, and add it to ``_pending``, the batches that have not been returned yet."""
        self._pending.append(batch)
        if not len(batch):
            return  # in the last step of an epoch, a rank may get no images
        self._source.decode_uncommon(batch)
        inputs = self._inputs(batch)
        with dali_errors(self._device):
            for name, data in inputs.items():
                self._pipeline.feed_input(name, data)
            self._pipeline.schedule_run()

    def _inputs(self, batch: EncodedBatch) -> dict[str, Any]:
        views = batch.views
        size = self._transforms.size
        window = views.window[:, 2:] if self._exact else np.array([size, size])
        regions = find_regions(self._transforms, views, batch.shapes, window)
        flips, transpose = views.symmetry
        first, last = regions.resample[:, :2], regions.resample[:, 2:]
        inputs = {
            "encoded": [image.data for image in batch.images],
            "decode": regions.decode.astype(np.int32),
            "start": np.where(flips, last, first).astype(np.float32),
            "end": np.where(flips, first, last).astype(np.float32),
            "transpose": transpose,
            "cutout": views.cutout.astype(np.float32),
        }
        if self._exact:
            inputs["window"] = window.astype(np.float32)
        return inputs

    def _collect(self) -> tuple[EncodedBatch, Tensor]:
        """Wait for the oldest batch; if it cannot be decoded, repair it and try again."""
        while True:
            try:
                with dali_errors(self._device):
                    images = self._outputs(self._pending[0])
            except DaliError:
                # A failed pipeline cannot be used again, so its pending batches go to a new one.
                pending = self._rebuild()
                if not self._repair(pending[0]):
                    raise
                for batch in pending:
                    self._submit(batch)
            else:
                return self._pending.popleft(), images

    def _repair(self, batch: EncodedBatch) -> bool:
        """Make a batch decodable after DALI failed on it; return whether a retry makes sense."""
        if self._source.replace_broken(batch):
            return True
        if self._device.type == "cuda" and self._cpu_can_make(batch):
            return False  # the GPU is at fault, for example its memory is full: not a file that DALI cannot decode
        return self._source.uncompress(batch)

    def _cpu_can_make(self, batch: EncodedBatch) -> bool:
        on_cpu = copy(self)
        on_cpu._device = torch.device("cpu")
        on_cpu._settings = {**self._settings, "device_id": None}
        on_cpu._pending = deque()
        try:
            on_cpu._pipeline = on_cpu._build()
            on_cpu._submit(batch)
            on_cpu._outputs(batch)
        except (DaliError, RuntimeError):
            return False
        return True

    def _outputs(self, batch: EncodedBatch) -> Tensor:
        """Return the oldest batch: images in channels-last memory format."""
        if not len(batch):
            size = self._transforms.size
            return torch.empty(0, 3, size, size, device=self._device)
        return self._pixels().permute(0, 3, 1, 2)

    def _pixels(self) -> Tensor:
        """Wait for what the pipeline returns, [B, height, width, 3]."""
        if self._device.type == "cpu":
            (images,) = self._pipeline.outputs()
            return torch.from_dlpack(images.as_tensor())
        # The images are copied into torch's memory, because DALI and torch free memory on different streams.
        stream = torch.cuda.current_stream(self._device)
        (images,) = self._pipeline.outputs(cuda_stream=stream)
        dense = images.as_tensor()
        made = torch.empty(dense.shape(), dtype=self._dtype, device=self._device)
        return feed_ndarray(dense, made, cuda_stream=stream)

    def _abandon(self) -> None:
        """Wait for the pending batches and drop them, so that the next epoch starts with none."""
        try:
            while self._pending:
                self._outputs(self._pending.popleft())
        except RuntimeError:
            self._pending.clear()
            self._pipeline = None  # the next epoch builds another one

    def _rebuild(self) -> list[EncodedBatch]:
        """Replace the pipeline; return the batches that were pending in the old one."""
        self._pipeline = self._build()
        pending = list(self._pending)
        self._pending.clear()
        return pending


class DaliCrops(DaliBackend):
    """Makes centre crops with DALI: batches of uint8 [B, crop, crop, 3] on the CPU.

    Args:
        source: provides the replacements of broken images.
        transforms: the transforms.
        device: where images are decoded and resized.
        batch_size: maximum number of images in a batch.
        num_threads: number of DALI's CPU threads.
        prefetch: number of batches prepared ahead.
    """

    _dtype = torch.uint8

    def __init__(
        self,
        source: ImageSource,
        transforms: Transforms,
        device: torch.device,
        *,
        batch_size: int,
        num_threads: int,
        prefetch: int,
    ) -> None:
        super().__init__(
            source,
            transforms,
            device,
            "exact",
            batch_size=batch_size,
            num_threads=num_threads,
            prefetch=prefetch,
        )

    def _define(self, **settings: Any) -> Any:
        return crop_pipeline(self._transforms, self._decoder, **settings)

    def _inputs(self, batch: EncodedBatch) -> dict[str, Any]:
        crop = self._transforms.crop
        regions = find_regions(self._transforms, batch.views, batch.shapes, np.array([crop, crop]))
        return {
            "encoded": [image.data for image in batch.images],
            "decode": regions.decode.astype(np.int32),
            "start": regions.resample[:, :2].astype(np.float32),
            "end": regions.resample[:, 2:].astype(np.float32),
        }

    def _outputs(self, batch: EncodedBatch) -> Tensor:
        crops = self._pixels()
        if self._device.type == "cpu":
            return crops
        # Page-locked memory is copied to at the full speed of the bus. DALI goes on with the next batch meanwhile.
        copied = torch.empty(crops.shape, dtype=crops.dtype, pin_memory=True)
        copied.copy_(crops, non_blocking=True)
        torch.cuda.current_stream(self._device).synchronize()
        return copied
