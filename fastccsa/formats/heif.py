"""HEIC and HEIF, the pictures of telephones, decoded by pillow-heif where it is installed."""

from __future__ import annotations

import io

from PIL import Image

from fastccsa.formats.errors import NoDecoderError
from fastccsa.formats.pixels import check_size
from fastccsa.system.extras import pip_command

# The brands of files whose pictures are coded with HEVC. AVIF has the same container.
_BRANDS = frozenset({b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1"})


def is_heif(content: bytes | memoryview) -> bool:
    """Return whether a file's content is HEIF other than AVIF."""
    head = bytes(content[:64])
    return head[4:8] == b"ftyp" and head[8:12] in _BRANDS and b"avif" not in head[12:]


def decode(content: bytes | memoryview) -> Image.Image:
    """Decode the primary picture of a HEIF file; it is upright, because the container's rotation is applied.

    Raises:
        NoDecoderError: pillow-heif is not installed.
        BrokenImageError: the picture is too large.
    """
    try:
        import pillow_heif
    except ImportError as error:
        raise NoDecoderError(f"no decoder for HEIC is installed: {pip_command('formats')}") from error
    # Not registered as a plugin of Pillow: that would change what other code of this process opens.
    file = pillow_heif.open_heif(io.BytesIO(content), convert_hdr_to_8bit=True)
    check_size(*file.size)
    image: Image.Image = file.to_pillow()
    image.info.pop("exif", None)  # repeats the rotation of the container
    return image
