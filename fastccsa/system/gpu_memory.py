"""What to do when the memory of a GPU is full."""

from __future__ import annotations

import gc

# torch is imported where it is used: the command line must not load it for --help.

# Of CUDA, and of libraries that allocate memory of their own; torch's allocator has an error of its own kind.
_REASONS = (
    "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "cudaErrorMemoryAllocation",
)  # fmt: skip


def ran_out(error: BaseException) -> bool:
    """Return whether an error says that a GPU's memory is full."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(reason in str(error) for reason in _REASONS)


def release() -> None:
    """Return the GPU memory that nothing uses any more, such as that of a finished run; torch keeps it otherwise."""
    import torch

    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
