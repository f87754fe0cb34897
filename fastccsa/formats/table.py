"""The image formats that are read. No other is opened, whatever the file is called."""

from __future__ import annotations

from typing import NamedTuple

from PIL import features

from fastccsa.formats.errors import NoDecoderError


class Format(NamedTuple):
    """A format.

    Attributes:
        name: its usual name.
        extensions: endings of file names, in lower case. They only say which files of a folder are images; what a file
            contains decides how it is decoded.
        plugins: the plugins of Pillow that decode it; none for HEIC and DICOM.
        feature: what Pillow must have been built with, in the words of `PIL.features`.
        advice: the command that installs a Pillow that has it.
    """

    name: str
    extensions: tuple[str, ...]
    plugins: tuple[str, ...] = ()
    feature: str = ""
    advice: str = ""


FORMATS = (
    Format("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif"), ("JPEG",)),
    Format("PNG", (".png",), ("PNG",)),
    Format("BMP", (".bmp", ".dib"), ("BMP", "DIB")),
    Format("TIFF", (".tif", ".tiff"), ("TIFF",)),
    Format("WebP", (".webp",), ("WEBP",), "webp", "pip install -U pillow"),
    Format("GIF", (".gif",), ("GIF",)),
    Format("JPEG 2000", (".jp2", ".j2k", ".jpx"), ("JPEG2000",), "jpg_2000", "pip install -U pillow"),
    Format("AVIF", (".avif",), ("AVIF",), "avif", "pip install 'pillow>=11.3'"),
    Format("PPM", (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"), ("PPM",)),
    Format("HEIC", (".heic", ".heif", ".hif")),
    Format("DICOM", (".dcm", ".dicom")),
    # The last, because nothing in its files marks them as TGA.
    Format("TGA", (".tga",), ("TGA",)),
)

EXTENSIONS = frozenset(extension for kind in FORMATS for extension in kind.extensions)
PLUGINS = tuple(name for kind in FORMATS for name in kind.plugins)


def require_decoder(content: bytes | memoryview) -> None:
    """Raise NoDecoderError if a file that Pillow does not recognise has a format that it could have been built with."""
    kind = next((kind for kind in FORMATS if kind.feature and kind.feature == _feature_for(bytes(content[:64]))), None)
    if kind is not None and not features.check(kind.feature):
        raise NoDecoderError(f"no decoder for {kind.name} is installed: {kind.advice}")


def _feature_for(head: bytes) -> str:
    """Return the feature of Pillow that a file needs, according to its first bytes; "" if none."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "webp"
    if head[4:8] == b"ftyp" and b"avif" in head[8:]:
        return "avif"
    if head.startswith((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")):
        return "jpg_2000"
    return ""
