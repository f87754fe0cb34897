"""The transforms in NVIDIA DALI, on the CPU or on a GPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastccsa.images.source import EncodedBatch, ImageSource
from fastccsa.images.transforms import Transforms, find_regions
from fastccsa.system.errors import InputError

try:
    from nvidia.dali import fn
    from nvidia.dali.pipeline import pipeline_def
    from nvidia.dali.plugin.pytorch.torch_utils import feed_ndarray
    from nvidia.dali.types import DALIDataType, DALIImageType
except ImportError as error:
    raise InputError(
        "DALI is not installed: pip install nvidia-dali-cuda130 for CUDA 13, nvidia-dali-cuda120 for CUDA 12 "
        "(either for a machine without a GPU), or load with backend='native' (on the CPU, mode='fused') or "
        "backend='torchvision'"
    ) from error


@pipeline_def(enable_conditionals=True)
def image_pipeline(transforms: Transforms, exact: bool, decoder: str) -> Any:
    """Define the graph from encoded images, and where to look in them, to normalised float32 images (CHW).

    ``exact`` resamples twice as the paper does, but computes only the pixels of the 650 x 650 image that the
    random crop keeps: the same values, without the work for the rest. Otherwise one resampling does both.

    Args:
        transforms: the transforms.
        exact: resample to the window's own size first.
        decoder: DALI's device for decoding, "cpu" or "mixed" (then everything after it is on the GPU).
    """
    encoded = fn.external_source(name="encoded", dtype=DALIDataType.UINT8, ndim=1)
    decode = fn.external_source(name="decode", dtype=DALIDataType.INT32, ndim=1)
    start = fn.external_source(name="start", dtype=DALIDataType.FLOAT, ndim=1)
    end = fn.external_source(name="end", dtype=DALIDataType.FLOAT, ndim=1)
    transpose = fn.external_source(name="transpose", dtype=DALIDataType.BOOL, ndim=0)
    cutout = fn.external_source(name="cutout", dtype=DALIDataType.FLOAT, ndim=1)
    size = [transforms.size, transforms.size]

    # Only the region's rows and columns are decoded, to the same bytes that decoding the whole would give.
    image: Any = fn.decoders.image_slice(
        encoded,
        decode[0:2],
        decode[2:4],
        axis_names="HW",
        device=decoder,
        output_type=DALIImageType.RGB,
        jpeg_fancy_upsampling=True,  # on the GPU too, as on the CPU
    )
    # A region that starts after its end is resampled backwards: that is the flip.
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
        output_layout="CHW",
        mean=[255 * mean for mean in transforms.mean],
        std=[255 * std for std in transforms.std],
    )


@pipeline_def()
def crop_pipeline(transforms: Transforms) -> Any:
    """Define the graph from encoded images to what never changes of them: the centre crop, uint8 (HWC)."""
    encoded = fn.external_source(name="encoded", dtype=DALIDataType.UINT8, ndim=1)
    decode = fn.external_source(name="decode", dtype=DALIDataType.INT32, ndim=1)
    start = fn.external_source(name="start", dtype=DALIDataType.FLOAT, ndim=1)
    end = fn.external_source(name="end", dtype=DALIDataType.FLOAT, ndim=1)
    image: Any = fn.decoders.image_slice(
        encoded, decode[0:2], decode[2:4], axis_names="HW", output_type=DALIImageType.RGB, jpeg_fancy_upsampling=True
    )
    return fn.resize(image, size=[transforms.crop] * 2, roi_start=start, roi_end=end, antialias=True)


class DaliBackend:
    """Makes batches with DALI.

    The pipeline keeps no state of its own: each batch is fed whole, bytes and random parameters, so an epoch
    can start at any step, be left at any step, and its last batch can be smaller.

    Args:
        source: where a broken image's replacement comes from.
        transforms: the transforms.
        device: where images are made; JPEGs are decoded on a CUDA device by its own decoder.
        mode: "fused" or "exact".
        batch_size: the most images in a batch.
        num_threads: DALI's CPU threads.
        prefetch: batches worked on ahead of the one asked for.
    """

    def __init__(
        self,
        source: ImageSource,
        transforms: Transforms,
        device: torch.device,
        mode: str,
        batch_size: int,
        num_threads: int,
        prefetch: int,
    ) -> None:
        self._source = source
        self._transforms = transforms
        self._device = device
        self._exact = mode == "exact"
        self._prefetch = prefetch
        self._settings = {"batch_size": batch_size, "num_threads": num_threads, "device_id": device.index}
        self._pending: deque[EncodedBatch] = deque()
        self._pipeline = self._build()

    def run(self, batches: Iterator[EncodedBatch]) -> Generator[tuple[EncodedBatch, Tensor], None, None]:
        """Finish batches in their order: each with its images, float32 [B, 3, size, size]."""
        try:
            for batch in batches:
                self._submit(batch)
                if len(self._pending) > self._prefetch:
                    yield self._collect()
            while self._pending:
                yield self._collect()
        finally:
            self._abandon()

    def close(self) -> None:
        """End DALI's threads and free its memory."""
        self._pipeline = None

    def _build(self) -> Any:
        pipeline = self._define(
            # DALI prefetches on its first run what it has queues for; with one, it runs what we schedule.
            prefetch_queue_depth=1,
            exec_dynamic=True,  # the executor whose outputs stay valid for as long as they are kept
            **self._settings,
        )
        pipeline.build()
        return pipeline

    def _define(self, **settings: Any) -> Any:
        decoder = "mixed" if self._device.type == "cuda" else "cpu"
        return image_pipeline(self._transforms, self._exact, decoder, **settings)

    def _submit(self, batch: EncodedBatch) -> None:
        """Give a batch to the pipeline; ``_pending`` lists what it was given and has not returned."""
        self._pending.append(batch)
        if not len(batch):
            return  # the share of a rank that an epoch's last step left without images
        for name, data in self._inputs(batch).items():
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
        """Wait for the oldest batch; one that cannot be decoded is mended and tried again."""
        while True:
            try:
                images = self._outputs(self._pending[0])
            except RuntimeError:
                # A failed pipeline may not run on: what it was given goes to a new one.
                again = self._start_anew()
                if not self._source.repair(again[0]):
                    raise
                for batch in again:
                    self._submit(batch)
            else:
                return self._pending.popleft(), images

    def _outputs(self, batch: EncodedBatch) -> Tensor:
        if not len(batch):
            size = self._transforms.size
            return torch.empty(0, 3, size, size, device=self._device)
        if self._device.type == "cpu":
            (images,) = self._pipeline.outputs()
            return torch.from_dlpack(images.as_tensor())
        # Copied, so that the memory is torch's own: DALI and torch free theirs on different streams.
        stream = torch.cuda.current_stream(self._device)
        (images,) = self._pipeline.outputs(cuda_stream=stream)
        dense = images.as_tensor()
        return feed_ndarray(dense, torch.empty(dense.shape(), device=self._device), cuda_stream=stream)

    def _abandon(self) -> None:
        """Let what is under way come to its end, so that the next epoch starts with nothing pending."""
        try:
            while self._pending:
                self._outputs(self._pending.popleft())
        except RuntimeError:
            self._start_anew()

    def _start_anew(self) -> list[EncodedBatch]:
        """Replace the pipeline; returns the batches that the old one had not returned."""
        self._pipeline = self._build()
        lost = list(self._pending)
        self._pending.clear()
        return lost


class DaliCrops(DaliBackend):
    """Makes the centre crops of whole images with DALI: batches of uint8 [B, crop, crop, 3] on the CPU.

    Args:
        source: where a broken image's replacement comes from.
        transforms: the transforms.
        batch_size: the most images in a batch.
        num_threads: DALI's CPU threads.
        prefetch: batches worked on ahead of the one asked for.
    """

    def __init__(
        self, source: ImageSource, transforms: Transforms, batch_size: int, num_threads: int, prefetch: int
    ) -> None:
        super().__init__(source, transforms, torch.device("cpu"), "exact", batch_size, num_threads, prefetch)

    def _define(self, **settings: Any) -> Any:
        return crop_pipeline(self._transforms, **settings)

    def _inputs(self, batch: EncodedBatch) -> dict[str, Any]:
        crop = self._transforms.crop
        regions = find_regions(self._transforms, batch.views, batch.shapes, np.array([crop, crop]))
        return {
            "encoded": [image.data for image in batch.images],
            "decode": regions.decode.astype(np.int32),
            "start": regions.resample[:, :2].astype(np.float32),
            "end": regions.resample[:, 2:].astype(np.float32),
        }
