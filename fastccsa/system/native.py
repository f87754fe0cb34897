"""Loads the compiled libraries that know neither Python nor torch, through ctypes.

Their functions have C linkage, so one build serves every version of Python. A call releases the GIL.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from ctypes import addressof, c_char
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the loss needs no module of numpy that torch does not load
    from numpy.typing import NDArray

__all__ = ["address", "check", "library_path", "load"]

OUT_OF_MEMORY = b"out of memory"  # fastccsa::kOutOfMemory


def library_path(module: str, name: str) -> Path:
    """Return the path of the library ``name`` next to the file of a module.

    Raises:
        ImportError: it has not been built.
    """
    path = Path(module).with_name(name)
    if not path.exists():
        raise ImportError(
            f"fastccsa's compiled code is not there ({path}): run `pip install .`, and start Python outside the "
            "checkout, whose folder fastccsa/ takes precedence over the installed package"
        )
    return path


def load(module: str, name: str, functions: Mapping[str, tuple[type | None, tuple[type, ...]]]) -> ctypes.CDLL:
    """Load the library ``name`` next to the file of a module, and declare its functions.

    Args:
        module: the module's ``__file__``.
        name: the file name of the library.
        functions: the type of the result and the types of the arguments of each function.

    Raises:
        ImportError: the library has not been built, or cannot be loaded on this machine.
    """
    path = library_path(module, name)
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise ImportError(f"{path} cannot be loaded ({error}); reinstall fastccsa for this machine") from error
    for function, (result, arguments) in functions.items():
        declared = getattr(library, function)
        declared.restype, declared.argtypes = result, arguments
    return library


def address(array: NDArray[Any]) -> int:
    """Return the address of a contiguous array."""
    # Four times as fast as ``array.ctypes.data``, which takes a microsecond.
    return addressof(c_char.from_buffer(array.data)) if array.size and array.flags.writeable else array.ctypes.data


def check(reason: bytes | None) -> None:
    """Raise the error that a function of a library returned as the reason of its failure, if it returned one.

    Raises:
        MemoryError: memory ran out.
        ValueError: for every other reason.
    """
    if reason is not None:
        raise MemoryError(reason.decode()) if reason == OUT_OF_MEMORY else ValueError(reason.decode())
