"""Files that are no images, or attack the process that opens them. Each costs itself and nothing else."""

from __future__ import annotations

import io
import os
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastccsa.formats import files, pixels
from fastccsa.formats.decode import decode, open_image, plain
from fastccsa.formats.errors import BrokenImageError, NoDecoderError, UnreadableFileError
from fastccsa.formats.files import file_problem, open_regular, read_file
from fastccsa.formats.table import FORMATS


def test_a_fifo_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to("pipe.jpg")
    for name in ("pipe.jpg", "link.jpg"):
        with pytest.raises(UnreadableFileError, match="not a regular file"):
            read_file(tmp_path / name)
        assert "not a regular file" in (file_problem(tmp_path / name) or "")


def test_a_fifo_that_replaces_the_file_while_it_is_opened_does_not_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pipe.jpg"
    os.mkfifo(path)
    regular = os.stat(__file__)
    monkeypatch.setattr(os, "stat", lambda _: regular)
    with pytest.raises(UnreadableFileError, match="not a regular file"):
        read_file(path)


def test_devices_sockets_folders_and_dangling_links_are_refused(tmp_path: Path) -> None:
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, socket.socket(socket.AF_UNIX) as bound:
        bound.bind(f"{folder}/socket.jpg")  # such a path must be short
        with pytest.raises(UnreadableFileError, match="not a regular file"):
            read_file(f"{folder}/socket.jpg")
    for name, reason in (("zero.jpg", "not a regular file"), ("gone.jpg", "No such file"), (".", "directory")):
        with pytest.raises(UnreadableFileError, match=reason):
            read_file(tmp_path / name)
        assert reason in (file_problem(tmp_path / name) or "")


def test_no_more_bytes_are_read_than_an_image_may_have(tmp_path: Path) -> None:
    path = tmp_path / "sparse.jpg"
    with open(path, "wb") as file:
        file.truncate(2**40)
    with pytest.raises(BrokenImageError, match="1,099,512 MB, and at most 537 MB"):
        read_file(path)
    assert "at most 537 MB" in (file_problem(path) or "")
    path.write_bytes(b"")
    assert file_problem(path) == "the file is empty"
    path.write_bytes(b"content")
    assert file_problem(path) is None
    assert read_file(path) == b"content"


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link.jpg").symlink_to("file")
    with open_regular(tmp_path / "link.jpg") as file:
        assert file.read() == b"content"


POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


def test_postscript_starts_no_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script, proof = tmp_path / "gs", tmp_path / "started"
    script.write_text(f"#!/bin/sh\ntouch {proof}\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None, raising=False)  # Pillow remembers what it found
    with pytest.raises(OSError, match=r"."), Image.open(io.BytesIO(POSTSCRIPT)) as image:
        image.load()
    assert proof.exists()  # Pillow alone starts it
    proof.unlink()
    with pytest.raises(BrokenImageError, match="not an image of a known format"):
        decode(POSTSCRIPT)
    assert not proof.exists()


@pytest.mark.parametrize("kind", ["PCX", "ICO", "IM", "SGI", "MSP", "SPIDER", "DDS", "ICNS", "PDF", "EPS"])
def test_formats_that_are_not_in_the_table_are_not_opened(kind: str) -> None:
    stream = io.BytesIO()
    mode = {"MSP": "1", "SPIDER": "F"}.get(kind, "RGB")
    Image.new(mode, (64, 64)).save(stream, kind)
    with pytest.raises(BrokenImageError, match="not an image of a known format"):
        open_image(stream.getvalue())


def test_pillow_is_asked_for_the_formats_of_the_table_only(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(Image, "open", lambda *_, formats=None: asked.append(set(formats)) or 1 / 0)
    with pytest.raises(BrokenImageError):
        open_image(b"content")
    assert asked == [{name for kind in FORMATS for name in kind.plugins}]


def test_the_package_opens_images_in_one_place() -> None:
    """Every other call of `Image.open` would accept all formats."""
    package = Path(files.__file__).parents[1]
    calls = [path.name for path in package.rglob("*.py") if "Image.open(" in path.read_text(encoding="utf-8")]
    assert calls == ["decode.py"]


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "MAX_PIXELS", 1_000_000)
    for kind in ("PNG", "TIFF", "GIF", "BMP", "JPEG", "WEBP", "JPEG2000", "AVIF", "PPM", "TGA"):
        stream = io.BytesIO()
        Image.new("L", (1000, 1001)).convert("RGB").save(stream, kind)
        with pytest.raises(BrokenImageError, match="too large: 1000 x 1001 pixels, and at most 1 million are decoded"):
            open_image(stream.getvalue())


def test_the_default_limit_refuses_a_small_file_of_a_large_picture() -> None:
    header = struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, 9000, 9000, 24, 0)  # TGA
    with pytest.raises(BrokenImageError, match="too large: 9000 x 9000 pixels, and at most 80 million"):
        open_image(header + bytes(100))


