"""Files of tensors in the format of safetensors, with a checksum of their content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from fastccsa.system.files import write_atomically
from fastccsa.system.reading import check_regular, load_json, read_bytes
from fastccsa.system.schema import Mismatch, build

_LENGTH = 8  # bytes that hold the length of the header
_DIGEST = "digest"


def write_tensors(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, str] | None = None) -> None:
    """Write tensors and text about them into one file, completely or not at all.

    Raises:
        InputError: the folder cannot be written.
    """
    # safetensors stores tensors row by row: channels-last weights are copied into that order.
    rows = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    about = dict(about or {})
    content = safetensors.torch.save(rows, {**about, _DIGEST: _digest(rows, about)})
    with write_atomically(path) as file, open(file, "wb") as stream:
        stream.write(_header_in_order(content))
        stream.write(memoryview(content)[_LENGTH + _header_length(content) :])


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read what `write_tensors` wrote, or any file of safetensors. No code from it is executed.

    The file is read, not mapped: a mapped file that is cut short meanwhile would end the process.

    Returns:
        The tensors by name, and the text about them.

    Raises:
        OSError: the file is missing, or not a regular file.
        InputError: it is damaged, or not such a file; the message does not name it.
    """
    content = read_bytes(path, check_regular(path))
    try:
        tensors = safetensors.torch.load(content)
    # The library raises its own error for a broken header, and others for types that torch does not have.
    except (SafetensorError, ValueError, KeyError, TypeError, RuntimeError, OverflowError) as error:
        raise Mismatch(str(error).split("\n")[0]) from error
    header = load_json(content[_LENGTH : _LENGTH + _header_length(content)])
    about = build(dict[str, str], header.get("__metadata__") or {}, "__metadata__") if isinstance(header, dict) else {}
    expected = about.pop(_DIGEST, None)  # missing from files of older versions and other programs
    if expected is not None and _digest(tensors, about) != expected:
        raise Mismatch("its content has changed since it was saved")
    return tensors, about


def _header_length(content: bytes) -> int:
    return int.from_bytes(content[:_LENGTH], "little")


def _header_in_order(content: bytes) -> bytes:
    """Return the header with its text in alphabetical order: the library's own order differs from call to call."""
    header = json.loads(content[_LENGTH : _LENGTH + _header_length(content)])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _LENGTH)
    return len(text).to_bytes(_LENGTH, "little") + text


def _digest(tensors: Mapping[str, Tensor], about: Mapping[str, str]) -> str:
    total = hashlib.blake2b(digest_size=16)
    for name, value in sorted(about.items()):
        total.update(f"{name!r} {value!r}".encode())
    for name, tensor in sorted(tensors.items()):
        total.update(f"{name!r} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.numel():
            total.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
