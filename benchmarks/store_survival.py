"""Builds the store of crops of a manifest, and kills builds at random moments: what comes of it must be the same bytes.

    python benchmarks/store_survival.py manifest.csv
    python benchmarks/store_survival.py manifest.csv --kills 5 --folder /scratch

First a build without disturbance, timed. Then one in another folder that is killed (SIGKILL) after a random part of
that time, begun again and killed again, and at last let come to its end. JSON: images, seconds, images a second, bytes,
how many crops each kill found on the disk, and whether the two arrays are the same bytes. Exit status 1 where not.
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BUILD = """
import sys
from pathlib import Path
from fastccsa.collections.manifest import Manifest
from fastccsa.images import Transforms
from fastccsa.images.source import ImageSource
from fastccsa.images.store import open_store
manifest = Manifest.read(sys.argv[1])
source = ImageSource(manifest.paths, manifest.labels, manifest.domain_indices)
print("begun", flush=True)
open_store(source, Transforms(int(sys.argv[3])), Path(sys.argv[2]), sys.argv[4])
"""


def start(options: argparse.Namespace, folder: Path) -> subprocess.Popen[str]:
    """Build in a process of its own; returns when the packages are loaded and the work begins."""
    command = [sys.executable, "-c", BUILD, str(options.manifest), str(folder), str(options.size), options.backend]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    if process.stdout.readline() != "begun\n":
        sys.exit(process.wait() or 1)
    return process


def store_in(folder: Path) -> Path:
    (one,) = folder.iterdir()
    return one


def crops_done(folder: Path) -> int:
    """Crops that the index of a store vouches for."""
    indices = list(folder.glob("*/index.json"))
    entries = json.loads(indices[0].read_text())["entries"].values() if indices else []
    return sum(entry["pixels"] is not None for entry in entries)


def survive(options: argparse.Namespace, scratch: Path) -> bool:
    whole, killed = scratch / "whole", scratch / "killed"
    begun = time.perf_counter()
    if start(options, whole).wait() != 0:
        sys.exit(1)
    seconds = time.perf_counter() - begun
    array = store_in(whole) / "crops.bin"
    images = crops_done(whole)

    rng = random.Random(options.seed)
    found = []
    for _ in range(options.kills):
        process = start(options, killed)
        try:
            process.wait(timeout=rng.uniform(0.05, 0.6) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        found.append(crops_done(killed))
    finished = start(options, killed).wait() == 0
    same = finished and filecmp.cmp(array, store_in(killed) / "crops.bin", shallow=False)
    line = {"images": images, "seconds": round(seconds, 2), "images_per_second": round(images / seconds, 1)}
    line |= {"bytes": array.stat().st_size, "bytes_per_image": array.stat().st_size // max(images, 1)}
    line |= {"crops_after_kills": found, "same_bytes": same, "threads": len(os.sched_getaffinity(0))}
    print(json.dumps(line), flush=True)
    return same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=224, help="of the finished images")
    parser.add_argument("--backend", choices=["dali", "torchvision"], default="dali")
    parser.add_argument("--folder", type=Path, help="where there is room for two stores (default: the system's)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        sys.exit(0 if survive(options, Path(scratch)) else 1)


if __name__ == "__main__":
    main()
