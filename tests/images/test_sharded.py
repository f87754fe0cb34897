"""Crops that are spread over two processes make the batches that each process makes from all of them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from fastccsa.collections.manifest import Manifest
from fastccsa.images import ImageLoader, PairLoader, Transforms
from fastccsa.sampling import ImageSampler, PairSampler
from fastccsa.system.errors import InputError

SMALL = Transforms(32)


def pair_loader(manifest: Manifest, cache: str, folder: Path, rank: int, world: int) -> PairLoader:
    # 22 pairs in steps of 8: the last step has 6, 3 for each process.
    sampler = PairSampler(
        manifest.labels, manifest.domain_indices, num_classes=3, batch_size=4, seed=3, rank=rank, world_size=world
    )
    return PairLoader(manifest, sampler, cache=cache, cache_dir=folder, transforms=SMALL, backend="torchvision")


def image_loader(manifest: Manifest, cache: str, folder: Path, rank: int, world: int) -> ImageLoader:
    # 22 images in steps of 6 or 14: the last step has 4 or 8, or one for only one of the processes.
    sampler = ImageSampler(
        manifest.labels, num_classes=3, batch_size=7, seed=3, shuffle=False, rank=rank, world_size=world
    )
    return ImageLoader(manifest, sampler, False, cache=cache, cache_dir=folder, transforms=SMALL, backend="torchvision")


def test_a_process_without_a_group_cannot_have_a_part(manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no group of 2 processes"):
        pair_loader(manifest, "sharded", tmp_path, 0, 2)


def test_a_process_alone_has_all_crops(manifest: Manifest, tmp_path: Path) -> None:
    with (
        pair_loader(manifest, "sharded", tmp_path, 0, 1) as sharded,
        pair_loader(manifest, "ram", tmp_path, 0, 1) as whole,
    ):
        assert sharded.has_plans
        for one, other in zip(sharded.epoch(1), whole.epoch(1), strict=True):
            assert all(torch.equal(one[key], other[key]) for key in one)


def test_two_processes_exchange_the_crops_of_each_step(manifest: Manifest, tmp_path: Path) -> None:
    manifest.take(range(21)).write(tmp_path / "manifest.csv")  # an odd number
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    rendezvous = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(tmp_path)],
            env={**os.environ, **rendezvous, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    # Of 21 crops the first process keeps 11; the last steps have batches of different sizes.
    assert [output.split() for output in outputs] == [
        ["kept", "11", "pairs", "4", "4", "2", "images", "7", "3"],
        ["kept", "10", "pairs", "4", "4", "3", "images", "7", "4"],
    ]


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    manifest = Manifest.read(folder / "manifest.csv")
    said: list[object] = []
    for name, loader in (("pairs", pair_loader), ("images", image_loader)):
        with (
            loader(manifest, "sharded", folder, rank, world) as sharded,
            loader(manifest, "ram", folder, rank, world) as whole,
        ):
            assert not sharded.has_plans
            if not said:
                said += ["kept", len(sharded._backend._crops)]
            for epoch, start in ((0, 0), (2, 1)):
                sizes = []
                for one, other in zip(sharded.epoch(epoch, start), whole.epoch(epoch, start), strict=True):
                    assert one.keys() == other.keys()
                    assert all(torch.equal(one[key], other[key]) for key in one)
                    sizes.append(len(next(iter(one.values()))))
                said += [name, *sizes] if start == 0 else []
    dist.destroy_process_group()
    print(*said)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
