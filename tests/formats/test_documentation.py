"""The tables of docs/data-formats.md: the formats are those of the code, and every row is shown by a test."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastccsa.collections import prepare
from fastccsa.formats.files import MAX_BYTES
from fastccsa.formats.pixels import MAX_PIXELS
from fastccsa.formats.table import EXTENSIONS, FORMATS

TESTS = Path(__file__).resolve().parents[1]
PAGE = (TESTS.parent / "docs" / "data-formats.md").read_text(encoding="utf-8")

# The tests that show what a row says (module and function), by the first cell of the row.
SHOWN = {
    "pixels": {
        "grey of 1, 2, 4 or 8 bits, RGB": "test_pixels::test_bits_and_few_levels",
        "palette": "test_pixels::test_palettes_become_their_colours",
        "transparent (alpha, or a transparent colour)": "test_pixels::test_transparent_images_are_shown_on_white",
        "CMYK, YCbCr": "test_pixels::test_cmyk_is_converted_without_a_profile",
        "signed, 16- and 32-bit integers in grey": "test_pixels::test_grey_of_a_tiff_is_on_the_smallest_usual_scale",
        "floats in grey or RGB": "test_pixels::test_colours_of_other_types_in_tiffs",
        "negative values, or values above 65535": ("test_pixels::test_negative_values_show_the_range_of_the_image"),
        "NaN and infinities": "test_pixels::test_values_that_are_not_finite_do_not_change_the_others",
        "grey TIFF in which white is zero": "test_pixels::test_white_may_be_zero",
        "16 bits per colour in PNG and TIFF": "test_decode::test_pillow_and_dali_decode_16_bit_colour_the_same",
        "EXIF orientation": "test_exif::test_damaged_exif_costs_the_orientation_only",
    },
    "file": {
        "a FIFO, socket, device, or a link to one": (
            "test_files::test_devices_sockets_folders_and_dangling_links_are_refused"
        ),
        "larger than 537 MB (2^29 bytes), such as a sparse file": (
            "test_files::test_no_more_bytes_are_read_than_an_image_may_have"
        ),
        "an image of more than 80 million pixels": (
            "test_files::test_the_default_limit_refuses_a_small_file_of_a_large_picture"
        ),
        "LAB colours, complex numbers, or other pixels that are not above": "test_pixels::test_lab_is_named_as_broken",
    },
    "DICOM": {
        "MONOCHROME2, MONOCHROME1": "test_dicom::test_monochrome1_is_inverted",
        "the same without a window": "test_dicom::test_deep_grey_without_a_window_shows_its_range",
        "RGB, YBR_FULL, YBR_FULL_422, YBR_ICT, YBR_RCT, PALETTE COLOR": "test_dicom::test_ybr_422_becomes_rgb",
        "several frames": "test_dicom::test_the_representative_frame_is_shown",
        "enhanced multi-frame": "test_dicom::test_the_window_of_a_frame_is_in_its_functional_groups",
        "uncompressed, in any byte order; RLE; JPEG Baseline; JPEG 2000": (
            "test_dicom::test_rle_of_grey_and_of_several_frames_in_colour"
        ),
        "JPEG-LS": "test_dicom::test_jpeg_ls",
        "JPEG Lossless, JPEG Extended of 12 bits": "test_dicom::test_a_missing_decoder_is_named",
        "MPEG, HEVC, deflated files, whole-slide images, files without pixels": (
            "test_dicom::test_files_without_a_picture_say_so"
        ),
    },
    "column": {
        "`patient`": "test_dicom_reader::test_pseudonyms_are_stable_with_the_same_key_and_only_then",
        "`study`": "test_dicom_reader::test_a_study_is_never_in_two_splits_where_no_patient_is_known",
        "`institution`": "test_dicom_reader::test_institution_and_device",
        "`device`": "test_dicom_reader::test_institution_and_device",
        "`frame`": "test_dicom_reader::test_the_frame_that_is_shown_is_recorded",
    },
    "": {  # text
        "separator": "test_manifest::test_a_manifest_is_read_as_spreadsheet_programs_save_it",
        "line ends": "test_text::test_old_line_ends_of_the_mac_separate_rows",
        "UTF-8": "test_text::test_unicode_is_read_without_a_word",
        "UTF-16, UTF-32": "test_text::test_unicode_is_read_without_a_word",
        "Windows-1252, Latin-1": "test_text::test_western_letters_are_kept_and_said",
        "anything else": "test_text::test_what_is_not_text_is_refused_with_its_place",
        "a quote that is never closed": "test_text::test_an_open_quote_does_not_swallow_the_rows_below",
        "white space around labels, domains, groups, splits": (
            "test_manifest::test_white_space_around_values_does_not_make_classes_or_groups"
        ),
        "empty cells": "test_own_reader::test_only_empty_cells_are_empty",
    },
}


def rows(title: str, after: str = "# ") -> list[list[str]]:
    """Return the cells of the first table whose header begins with ``title``, after some text."""
    text = PAGE[PAGE.index(after) :]
    header = re.search(rf"^\| ?{re.escape(title)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.M)
    assert header is not None, title
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in header[1].splitlines()]


def test_the_table_of_formats_is_that_of_the_code() -> None:
    listed = {cells[0]: tuple(re.findall(r"(?<=[` ])\.\w+", cells[1])) for cells in rows("format")}
    assert listed == {kind.name: kind.extensions for kind in FORMATS}


@pytest.mark.parametrize("title", SHOWN)
def test_every_row_is_shown_by_a_test(title: str) -> None:
    assert [cells[0] for cells in rows(title, "## Images" if title else "## Tables")] == list(SHOWN[title])
    for place in SHOWN[title].values():
        module, _, name = place.partition("::")
        found = [path.read_text(encoding="utf-8") for path in TESTS.rglob(f"{module}.py")]
        assert any(f"\ndef {name}(" in text for text in found), place


def test_the_limits_are_those_of_the_code() -> None:
    assert f"larger than {MAX_BYTES / 1e6:.0f} MB (2^29 bytes)" in PAGE
    assert MAX_BYTES == 2**29
    assert f"an image of more than {MAX_PIXELS / 1e6:g} million pixels" in PAGE
    assert f"as RGB it would take {3 * MAX_PIXELS / 1e6:g} MB" in PAGE


def write(path: Path) -> None:
    """Write a picture that depends on the file's name, in the format of its ending."""
    seed = int.from_bytes(path.name.encode(), "little") % 2**32
    small = np.random.default_rng(seed).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    image = Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC)
    (kind,) = (kind for kind in FORMATS if path.suffix in kind.extensions)
    if kind.name == "HEIC":
        pytest.importorskip("pillow_heif").from_pillow(image).save(path, format="HEIF")
    elif kind.name == "DICOM":
        from dicom_files import content_of, dataset

        path.write_bytes(content_of(dataset(np.asarray(image))))
    elif path.suffix == ".pfm":
        image.convert("F").save(path, "PPM")
    else:
        image.save(path, kind.plugins[0])


def test_prepare_takes_every_ending_in_any_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    folder = tmp_path / "own" / "S" / "a"
    folder.mkdir(parents=True)
    for extension in sorted(EXTENSIONS):
        write(folder / f"image{extension}")
    (folder / "image.png").rename(folder / "image.PNG")
    manifest, report = prepare([("own", "folders", tmp_path / "own")], tmp_path / "m.csv")
    assert len(manifest) == len(EXTENSIONS)
    assert not any(report.left_out.values())
