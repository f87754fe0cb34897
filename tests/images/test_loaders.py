from __future__ import annotations

import subprocess
import sys
import textwrap
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch
from sample_images import assert_same, grey_levels

from fastccsa.collections.manifest import Manifest
from fastccsa.images import ImageLoader, PairLoader, Transforms
from fastccsa.images import backend as chosen_backend
from fastccsa.sampling import ImageSampler, PairSampler
from fastccsa.system.errors import InputError

SMALL = Transforms(32)
BACKENDS = ["native", "dali", "torchvision"]


def pair_sampler(manifest: Manifest, **options: Any) -> PairSampler:
    options = {"batch_size": 4, "seed": 3, **options}
    return PairSampler(manifest.labels, manifest.domain_indices, num_classes=3, **options)


def pair_loader(manifest: Manifest, sampler: PairSampler | None = None, **options: Any) -> PairLoader:
    options = {"transforms": SMALL, "num_threads": 2, **options}
    return PairLoader(manifest, sampler or pair_sampler(manifest), **options)


def image_loader(manifest: Manifest, augment: bool = False, shuffle: bool = False, **options: Any) -> ImageLoader:
    options = {"transforms": SMALL, "num_threads": 2, **options}
    sampler = ImageSampler(manifest.labels, num_classes=3, batch_size=4, seed=3, shuffle=shuffle)
    return ImageLoader(manifest, sampler, augment, **options)


def threads() -> int:
    """Count the threads of this process, including native ones."""
    return len(list(Path("/proc/self/task").iterdir()))


@pytest.mark.parametrize("backend", BACKENDS)
def test_batches_are_the_samplers_pairs(manifest: Manifest, backend: str) -> None:
    sampler = pair_sampler(manifest)
    with pair_loader(manifest, sampler, backend=backend) as loader:
        batches = list(loader.epoch(2))
    assert len(batches) == len(loader) == len(sampler) == 6
    for step, batch in enumerate(batches):
        for side, index in zip("12", sampler.batch(2, step), strict=True):
            assert batch[f"index{side}"].tolist() == index.tolist()
            assert batch[f"target{side}"].tolist() == manifest.labels[index].tolist()
            assert batch[f"domain{side}"].tolist() == manifest.domain_indices[index].tolist()
            assert batch[f"images{side}"].shape == (len(index), 3, 32, 32)
            assert batch[f"images{side}"].dtype == torch.float32
            for name in ("index", "target", "domain"):
                assert batch[f"{name}{side}"].dtype == torch.int64
        assert len(batch) == 8
    assert [len(batch["target1"]) for batch in batches] == [4, 4, 4, 4, 4, 2]


@pytest.mark.parametrize(
    ("backend", "mode"), [(backend, "fused") for backend in BACKENDS] + [(backend, "exact") for backend in BACKENDS[1:]]
)
def test_an_epoch_can_start_at_any_step(manifest: Manifest, backend: str, mode: str) -> None:
    with pair_loader(manifest, backend=backend, mode=mode) as loader:
        whole = list(loader.epoch(1))
        for start in (0, 1, 4, 5):
            assert_same(loader.epoch(1, start_step=start), whole[start:])
        assert list(loader.epoch(1, start_step=6)) == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_epoch_can_be_abandoned(manifest: Manifest, backend: str) -> None:
    with pair_loader(manifest, backend=backend) as loader:
        first, second = list(loader.epoch(0)), list(loader.epoch(1))
        abandoned = loader.epoch(0)
        assert_same(list(islice(abandoned, 2)), first[:2])
        assert_same(loader.epoch(1), second)
        assert next(abandoned, None) is None
        for batch in loader.epoch(0):
            assert torch.equal(batch["images1"], first[0]["images1"])
            break
        assert_same(loader.epoch(1, start_step=2), second[2:])


def test_iteration_follows_the_samplers_epoch(manifest: Manifest) -> None:
    sampler = pair_sampler(manifest)
    with pair_loader(manifest, sampler) as loader:
        expected = list(loader.epoch(7))
        sampler.set_epoch(7)
        assert_same(iter(loader), expected)
        sampler.set_epoch(8)
        assert not torch.equal(next(iter(loader))["images1"], expected[0]["images1"])


