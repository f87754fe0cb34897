"""Ways to decode a region of a JPEG, at full size or reduced: fastccsa's decoder, and libjpeg-turbo in many guises."""

from __future__ import annotations

import ctypes
import io
import shutil
import subprocess
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torchvision.io import decode_jpeg

from benchmarks.harness.benchmark import CannotRun
from benchmarks.harness.results import FLOOR, OURS, RIVAL
from fastccsa.images import jpeg

Region = tuple[int, int, int, int]  # top, left, height, width, in pixels of the reduced image
Decode = Callable[[np.ndarray, tuple[int, int], Region, int], object]  # content, full height and width, region, scale


def fastccsa(data: np.ndarray, size: tuple[int, int], region: Region, scale: int) -> object:
    return jpeg.decode_region(data, region, scale, size=size)


def codes(data: np.ndarray, size: tuple[int, int], region: Region, scale: int) -> object:
    """Read the codes down to the last row of the region, and make no pixels."""
    return jpeg.read_codes(data, region, scale)


def pillow(data: np.ndarray, size: tuple[int, int], region: Region, scale: int) -> object:
    """Let libjpeg-turbo reduce the image, and crop it."""
    top, left, height, width = region
    with Image.open(io.BytesIO(data.data), formats=["JPEG"]) as image:
        if scale > 1:
            image.draft("RGB", (size[1] // scale, size[0] // scale))
        return np.asarray(image.crop((left, top, left + width, top + height)))


def simplejpeg(data: np.ndarray, size: tuple[int, int], region: Region, scale: int) -> object:
    """Let libjpeg-turbo reduce the image, and crop it."""
    try:
        from simplejpeg import decode_jpeg as decode
    except ImportError:
        raise CannotRun("simplejpeg is not installed (pip install simplejpeg)") from None
    top, left, height, width = region
    small = {"min_height": -(-size[0] // scale), "min_width": -(-size[1] // scale)} if scale > 1 else {}
    return decode(data, "RGB", **small)[top : top + height, left : left + width]


def torchvision(data: np.ndarray, size: tuple[int, int], region: Region, scale: int) -> object:
    """Decode and crop; torchvision cannot reduce an image while it is decoded."""
    top, left, height, width = (scale * value for value in region)
    return decode_jpeg(torch.from_numpy(data))[:, top : top + height, left : left + width]


def libjpeg(data: np.ndarray, size: tuple[int, int], region: Region, scale: int) -> object:
    """Call libjpeg-turbo's own functions, which reduce and crop while decoding."""
    top, left, height, width = region
    pixels = np.empty((height, width, 3), np.uint8)
    content = data.ctypes.data_as(ctypes.c_void_p)
    to = pixels.ctypes.data_as(ctypes.c_void_p)
    if not _library().libjpeg_region(content, ctypes.c_ulong(data.size), top, left, height, width, scale, to):
        raise CannotRun("libjpeg-turbo refuses the file")
    return pixels


@cache
def _library() -> ctypes.CDLL:
    """Compile the functions that call libjpeg-turbo."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        raise CannotRun("there is no C compiler")
    source = Path(__file__).with_name("libjpeg_region.c")
    with TemporaryDirectory() as folder:
        library = Path(folder) / "libjpeg_region.so"
        command = [compiler, "-O2", "-shared", "-fPIC", str(source), "-o", str(library), "-ljpeg"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise CannotRun("libjpeg-turbo's headers are not installed (apt install libjpeg62-turbo-dev)")
        return ctypes.CDLL(str(library))


DECODERS: dict[str, tuple[str, Decode]] = {
    "fastccsa": (OURS, fastccsa),
    "libjpeg-turbo in C": (RIVAL, libjpeg),
    "simplejpeg": (RIVAL, simplejpeg),
    "Pillow": (RIVAL, pillow),
    "torchvision": (RIVAL, torchvision),
    "codes read": (FLOOR, codes),
}
