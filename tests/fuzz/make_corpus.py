"""Write the seeds of the fuzz target: small files of each kind that the decoder reads, and of kinds that it declines.

python tests/fuzz/make_corpus.py FOLDER
"""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RNG = np.random.default_rng(0)
WHOLE = (0, 0, 0, 255, 255)  # scale and region, as the fuzz target takes them


def picture(height: int, width: int, noise: float) -> Image.Image:
    """Return a smooth picture with noise."""
    coarse = Image.fromarray(RNG.integers(0, 256, (3, 4, 3)).astype(np.uint8)).resize((width, height))
    noisy = np.asarray(coarse) + RNG.normal(0, noise, (height, width, 3))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def main(folder: Path) -> None:
    """Write the files."""
    folder.mkdir(exist_ok=True)

    def save(name: str, image: Image.Image, choices: tuple[int, ...] = WHOLE, **options: Any) -> None:
        stream = io.BytesIO()
        image.save(stream, "JPEG", **options)
        (folder / name).write_bytes(bytes(choices) + stream.getvalue())

    scale = 0
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        for restarts in (0, 2):
            options = {"restart_marker_blocks": restarts} if restarts else {}
            name = f"{subsampling.replace(':', '')}-{restarts}"
            part = (scale, 60, 90, 128, 128)
            save(name, picture(19, 37, 10), part, subsampling=subsampling, quality=85, optimize=True, **options)
            scale += 1
    # Pillow writes no 4:4:0. With as many blocks in a column as in a row, a file of 4:2:2 can be made one.
    save("440", picture(32, 32, 10), (0, 0, 40, 255, 200), subsampling="4:2:2", quality=85, optimize=True)
    content = (folder / "440").read_bytes()
    (folder / "440").write_bytes(content.replace(b"\x03\x01\x21\x00\x02\x11", b"\x03\x01\x12\x00\x02\x11"))
    save("narrow", picture(9, 3, 10), subsampling="4:2:0", quality=85, optimize=True)
    save("grey", picture(24, 17, 20).convert("L"), (1, *WHOLE[1:]), quality=90, optimize=True)
    save("grey-restarts", picture(9, 30, 20).convert("L"), (2, *WHOLE[1:]), quality=50, restart_marker_blocks=1)
    save("noise", picture(16, 16, 200), quality=100, subsampling="4:2:0")
    save("flat", Image.new("RGB", (33, 18), (200, 90, 10)), (3, *WHOLE[1:]), optimize=True)
    save("rgb", picture(9, 9, 9), keep_rgb=True, optimize=True)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\0\0\0\0\0"
    save("exif", picture(9, 9, 9), (0, 10, 10, 99, 99), optimize=True, comment=b"comment", exif=exif)
    save("progressive", picture(9, 9, 9), progressive=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
