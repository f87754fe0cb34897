"""What both loaders share: walking an epoch from any step, and choosing what makes the images."""

from __future__ import annotations

import atexit
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from fastccsa.images.augment import PACKED_COLUMNS
from fastccsa.images.backend import Backend
from fastccsa.images.readahead import read_ahead
from fastccsa.images.source import ImageSource
from fastccsa.images.store import default_folder, open_store
from fastccsa.images.stored import StoredBackend, check_cache
from fastccsa.images.transforms import IntArray, Transforms, Views
from fastccsa.system.errors import InputError
from fastccsa.system.machine import usable_cpus

if TYPE_CHECKING:
    from typing_extensions import Self

    from fastccsa.collections.manifest import Manifest
    from fastccsa.sampling import ImageSampler, PairSampler

BACKENDS = ("auto", "native", "dali", "torchvision")
MODES = ("fused", "exact")

About = tuple[Tensor, Tensor, Tensor]  # class, domain and number of a batch's images, int64 [B] each


class Loader(ABC):
    """Reads ahead, has images made by a backend, and walks an epoch from any step; arguments are `PairLoader`'s."""

    _images_per_row: int
    _augment = True

    def __init__(
        self,
        manifest: Manifest,
        sampler: PairSampler | ImageSampler,
        device: str | torch.device,
        cache: str | None,
        cache_dir: str | os.PathLike[str] | None,
        transforms: Transforms,
        backend: str,
        mode: str,
        on_error: str,
        prefetch: int,
        num_threads: int | None,
    ) -> None:
        _check_choice("backend", backend, BACKENDS)
        _check_choice("mode", mode, MODES)
        if backend == "native" and mode != "fused":
            raise InputError(f"backend 'native' resamples once; with mode={mode!r} give 'dali' or 'torchvision'")
        if prefetch < 1:
            raise InputError(f"prefetch is {prefetch}; give 1 or more batches to work on ahead")
        if num_threads is not None and num_threads < 1:
            raise InputError(f"num_threads is {num_threads}; give 1 or more, or None for this process's share")
        if sampler.size != len(manifest):
            raise InputError(
                f"the sampler was made for {sampler.size} images and the manifest has {len(manifest)}; "
                "give both the same part of the manifest"
            )
        self.sampler = sampler
        self.transforms = transforms
        self.device = _check_device(device)
        if cache is not None:
            check_cache(cache, self.device)
        self._labels = torch.from_numpy(manifest.labels)
        self._domains = torch.from_numpy(manifest.domain_indices)
        self._source = ImageSource(manifest.paths, manifest.labels, manifest.domain_indices, on_error)
        self._prefetch = prefetch
        self._backend: Any  # as `_read` makes batches for it
        if cache is None:
            self._backend = self._make_backend(backend, mode, num_threads or _default_threads())
            self._read = self._source.read
        else:
            folder = default_folder(manifest.folder) if cache_dir is None else Path(cache_dir)
            # What is copied is read once anyway, so it is verified on the way.
            maker = "torchvision" if backend == "torchvision" else "dali"
            store = open_store(self._source, transforms, folder, maker, num_threads, verify=cache != "disk")
            self._backend = StoredBackend(self._source, store, transforms, self.device, cache)
            self._read = self._backend.read
        # Stored crops are made into images where they are read, by torch's threads: one reader sets them to work.
        readers = prefetch + 1 if cache is None else 1
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="fastccsa-reader")
        self._walk: Generator[Any, None, None] | None = None
        self._closed = False
        # What is registered last runs first: an unfinished walk is ended while DALI is still there.
        self._at_exit = partial(_close, weakref.ref(self))
        atexit.register(self._at_exit)

    @property
    def broken(self) -> dict[str, str]:
        """The images found broken so far: path to reason. Others were shown in their place."""
        return dict(self._source.broken)

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Walk the sampler's current epoch."""
        return self.epoch(self.sampler.epoch)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[dict[str, Tensor]]:
        """Walk an epoch from one of its steps on; the batches are those of the whole walk, bit for bit.

        An epoch may be left at any point. Starting another ends the walk before it.

        Args:
            epoch: number of the epoch, from 0.
            start_step: first step, 0 to ``len(self)`` (nothing is left to walk).

        Raises:
            InputError: the step is out of range, the loader is closed, or (while walking) no image can be
                read, or one cannot with ``on_error="raise"``.
        """
        self._begin_walk(start_step)
        self._walk = self._steps(epoch, range(start_step, len(self)))
        return self._walk

    @property
    def has_plans(self) -> bool:
        """Whether there are `plans`: crops are kept (``cache``), on the device that batches go to."""
        return isinstance(self._backend, StoredBackend) and self._backend.unpacks_on_device

    def plans(self, epoch: int, start_step: int = 0) -> Iterator[Tensor]:
        """Walk the same batches not yet made: `make` makes each from its plan alone, when the plan is on the device.

        So a loop that always copies plans into the same memory can have its steps captured in a CUDA graph.

        Yields:
            int64 [images, 13] on the CPU, pinned where the device is a GPU.

        Raises:
            InputError: as for `epoch`, or there are no plans.
        """
        if not self.has_plans:
            raise InputError("batches are planned where their crops are on the device; give cache='gpu'")
        self._begin_walk(start_step)
        self._walk = self._planned(epoch, range(start_step, len(self)))
        return self._walk

    def make(self, plan: Tensor) -> dict[str, Tensor]:
        """Make the batch of a plan that is on the device; on a GPU this launches kernels and does nothing else."""
        images = self._backend.unpack(plan[:, :PACKED_COLUMNS])
        label, domain, index = plan[:, PACKED_COLUMNS:].t().contiguous()
        return self._assemble((label, domain, index), images)

    def close(self) -> None:
        """End every thread and free the decoder's memory; the loader cannot be used again."""
        if not self._closed:
            self._closed = True
            atexit.unregister(self._at_exit)
            self._end_walk()
            self._readers.shutdown(cancel_futures=True)
            self._backend.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @abstractmethod
    def _plan(self, epoch: int, step: int) -> tuple[IntArray, Views]:
        """Which images make up a batch, and how each is seen."""

    @abstractmethod
    def _assemble(self, about: About, images: Tensor) -> dict[str, Tensor]:
        """Name the parts of a finished batch; ``about`` the images really shown."""

    def _steps(self, epoch: int, steps: range) -> Generator[dict[str, Tensor], None, None]:
        def read(step: int) -> Any:
            return self._read(*self._plan(epoch, step))

        batches = read_ahead(read, steps, self._readers, self._prefetch)
        finished = self._backend.run(batches)
        try:
            for batch, images in finished:
                label, domain, index = (x.to(self.device, non_blocking=True) for x in self._about(batch.indices))
                yield self._assemble((label, domain, index), images)
        finally:
            finished.close()
            batches.close()

    def _planned(self, epoch: int, steps: range) -> Generator[Tensor, None, None]:
        def plan(step: int) -> Tensor:
            shown, packed = self._backend.pack(*self._plan(epoch, step))
            whole = torch.cat([packed, torch.stack(self._about(shown), dim=1)], dim=1)
            return whole.pin_memory() if self.device.type == "cuda" else whole

        return read_ahead(plan, steps, self._readers, self._prefetch)

    def _begin_walk(self, start_step: int) -> None:
        if self._closed:
            raise InputError("this loader is closed; make a new one")
        if not 0 <= start_step <= len(self):
            raise InputError(f"start_step is {start_step}; the epoch's steps are 0 to {len(self) - 1}")
        self._end_walk()

    def _end_walk(self) -> None:
        if self._walk is not None:
            self._walk.close()
            self._walk = None

    def _about(self, indices: IntArray) -> About:
        """Class, domain and number of images, on the CPU."""
        index = torch.from_numpy(indices)
        return self._labels[index], self._domains[index], index

    def _make_backend(self, backend: str, mode: str, num_threads: int) -> Backend:
        if backend == "auto":
            backend = "native" if mode == "fused" and self.device.type == "cpu" else "dali"
        if backend == "native":
            from fastccsa.images.native import NativeBackend

            # Evaluation images are the definition's; only augmented ones are decoded at a reduced size.
            return NativeBackend(
                self._source, self.transforms, self.device, num_threads, self._prefetch, reduce=self._augment
            )
        if backend == "torchvision":
            from fastccsa.images.torchvision_backend import TorchvisionBackend

            return TorchvisionBackend(self._source, self.transforms, self.device, mode, num_threads, self._prefetch)
        from fastccsa.images.dali import DaliBackend  # loads DALI, which takes a while

        batch_size = self.sampler.batch_size * self._images_per_row
        return DaliBackend(self._source, self.transforms, self.device, mode, batch_size, num_threads, self._prefetch)


def _close(loader: weakref.ref[Loader]) -> None:
    """Close a loader that is still there."""
    there = loader()
    if there is not None:
        there.close()


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} is {value!r}; give one of {', '.join(choices)}")


def _check_device(device: str | torch.device) -> torch.device:
    """Return the device with its number; the current one where a CUDA device came without."""
    try:
        device = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device is {device!r}; give cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device is {device}; images are made on cpu, cuda or cuda:N")
    if device.type == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InputError(f"device is {device}, and torch sees no CUDA device here; use cpu, or see `fastccsa check`")
    return torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)


def _default_threads() -> int:
    """Share the usable CPUs with the other processes of this machine, which torchrun counts."""
    return max(1, min(16, usable_cpus() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
