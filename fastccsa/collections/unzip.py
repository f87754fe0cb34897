"""Reading one entry of a .zip file in pieces of bounded size, whatever the compression.

``zipfile`` decompresses bzip2 and LZMA without a bound: 4 kB of a file of zeros become gigabytes of memory at once.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO, Protocol

CHUNK = 1 << 20  # bytes read, and at most returned, at a time
_LARGEST_WINDOW = 1 << 28  # bytes of memory for the window of LZMA

_LOCAL = struct.Struct("<4s22xHH")  # signature, lengths of the name and of the extra field


class _Decompressor(Protocol):
    """The interface that bz2 and lzma share; :class:`_Inflate` and :class:`_Stored` have it too."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def pieces(file: IO[bytes], info: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield the content of an entry in pieces of at most ``CHUNK`` bytes.

    Args:
        file: the opened .zip file.
        info: the entry.

    Raises:
        zipfile.BadZipFile: the entry is damaged: too long, too short, or with another checksum than it says.
        NotImplementedError: it is compressed in an unsupported way, or needs too much memory.
    """
    file.seek(info.header_offset)
    header = file.read(_LOCAL.size)
    if len(header) < _LOCAL.size or not header.startswith(b"PK\3\4"):
        raise zipfile.BadZipFile(f"{info.filename} has no header")
    _, name, extra = _LOCAL.unpack(header)
    file.seek(name + extra, 1)
    packed = _limited(file, info.compress_size)
    total, checksum = 0, 0
    for piece in _decompressed(packed, info):
        total += len(piece)
        checksum = zlib.crc32(piece, checksum)
        if total > info.file_size:
            break
        yield piece
    if total != info.file_size or checksum != info.CRC:
        raise zipfile.BadZipFile(f"{info.filename} differs from its size or checksum")


def _limited(file: IO[bytes], size: int) -> Iterator[bytes]:
    while size > 0 and (data := file.read(min(CHUNK, size))):
        size -= len(data)
        yield data


def _decompressed(packed: Iterator[bytes], info: zipfile.ZipInfo) -> Iterator[bytes]:
    decompressor, data = _start(packed, info)
    try:
        while not decompressor.eof:
            if decompressor.needs_input and not data:
                data = next(packed, b"")
                if not data:
                    return
            piece = decompressor.decompress(data, CHUNK)
            data = b""
            if piece:
                yield piece
    except (OSError, lzma.LZMAError) as error:  # bz2 raises OSError for damaged data
        raise zipfile.BadZipFile(f"{info.filename}: {error}") from error


def _start(packed: Iterator[bytes], info: zipfile.ZipInfo) -> tuple[_Decompressor, bytes]:
    """Return the decompressor of an entry, and the packed bytes that were read to choose it."""
    if info.compress_type == zipfile.ZIP_STORED:
        return _Stored(), b""
    if info.compress_type == zipfile.ZIP_DEFLATED:
        return _Inflate(), b""
    if info.compress_type == zipfile.ZIP_BZIP2:
        return bz2.BZ2Decompressor(), b""
    if info.compress_type == zipfile.ZIP_LZMA:
        data = next(packed, b"")
        return _lzma(data, info), data[9:]
    raise NotImplementedError(f"{info.filename} has the unsupported compression method {info.compress_type}")


def _lzma(data: bytes, info: zipfile.ZipInfo) -> lzma.LZMADecompressor:
    """Return the decompressor for the properties at the start of the data: version, their length, and 5 bytes."""
    if len(data) < 9 or data[2:4] != b"\5\0" or data[4] >= 9 * 5 * 5:
        raise zipfile.BadZipFile(f"{info.filename} has no LZMA properties")
    rest, lc = divmod(data[4], 9)
    pb, lp = divmod(rest, 5)
    (window,) = struct.unpack("<I", data[5:9])
    window = max(4096, min(window, info.file_size))  # a longer window than the content is never used
    if window > _LARGEST_WINDOW:
        raise NotImplementedError(f"the compression of {info.filename} needs {window >> 20} MiB of memory")
    settings = {"id": lzma.FILTER_LZMA1, "dict_size": window, "lc": lc, "lp": lp, "pb": pb}
    try:
        return lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=[settings])
    except lzma.LZMAError as error:
        raise zipfile.BadZipFile(f"{info.filename}: {error}") from error


class _Stored:
    """Data that is not compressed."""

    eof = False
    needs_input = True

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return data  # at most CHUNK bytes, as they were read


class _Inflate:
    """zlib's decompressor with the interface of bz2's."""

    def __init__(self) -> None:
        self._inflate = zlib.decompressobj(-zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._inflate.eof

    @property
    def needs_input(self) -> bool:
        return not self._inflate.unconsumed_tail

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        return self._inflate.decompress(self._inflate.unconsumed_tail + data, max_length)
