"""Which device a model runs on, in which precision, and whether the results are deterministic."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, get_args

from fastccsa.system.choices import check_choice
from fastccsa.system.errors import InputError

# torch is imported where it is used: the command line reads `Amp`, and --help must not load torch.
if TYPE_CHECKING:
    import torch

Amp = Literal["auto", "none", "bfloat16", "float16"]


def pick_device(name: str = "auto", local_rank: int | None = None) -> torch.device:
    """Return the device called ``name``; ``"auto"`` is the first CUDA GPU if one is usable, else the CPU.

    Args:
        name: auto, cpu, cuda or cuda:N.
        local_rank: number of this process among those on the same machine, each of which uses the GPU of that number;
            None for a single process.

    Raises:
        InputError: ``name`` is not a device, or this machine does not have it.
    """
    import torch

    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and local_rank is not None:
        gpus = torch.cuda.device_count()
        if local_rank >= gpus:
            raise InputError(
                f"this machine has {gpus} GPUs and more processes than that: start {gpus or 1} of them "
                "(torchrun --nproc-per-node), or use device cpu"
            )
        name = f"cuda:{local_rank}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"unknown device {name!r}: use auto, cpu, cuda or cuda:N") from error
    if device.type not in ("cpu", "cuda") or (device.type == "cpu" and device.index):
        raise InputError(f"device {name!r} is not supported: use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {name!r} is not on this machine: use cpu, or run `fastccsa check` to see why")
    return device


def amp_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    """Return the autocast dtype for ``amp`` (one of `Amp`) on ``device``; None computes in float32.

    ``"auto"`` is float32 on the CPU; on CUDA it is bfloat16 if the GPU has instructions for it, else float16.

    Raises:
        InputError: ``amp`` is unknown, or it is float16 on the CPU (its range needs loss scaling, which only CUDA has).
    """
    import torch

    check_choice("amp", amp, get_args(Amp))
    if amp == "float16" and device.type == "cpu":
        raise InputError("amp float16 needs a CUDA device: use bfloat16 or none on the CPU")
    if amp == "auto":
        if device.type == "cpu":
            return None
        # GPUs before Ampere emulate bfloat16, slower than float32; their tensor cores take float16.
        with torch.cuda.device(device):
            has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if has_bfloat16 else torch.float16
    return {"none": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[amp]


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Return the autocast context for ``dtype`` on ``device``; None disables autocast."""
    import torch

    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


@contextmanager
def deterministic(enabled: bool = True) -> Iterator[None]:
    """Make torch compute the same bits every time within the block, on GPUs as well, if ``enabled``.

    Raises:
        InputError: the block uses an operation that torch cannot compute deterministically.
    """
    if not enabled:
        yield
        return
    import torch

    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch reads it when it first uses cuBLAS
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise InputError(f"deterministic is not possible here ({reason}): omit it, or use another backbone") from error
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
