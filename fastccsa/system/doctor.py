"""What was built, what is usable here, and what to do about what is not."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass, field

from fastccsa._version import __version__

__all__ = ["Check", "Report", "check"]

GET_NVCC = "reinstall where an nvcc can be had: on PATH, by CUDA_HOME, or `pip install 'fastccsa[cuda]'` first"


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    usable: bool
    state: str
    advice: str = ""


@dataclass(frozen=True)
class Report:
    """The outcome of :func:`check`; ``print`` it, or read ``checks``.

    Attributes:
        checks: one entry for each part, in order.
    """

    checks: list[Check] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        """The loss can be computed on this machine at least on the CPU."""
        return all(c.usable for c in self.checks if c.name in ("PyTorch", "ops"))

    def __getitem__(self, name: str) -> Check:
        return next(c for c in self.checks if c.name == name)

    def __str__(self) -> str:
        width = max(len(c.name) for c in self.checks)
        lines = [f"fastccsa {__version__}"]
        for c in self.checks:
            lines.append(f"  {'ok' if c.usable else '--'}  {c.name:<{width}}  {c.state}")
            if c.advice:
                lines.append(f"      {'':<{width}}  -> {c.advice}")
        return "\n".join(lines)


def _torch() -> Check:
    import torch

    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    old = tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 10)
    return Check("PyTorch", not old, f"{torch.__version__}, {cuda}", "upgrade to torch 2.10 or later" if old else "")


def _ops() -> Check:
    try:
        import torch

        from fastccsa import _build_info
        from fastccsa.ops import library
    except ImportError as error:
        return Check("ops", False, str(error), "`pip install .`, and start Python outside the checkout")
    isa = torch.ops.fastccsa.instruction_set()
    built = f"built with {_build_info.COMPILER} against torch {_build_info.TORCH_VERSION}"
    return Check("ops", library.library_path().exists(), f"{built}; CPU kernels: {isa}")


def _architecture_names(architectures: tuple[str, ...]) -> str:
    """``("90-real", "120-virtual")`` as ``9.0, 12.0+PTX``, the way PyTorch writes them."""
    names: dict[str, str] = {}
    for entry in architectures:
        number, kind = entry.split("-")
        digits = number.rstrip("af")
        name = f"{digits[:-1]}.{digits[-1]}{number[len(digits) :]}"
        names[name] = names.get(name, "") + ("+PTX" if kind == "virtual" else "")
    return ", ".join(name + suffix for name, suffix in names.items())


def _runs_on(capability: tuple[int, int], architectures: tuple[str, ...]) -> bool:
    """Machine code runs on later GPUs of the same generation; PTX on every later one; 'a' on its own GPU alone."""
    for entry in architectures:
        number, kind = entry.split("-")
        digits = number.rstrip("af")
        built = (int(digits[:-1]), int(digits[-1]))
        if number.endswith("a"):
            fits = built == capability
        elif kind == "virtual":
            fits = built <= capability
        else:
            fits = built[0] == capability[0] and built[1] <= capability[1]
        if fits:
            return True
    return False


def _cuda_code() -> Check:
    try:
        from fastccsa import _build_info
    except ImportError:
        return Check("CUDA code", False, "unknown: nothing was built")
    if not _build_info.CUDA_VERSION:
        return Check("CUDA code", False, "not built", GET_NVCC)
    names = _architecture_names(_build_info.CUDA_ARCHITECTURES)
    return Check("CUDA code", True, f"built with nvcc {_build_info.CUDA_VERSION} for {names}")


def _gpus() -> list[Check]:
    import torch

    if torch.version.cuda is None:
        return [Check("GPU", False, "this PyTorch has no CUDA support", "install a CUDA build of torch to use a GPU")]
    if not torch.cuda.is_available():
        return [Check("GPU", False, "none is visible to PyTorch", "the CPU is used; see `nvidia-smi` if there is one")]
    try:
        from fastccsa._build_info import CUDA_ARCHITECTURES
    except ImportError:
        CUDA_ARCHITECTURES = ()
    checks = []
    for index in range(torch.cuda.device_count()):
        capability = torch.cuda.get_device_capability(index)
        name = f"{torch.cuda.get_device_name(index)}, compute capability {capability[0]}.{capability[1]}"
        fits = _runs_on(capability, CUDA_ARCHITECTURES)
        advice = f"reinstall with TORCH_CUDA_ARCH_LIST={capability[0]}.{capability[1]}+PTX"
        checks.append(Check(f"GPU {index}", fits, name, "" if fits else advice))
    return checks


def _dali() -> Check:
    advice = "`pip install nvidia-dali-cuda130` (CUDA 12: nvidia-dali-cuda120), or use backend='torchvision'"
    if importlib.util.find_spec("nvidia") is None or importlib.util.find_spec("nvidia.dali") is None:
        return Check("DALI", False, "not installed", advice)
    wheels = [name for name in ("nvidia-dali-cuda130", "nvidia-dali-cuda120") if _version(name)]
    return Check("DALI", True, ", ".join(f"{name} {_version(name)}" for name in wheels) or "installed")


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def check() -> Report:
    """Report what was built, for which GPU architectures, what is usable here, and what to do about what is not.

    Returns:
        A :class:`Report`: printing it gives one line a part, and advice where something is missing.

    Example:
        >>> import fastccsa
        >>> fastccsa.check().usable
        True
    """
    return Report([_torch(), _ops(), _cuda_code(), *_gpus(), _dali()])
