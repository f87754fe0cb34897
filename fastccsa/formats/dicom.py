"""DICOM, decoded by pydicom where it is installed: the picture that a viewer shows first.

Grey values go through the modality transform and the first window or VOI table. As in highdicom, those of a frame are
searched for in its own functional groups, then in the shared ones, then in the dataset.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from fastccsa.formats.errors import BrokenImageError, NoDecoderError
from fastccsa.formats.pixels import Bytes, by_strips, check_size, stretch, value_range
from fastccsa.system.extras import pip_command

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Values = npt.NDArray[Any]

_MARK = slice(128, 132)
_DEFLATED = b"1.2.840.10008.1.2.1.99"  # a transfer syntax; in the first bytes of a file
_META = slice(0, 2048)
_EXTENDED = "1.2.840.10008.1.2.4.51"
_WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"

# Packages that decode what pydicom cannot, by transfer syntax.
_DECODERS = {
    _EXTENDED: "pylibjpeg-libjpeg or python-gdcm",
    "1.2.840.10008.1.2.4.57": "pylibjpeg-libjpeg or python-gdcm",
    "1.2.840.10008.1.2.4.70": "pylibjpeg-libjpeg or python-gdcm",
    "1.2.840.10008.1.2.4.80": "pyjpegls or python-gdcm",
    "1.2.840.10008.1.2.4.81": "pyjpegls or python-gdcm",
    "1.2.840.10008.1.2.4.90": "pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.91": "pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.201": "pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.202": "pylibjpeg-openjpeg",
    "1.2.840.10008.1.2.4.203": "pylibjpeg-openjpeg",
}


def is_dicom(content: bytes | memoryview) -> bool:
    """Return whether a file's content is DICOM with its preamble."""
    return bytes(content[_MARK]) == b"DICM"


def decode(content: bytes | memoryview) -> Image.Image:
    """Decode a DICOM file to RGB: its representative frame or, if it names none, the middle one.

    Raises:
        NoDecoderError: pydicom is not installed, or nothing that decodes this transfer syntax is.
        BrokenImageError: the file is damaged, has no pixels, or has too many.
    """
    try:
        import pydicom
        from pydicom.pixels import pixel_array
    except ImportError as error:
        raise NoDecoderError(f"no decoder for DICOM is installed: {pip_command('dicom')}") from error
    if _DEFLATED in bytes(content[_META]):
        raise BrokenImageError("deflated DICOM is not read, because its size is not known in advance")
    try:
        header = pydicom.dcmread(io.BytesIO(content), stop_before_pixels=True)
        _check(header)
        frame = shown_frame(header)
        values = pixel_array(io.BytesIO(content), index=frame)
        return _picture(values, header, frame)
    except BrokenImageError:
        raise
    # pydicom raises many types of errors. Their texts may quote the file, and with it a patient's data.
    except Exception as error:
        raise _undecodable(content, error) from error


def shown_frame(header: Dataset) -> int:
    """Return the position of the frame that stands for the file."""
    frames = frame_count(header)
    named = header.get("RepresentativeFrameNumber")
    return int(named) - 1 if named is not None and 1 <= int(named) <= frames else frames // 2


def frame_count(header: Dataset) -> int:
    """Return the number of frames."""
    return max(1, int(header.get("NumberOfFrames") or 1))


def _check(header: Dataset) -> None:
    if header.get("SOPClassUID") == _WHOLE_SLIDE:
        raise BrokenImageError("a whole-slide image, which is stored in tiles, is not read; export a region of it")
    if "Rows" not in header or "Columns" not in header:
        raise BrokenImageError(f"DICOM without pixels (modality {str(header.get('Modality', ''))[:16] or 'unknown'})")
    check_size(int(header.Columns), int(header.Rows))


def _undecodable(content: bytes | memoryview, error: Exception) -> BrokenImageError:
    from pydicom import dcmread
    from pydicom.pixels import get_decoder

    try:
        header = dcmread(io.BytesIO(content), stop_before_pixels=True)
        syntax = header.file_meta.TransferSyntaxUID
        name = syntax.name
        available = not syntax.is_compressed or get_decoder(syntax).is_available
        if syntax == _EXTENDED and int(header.BitsStored) > 8:
            available = len(get_decoder(syntax).available_plugins) > 1  # Pillow's decodes 8 bits only
    except NotImplementedError:
        return NoDecoderError(f"no decoder for DICOM in {name}: pydicom has none")
    except Exception:
        return BrokenImageError(f"not a complete DICOM file ({type(error).__name__})")
    if not available:
        package = _DECODERS.get(str(syntax), "another plugin of pydicom")
        return NoDecoderError(f"no decoder for DICOM in {name} is installed; install {package}")
    return BrokenImageError(f"DICOM that pydicom cannot decode ({type(error).__name__})")


