"""The optional extras of the installation: the modules of each, and the error about a missing package."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

from fastccsa.system.errors import InputError

# The modules that each extra of pyproject.toml installs. DALI is not among them, because images can be decoded without
# it, and `fastccsa.images.dali` names its package for each version of CUDA.
EXTRAS: dict[str, tuple[str, ...]] = {
    "train": (
        "torchvision", "pandas", "sklearn", "scipy", "matplotlib", "jinja2", "tqdm", "rich", "tensorboard", "PIL",
        "openpyxl", "safetensors", "nvtx",
    ),
    "prune": ("torch_pruning",),
    "timm": ("timm",),
    "export": ("onnx", "onnxscript", "onnxruntime"),
    "formats": ("pillow_heif", "tifffile"),
    "dicom": ("pydicom",),
    "sweep": ("optuna",),
    "mlflow": ("mlflow", "sqlalchemy", "alembic"),
    "wandb": ("wandb",),
    "executorch": ("executorch",),
    "bench": ("pytest_benchmark", "pytorch_metric_learning", "pykeops", "kornia"),
}  # fmt: skip


class MissingPackageError(InputError, ModuleNotFoundError):
    """A package of an optional extra is missing; the message has the pip command that installs it."""


@contextmanager
def install_advice() -> Iterator[None]:
    """Within the block, replace the error about a missing package of an extra by one that names the pip command.

    Raises:
        MissingPackageError: instead of the `ModuleNotFoundError` for one of the modules in `EXTRAS`.
    """
    try:
        yield
    except MissingPackageError:
        raise
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if _extra_of(module) is None:
            raise
        raise _missing(module, "is not installed") from error


def require(*modules: str) -> None:
    """Import ``modules``, which must be in `EXTRAS`, so that a missing one is reported before any work is done.

    Raises:
        MissingPackageError: one of them is not installed, or its installation is broken.
    """
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            absent = isinstance(error, ModuleNotFoundError) and error.name == module
            raise _missing(module, "is not installed" if absent else f"is not usable ({error})") from error


def not_installed(extra: str) -> list[str]:
    """Return the modules of ``extra`` that are not installed."""
    return [module for module in EXTRAS[extra] if importlib.util.find_spec(module) is None]


def pip_command(extra: str) -> str:
    """Return the command that installs ``extra``."""
    return f"pip install 'fastccsa[{extra}]'"


def _extra_of(module: str) -> str | None:
    return next((extra for extra, modules in EXTRAS.items() if module in modules), None)


def _missing(module: str, state: str) -> MissingPackageError:
    extra = _extra_of(module)
    assert extra is not None, module
    error = MissingPackageError(f"{module} {state}: {pip_command(extra)}")
    error.name = module
    return error
