"""The base class of the loaders, which selects the backend and iterates over an epoch from any step."""

from __future__ import annotations

import atexit
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from fastccsa.images.augment import PACKED_COLUMNS
from fastccsa.images.backend import Backend, backend_without_dali, choose_backend
from fastccsa.images.choices import ImageBackend, Mode
from fastccsa.images.crop_file import DamagedCropsError
from fastccsa.images.fallback import FallbackBackend
from fastccsa.images.layout import check_dtype
from fastccsa.images.readahead import read_ahead
from fastccsa.images.sharded_backend import ShardedBackend
from fastccsa.images.source import ImageSource
from fastccsa.images.store import Store
from fastccsa.images.store_backend import StoreBackend, check_cache
from fastccsa.images.store_choice import default_folder, open_store_of
from fastccsa.images.transforms import IntArray, Transforms, Views
from fastccsa.system.choices import check_choice
from fastccsa.system.errors import InputError
from fastccsa.system.machine import usable_cpus

if TYPE_CHECKING:
    from typing_extensions import Self

    from fastccsa.collections.manifest import Manifest
    from fastccsa.sampling import BalancedSampler, ImageSampler, PairSampler

BACKENDS = get_args(ImageBackend)
MODES = get_args(Mode)

BatchLabels = tuple[Tensor, Tensor, Tensor]  # class, domain and index of the images of a batch, int64 [B] each