def test_earlier_batches_are_not_overwritten(manifest: Manifest) -> None:
    with pair_loader(manifest) as loader:
        kept = [batch for epoch in range(3) for batch in loader.epoch(epoch)]
        copies = [{key: value.clone() for key, value in batch.items()} for batch in kept]
        list(loader.epoch(5))
    assert_same(kept, copies)


@pytest.mark.parametrize("backend", BACKENDS)
def test_threads_and_prefetch_do_not_change_the_batches(manifest: Manifest, backend: str) -> None:
    with pair_loader(manifest, backend=backend) as loader:
        expected = list(loader.epoch(0))
    for options in ({"num_threads": 1, "prefetch": 1}, {"num_threads": 3, "prefetch": 5}):
        with pair_loader(manifest, backend=backend, **options) as loader:
            assert_same(loader.epoch(0), expected)


@pytest.mark.parametrize("mode", ["fused", "exact"])
def test_all_backends_make_the_same_images(manifest: Manifest, mode: str) -> None:
    made = {}
    backends = BACKENDS if mode == "fused" else BACKENDS[1:]
    for backend in backends:
        with pair_loader(manifest, backend=backend, mode=mode) as loader:
            made[backend] = next(loader.epoch(0))
    for side in "12":
        *others, torchvision = (grey_levels(made[backend][f"images{side}"], SMALL) for backend in backends)
        # test_parity.py tests the accuracy. This tests that images, views and order are the same.
        neighbours = (torchvision.roll(1, 0) - torchvision).abs().mean()
        for images in others:
            assert (images - torchvision).abs().mean() < neighbours / 20


def test_auto_is_native_for_fused_on_the_cpu_and_dali_otherwise(manifest: Manifest) -> None:
    for mode, chosen in (("fused", "native"), ("exact", "dali")):
        with pair_loader(manifest, mode=mode) as auto, pair_loader(manifest, mode=mode, backend=chosen) as named:
            assert_same(auto.epoch(0), list(named.epoch(0)))


