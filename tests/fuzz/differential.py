"""The decoder of JPEG regions against libjpeg-turbo through Pillow, on valid and on mutated files.

    python tests/fuzz/differential.py --files 20000

Each file is encoded with random settings, and most are then mutated: bits flipped, bytes replaced, cut out, repeated or
inserted, restart markers exchanged, segments moved, tables overwritten. A file that both decode must have the same
pixels: equal at full size, and a region equal to that part of the image. A file that the decoder accepts and Pillow
refuses is counted too. The exit status says whether any file differs, or a valid one is refused.
"""

from __future__ import annotations

import argparse
import io
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from fastccsa.images.jpeg import decode_region

SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0", "grey")
Mutation = Callable[[bytearray, random.Random], None]


def picture(chance: random.Random) -> Image.Image:
    """Return a smooth picture with noise, or nothing but noise."""
    rng = np.random.default_rng(chance.getrandbits(32))
    height, width = chance.randrange(1, 80), chance.randrange(1, 80)
    coarse = Image.fromarray(rng.integers(0, 256, (3, 4, 3)).astype(np.uint8)).resize((width, height))
    noise = rng.normal(0, chance.choice((0, 3, 30, 300)), (height, width, 3))
    return Image.fromarray((np.asarray(coarse) + noise).clip(0, 255).astype(np.uint8))


def encode(chance: random.Random) -> bytes:
    """Encode a picture with random settings."""
    image, subsampling = picture(chance), chance.choice(SUBSAMPLINGS)
    options = {"quality": chance.choice((5, 30, 75, 92, 100)), "optimize": chance.random() < 0.5}
    if chance.random() < 0.5:
        options["restart_marker_blocks"] = chance.choice((1, 2, 7))
    if subsampling == "grey":
        image = image.convert("L")
    else:
        options["subsampling"] = subsampling
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, begin and end of each segment up to the scan's header."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield data[at + 1], at, end
        if data[at + 1] == 0xDA:
            return
        at = end


def _header_end(data: bytes | bytearray) -> int:
    return max((end for *_, end in segments(bytes(data))), default=len(data))


def flip(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 2, 5))):
        data[chance.randrange(2, len(data))] ^= 1 << chance.randrange(8)


def flip_header(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 2))):
        data[chance.randrange(2, min(_header_end(data), len(data)))] ^= 1 << chance.randrange(8)


def replace(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.choice((1, 1, 2, 5))):
        data[chance.randrange(2, len(data))] = chance.choice((0, 1, 16, 127, 128, 254, 255, chance.randrange(256)))


def remove(data: bytearray, chance: random.Random) -> None:
    at = chance.randrange(2, len(data))
    del data[at : at + chance.choice((1, 1, 2, 16, 200))]


def repeat(data: bytearray, chance: random.Random) -> None:
    at, size = chance.randrange(2, len(data)), chance.choice((1, 2, 16, 200))
    data[at:at] = data[at : at + size]


def insert(data: bytearray, chance: random.Random) -> None:
    what = chance.choice(
        (b"\xff", b"\xff\xff", b"\x00", b"\xff\x00", b"\xff\xd9", b"\xff\xd8", b"\xff\x01", b"\xff\xdc\x00\x04\x00\x10",
         b"\xff\xd0", b"\xff\xd3", b"\xff\xdd\x00\x04\x00\x01", chance.randbytes(3))
    )  # fmt: skip
    at = chance.randrange(2, len(data))
    data[at:at] = what


def insert_between(data: bytearray, chance: random.Random) -> None:
    """Insert markers, with and without a length, between two segments."""
    places = [begin for _, begin, _ in segments(bytes(data))]
    marker = chance.choice((0x01, 0xD0, 0xD7, 0xD8, 0xD9, 0x02, 0xBF, 0xC8, 0xDC, 0xDE, 0xDF, 0xE5, 0xF0, 0xFD, 0xFE))
    body = chance.choice((b"", b"\x00\x02", b"\x00\x04ab", b"\x00\x00", chance.randbytes(4)))
    at = chance.choice(places or [2])
    data[at:at] = bytes((0xFF, marker)) + body


def exchange(data: bytearray, chance: random.Random) -> None:
    """Put two segments in the other order, or one of them twice."""
    found = list(segments(bytes(data)))
    if len(found) < 2:
        return
    (_, a, b), (_, c, d) = sorted(chance.sample(found, 2), key=lambda segment: segment[1])
    first, between, second = data[a:b], data[b:c], data[c:d]
    data[a:d] = chance.choice((second + between + first, first + between + second + first, second + between + second))


