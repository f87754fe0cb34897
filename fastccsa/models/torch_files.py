"""Reading files that `torch.save` wrote, whatever was done to them since.

`torch.load` with ``weights_only`` executes no code, but it does not check that a tensor lies within its storage, that a
file unpacks to its own size, or that the content ends. These functions do, before anything touches a tensor.
"""

from __future__ import annotations

import hashlib
import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastccsa.system.reading import check_regular, read_bytes
from fastccsa.system.schema import Mismatch

DEEPEST = 12  # levels of nesting; a checkpoint has 4
MOST_VALUES = 1 << 19  # a checkpoint has a few thousand, and some twenty more for each epoch
_MOST_UNPACKED = 1 << 20  # bytes by which the parts of a file may exceed it


def read_torch(file: Path, legacy: bool = False) -> Any:
    """Read a file that `torch.save` wrote, to the CPU. No code from it is executed.

    Args:
        file: the file.
        legacy: also read the format of torch before 1.6, of which published weights are.

    Raises:
        OSError: it is missing, or not a regular file.
        InputError: it is damaged, or not such a file; the message does not name it.
    """
    size = check_regular(file)
    content = io.BytesIO(read_bytes(file, size))
    if not _check_archive(content, size) and not legacy:
        raise Mismatch("it is not a file of torch.save")
    content.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.load(content, map_location="cpu", weights_only=True)
        except Exception as error:  # the unpickler interprets any bytes, and raises whatever they lead to
            raise Mismatch(_reason(error)) from error


def _check_archive(content: io.BytesIO, size: int) -> bool:
    """Return whether the content is a ZIP archive; raise if its parts are compressed, or larger than the archive."""
    if not zipfile.is_zipfile(content):
        return False
    try:
        with zipfile.ZipFile(content) as archive:
            parts = archive.infolist()
    except Exception as error:  # as above: the format has many ways to be wrong
        raise Mismatch(_reason(error)) from error
    if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
        raise Mismatch("its parts are compressed, which torch.save does not do")
    if sum(part.file_size for part in parts) > size + _MOST_UNPACKED:
        raise Mismatch("its parts are larger than the file")
    return True


def _reason(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:200] if text else type(error).__name__


def check_content(value: Any) -> None:
    """Check that a value holds nothing but plain values and sound tensors, in dicts, lists and tuples.

    Raises:
        InputError: something else, more than `MOST_VALUES` values, or nested more than `DEEPEST` levels deep.
    """
    left = MOST_VALUES

    def check(value: Any, depth: int) -> None:
        nonlocal left
        left -= 1
        if depth > DEEPEST or left < 0:
            raise Mismatch("it is nested too deeply" if depth > DEEPEST else "it has too many values")
        if isinstance(value, Tensor):
            check_tensor(value)
        elif isinstance(value, dict):
            for name, item in value.items():
                if type(name) not in (str, int):
                    raise Mismatch(f"it has a name of type {type(name).__name__}")
                check(item, depth + 1)
        elif isinstance(value, list | tuple):
            for item in value:
                check(item, depth + 1)
        elif value is not None and type(value) not in (bool, int, float, str):
            raise Mismatch(f"it has a value of type {type(value).__name__}")

    check(value, 0)


def check_tensor(tensor: Tensor) -> None:
    """Check that a tensor is an ordinary one on the CPU whose elements lie within its storage.

    Raises:
        InputError: it is not.
    """
    ordinary = (
        type(tensor) in (Tensor, torch.nn.Parameter)
        and tensor.layout == torch.strided
        and tensor.device.type == "cpu"
        and not (tensor.is_quantized or tensor.is_nested or tensor.is_conj() or tensor.is_neg())
    )
    if not ordinary:
        raise Mismatch(f"it has a tensor of an unknown kind ({type(tensor).__name__}, {tensor.layout})")
    if tensor.numel() == 0:
        return
    last = tensor.storage_offset()
    for length, stride in zip(tensor.shape, tensor.stride(), strict=True):
        if stride < 0:
            raise Mismatch("it has a tensor that does not lie within its memory")
        last += (length - 1) * stride
    if (last + 1) * tensor.itemsize > tensor.untyped_storage().nbytes():
        raise Mismatch("it has a tensor that does not lie within its memory")


def check_digest(content: dict[str, Any]) -> None:
    """Compare a checkpoint with its digest, which is removed; older ones have none.

    Raises:
        InputError: its content has changed since it was saved.
    """
    expected = content.pop("digest", None)
    if expected is not None and digest(content) != expected:
        raise Mismatch("its content has changed since it was saved")


def digest(content: dict[str, Any]) -> str:
    """Return a checksum of everything in a checkpoint, since torch does not notice flipped bits in a file."""
    total = hashlib.blake2b(digest_size=16)
    _digest_into(total, content)
    return total.hexdigest()


def _digest_into(total: hashlib.blake2b, value: Any) -> None:
    if isinstance(value, Tensor):
        total.update(f"{value.dtype} {tuple(value.shape)}".encode())
        if value.numel():
            total.update(value.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    elif isinstance(value, dict):
        for key, item in value.items():
            total.update(repr(key).encode())
            _digest_into(total, item)
    elif isinstance(value, list | tuple):
        for item in value:
            _digest_into(total, item)
    else:
        total.update(repr(value).encode())


def same_kind(tensor: Any, like: Tensor, name: str) -> Tensor:
    """Return a copy of ``tensor`` on the CPU in the memory layout of ``like``, whatever its own layout is.

    Raises:
        InputError: it is not a tensor with the shape and dtype of ``like``.
    """
    if not isinstance(tensor, Tensor) or tensor.shape != like.shape or tensor.dtype != like.dtype:
        found = f"{tensor.dtype} {list(tensor.shape)}" if isinstance(tensor, Tensor) else type(tensor).__name__
        raise Mismatch(f"{name} is {found}, and {like.dtype} {list(like.shape)} is needed")
    check_tensor(tensor)
    return torch.empty_like(like, device="cpu", requires_grad=False).copy_(tensor.detach())
