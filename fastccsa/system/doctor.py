"""What was built, what is usable here, which extras are installed, and how to get what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import platform
from dataclasses import asdict, dataclass, field

from fastccsa._version import __version__
from fastccsa.system.extras import EXTRAS, not_installed, pip_command

__all__ = ["Check", "Report", "check"]

GET_NVCC = "reinstall with an nvcc: on PATH, in CUDA_HOME, or from `pip install 'fastccsa[cuda]'`"

# The purpose of each extra; `fastccsa.system.extras` lists its packages.
PURPOSES = {
    "train": "data, training, evaluation, reports",
    "prune": "`fastccsa prune`",
    "timm": "backbones of timm",
    "export": "`fastccsa export`",
    "formats": "HEIC images, TIFFs in floating-point colour",
    "dicom": "DICOM images",
    "sweep": "`fastccsa sweep`",
    "mlflow": "`fastccsa train --track mlflow`",
    "wandb": "`fastccsa train --track wandb`",
    "executorch": "`fastccsa export --executorch`",
    "bench": "the benchmarks' contestants",
}


@dataclass(frozen=True)
class Check:
    """One part of the installation.

    Attributes:
        name: what it is called in the report.
        usable: whether it works here.
        state: its version, or why it does not work.
        advice: what to do about it; empty if there is nothing to do.
    """

    name: str
    usable: bool
    state: str
    advice: str = ""


@dataclass(frozen=True)
class Report:
    """The result of :func:`check`; ``print`` it, or read ``checks``.

    Attributes:
        checks: one entry per part, in the order of the printed report.
    """

    checks: list[Check] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        """Whether the loss can be computed on this machine, at least on the CPU."""
        return all(part.usable for part in self.checks if part.name in ("PyTorch", "ops"))

    def __getitem__(self, name: str) -> Check:
        return next(part for part in self.checks if part.name == name)

    def __str__(self) -> str:
        width = max(len(part.name) for part in self.checks)
        lines = [f"fastccsa {__version__}"]
        for part in self.checks:
            lines.append(f"  {'ok' if part.usable else '--'}  {part.name:<{width}}  {part.state}")
            if part.advice:
                lines.append(f"      {'':<{width}}  -> {part.advice}")
        return "\n".join(lines)

    def as_json(self) -> str:
        """Return the report as a JSON object: the version, Python, the system, ``usable``, and the parts."""
        report = {
            "fastccsa": __version__,
            "python": f"{platform.python_implementation()} {platform.python_version()}",
            "system": platform.platform(),
            "usable": self.usable,
            "checks": [asdict(part) for part in self.checks],
        }
        return json.dumps(report, indent=2)


def _torch() -> Check:
    import torch

    cuda = f"CUDA {torch.version.cuda}" if torch.version.cuda else "without CUDA"
    old = tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 10)
    return Check("PyTorch", not old, f"{torch.__version__}, {cuda}", "upgrade to torch 2.10 or later" if old else "")


def _ops() -> Check:
    try:
        import torch

        from fastccsa import _build_info
        from fastccsa.ops import library  # noqa: F401 - loads the ops
    except ImportError as error:
        return Check("ops", False, str(error), "`pip install .`, and start Python outside the checkout")
    isa = torch.ops.fastccsa.instruction_set()
    built = f"built with {_build_info.COMPILER} against torch {_build_info.TORCH_VERSION}"
    return Check("ops", True, f"{built}; CPU kernels: {isa}")


def _architecture_names(architectures: tuple[str, ...]) -> str:
    """Format architectures as PyTorch does: ``("90-real", "120-virtual")`` becomes ``9.0, 12.0+PTX``."""
    names: dict[str, str] = {}
    for entry in architectures:
        number, kind = entry.split("-")
        digits = number.rstrip("af")
        name = f"{digits[:-1]}.{digits[-1]}{number[len(digits) :]}"
        names[name] = names.get(name, "") + ("+PTX" if kind == "virtual" else "")
    return ", ".join(name + suffix for name, suffix in names.items())


def _runs_on(capability: tuple[int, int], architectures: tuple[str, ...]) -> bool:
    """Return whether code built for ``architectures`` runs on a GPU of this compute capability.

    Machine code runs on later GPUs of the same generation, PTX on every later GPU, and the code of an architecture with
    the suffix "a" only on that one.
    """
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
    gpus = []
    for index in range(torch.cuda.device_count()):
        capability = torch.cuda.get_device_capability(index)
        name = f"{torch.cuda.get_device_name(index)}, compute capability {capability[0]}.{capability[1]}"
        fits = _runs_on(capability, CUDA_ARCHITECTURES)
        advice = f"reinstall with TORCH_CUDA_ARCH_LIST={capability[0]}.{capability[1]}+PTX"
        gpus.append(Check(f"GPU {index}", fits, name, "" if fits else advice))
    return gpus


def _dali() -> Check:
    advice = "`pip install nvidia-dali-cuda130` (CUDA 12: nvidia-dali-cuda120), or use backend='torchvision'"
    if importlib.util.find_spec("nvidia") is None or importlib.util.find_spec("nvidia.dali") is None:
        return Check("DALI", False, "not installed", advice)
    wheels = [name for name in ("nvidia-dali-cuda130", "nvidia-dali-cuda120") if _version(name)]
    return Check("DALI", True, ", ".join(f"{name} {_version(name)}" for name in wheels) or "installed")


def _extra(name: str) -> Check:
    missing = not_installed(name)
    if not missing:
        return Check(f"extra {name}", True, f"{PURPOSES[name]}; installed")
    return Check(
        f"extra {name}", False, f"{PURPOSES[name]}; not installed: {', '.join(missing)}", f"`{pip_command(name)}`"
    )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def check() -> Report:
    """Report what was built, for which GPU architectures, what is usable here, and which extras are installed.

    Returns:
        A :class:`Report`, which prints as one line per part, with advice where something is missing.

    Example:
        >>> import fastccsa
        >>> fastccsa.check().usable
        True
    """
    return Report([_torch(), _ops(), _cuda_code(), *_gpus(), _dali(), *map(_extra, EXTRAS)])