def test_a_picture_without_pixels_is_broken() -> None:
    with pytest.raises(BrokenImageError):
        decode(b"P6 0 0 255\n")


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (300, 7), (513, 2)])
def test_plain_files_hold_the_pixels(shape: tuple[int, int]) -> None:
    values = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    content = plain(Image.fromarray(values))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content.tobytes()))), values)  # a valid PPM
    for form in (content, content.tobytes(), memoryview(content)):
        np.testing.assert_array_equal(np.asarray(decode(form)), values)


@pytest.mark.parametrize("cut", [4, 12, 14, 100])
def test_a_plain_file_that_is_cut_short_is_broken(cut: int) -> None:
    content = plain(Image.new("RGB", (10, 10))).tobytes()[:cut]
    with pytest.raises(BrokenImageError):
        decode(content)


def test_a_large_image_is_not_copied_needlessly(tmp_path: Path) -> None:
    """Peak memory per pixel of the whole way, from the file to the pixels.

    At the peak there are the file as read (uncompressed here: 3 or 4 bytes) and the picture in Pillow (4 bytes), and 4
    more for a transparent picture on white.
    """
    side, most = 3000, {"RGB": 9, "RGBA": 14}  # in this order, because a peak stays
    for mode in most:
        Image.new(mode, (side, side)).save(tmp_path / f"{mode}.tif")
    code = (
        "import resource\n"
        "from fastccsa.images.decode import decode, read_image\n"
        "peaks = [resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]\n"
        f"for mode in {list(most)}:\n"
        f"    decode(read_image({str(tmp_path)!r} + f'/{{mode}}.tif').data)\n"
        "    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\n"
        "print(*(peak - peaks[0] for peak in peaks[1:]))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    unit = 1 if sys.platform == "darwin" else 1024
    for (mode, bound), peak in zip(most.items(), done.stdout.split(), strict=True):
        assert int(peak) * unit / side**2 < bound, mode


WITHOUT = {
    "webp": ("WEBP", r"no decoder for WebP is installed: pip install -U pillow"),
    "avif": ("AVIF", r"no decoder for AVIF is installed: pip install 'pillow>=11.3'"),
    "jpg_2000": ("JPEG2000", r"no decoder for JPEG 2000 is installed: pip install -U pillow"),
}


@pytest.mark.parametrize("feature", WITHOUT)
def test_a_missing_decoder_of_pillow_is_named(feature: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastccsa.formats import decode as module
    from fastccsa.formats import table

    kind, message = WITHOUT[feature]
    stream = io.BytesIO()
    Image.new("RGB", (64, 64)).save(stream, kind)
    assert decode(stream.getvalue()).size == (64, 64)
    monkeypatch.setattr(table.features, "check", lambda name: name != feature)
    monkeypatch.setattr(module, "_PLUGINS", [name for name in module._PLUGINS if name != kind])
    with pytest.raises(NoDecoderError, match=message):
        decode(stream.getvalue())