class Loader(ABC):
    """Reads files ahead, passes them to a backend, and yields the batches. See `PairLoader` for the arguments."""

    _images_per_row: int
    _augment = True

    def __init__(
        self,
        manifest: Manifest,
        sampler: PairSampler | ImageSampler | BalancedSampler,
        *,
        device: str | torch.device,
        cache: str | None,
        cache_dir: str | os.PathLike[str] | None,
        transforms: Transforms,
        dtype: torch.dtype,
        backend: str,
        mode: str,
        on_error: str,
        prefetch: int,
        num_threads: int | None,
    ) -> None:
        check_choice("backend", backend, BACKENDS)
        check_choice("mode", mode, MODES)
        if backend == "native" and mode != "fused":
            raise InputError(f"backend 'native' resamples once; with mode={mode!r} use 'dali' or 'torchvision'")
        check_dtype(dtype, cache)
        if prefetch < 1:
            raise InputError(f"prefetch is {prefetch}; give 1 or more batches to prepare ahead")
        if num_threads is not None and num_threads < 1:
            raise InputError(f"num_threads is {num_threads}; give 1 or more, or None for this process's share")
        if sampler.size != len(manifest):
            raise InputError(
                f"the sampler was made for {sampler.size} images and the manifest has {len(manifest)}; "
                "use the same subset of the manifest for both"
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
        self._backend: Any  # takes the batches that `_read` returns
        if cache is None:
            self._decoder = choose_backend(mode, self.device) if backend == "auto" else backend
            make = partial(self._make_backend, mode=mode, num_threads=num_threads or _default_threads())
            if backend == "auto" and self._decoder == "dali":
                other = backend_without_dali(mode)
                self._backend = FallbackBackend(partial(make, "dali"), other, partial(make, other))
            else:
                self._backend = make(self._decoder)
            self._read = self._source.read
        else:
            if cache_dir is None:
                folder = default_folder(manifest.folder, manifest.paths, transforms, backend)
            else:
                folder = Path(cache_dir)
            open_store = partial(
                open_store_of,
                backend,
                self._source,
                transforms,
                folder,
                num_threads=num_threads,
                device=self.device,
            )
            self._decoder, store = open_store()
            try:
                self._backend = self._keep(store, cache, dtype)
            except DamagedCropsError:
                store.array.close()
                self._decoder, store = open_store(verify=True)  # makes them again
                self._backend = self._keep(store, cache, dtype)
            self._read = self._backend.read
        # With a store, the reader thread makes the images too, using torch's threads, so one reader suffices.
        readers = prefetch + 1 if cache is None else 1
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="fastccsa-reader")
        self._iterator: Generator[Any, None, None] | None = None
        self._closed = False
        # Exit handlers run in reverse order, so this one closes an unfinished epoch before DALI shuts down.
        self._at_exit = partial(_close, weakref.ref(self))
        atexit.register(self._at_exit)

    def _keep(self, store: Store, cache: str, dtype: torch.dtype) -> ShardedBackend | StoreBackend:
        """Make the backend of a store, which copies its crops to where they are kept."""
        sampler = self.sampler
        if cache == "sharded" and sampler.world_size > 1:
            self._of_all_ranks = [_as_rank(sampler, rank) for rank in range(sampler.world_size)]
            return ShardedBackend(
                self._source, store, self.transforms, self.device, sampler.rank, sampler.world_size, dtype
            )
        where = cache if cache != "sharded" else "gpu" if self.device.type == "cuda" else "ram"
        return StoreBackend(self._source, store, self.transforms, self.device, where, dtype)

    @property
    def decoder(self) -> str:
        """What decodes the images: native, dali or torchvision."""
        return self._backend.decoder if isinstance(self._backend, FallbackBackend) else self._decoder

    @property
    def broken(self) -> dict[str, str]:
        """The reason by path for the images found broken so far. Other images were shown in their place."""
        return dict(self._source.broken)

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return len(self.sampler)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        """Iterate over the sampler's current epoch."""
        return self.epoch(self.sampler.epoch)

    def epoch(self, epoch: int, start_step: int = 0) -> Iterator[dict[str, Tensor]]:
        """Iterate over an epoch from any step. The batches are bitwise equal to those of the full epoch.

        The first batches are read ahead at once, before iteration begins. Iteration may stop at any point. Starting
        another epoch ends the current one.

        Args:
            epoch: number of the epoch, from 0.
            start_step: first step, 0 to ``len(self)``; ``len(self)`` yields nothing.

        Raises:
            InputError: the step is out of range or the loader is closed. While iterating: an image cannot be read
                and ``on_error`` is "raise", or no image can be read.
        """
        self._begin(start_step)
        self._iterator = self._steps(epoch, range(start_step, len(self)))
        return self._iterator

    def is_open(self, batches: Iterator[Any]) -> bool:
        """Whether ``batches``, which `epoch` or `plans` returned, has not been ended by another epoch."""
        return batches is self._iterator

    @property
    def has_plans(self) -> bool:
        """Whether `plans` is available, because the crops are cached on the device that the batches go to."""
        return isinstance(self._backend, StoreBackend) and self._backend.unpacks_on_device

    def plans(self, epoch: int, start_step: int = 0) -> Iterator[Tensor]:
        """Iterate over the plans of the batches of `epoch`; `make` makes a batch from its plan.

        A training loop that copies each plan into the same device memory can capture its steps in a CUDA graph.

        Yields:
            int64 [images, 13] on the CPU, in pinned memory if the device is a GPU.

        Raises:
            InputError: as for `epoch`, or `has_plans` is False.
        """
        self._begin_plans(start_step)
        steps = range(start_step, len(self))
        self._iterator = read_ahead(partial(self._packed_plan, epoch), steps, self._readers, self._prefetch)
        return self._iterator

    def plan_groups(self, epoch: int, start_step: int = 0, size: int = 1) -> Iterator[Tensor]:
        """Iterate over the plans of `plans` in groups of ``size`` batches; those left at the end come one by one.

        Batches that are not full, such as the last one of an epoch, come one by one, too.

        Yields:
            int64 [batches, images, 13], as in `plans`.

        Raises:
            InputError: as for `plans`.
        """
        self._begin_plans(start_step)
        groups = group_steps(range(start_step, len(self)), size, self._is_full)
        self._iterator = read_ahead(partial(self._packed_plans, epoch), groups, self._readers, self._prefetch)
        return self._iterator

    def make(self, plan: Tensor) -> dict[str, Tensor]:
        """Make the batch of a plan on the device. On a GPU this only launches kernels, without a host sync."""
        images = self._backend.unpack(plan[:, :PACKED_COLUMNS])
        label, domain, index = plan[:, PACKED_COLUMNS:].t().contiguous()
        return self._assemble((label, domain, index), images)

    def close(self) -> None:
        """Stop all threads and free the decoder's memory. The loader cannot be used afterwards."""
        if not self._closed:
            self._closed = True
            atexit.unregister(self._at_exit)
            self._end_epoch()
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
    def _indices(self, sampler: Any, epoch: int, step: int) -> IntArray:
        """Return the images of a batch of ``sampler``, which is that of this loader or of another rank."""

    @abstractmethod
    def _plan(self, epoch: int, step: int) -> tuple[IntArray, Views]:
        """Return the images of a batch and their views."""

    @abstractmethod
    def _assemble(self, labels: BatchLabels, images: Tensor) -> dict[str, Tensor]:
        """Build the dict of a finished batch; ``labels`` belong to the images actually shown."""

    def _steps(self, epoch: int, steps: range) -> Generator[dict[str, Tensor], None, None]:
        def read(step: int) -> Any:
            indices, views = self._plan(epoch, step)
            if isinstance(self._backend, ShardedBackend):
                return self._backend.read([self._indices(each, epoch, step) for each in self._of_all_ranks], views)
            return self._read(indices, views)

        return self._finish(read_ahead(read, steps, self._readers, self._prefetch))

    def _finish(self, batches: Generator[Any, None, None]) -> Generator[dict[str, Tensor], None, None]:
        finished = self._backend.run(batches)
        try:
            for batch, images in finished:
                label, domain, index = (x.to(self.device, non_blocking=True) for x in self._batch_labels(batch.indices))
                yield self._assemble((label, domain, index), images)
        finally:
            finished.close()
            batches.close()

    def _packed_plan(self, epoch: int, step: int) -> Tensor:
        return self._packed_plans(epoch, range(step, step + 1))[0]

    def _packed_plans(self, epoch: int, steps: range) -> Tensor:
        plans = []
        for step in steps:
            shown, packed = self._backend.pack(*self._plan(epoch, step))
            plans.append(torch.cat([packed, torch.stack(self._batch_labels(shown), dim=1)], dim=1))
        together = torch.stack(plans)
        return together.pin_memory() if self.device.type == "cuda" else together

    def _is_full(self, step: int) -> bool:
        return bool(self.sampler.rows(step) == self.sampler.world_size * self.sampler.batch_size)

    def _begin_plans(self, start_step: int) -> None:
        if not self.has_plans:
            raise InputError("plans need the crops on the device: load with cache='gpu' (on the CPU, cache='ram')")
        self._begin(start_step)

    def _begin(self, start_step: int) -> None:
        if self._closed:
            raise InputError("this loader is closed; create a new one")
        if not 0 <= start_step <= len(self):
            raise InputError(f"start_step is {start_step}; the epoch's steps are 0 to {len(self) - 1}")
        self._end_epoch()

    def _end_epoch(self) -> None:
        if self._iterator is not None:
            self._iterator.close()
            self._iterator = None

    def _batch_labels(self, indices: IntArray) -> BatchLabels:
        """Return class, domain and index of images, on the CPU."""
        index = torch.from_numpy(indices)
        return self._labels[index], self._domains[index], index

    def _make_backend(self, backend: str, mode: str, num_threads: int) -> Backend:
        if backend == "native":
            from fastccsa.images.native import NativeBackend

            # Evaluation images must match the reference; only augmented images may be decoded at a reduced size.
            return NativeBackend(
                self._source,
                self.transforms,
                self.device,
                num_threads=num_threads,
                prefetch=self._prefetch,
                reduce=self._augment,
            )
        if backend == "torchvision":
            from fastccsa.images.torchvision_backend import TorchvisionBackend

            return TorchvisionBackend(
                self._source, self.transforms, self.device, mode, num_threads=num_threads, prefetch=self._prefetch
            )
        from fastccsa.images.dali import DaliBackend  # slow to import

        return DaliBackend(
            self._source,
            self.transforms,
            self.device,
            mode,
            batch_size=self.sampler.batch_size * self._images_per_row,
            num_threads=num_threads,
            prefetch=self._prefetch,
        )