def _picture(values: Values, header: Dataset, frame: int) -> Image.Image:
    """Turn the values of a frame into a picture: [height, width] or, in colour, [height, width, 3]."""
    bits = int(header.get("BitsStored", 8 * values.dtype.itemsize))
    if header.PhotometricInterpretation == "PALETTE COLOR":
        return _palette(values, header)
    if values.ndim == 3:
        return Image.fromarray(values if bits == 8 and values.dtype == np.uint8 else stretch(values, 0, 2.0**bits - 1))
    levels = _grey_levels(values, header, frame, bits)
    if header.PhotometricInterpretation == "MONOCHROME1":  # low values are bright
        levels = 255 - levels
    return Image.fromarray(levels).convert("RGB")


def _palette(values: Values, header: Dataset) -> Image.Image:
    from pydicom.pixels import apply_color_lut

    colours = apply_color_lut(values, header)[..., :3]
    top = 255.0 if colours.dtype == np.uint8 else 65535.0
    return Image.fromarray(stretch(colours, 0, top))


def _grey_levels(values: Values, header: Dataset, frame: int, bits: int) -> Bytes:
    """Apply modality transform and VOI transform, and return uint8 [height, width]; low values are dark."""
    padding = header.get("PixelPaddingValue")
    window = _group(header, frame, "FrameVOILUTSequence", ("VOILUTSequence", "WindowCenter"))
    modality = _group(header, frame, "PixelValueTransformationSequence", ("ModalityLUTSequence", "RescaleSlope"))
    transformed = _modality(values, modality)
    if window is not None and "VOILUTSequence" in window:
        return _through_table(transformed, window.VOILUTSequence[0])
    if window is not None and "WindowCenter" in window:
        levels = _windowed(transformed, window)
        if levels is not None:
            return levels
    if bits <= 8 and values.dtype.kind == "u" and transformed is values:
        return stretch(values, 0, 2.0**bits - 1)
    # There is no window: show all values that are not padding.
    shown = transformed if padding is None else transformed[values != int(padding)]
    return stretch(transformed, *value_range(shown if shown.size else transformed))


def _group(header: Dataset, frame: int, macro: str, names: tuple[str, ...]) -> Dataset | None:
    """Return the item of a functional group for a frame, or the dataset if it has one of the attributes itself."""
    own = header.get("PerFrameFunctionalGroupsSequence") or ()
    shared = header.get("SharedFunctionalGroupsSequence") or ()
    for groups in (*own[frame : frame + 1], *shared[:1]):
        if groups.get(macro):
            item: Dataset = groups[macro].value[0]
            return item
    # An attribute without a value counts as absent.
    return header if any(header.get(name) not in (None, "") for name in names) else None


def _modality(values: Values, item: Dataset | None) -> Values:
    """Return the values in the unit of the modality, such as Hounsfield units: float32, or unchanged."""
    if item is None:
        return values
    if item.get("ModalityLUTSequence"):
        table, first, _ = _table(item.ModalityLUTSequence[0])
        return table[np.clip(values.astype(np.int64) - first, 0, len(table) - 1)]
    slope, intercept = float(item.RescaleSlope), float(item.get("RescaleIntercept") or 0)
    if slope == 1 and intercept == 0:
        return values
    return values.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def _through_table(values: Values, item: Dataset) -> Bytes:
    table, first, bits = _table(item)
    levels = table * (255.0 / (2.0**bits - 1))
    return by_strips(values, lambda strip: levels[np.clip(np.rint(strip).astype(np.int64) - first, 0, len(table) - 1)])


def _table(item: Dataset) -> tuple[Values, int, int]:
    """Return a lookup table, the value of its first entry, and the bits of its results (PS3.3 C.11.1.1)."""
    count, first, bits = (int(value) for value in item.LUTDescriptor)
    count = count or 2**16
    data = item.LUTData
    if isinstance(data, bytes):
        table = np.frombuffer(data, "<u2" if len(data) >= 2 * count else "u1")
    else:
        table = np.asarray(data)
    return table[:count].astype(np.float32), first, bits


def _windowed(values: Values, item: Dataset) -> Bytes | None:
    """Apply the first window (PS3.3 C.11.2.1.2 and C.11.2.1.3); None if its width is invalid."""
    centre, width = _first(item.WindowCenter), _first(item.get("WindowWidth"))
    function = str(item.get("VOILUTFunction") or "LINEAR").upper()
    if function == "SIGMOID" and width > 0:
        return by_strips(values, lambda x: 255 / (1 + np.exp(-4 * (x.astype(np.float64) - centre) / width)))
    if function == "LINEAR_EXACT" and width > 0:
        return stretch(values, centre - width / 2, centre + width / 2)
    if function == "LINEAR" and width == 1:
        return by_strips(values, lambda x: np.where(x <= centre - 0.5, 0, 255))
    if function == "LINEAR" and width > 1:
        return stretch(values, centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2)
    return None


def _first(value: Any) -> float:
    """Return the first of one or more numbers; NaN if there is none."""
    if value in (None, ""):
        return float("nan")
    return float(value if isinstance(value, (int, float, str)) or not hasattr(value, "__len__") else value[0])
