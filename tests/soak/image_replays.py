"""Attacks with images and archives, for `attacks.py`; see `replays.py`."""

from __future__ import annotations

import io
import os
import resource
from pathlib import Path

import numpy as np
from PIL import EpsImagePlugin, Image
from replays import Scene, command, refused, said, zipped

from fastccsa.collections import Manifest
from fastccsa.collections.archives import Limits, unpack
from fastccsa.formats.decode import decode
from fastccsa.formats.errors import BrokenImageError
from fastccsa.images import ImageLoader
from fastccsa.images.decode import read_image
from fastccsa.sampling import ImageSampler

MEMORY = 256 << 20  # bytes that opening a hostile image may take at most

# ---- 3: image formats by list, sizes by limit ----

POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"


def broken(image: Path) -> str:
    """Open an image that must be refused, with little memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        decode(read_image(image).data)
    except BrokenImageError as error:
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10
        assert grown < MEMORY, f"{grown >> 20} MiB"
        return f"refused: {said(error)}"
    raise AssertionError("opened")


def postscript(scene: Scene) -> str:
    """Open a PostScript file that is named .jpg, with a program in the place of Ghostscript."""
    program, proof, image = (scene.folder / name for name in ("gs", "started", "a.jpg"))
    program.write_text(f"#!/bin/sh\ntouch {proof}\n")
    program.chmod(0o755)
    image.write_bytes(POSTSCRIPT)
    path = os.environ["PATH"]
    os.environ["PATH"] = f"{scene.folder}{os.pathsep}{path}"
    EpsImagePlugin.gs_binary = None  # Pillow remembers what it found
    try:
        outcome = broken(image)
    finally:
        os.environ["PATH"] = path
    assert not proof.exists()
    return f"no program is started; {outcome}"


def fifo_image(scene: Scene) -> str:
    """Open a FIFO that is named .jpg."""
    os.mkfifo(scene.folder / "a.jpg")
    return broken(scene.folder / "a.jpg")


def endless_image(scene: Scene) -> str:
    """Open a link to a device that never ends."""
    (scene.folder / "a.jpg").symlink_to("/dev/zero")
    return broken(scene.folder / "a.jpg")


def sparse_image(scene: Scene) -> str:
    """Open a file of a terabyte that takes no room."""
    with open(scene.folder / "a.jpg", "wb") as file:
        file.truncate(1 << 40)
    return broken(scene.folder / "a.jpg")


def many_pixels(scene: Scene) -> str:
    """Open an image of as many pixels as Pillow allows without a word."""
    Image.new("1", (9400, 9400)).save(scene.folder / "a.png")
    return broken(scene.folder / "a.png")


def odd_exif(scene: Scene) -> str:
    """Open an image whose EXIF data leads nowhere."""
    image = Image.new("RGB", (8, 8))
    image.save(scene.folder / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff\0\0\0\0")
    assert decode(read_image(scene.folder / "a.jpg").data).size == (8, 8)
    return "the image is shown upright"


def unusable_files(scene: Scene) -> str:
    """Prepare a folder with a FIFO and a broken image among the images."""
    for label in ("mel", "nv"):
        folder = scene.folder / "mine" / "A" / label
        folder.mkdir(parents=True)
        for number in range(9):
            pixels = np.random.default_rng(number).integers(0, 256, (9, 9, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "broken.png").write_bytes(b"\x89PNG")
    os.mkfifo(folder / "fifo.png")
    out = scene.folder / "manifest.csv"
    printed = command("prepare", "--folders", scene.folder / "mine", "--out", out, "--duplicates", "off")
    names = out.read_text()
    assert "fifo.png" not in names
    assert "5.png" in names
    assert "fifo.png" in printed or "fifo.png" in (out.with_name("manifest.report.json").read_text())
    return "left out and named; the others are in the manifest"


# ---- 4: archives ----


def nested_bomb(scene: Scene) -> str:
    """Unpack an archive whose inner archives together grow beyond the budget."""
    inner = zipped(("a.png", bytes(3 << 20)))
    (scene.folder / "bomb.zip").write_bytes(zipped(*((f"{number}.zip", inner) for number in range(9))))
    limits = Limits(free_bytes=9 << 20)
    outcome = refused(lambda: unpack(scene.folder / "bomb.zip", scene.folder / "to", limits=limits), "grow")
    size = sum(file.stat().st_size for file in scene.folder.rglob("*.png"))
    assert size <= 9 << 20, size
    return outcome


def path_trick(scene: Scene) -> str:
    """Unpack an archive whose entry leads out of its folder."""
    (scene.folder / "a.zip").write_bytes(zipped(("../../evil.png", b"1")))
    return refused(lambda: unpack(scene.folder / "a.zip", scene.folder / "to"), "outside")


# ---- 5: the JPEG decoder ----


def unread_header(scene: Scene) -> str:
    """Train on a JPEG with a marker without a length before its frame, which decoders read differently."""
    folder = scene.folder / "images"
    folder.mkdir()
    lines = ["image,label,domain,group,split"]
    for number in range(8):
        stream = io.BytesIO()
        Image.fromarray(np.full((40, 50, 3), 20 * number, np.uint8)).save(stream, "JPEG")
        data = stream.getvalue()
        if number == 3:  # hides a frame of 9 x 9 pixels from a decoder that takes the marker for a segment
            data = data[:2] + b"\xff\xd0\x00\x15" + b"\xff\xc0\x00\x11\x08\x00\x09\x00\x09\x03" + data[2:]
        (folder / f"{number}.jpg").write_bytes(data)
        lines.append(f"{number}.jpg,nv,HAM,{number},train")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    manifest = Manifest.read(folder / "manifest.csv")
    sampler = ImageSampler(manifest.labels, num_classes=1, batch_size=4)
    with ImageLoader(
        manifest, sampler, True, device="cpu", num_threads=1, mode="fused", backend="native", on_error="replace"
    ) as loader:
        count = sum(len(batch["images"]) for batch in loader.epoch(0))
        named = [Path(name).name for name in loader.broken]
    assert count == 8
    assert named in ([], ["3.jpg"])
    return f"the epoch shows 8 images; replaced: {', '.join(named) or 'none'}"