def group_steps(steps: range, size: int, is_full: Callable[[int], bool]) -> list[range]:
    """Divide consecutive steps into groups of ``size`` full ones; the others are groups of one."""
    groups, step = [], steps.start
    while step < steps.stop:
        taken = range(step, step + size)
        if taken.stop > steps.stop or not all(map(is_full, taken)):
            taken = range(step, step + 1)
        groups.append(taken)
        step = taken.stop
    return groups


def _as_rank(sampler: Any, rank: int) -> Any:
    """Return the sampler that another rank has."""
    same = copy(sampler)
    same.rank = rank
    return same


def _close(loader: weakref.ref[Loader]) -> None:
    """Close a loader if it still exists."""
    alive = loader()
    if alive is not None:
        alive.close()


def _check_device(device: str | torch.device) -> torch.device:
    """Return the device with its index; a CUDA device without one gets the current index."""
    try:
        device = torch.device(device)
    except RuntimeError as error:
        raise InputError(f"device is {device!r}; give cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device is {device}; images can be made on cpu, cuda or cuda:N")
    if device.type == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise InputError(f"device is {device}, and torch sees no CUDA device here; use cpu, or see `fastccsa check`")
    return torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)


def _default_threads() -> int:
    """Return this process's share of the usable CPUs, at most 16; torchrun sets the number of processes per machine."""
    return max(1, min(16, usable_cpus() // int(os.environ.get("LOCAL_WORLD_SIZE", "1"))))
