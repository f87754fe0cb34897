"""Which device a model runs on, in which number format, and whether to the same bits each time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from fastccsa.system.errors import InputError

AMP_CHOICES = ("auto", "none", "bfloat16", "float16")


def pick_device(name: str = "auto", local_rank: int | None = None) -> torch.device:
    """Find the device called ``name``; ``"auto"`` is the first CUDA GPU where one is usable, else the CPU.

    Args:
        name: auto, cpu, cuda or cuda:N.
        local_rank: place of this process among those that share the machine, each of which has a GPU of its own;
            None for a process alone.

    Raises:
        InputError: ``name`` is no device, or one this machine does not have.
    """
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
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"device {name!r} is not supported: use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {name!r} is not on this machine: use cpu, or run `fastccsa check` to see why")
    return device


def amp_dtype(amp: str, device: torch.device) -> torch.dtype | None:
    """Find the autocast format for ``amp`` (one of AMP_CHOICES) on ``device``; None computes in float32.

    ``"auto"`` is float32 on the CPU, and on CUDA bfloat16 where the GPU has it, else float16.

    Raises:
        InputError: ``amp`` is unknown, or is float16 on the CPU (whose range needs the loss scaling of CUDA).
    """
    if amp not in AMP_CHOICES:
        raise InputError(f"unknown amp {amp!r}: use one of {', '.join(AMP_CHOICES)}")
    if amp == "float16" and device.type == "cpu":
        raise InputError("amp float16 needs a CUDA device: use bfloat16 or none on the CPU")
    if amp == "auto":
        if device.type == "cpu":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"none": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[amp]


def autocast(device: torch.device, dtype: torch.dtype | None) -> torch.autocast:
    """Make the autocast context of ``dtype`` on ``device``; with None it changes nothing."""
    return torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None)


@contextmanager
def deterministic(wanted: bool = True) -> Iterator[None]:
    """Let torch compute the same bits each time within the block, on GPUs as well, if that is ``wanted``.

    Raises:
        InputError: the block needs an operation that torch cannot compute so.
    """
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read by torch when it first needs cuBLAS
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise InputError(f"deterministic cannot be had ({reason}): leave it away, or use another backbone") from error
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