def test_modes_show_the_same_images_with_different_pixels(manifest: Manifest) -> None:
    with pair_loader(manifest, mode="fused") as fused, pair_loader(manifest, mode="exact") as exact:
        one, two = next(fused.epoch(0)), next(exact.epoch(0))
    assert not torch.equal(one["images1"], two["images1"])
    assert torch.equal(one["index1"], two["index1"])


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_together_show_the_epoch_of_a_single_process(manifest: Manifest, world_size: int) -> None:
    """The images at a position of the epoch are bit for bit the same on any rank."""
    single = pair_sampler(manifest, batch_size=4 * world_size)
    with pair_loader(manifest, single) as loader:
        expected = list(loader.epoch(0))
    shares = []
    for rank in range(world_size):
        with pair_loader(manifest, pair_sampler(manifest, rank=rank, world_size=world_size)) as loader:
            shares.append(list(loader.epoch(0)))
    joined = [
        {key: torch.cat([part[key] for part in parts]) for key in parts[0]} for parts in zip(*shares, strict=True)
    ]
    assert_same(joined, expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rank_may_get_no_images(manifest: Manifest, backend: str) -> None:
    subset = manifest.take(range(9))
    sampler = pair_sampler(subset, batch_size=4, rank=0, world_size=2)
    with pair_loader(subset, sampler, backend=backend) as loader:
        *_, last = loader.epoch(0)
        assert last["images1"].shape == last["images2"].shape == (0, 3, 32, 32)
        assert last["target1"].shape == (0,)
        assert len(list(loader.epoch(1))) == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_evaluation_shows_every_image_once_without_augmentation(manifest: Manifest, backend: str) -> None:
    with image_loader(manifest, backend=backend) as loader:
        first, second = list(loader.epoch(0)), list(loader.epoch(1))
    assert torch.cat([batch["index"] for batch in first]).tolist() == list(range(22))
    assert torch.cat([batch["target"] for batch in first]).tolist() == manifest.labels.tolist()
    assert torch.cat([batch["domain"] for batch in first]).tolist() == manifest.domain_indices.tolist()
    assert [len(batch["images"]) for batch in first] == [4, 4, 4, 4, 4, 2]
    assert_same(first, second)


def test_single_images_are_augmented_by_epoch_and_position(manifest: Manifest) -> None:
    with image_loader(manifest, augment=True, shuffle=True) as loader:
        first, second = list(loader.epoch(0)), list(loader.epoch(1))
        assert_same(loader.epoch(0, start_step=3), first[3:])
    assert not torch.equal(first[0]["images"], second[0]["images"])


def test_first_and_second_images_get_different_views(manifest: Manifest) -> None:
    """The same image on both sides of a pair has two different views."""
    transforms = SMALL
    sampler = pair_sampler(manifest)
    positions = sampler.positions(0, 0)
    first, second = (transforms.draw(sampler.seed, 0, positions, stream) for stream in (1, 2))
    assert (first.window != second.window).any(axis=1).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_close_stops_all_threads(manifest: Manifest, backend: str) -> None:
    with pair_loader(manifest, backend=backend) as loader:  # starts the threads that live as long as the process
        list(loader.epoch(0))
    before = threads()
    for _ in range(3):
        with pair_loader(manifest, backend=backend) as loader:
            next(loader.epoch(0))
        loader.close()  # closing twice is harmless
    deadline = time.monotonic() + 30  # the system counts a thread for a short time after its end
    while threads() > before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert threads() <= before


def test_a_closed_loader_raises(manifest: Manifest) -> None:
    loader = pair_loader(manifest)
    batches = loader.epoch(0)
    next(batches)
    loader.close()
    assert next(batches, None) is None
    with pytest.raises(InputError, match="closed"):
        loader.epoch(0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_program_exits_without_closing_its_loader(manifest: Manifest, backend: str) -> None:
    program = f"""
        from fastccsa.collections.manifest import Manifest
        from fastccsa.images import ImageLoader, Transforms
        from fastccsa.sampling import ImageSampler
        import pandas as pd
        paths = {manifest.paths!r}
        columns = dict(image=paths, label="a", domain="P", group=paths, split="train")
        manifest = Manifest(pd.DataFrame(columns))
        sampler = ImageSampler(manifest.labels, batch_size=2)
        loader = ImageLoader(manifest, sampler, True, transforms=Transforms(32), backend="{backend}")
        batches = iter(loader)
        print(next(batches)["images"].shape[0])
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "kornia"}, "backend is 'kornia'; choose one of 'auto', 'native', 'dali', 'torchvision'"),
        ({"backend": "native", "mode": "exact"}, "backend 'native' resamples once; with mode='exact' use 'dali'"),
        ({"mode": "fast"}, "mode is 'fast'; choose one of 'fused', 'exact'"),
        ({"on_error": "ignore"}, "on_error is 'ignore'; choose one of 'replace', 'raise'"),
        ({"prefetch": 0}, "prefetch is 0"),
        ({"num_threads": 0}, "num_threads is 0"),
        ({"device": "tpu:x"}, "device is 'tpu:x'"),
        ({"device": "meta"}, "device is meta"),
    ],
)
def test_invalid_arguments_are_named(manifest: Manifest, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pair_loader(manifest, **options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_cuda_device_is_reported(manifest: Manifest) -> None:
    with pytest.raises(InputError, match="torch sees no CUDA device"):
        pair_loader(manifest, device="cuda")


def test_sampler_and_manifest_must_match(manifest: Manifest) -> None:
    with pytest.raises(InputError, match="made for 22 images and the manifest has 5"):
        pair_loader(manifest.take(range(5)), pair_sampler(manifest))


@pytest.mark.parametrize("start", [-1, 7])
def test_a_step_outside_the_epoch_is_reported(manifest: Manifest, start: int) -> None:
    with pair_loader(manifest) as loader, pytest.raises(InputError, match=f"start_step is {start}"):
        loader.epoch(0, start_step=start)


def test_without_dali_the_error_names_the_wheels(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("nvidia.dali") or name == "fastccsa.images.dali"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    with pytest.raises(InputError, match=r"nvidia-dali-cuda130 .*nvidia-dali-cuda120 .*backend='torchvision'"):
        pair_loader(manifest, backend="dali")
    for options in ({}, {"backend": "torchvision"}):
        with pair_loader(manifest, **options) as loader:
            assert len(next(loader.epoch(0))["images1"]) == 4


@pytest.fixture
def without_dali(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Hide DALI; returns the log."""
    monkeypatch.setitem(sys.modules, "nvidia.dali", None)
    monkeypatch.setitem(sys.modules, "fastccsa.images.dali", None)
    chosen_backend.say_once.cache_clear()
    return caplog


@pytest.mark.parametrize(
    ("mode", "device", "chosen"),
    [
        ("fused", "cpu", "native"),
        ("fused", "cuda", "native"),
        ("exact", "cpu", "torchvision"),
        ("exact", "cuda", "torchvision"),
    ],
)
def test_auto_is_what_is_installed(without_dali: pytest.LogCaptureFixture, mode: str, device: str, chosen: str) -> None:
    assert [chosen_backend.choose_backend(mode, torch.device(device)) for _ in range(2)] == [chosen] * 2
    expected = 0 if (mode, device) == ("fused", "cpu") else 1  # said once
    assert without_dali.text.count("DALI is not installed") == expected


def test_without_dali_auto_makes_the_images_of_torchvision(
    manifest: Manifest, without_dali: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    for options in ({"mode": "exact"}, {"cache": "ram", "cache_dir": tmp_path}):
        with (
            pair_loader(manifest, **options) as auto,
            pair_loader(manifest, **options, backend="torchvision") as named,
        ):
            assert_same(auto.epoch(0), list(named.epoch(0)))
    assert "the crops of the images are made by torchvision" in without_dali.text


def test_importing_the_loaders_loads_no_heavy_library() -> None:
    heavy = "{'nvidia.dali', 'torchvision', 'matplotlib', 'sklearn', 'pandas'}"
    code = f"import sys; from fastccsa.images import PairLoader; print({heavy} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.cuda
@pytest.mark.parametrize("backend", BACKENDS)
def test_batches_on_a_gpu_are_close_to_those_on_the_cpu(manifest: Manifest, backend: str) -> None:
    with pair_loader(manifest, backend=backend) as loader:
        expected = list(loader.epoch(0))
    with pair_loader(manifest, backend=backend, device="cuda") as loader:
        whole = list(loader.epoch(0))
        assert_same(loader.epoch(0, start_step=2), whole[2:])
    for on_gpu, on_cpu in zip(whole, expected, strict=True):
        assert {value.device for value in on_gpu.values()} == {torch.device("cuda", 0)}
        assert torch.equal(on_gpu["target2"].cpu(), on_cpu["target2"])
        for side in "12":
            gpu, cpu = (grey_levels(batch[f"images{side}"].cpu(), SMALL) for batch in (on_gpu, on_cpu))
            assert (gpu - cpu).abs().mean() < 1.5


@pytest.mark.parametrize(
    "options",
    [
        {"backend": "native"},
        {"backend": "dali"},
        {"backend": "torchvision"},
        {"cache": "ram"},
        {"cache": "disk"},
        pytest.param({"device": "cuda", "backend": "native"}, marks=pytest.mark.cuda),
        pytest.param({"device": "cuda", "backend": "dali"}, marks=pytest.mark.cuda),
        pytest.param({"device": "cuda", "cache": "ram"}, marks=pytest.mark.cuda),
        pytest.param({"device": "cuda", "cache": "gpu"}, marks=pytest.mark.cuda),
    ],
)
def test_networks_take_the_images_without_a_copy(manifest: Manifest, tmp_path: Path, options: dict[str, Any]) -> None:
    """They are in channels-last order, and so are the halves of a batch of pairs."""
    with pair_loader(manifest, cache_dir=tmp_path, **options) as loader:
        batch = next(loader.epoch(0))
        made = [batch["images1"], batch["images2"]]
        if loader.has_plans:
            made += [value for key, value in loader.make(next(loader.plans(0))).items() if key.startswith("images")]
    for images in made:
        assert images.contiguous(memory_format=torch.channels_last).data_ptr() == images.data_ptr()