def restarts(data: bytearray, chance: random.Random) -> None:
    """Renumber, remove, move or double a restart marker."""
    start = _header_end(data)
    found = [at for at in range(start, len(data) - 1) if data[at] == 0xFF and 0xD0 <= data[at + 1] <= 0xD7]
    if not found:
        return flip(data, chance)
    at = chance.choice(found)
    kind = chance.randrange(4)
    if kind == 0:
        data[at + 1] = 0xD0 + chance.randrange(8)
    elif kind == 1:
        del data[at : at + 2]
    elif kind == 2:
        data[at:at] = data[at : at + 2]
    else:
        marker = data[at : at + 2]
        del data[at : at + 2]
        to = chance.randrange(start, len(data))
        data[to:to] = marker


def table(data: bytearray, chance: random.Random) -> None:
    """Overwrite a part of a Huffman or a quantisation table, or of the frame's or the scan's header."""
    found = [segment for segment in segments(bytes(data)) if segment[0] in (0xC0, 0xC4, 0xDA, 0xDB, 0xDD)]
    if not found:
        return
    _, begin, end = chance.choice(found)
    for _ in range(chance.choice((1, 2, 9))):
        at = chance.randrange(min(begin + 4, len(data) - 1), max(min(end, len(data)), begin + 5))
        if at < len(data):
            data[at] = chance.choice((0, 1, 2, 15, 16, 0x22, 127, 255, chance.randrange(256)))


MUTATIONS: tuple[Mutation, ...] = (
    flip, flip_header, replace, remove, repeat, insert, insert_between, exchange, restarts, table,
)  # fmt: skip


def pillow(data: bytes) -> np.ndarray | None:
    """Return the pixels that Pillow decodes; None if it refuses the file."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            return np.asarray(image.convert("RGB"))
    except Exception:  # of many kinds
        return None


def size_of(data: bytes) -> tuple[int, int] | None:
    """Return height and width as Pillow reads them from the header; None if it refuses the file."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]) as image:
            return image.size[::-1]
    except Exception:
        return None


def compare(data: bytes, chance: random.Random) -> tuple[str, int]:
    """Decode a file both ways; return how it went, and the largest difference in levels."""
    size = size_of(data)
    if size is None or size[0] * size[1] > 1 << 20:
        return "not opened", 0
    content = np.frombuffer(data, np.uint8)
    ours = decode_region(content, (0, 0, *size), size=size)
    top, left = chance.randrange(size[0]), chance.randrange(size[1])
    height, width = chance.randrange(1, size[0] - top + 1), chance.randrange(1, size[1] - left + 1)
    region = decode_region(content, (top, left, height, width), size=size)
    expected = pillow(data)
    if expected is None:
        return ("refused by both" if ours is None else "refused by Pillow"), 0
    found = [(ours, expected), (region, expected[top : top + height, left : left + width])]
    off = max((np.abs(a.astype(int) - b).max() for a, b in found if a is not None), default=0)
    return ("declined" if ours is None else "decoded by both"), int(off)


def run(files: int, seed: int, keep: Path | None = None) -> tuple[Counter[str], list[str]]:
    """Compare as many files; return the counts of the ends, and what is wrong."""
    ends: Counter[str] = Counter()
    wrong: list[str] = []
    for number in range(files):
        chance = random.Random(f"{seed} {number}")
        data = bytearray(encode(chance))
        names = []
        for _ in range(chance.choice((0, 1, 1, 1, 1, 1, 2, 3))):
            mutation = chance.choice(MUTATIONS)
            mutation(data, chance)
            names.append(mutation.__name__)
        end, off = compare(bytes(data), chance)
        ends[f"{'mutated' if names else 'valid'}, {end}"] += 1
        if off or (not names and end != "decoded by both"):
            wrong.append(f"{number} {end} {'+'.join(names)}: {off} levels")
            if keep is not None:
                (keep / f"{number}.jpg").write_bytes(data)
    return ends, wrong


def main() -> None:
    """Run the comparison and print its table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=20000, help="number of files (default 20000)")
    parser.add_argument("--seed", type=int, default=0, help="random seed of files and mutations")
    parser.add_argument("--keep", type=Path, help="folder for files that differ")
    options = parser.parse_args()
    started = time.monotonic()
    ends, wrong = run(options.files, options.seed, options.keep)
    for end, count in sorted(ends.items()):
        print(f"{end:<32}{count:>8}")
    print(f"{'wrong':<32}{len(wrong):>8}", *wrong[:20], sep="\n")
    print(f"{'seconds':<32}{time.monotonic() - started:>8.0f}")
    raise SystemExit(1 if wrong else 0)


if __name__ == "__main__":
    main()
