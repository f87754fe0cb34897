"""Crops that are spread over two processes make the batches that each process makes from all of them."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from fastccsa.collections.manifest import Manifest
from fastccsa.images import ImageLoader, PairLoader, Transforms
from fastccsa.sampling import ImageSampler, PairSampler
from fastccsa.system.errors import InputError
from fastccsa.training.ranks import open_ranks

SMALL = Transforms(32)


def pair_loader(
    manifest: Manifest,
    cache: str,
    folder: Path,
    rank: int,
    world: int,
    device: str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> PairLoader:
    sampler = PairSampler(
        manifest.labels, manifest.domain_indices, num_classes=3, batch_size=4, seed=3, rank=rank, world_size=world
    )
    options = {"transforms": SMALL, "backend": "torchvision", "device": device, "dtype": dtype}
    return PairLoader(manifest, sampler, cache=cache, cache_dir=folder, **options)


def image_loader(
    manifest: Manifest, cache: str, folder: Path, rank: int, world: int, device: str = "cpu", batch_size: int = 7
) -> ImageLoader:
    sampler = ImageSampler(
        manifest.labels, num_classes=3, batch_size=batch_size, seed=3, shuffle=False, rank=rank, world_size=world
    )
    options = {"transforms": SMALL, "backend": "torchvision", "device": device}
    return ImageLoader(manifest, sampler, False, cache=cache, cache_dir=folder, **options)


LOADERS = {"pairs": pair_loader, "images": image_loader, "tens": partial(image_loader, batch_size=10)}
LOADERS["rounded"] = partial(pair_loader, dtype=torch.bfloat16)


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


def test_two_processes_exchange_the_crops_of_each_step(manifest: Manifest, tmp_path: Path, run_ranks) -> None:
    manifest.take(range(21)).write(tmp_path / "manifest.csv")
    outputs = run_ranks(__file__, str(tmp_path))
    # The first process keeps 11 of 21 crops. The last step has 5 pairs, 7 images, or 1 image for one of the processes.
    assert outputs == [
        "kept 11 pairs 4 4 2 images 7 3 tens 10 0 rounded 4 4 2\n",
        "kept 10 pairs 4 4 3 images 7 4 tens 10 1 rounded 4 4 3\n",
    ]


def main(folder: Path, device: str) -> None:
    with open_ranks(device) as ranks:
        print(*compare(folder, device, ranks.rank, ranks.world))


def compare(folder: Path, device: str, rank: int, world: int) -> list[object]:
    """Compare the batches with those of a process that has all crops; return their sizes."""
    manifest = Manifest.read(folder / "manifest.csv")
    # The stores of two machines, which were filled in different orders.
    folder /= f"machine{rank}"
    if rank == 1:
        image_loader(manifest.take([17, 3, 8]), "disk", folder, 0, 1).close()
    said: list[object] = []
    for name, loader in LOADERS.items():
        with (
            loader(manifest, "sharded", folder, rank, world, device) as sharded,
            loader(manifest, "gpu" if device == "cuda" else "ram", folder, rank, world, device) as whole,
        ):
            assert not sharded.has_plans
            if not said:
                said += ["kept", len(sharded._backend._crops)]
            for epoch, start in ((0, 0), (2, 1)):
                sizes = []
                for one, other in zip(sharded.epoch(epoch, start), whole.epoch(epoch, start), strict=True):
                    assert one.keys() == other.keys()
                    assert (torch.bfloat16 in {value.dtype for value in one.values()}) == (name == "rounded")
                    assert all(torch.equal(one[key], other[key]) for key in one)
                    sizes.append(len(next(iter(one.values()))))
                said += [name, *sizes] if start == 0 else []
    return said


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
