"""DICOM pictures, compared with the formulas of the standard in numpy."""

from __future__ import annotations

import importlib.util
import io
import sys
import warnings
from typing import Any

import numpy as np
import pytest
from dicom_files import claimed, content_of, dataset, item, pydicom
from PIL import Image
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian, JPEG2000Lossless, RLELossless

from fastccsa.formats import pixels
from fastccsa.formats.decode import decode
from fastccsa.formats.errors import BrokenImageError, NoDecoderError

HEIGHT, WIDTH = 34, 50
RAMP = np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH)
CT = (RAMP * 2 - 1024).astype(np.int16)  # -1024 to 2374
COLOURS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)


def picture(made: Any) -> np.ndarray:
    return np.asarray(decode(made if isinstance(made, bytes) else content_of(made))).astype(float)


def assert_grey(made: Any, expected: np.ndarray, tolerance: float = 0.51) -> None:
    found = picture(made)
    for channel in range(3):
        assert np.abs(found[..., channel] - np.clip(expected, 0, 255)).max() <= tolerance


def linear(values: np.ndarray, centre: float, width: float) -> np.ndarray:
    """Equation of PS3.3 C.11.2.1.2.1, on a scale from 0 to 255."""
    return ((values - (centre - 0.5)) / (width - 1) + 0.5) * 255


def full_range(values: np.ndarray) -> np.ndarray:
    values = values.astype(float)
    return (values - values.min()) * 255 / (values.max() - values.min())


