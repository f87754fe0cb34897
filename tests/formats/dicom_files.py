"""DICOM files made for the tests."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

pydicom = pytest.importorskip("pydicom", minversion="3")

from pydicom.dataset import Dataset, FileMetaDataset  # noqa: E402
from pydicom.uid import UID, ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid  # noqa: E402


def dataset(values: np.ndarray, **attributes: Any) -> Dataset:
    """Return a dataset with pixels: [height, width], [height, width, 3], or either with frames before."""
    samples = attributes.pop("samples", 3 if values.shape[-1] == 3 and values.ndim > 2 else 1)
    frames = values.shape[0] if values.ndim == (4 if samples == 3 else 3) else 0
    height, width = values.shape[-3:-1] if samples == 3 else values.shape[-2:]
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID = SecondaryCaptureImageStorage
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID = generate_uid()
    made.Rows, made.Columns, made.SamplesPerPixel = height, width, samples
    if frames:
        made.NumberOfFrames = frames
    made.PhotometricInterpretation = "RGB" if samples == 3 else "MONOCHROME2"
    if samples == 3:
        made.PlanarConfiguration = 0
    if values.dtype.kind != "f":
        made.BitsAllocated = made.BitsStored = 8 * values.dtype.itemsize
        made.HighBit = made.BitsStored - 1
        made.PixelRepresentation = int(values.dtype.kind == "i")
        made.PixelData = values.tobytes() + b"\0" * (values.nbytes % 2)
        made["PixelData"].VR = "OB" if values.dtype.itemsize == 1 else "OW"
    for name, value in attributes.items():
        setattr(made, name, value)
    if "BitsStored" in attributes:
        made.HighBit = made.BitsStored - 1
    return made


def item(**attributes: Any) -> Dataset:
    """Return an item of a sequence."""
    made = Dataset()
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def content_of(made: Dataset) -> bytes:
    """Return the content of the file."""
    stream = io.BytesIO()
    made.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def claimed(made: Dataset, syntax: str) -> bytes:
    """Return the content of a file whose pixels are said to have another transfer syntax."""
    from pydicom.encaps import encapsulate

    made.file_meta.TransferSyntaxUID = UID(syntax)
    made.PixelData = encapsulate([made.PixelData])
    made["PixelData"].is_undefined_length = True
    return content_of(made)
