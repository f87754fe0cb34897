"""Facts about this machine, its available memory and processors, and the commit of the running code."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastccsa._version import __version__
from fastccsa.system import cgroups

if TYPE_CHECKING:
    import torch

__all__ = ["available_bytes", "commit", "describe", "memory_bytes", "memory_share", "now", "usable_cpus", "versions"]

# Environment variables that affect the speed of torch or fastccsa.
ENVIRONMENT = (
    "FASTCCSA_ISA", "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "LD_PRELOAD", "MALLOC_CONF", "MALLOC_MMAP_THRESHOLD_",
    "MALLOC_TOP_PAD_", "MALLOC_TRIM_THRESHOLD_", "OMP_NUM_THREADS", "OMP_PROC_BIND", "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF", "THP_MEM_ALLOC_ENABLE",
)  # fmt: skip
PACKAGES = (
    "fastccsa", "kornia", "numpy", "nvidia-dali-cuda130", "pillow", "pykeops", "pytorch-metric-learning", "torch",
    "torchvision", "triton",
)  # fmt: skip


def _first_of(path: str, key: str) -> str | None:
    """Return the value of the first line ``key: value`` of a file in /proc."""
    try:
        lines = Path(path).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.split(":", 1)[1].strip() for line in lines if line.split(":")[0].strip() == key), None)


def usable_cpus() -> int:
    """Return the number of processors that this process may use, which a scheduler or a container may limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def memory_bytes() -> int:
    """Return the main memory in bytes that this process may use: the machine's, or what its container allows."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = cgroups.memory_limit()
    return machine if limit is None else min(machine, limit)


_shares = {"cpu": 1.0, "cuda": 1.0}


@contextmanager
def memory_share(main: float, gpu: float) -> Iterator[None]:
    """Within the block, count only this process's share of all memory as available; other processes need the rest.

    Args:
        main, gpu: share of the main memory and of a GPU's memory, in (0, 1].
    """
    before = dict(_shares)
    _shares.update(cpu=main, cuda=gpu)
    try:
        yield
    finally:
        _shares.update(before)


def available_bytes(device: torch.device) -> int:
    """Return the number of bytes that can still be allocated on ``device``, within the limits of a container.

    See also `memory_share`.
    """
    share = _shares[device.type]
    if device.type == "cuda":
        import torch

        # Memory that torch has reserved but not allocated is available too.
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        free, total = torch.cuda.mem_get_info(device)
        return min(free + unused, int(share * total))
    return min(_available_main_bytes(), int(share * memory_bytes()))


def _available_main_bytes() -> int:
    available = _first_of("/proc/meminfo", "MemAvailable")
    if available is not None:
        machine = int(available.split()[0]) * 1024
    else:
        machine = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    left = cgroups.memory_left()
    return machine if left is None else min(machine, left)


def describe(device: torch.device, name: str | None = None) -> dict[str, Any]:
    """Describe the machine: processor, cores, memory, load, and the GPU if ``device`` is one.

    Args:
        device: the device that is used.
        name: name of the machine; None uses its host name.
    """
    machine: dict[str, Any] = {
        "name": name or platform.node(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _first_of("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": memory_bytes(),
        "load_before": round(os.getloadavg()[0], 2),
        "gpu": None,
        "environment": {key: os.environ[key] for key in ENVIRONMENT if key in os.environ},
    }
    if device.type == "cuda":
        import torch

        gpu = torch.cuda.get_device_properties(device)
        machine["gpu"] = {
            "name": gpu.name,
            "capability": f"{gpu.major}.{gpu.minor}",
            "memory_bytes": gpu.total_memory,
            "multiprocessors": gpu.multi_processor_count,
        }
    return machine


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the packages that matter; None if a package is not installed."""
    import torch

    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    found["fastccsa"] = __version__
    found["torch"] = torch.__version__
    found["cuda of torch"] = torch.version.cuda
    return found


def commit() -> str | None:
    """Return the commit of the running code, from FASTCCSA_COMMIT or else from the checkout of this file.

    It is None if there is neither.

    ``+changes`` is appended to a checkout's commit if its sources differ from it.
    """
    stated = os.environ.get("FASTCCSA_COMMIT")
    if stated:
        return stated

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return None

    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    changed = git("status", "--porcelain", "--untracked-files=no", "--", ":/fastccsa", ":/csrc")
    return f"{git('rev-parse', 'HEAD')}{'+changes' if changed else ''}"


def now() -> str:
    """Return the current time in UTC as ISO 8601 text, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