def test_8_bit_grey_is_shown_as_it_is() -> None:
    grey = COLOURS[..., 0]
    assert_grey(dataset(grey), grey, 0)
    assert_grey(dataset(grey // 16, BitsStored=4), grey // 16 * 17.0)


def test_deep_grey_without_a_window_shows_its_range() -> None:
    assert_grey(dataset(CT), full_range(CT))
    assert_grey(dataset((RAMP * 2).astype(np.uint16), BitsStored=12), full_range(RAMP))
    assert_grey(dataset(RAMP.astype(np.uint32)), full_range(RAMP))


def test_padding_does_not_count_for_the_range() -> None:
    values = CT.copy()
    values[:5] = -2000
    found = full_range(CT[5:])
    assert_grey(dataset(values, PixelPaddingValue=-2000), np.vstack([np.zeros((5, WIDTH)), found]))


@pytest.mark.parametrize(("slope", "intercept"), [(1, 0), (1, -1024), (0.5, 100), (-1, 0)])
def test_a_window_applies_to_the_values_after_the_modality_transform(slope: float, intercept: float) -> None:
    values = RAMP.astype(np.uint16)
    made = dataset(values, RescaleSlope=slope, RescaleIntercept=intercept, WindowCenter=40, WindowWidth=400)
    assert_grey(made, linear(RAMP * slope + intercept, 40, 400))


def test_the_first_of_several_windows_is_used() -> None:
    assert_grey(dataset(CT, WindowCenter=["40", "600"], WindowWidth=["400", "2000"]), linear(CT, 40, 400))


def test_the_other_window_functions() -> None:
    window = {"WindowCenter": 100, "WindowWidth": 700}
    exact = ((CT - 100.0) / 700 + 0.5) * 255
    assert_grey(dataset(CT, VOILUTFunction="LINEAR_EXACT", **window), exact)
    sigmoid = 255 / (1 + np.exp(-4 * (CT - 100.0) / 700))
    assert_grey(dataset(CT, VOILUTFunction="SIGMOID", **window), sigmoid)
    assert_grey(dataset(CT, WindowCenter=100, WindowWidth=1), np.where(CT <= 99.5, 0, 255))


@pytest.mark.parametrize("attributes", [{"WindowWidth": 0}, {}, {"WindowWidth": 5, "VOILUTFunction": "WAVY"}])
def test_an_invalid_window_is_ignored(attributes: dict[str, Any]) -> None:
    assert_grey(dataset(CT, WindowCenter=40, **attributes), full_range(CT))


def test_the_window_agrees_with_pydicom() -> None:
    made = dataset(CT, WindowCenter=40, WindowWidth=400, RescaleSlope=1, RescaleIntercept=0)
    made = pydicom.dcmread(io.BytesIO(content_of(made)))
    expected = pydicom.pixels.apply_windowing(CT, made)  # from -32768 to 32767
    assert_grey(made, (expected + 32768) * 255 / 65535)


@pytest.mark.parametrize("packed", [False, True])
def test_tables_of_the_modality_and_of_the_window(packed: bool) -> None:
    values = (RAMP % 300).astype(np.uint16)
    rise = (np.arange(256) ** 2 // 16).astype(np.uint16)  # of the values 10 to 265, to 12 bits
    table = item(LUTDescriptor=[256, 10, 12], LUTData=rise.tobytes() if packed else rise.tolist())
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW" if packed else "US"
    through = rise[np.clip(values.astype(int) - 10, 0, 255)].astype(float)
    assert_grey(dataset(values, VOILUTSequence=[table]), through * 255 / 4095)
    assert_grey(dataset(values, ModalityLUTSequence=[table]), full_range(through))
    both = dataset(values, VOILUTSequence=[table], WindowCenter=40, WindowWidth=80)
    assert_grey(both, through * 255 / 4095)  # the table comes first


def test_monochrome1_is_inverted() -> None:
    assert_grey(dataset(COLOURS[..., 0], PhotometricInterpretation="MONOCHROME1"), 255.0 - COLOURS[..., 0], 0)
    made = dataset(CT, PhotometricInterpretation="MONOCHROME1", WindowCenter=40, WindowWidth=400)
    assert_grey(made, 255 - np.clip(linear(CT, 40, 400), 0, 255))


def test_colours() -> None:
    np.testing.assert_array_equal(picture(dataset(COLOURS)), COLOURS)
    planes = dataset(COLOURS, PlanarConfiguration=1)
    planes.PixelData = np.moveaxis(COLOURS, -1, 0).tobytes()
    np.testing.assert_array_equal(picture(planes), COLOURS)
    deep = COLOURS.astype(np.uint16) * 257
    np.testing.assert_array_equal(picture(dataset(deep)), COLOURS)
    twelve = dataset(COLOURS.astype(np.uint16) * 16, BitsStored=12)
    assert np.abs(picture(twelve) - COLOURS * 16.0 * 255 / 4095).max() <= 0.51


def ybr(colours: np.ndarray) -> np.ndarray:
    """PS3.3 C.7.6.3.1.2."""
    matrix = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
    return np.clip(np.rint(colours @ matrix.T + [0, 128, 128]), 0, 255).astype(np.uint8)


def test_ybr_full_becomes_rgb() -> None:
    made = dataset(ybr(COLOURS), PhotometricInterpretation="YBR_FULL")
    assert np.abs(picture(made) - COLOURS).max() <= 2


def test_ybr_422_becomes_rgb() -> None:
    colours = np.repeat(COLOURS[:, ::2], 2, axis=1)  # two neighbours share their chroma
    full = ybr(colours)
    halved = np.concatenate([full[:, ::2, :1], full[:, 1::2, :1], full[:, ::2, 1:]], axis=-1)
    made = dataset(colours, PhotometricInterpretation="YBR_FULL_422")
    made.PixelData = halved.tobytes()
    assert np.abs(picture(made) - colours).max() <= 2


def test_a_palette_becomes_its_colours() -> None:
    palette = np.random.default_rng(1).integers(0, 65536, (256, 3)).astype(np.uint16)
    made = dataset(COLOURS[..., 0], PhotometricInterpretation="PALETTE COLOR")
    for channel, name in enumerate(("Red", "Green", "Blue")):
        setattr(made, f"{name}PaletteColorLookupTableDescriptor", [256, 0, 16])
        made[f"{name}PaletteColorLookupTableDescriptor"].VR = "US"
        setattr(made, f"{name}PaletteColorLookupTableData", palette[:, channel].tobytes())
    assert np.abs(picture(made) - palette[COLOURS[..., 0]] / 257).max() <= 0.51


def frames() -> np.ndarray:
    return np.stack([COLOURS[..., 0] // 5 * number for number in range(5)]).astype(np.uint8)


def test_the_middle_frame_is_shown() -> None:
    assert_grey(dataset(frames()), frames()[2], 0)
    assert_grey(dataset(frames()[:2]), frames()[1], 0)
    colours = np.stack([COLOURS, 255 - COLOURS, COLOURS // 2])
    np.testing.assert_array_equal(picture(dataset(colours)), 255 - COLOURS)


@pytest.mark.parametrize(("named", "shown"), [(1, 0), (4, 3), (0, 2), (6, 2)])
def test_the_representative_frame_is_shown(named: int, shown: int) -> None:
    assert_grey(dataset(frames(), RepresentativeFrameNumber=named), frames()[shown], 0)


def test_the_window_of_a_frame_is_in_its_functional_groups() -> None:
    values = np.stack([CT, CT + 1, CT + 2])
    made = dataset(values, WindowCenter=0, WindowWidth=10)  # enhanced images have no such window: the groups count
    own = [item(FrameVOILUTSequence=[item(WindowCenter=40 + n, WindowWidth=400)]) for n in range(3)]
    scale = item(PixelValueTransformationSequence=[item(RescaleSlope=2, RescaleIntercept=-5)])
    made.PerFrameFunctionalGroupsSequence, made.SharedFunctionalGroupsSequence = own, [scale]
    assert_grey(made, linear((CT + 1.0) * 2 - 5, 41, 400))
    del made.PerFrameFunctionalGroupsSequence
    scale.FrameVOILUTSequence = [item(WindowCenter=70, WindowWidth=900)]
    assert_grey(made, linear((CT + 1.0) * 2 - 5, 70, 900))


def test_floating_point_pixels() -> None:
    values = np.linspace(-3, 7, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH).astype(np.float32)
    made = dataset(values, BitsAllocated=32, FloatPixelData=values.tobytes())
    assert_grey(made, full_range(values))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_other_encodings_of_the_header(syntax: str) -> None:
    values = RAMP.astype(np.uint16)
    made = dataset(values.astype(">u2") if syntax == ExplicitVRBigEndian else values)
    made.file_meta.TransferSyntaxUID = syntax
    stream = io.BytesIO()
    little = syntax != ExplicitVRBigEndian
    made.save_as(stream, enforce_file_format=True, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=little)
    assert_grey(stream.getvalue(), full_range(values))


def test_rle_of_grey_and_of_several_frames_in_colour() -> None:
    made = dataset(CT, WindowCenter=40, WindowWidth=400)
    made.compress(RLELossless)
    assert_grey(made, linear(CT, 40, 400))
    made = dataset(np.stack([COLOURS // 2, COLOURS]))
    made.compress(RLELossless)
    np.testing.assert_array_equal(picture(made), COLOURS)


def test_jpeg_baseline_in_ybr() -> None:
    smooth = np.asarray(Image.fromarray(COLOURS[:4, :6]).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))
    stream = io.BytesIO()
    Image.fromarray(smooth).save(stream, "JPEG", quality=95, subsampling=0)
    made = dataset(smooth, PhotometricInterpretation="YBR_FULL")
    made.PixelData = stream.getvalue() + b"\0" * (len(stream.getvalue()) % 2)
    found = picture(claimed(made, "1.2.840.10008.1.2.4.50"))
    assert np.abs(found - np.asarray(Image.open(stream))).max() <= 3


def test_jpeg_2000() -> None:
    pytest.importorskip("openjpeg")
    values = RAMP.astype(np.uint16)
    made = dataset(values, BitsStored=12, WindowCenter=500, WindowWidth=900)
    made.compress(JPEG2000Lossless)
    assert_grey(made, linear(values, 500, 900))


def test_jpeg_ls() -> None:
    values = RAMP.astype(np.uint16)
    made = dataset(values, BitsStored=12, WindowCenter=500, WindowWidth=900)
    try:
        import jpeg_ls  # noqa: F401
    except ImportError:
        with pytest.raises(NoDecoderError, match=r"in JPEG-LS .* is installed; install pyjpegls or python-gdcm"):
            decode(claimed(made, "1.2.840.10008.1.2.4.80"))
    else:
        made.compress("1.2.840.10008.1.2.4.80")
        assert_grey(made, linear(values, 500, 900))


def test_a_missing_decoder_is_named() -> None:
    if any(importlib.util.find_spec(module) for module in ("gdcm", "libjpeg")):
        pytest.skip("there is a decoder")
    message = r"no decoder for DICOM in JPEG Lossless.* is installed; install pylibjpeg-libjpeg or python-gdcm"
    with pytest.raises(NoDecoderError, match=message):
        decode(claimed(dataset(CT), "1.2.840.10008.1.2.4.70"))
    with pytest.raises(NoDecoderError, match="no decoder for DICOM in JPEG Extended"):
        decode(claimed(dataset(CT, BitsStored=12), "1.2.840.10008.1.2.4.51"))
    with pytest.raises(NoDecoderError, match=r"no decoder for DICOM in MPEG2 .*: pydicom has none"):
        decode(claimed(dataset(CT), "1.2.840.10008.1.2.4.100"))


def test_without_pydicom_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    content = content_of(dataset(CT))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(NoDecoderError, match=r"no decoder for DICOM is installed: pip install 'fastccsa\[dicom\]'"):
        decode(content)


def test_files_without_a_picture_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    report = dataset(CT, Modality="SR")
    for name in ("PixelData", "Rows", "Columns"):
        delattr(report, name)
    with pytest.raises(BrokenImageError, match=r"DICOM without pixels \(modality SR\)"):
        decode(content_of(report))
    slide = dataset(COLOURS, SOPClassUID="1.2.840.10008.5.1.4.1.1.77.1.6")
    with pytest.raises(BrokenImageError, match="a whole-slide image"):
        decode(content_of(slide))
    monkeypatch.setattr(pixels, "MAX_PIXELS", 1000)
    with pytest.raises(BrokenImageError, match="too large: 50 x 34 pixels"):
        decode(content_of(dataset(CT)))


def test_deflated_files_are_refused_before_they_are_inflated() -> None:
    made = dataset(CT)
    made.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1.99"
    with pytest.raises(BrokenImageError, match="deflated DICOM is not read"):
        decode(content_of(made))


def test_errors_and_warnings_tell_nothing_of_the_patient() -> None:
    made = dataset(CT, WindowCenter=40, WindowWidth=400)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.PatientName, made.PatientID, made.PatientBirthDate = "Secret^Anna", "Secret-17", "Secret 1"
        made.StudyInstanceUID, made.StudyDate = "Secret.1", "SecretDay"
        content = content_of(made)
    texts = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decode(content)
        rng = np.random.default_rng(0)
        for cut in rng.integers(133, len(content), 40):
            for damaged in (
                content[:cut],
                content[:cut] + bytes(rng.integers(0, 256, 8).tolist()) + content[cut + 8 :],
            ):
                try:
                    decode(damaged)
                except BrokenImageError as error:
                    texts.append(str(error))
        texts += [str(warning.message) for warning in caught]
    assert len(texts) > 20
    assert not [text for text in texts if "secret" in text.lower()]
