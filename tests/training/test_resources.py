"""What a run uses of its machine where the configuration leaves it open."""

from __future__ import annotations

import json
import logging
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from fastccsa.collections import Manifest
from fastccsa.evaluation.replay import ReplayedPredictions
from fastccsa.images import Transforms, base_loader, store_choice, store_crops
from fastccsa.images.crop_file import CacheError
from fastccsa.images.source import ImageSource
from fastccsa.images.store import open_store
from fastccsa.images.store_backend import StoreBackend
from fastccsa.images.store_choice import FOLDER
from fastccsa.images.torchvision_backend import TorchvisionCrops
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.images import open_manifest, select_images, watched_images
from fastccsa.system.errors import InputError
from fastccsa.training import graph, resources, train
from fastccsa.training import loop as loop_module
from fastccsa.training.graph import CaptureError, GraphedStep
from fastccsa.training.ranks import ALONE, Ranks

RUNS = ("ordinary", "graphed")
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def own_csv(draw_collections) -> Path:
    """A manifest whose store no other test fills."""
    return draw_collections(dict.fromkeys(("HAM", "SON"), ("nv", "mel", "bcc")), 5)


@pytest.fixture
def machine(monkeypatch):
    """Return a function that makes a machine with this many times the room that the crops need."""

    def make(needed: int, gpu: float, memory: float, disk: float, built_for: str = "13.0") -> None:
        room = {"cuda": gpu, "cpu": memory}
        monkeypatch.setattr(resources, "available_bytes", lambda device: needed * room[device.type])
        monkeypatch.setattr(resources, "_free", lambda folder: needed * disk)
        monkeypatch.setattr(resources, "stored_images", lambda *args: 0)
        monkeypatch.setattr(resources, "CUDA_VERSION", built_for)

    return make


def chosen(config: TrainConfig, device: torch.device = GPU, ranks: Ranks = ALONE) -> str:
    return usable(config, device, ranks)[0]


def usable(
    config: TrainConfig, device: torch.device = GPU, ranks: Ranks = ALONE, reasons: list[str] | None = None
) -> tuple[str, ...]:
    config, manifest = open_manifest(config)
    images = select_images(config, manifest)
    watched = list(watched_images(config, manifest, images.domains).values())
    return resources.choose_caches(config, images, watched, device, ranks, ([] if reasons is None else reasons).append)


def bytes_of_crops(config: TrainConfig, splits: tuple[str, ...] = ("train", "validation")) -> int:
    _, manifest = open_manifest(config)
    return sum(len(manifest.select(split)) for split in splits) * 3 * Transforms(size=config.size).crop ** 2


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        ((2.0, 2.0, 1.0), "gpu"),
        ((1.9, 2.0, 1.0), "ram"),
        ((1.9, 1.9, 1.0), "disk"),
        ((9.0, 9.0, 0.9), "none"),  # a cache in memory is filled from the store on the disk
        ((9.0, 2.0, 1.0, ""), "ram"),  # a build without CUDA code
    ],
)
def test_the_fastest_cache_that_has_room_is_chosen(make_config, machine, room, expected) -> None:
    config = make_config()
    machine(bytes_of_crops(config), *room)
    assert chosen(config) == expected
    assert chosen(config, CPU) == "none"
    assert chosen(replace(config, cache="disk")) == "disk"


# The crops need 0.3 MB: 63 images of 43 x 43 pixels.
GPU_MEMORY = "GPU memory: needs 0.3 MB, 0.2 MB free for crops"


@pytest.mark.parametrize(
    ("room", "expected", "reasons"),
    [
        ((2.0, 0.9, 1.0), "gpu", []),
        ((1.1, 2.0, 1.0), "ram", [GPU_MEMORY]),
        ((1.1, 1000, 1.0, ""), "ram", ["GPU memory: fastccsa was built without CUDA code"]),
        ((1.1, 0.9, 1.0), "disk", [GPU_MEMORY, "memory: needs 0.3 MB, 0.2 MB free for crops"]),
        ((9.0, 9.0, 0.9), "none", ["disk: needs 0.3 MB, 0.3 MB free"]),  # and not once for each cache
    ],
)
def test_the_reasons_against_better_caches_are_told(make_config, machine, room, expected, reasons) -> None:
    config, told = make_config(), []
    machine(bytes_of_crops(config), *room)
    assert usable(config, reasons=told)[0] == expected
    assert told == reasons
    assert usable(replace(config, cache="disk"), reasons=told) == ("disk",)
    assert usable(config, CPU, reasons=told) == ("none",)
    assert told == reasons  # nothing stood in the way of these


def test_the_reasons_of_processes_and_of_a_folder_are_told(make_config, machine, monkeypatch) -> None:
    config, told = make_config(), []
    machine(bytes_of_crops(config), 1.1, 2, 1)
    answers = iter([True, True, False, False, False])  # another one has no room in the memory of all GPUs
    monkeypatch.setattr(Ranks, "highest", lambda self, number: max(number, next(answers)))
    assert usable(config, ranks=Ranks(0, 2), reasons=told)[0] == "ram"
    assert told == [GPU_MEMORY, "the memory of all GPUs: another process has no room"]
    monkeypatch.undo()
    machine(bytes_of_crops(config), 2, 2, 1)
    monkeypatch.setattr(resources, "_free", lambda folder: None)
    assert usable(config, reasons=told)[0] == "none"
    assert told[2:] == [f"{Path(config.manifest).parent / FOLDER} cannot be written"]


def test_large_amounts_are_in_gigabytes() -> None:
    assert resources._too_small("gpu", 7.24e9, 5.06e9) == "GPU memory: needs 7.2 GB, 5.1 GB free for crops"
    assert resources._too_small("gpu", 5.06e9, 5.06e9) is None


def test_processes_share_the_memory_and_choose_the_same(make_config, machine, monkeypatch) -> None:
    config = make_config()
    machine(bytes_of_crops(config), 1, 2, 1)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert chosen(config) == "disk"
    machine(bytes_of_crops(config), 2, 2, 1)
    answers = iter([True, True, True, False, False])  # another rank has only the disk
    monkeypatch.setattr(Ranks, "highest", lambda self, number: max(number, next(answers)))
    assert chosen(config, ranks=Ranks(0, 2)) == "disk"


@pytest.mark.parametrize(("gpu", "expected"), [(2.0, "gpu"), (1.0, "sharded"), (0.9, "ram")])
def test_gpus_share_the_crops_that_do_not_fit_into_each(make_config, machine, monkeypatch, gpu, expected) -> None:
    config = make_config()
    machine(bytes_of_crops(config), gpu, 2, 1)
    monkeypatch.setattr(Ranks, "highest", lambda self, number: number)
    assert chosen(config, ranks=Ranks(0, 2)) == expected


def test_the_images_that_are_only_watched_need_room_too(make_config, machine) -> None:
    config = make_config(score_epochs=True)
    machine(bytes_of_crops(config), 2, 2, 1)
    assert chosen(config) == "none"
    machine(bytes_of_crops(config, ("train", "validation", "test")), 2, 2, 1)
    assert usable(config) == ("gpu", "ram", "disk", "none")


@pytest.mark.parametrize(
    ("made_by", "images", "backend", "has_dali", "expected"),
    [
        ("torchvision", "train", "torchvision", True, "disk"),
        ("torchvision", "train", "auto", False, "disk"),
        ("torchvision", "train", "auto", True, "none"),  # DALI makes its own crops
        ("torchvision", "train", "dali", True, "none"),
        ("torchvision", "test", "torchvision", True, "none"),  # the crops of other images
        ("dali", "all", "auto", False, "disk"),
        ("dali", "most", "auto", False, "none"),  # an incomplete store of DALI's is not used without DALI
    ],
)
def test_only_the_crops_that_a_run_will_use_save_it_room(
    own_csv, make_config, monkeypatch, made_by, images, backend, has_dali, expected
) -> None:
    """There is room for as many more crops as there are validation images."""
    config = replace(make_config(image_backend=backend), manifest=str(own_csv))
    manifest, transforms = Manifest.read(own_csv), Transforms(size=config.size)
    most = manifest.take(range(len(manifest) - 10))
    part = {"all": manifest, "most": most}.get(images) or manifest.select(images)
    source = ImageSource(part.paths, part.labels, part.domain_indices)
    store = manifest.folder / FOLDER
    monkeypatch.setattr(store_crops, "import_module", lambda name: None, raising=False)
    monkeypatch.setattr(store_crops.CropMaker, "_make_backend", make_by_torchvision)
    open_store(source, transforms, store, made_by, num_threads=1).array.close()
    room = len(manifest.select("validation")) * 3 * transforms.crop**2
    monkeypatch.setattr(resources, "available_bytes", lambda device: 0)
    monkeypatch.setattr(resources, "_free", lambda folder: room)
    monkeypatch.setattr(store_choice, "dali_is_installed", lambda: has_dali)
    assert chosen(config) == expected


def make_by_torchvision(self, batch_size):
    return TorchvisionCrops(self._source, self._transforms, num_threads=1, prefetch=1)


def test_a_folder_that_cannot_be_written_has_no_room(tmp_path, monkeypatch) -> None:
    assert resources._free(tmp_path / "cache" / "crops") > 0
    (tmp_path / "file").write_text("")
    assert resources._free(tmp_path / "file") is None
    with monkeypatch.context() as patch:
        patch.setattr(resources.os, "access", lambda path, mode: False)
        assert resources._free(tmp_path / "cache" / "crops") is None

    def denied(path: Path) -> None:
        """As in the home of another user."""
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(resources.shutil, "disk_usage", denied)
    assert resources._free(tmp_path / "cache" / "crops") is None


@pytest.mark.parametrize("available", [("disk", "none"), ("none",)])
def test_a_cache_that_turns_out_to_have_no_room_is_replaced(
    make_config, monkeypatch, caplog, capsys, available
) -> None:
    config = make_config(cache="auto", epochs=1, image_backend="torchvision")
    monkeypatch.setattr(loop_module, "choose_caches", lambda *args: ("ram", "disk", "none"))
    monkeypatch.setattr(base_loader, "StoreBackend", without_room(StoreBackend, available))
    with caplog.at_level(logging.WARNING):
        train(config)
    assert "cache ram is not available, and disk is used: no room for ram" in caplog.text
    assert ("cache disk is not available, and none is used" in caplog.text) == (available == ("none",))
    assert TrainConfig.read(config.out).cache == available[0]
    assert ("kept on disk" in capsys.readouterr().out) == (available[0] == "disk")


def without_room(kind, available):
    """Return a backend whose caches have no room, except the available ones."""

    class Full(kind):
        def __init__(self, source, store, transforms, device, cache, *more) -> None:
            if cache not in available:
                raise CacheError(f"no room for {cache}")
            super().__init__(source, store, transforms, device, cache, *more)

    return Full


def test_a_cache_that_was_asked_for_is_not_replaced(make_config, monkeypatch) -> None:
    monkeypatch.setattr(base_loader, "StoreBackend", without_room(StoreBackend, ()))
    with pytest.raises(CacheError, match="no room for ram"):
        train(make_config(cache="ram", image_backend="torchvision"), progress=False)


def test_ranks_replace_a_cache_together(monkeypatch) -> None:
    """This rank has room for the first cache, and another one has not."""
    answers, closed = iter([1, 0]), []
    monkeypatch.setattr(Ranks, "highest", lambda self, number: max(number, next(answers)))
    monkeypatch.setattr(Ranks, "first_before_others", lambda self: nullcontext())

    def open_images(cache, stack):
        stack.callback(closed.append, cache)
        return f"images from {cache}"

    cache, images, opened = resources.open_cached(("gpu", "ram", "none"), Ranks(1, 2), open_images)
    assert (cache, images, closed) == ("ram", "images from ram", ["gpu"])
    opened.close()
    assert closed == ["gpu", "ram"]


@pytest.mark.parametrize(
    ("before", "device", "expected"), [("none", GPU, "none"), ("gpu", CPU, "ram"), ("disk", GPU, "gpu")]
)
def test_a_resumed_run_caches_its_images_if_it_did_before(make_config, machine, before, device, expected) -> None:
    config = make_config()
    machine(bytes_of_crops(config), 2, 2, 1)
    out = Path(config.out)
    out.mkdir()
    (out / "config.json").write_text(replace(config, cache=before).to_json())
    assert chosen(config, device) == ("gpu" if device == GPU else "none")  # no step has been saved
    (out / "previous.pt").write_bytes(b"")
    assert chosen(config, device) == expected


def test_a_run_killed_before_it_is_saved_may_keep_its_crops_elsewhere(make_config) -> None:
    """Its first start chose the GPU's memory; where there is no room for crops any more, it goes on without them."""
    config, _ = open_manifest(make_config(alignment="-", epochs=1))
    out = Path(config.out)
    out.mkdir()
    (out / "config.json").write_text(replace(config, cache="gpu").to_json())
    train(config, progress=False)
    assert TrainConfig.read(out).cache == "none"
    (out / "last.pt").unlink()
    for cache in ("ram", "gpu"):
        with pytest.raises(InputError, match=f"other settings .cache: '{cache}', not 'none'"):
            train(replace(config, cache=cache), progress=False)
    train(config, progress=False)  # which is finished


def test_a_run_of_a_version_without_these_choices_resumes(make_config, monkeypatch) -> None:
    """The same command, whose defaults are others now, resumes it as it began."""
    whole, old = make_config("whole", alignment="-", cache="none"), make_config("old", alignment="-")
    expected = train(whole, progress=False)
    with monkeypatch.context() as patch:
        epoch = loop_module.train_one_epoch
        patch.setattr(
            loop_module,
            "train_one_epoch",
            lambda state, run: epoch(state, run) if state.epoch == 0 else pytest.fail("stop"),
        )
        with pytest.raises(pytest.fail.Exception):
            train(old, progress=False)
    file = Path(old.out) / "config.json"
    values = json.loads(file.read_text())
    assert (values["cache"], values["cuda_graph"]) == ("none", None)
    del values["checkpoint_share"]
    file.write_text(json.dumps({**values, "cuda_graph": False}))
    assert TrainConfig.read(old.out).checkpoint_share == 0.02
    assert train(old, progress=False) == expected


def test_where_crops_are_kept_does_not_change_a_run_but_keeping_them_does(make_config) -> None:
    kept, decoded = make_config(cache="gpu"), make_config(cache="none")
    assert kept.differences(make_config(cache="disk")) == []
    assert kept.differences(make_config(cache="auto")) == []
    assert decoded.differences(kept) == ["cache: 'none', not 'gpu'"]


@pytest.mark.parametrize(
    ("room", "expected"),
    [(("gpu", "ram", "none"), ("gpu",)), (("ram", "none"), "cache is ram"), (("none",), "is none")],
)
def test_a_requested_graph_takes_the_cache_it_needs(make_config, monkeypatch, room, expected) -> None:
    """The cache is left open, and the first part of a run is made on a machine with a GPU."""
    opened, on_gpu, current = [], loop_module.start_state, []

    @contextmanager
    def make_current(device):
        current.append(device)
        try:
            yield
        finally:
            current.remove(device)

    def open_cached(caches, *_):
        opened.append(caches)
        assert current == [GPU]  # for streams and events
        raise CacheError("not here")

    monkeypatch.setattr(torch.cuda, "device", make_current)
    monkeypatch.setattr(loop_module, "pick_device", lambda *_: GPU)
    monkeypatch.setattr(loop_module, "choose_caches", lambda *_: room)
    monkeypatch.setattr(
        loop_module, "start_state", lambda config, model, device, *more: on_gpu(config, model, CPU, *more)
    )
    monkeypatch.setattr(loop_module, "open_cached", open_cached)
    config = make_config(cuda_graph=True, amp="none")
    reason = expected if isinstance(expected, str) else "not here"
    with pytest.raises(InputError, match=reason):
        train(config, progress=False)
    assert opened == ([] if isinstance(expected, str) else [expected])
    assert current == []
    assert Path(config.out).exists() == bool(opened)


@pytest.mark.parametrize(("cache", "expected"), [("gpu", True), ("ram", False)])
def test_a_graph_is_chosen_where_it_is_possible(make_config, cache, expected) -> None:
    config = make_config(cache=cache)
    assert resources.use_graph(config, GPU, None, ALONE) is expected
    assert resources.use_graph(replace(config, cuda_graph=False), GPU, None, ALONE) is False
    assert resources.use_graph(config, GPU, torch.float16, ALONE) is False


class Uncapturable:
    """Two steps, and then a capture that fails as it does when the GPU's memory is full."""

    def __init__(self, work, optimizer, *_) -> None:
        self.work, self.optimizer, self.done = work, optimizer, 0

    def __call__(self) -> None:
        if self.done == 2:
            raise CaptureError("out of memory")
        self.done += 1
        self.optimizer.zero_grad(set_to_none=True)
        self.work()


def test_a_chosen_graph_that_cannot_be_captured_is_given_up(make_config, monkeypatch, caplog) -> None:
    ordinary, graphed = (make_config(out, cache="ram", epochs=1) for out in ("ordinary", "graphed"))
    expected = train(ordinary, progress=False)
    monkeypatch.setattr(graph, "Replay", Uncapturable)
    monkeypatch.setattr(loop_module, "Step", GraphedStep)
    with caplog.at_level(logging.WARNING):
        assert train(graphed, progress=False) == expected
    assert caplog.text.count("cannot be captured as a CUDA graph (out of memory) and are launched one by one") == 1
    assert_same_weights(ordinary, graphed)


def assert_same_weights(one: TrainConfig, other: TrainConfig) -> None:
    first, second = (torch.load(Path(run.out) / "last.pt", weights_only=True)["model"] for run in (one, other))
    for key, value in first.items():
        assert torch.equal(value, second[key]), key


def test_a_requested_graph_that_cannot_be_captured_is_an_error(make_config, monkeypatch) -> None:
    monkeypatch.setattr(graph, "Replay", Uncapturable)
    monkeypatch.setattr(loop_module, "Step", GraphedStep)
    monkeypatch.setattr(loop_module, "check_graph", lambda *args: None)
    monkeypatch.setattr(loop_module, "use_graph", lambda *args: False)
    with pytest.raises(InputError, match=r"cannot be captured as a CUDA graph \(out of memory\): omit --cuda-graph"):
        train(make_config(cache="ram", cuda_graph=True), progress=False)


def test_a_run_says_in_one_line_what_it_uses(make_config, capsys) -> None:
    train(make_config("cached", alignment="-", epochs=1, cache="ram", image_backend="torchvision"))
    line = "\nimages: crops that torchvision made, kept in memory, augmented on the CPU\n"
    assert line in capsys.readouterr().out
    train(make_config("decoded", alignment="-", epochs=1))
    assert "\nimages: decoded for each epoch by fastccsa's decoder, augmented on the CPU\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("cache", "decoder", "device", "expected"),
    [
        ("gpu", "dali", GPU, "crops that DALI made, kept in GPU memory, augmented on the GPU; steps: a CUDA graph"),
        ("gpu", "torchvision", GPU, "crops that torchvision made, kept in GPU memory, augmented on the GPU; steps:"),
        ("sharded", "dali", GPU, "kept spread over the memory of the processes' GPUs, augmented on the GPU; steps:"),
        ("disk", "dali", GPU, "crops that DALI made, kept on disk, augmented on the CPU; steps:"),
        ("none", "dali", GPU, "decoded for each epoch by DALI on the GPU, augmented on the GPU; steps:"),
        ("none", "native", GPU, "decoded for each epoch by fastccsa's decoder, augmented on the CPU; steps:"),
        ("none", "dali", CPU, "decoded for each epoch by DALI, augmented on the CPU"),
        ("sharded", "dali", CPU, "kept spread over the memory of the processes' CPUs, augmented on the CPU"),
    ],
)
def test_the_line_says_where_images_are_kept_and_augmented(make_config, cache, decoder, device, expected) -> None:
    loaders = [SimpleNamespace(decoder=decoder)] * 2
    found = resources.describe_resources(make_config(cache=cache), loaders, device, None, ALONE)
    assert expected in found
    assert expected.endswith(":") or found.endswith(expected)


@pytest.mark.parametrize(
    ("settings", "reasons", "expected"),
    [
        (
            {"cache": "disk"},
            ["GPU memory: needs 7.2 GB, 5.1 GB free for crops", "memory: needs 7.2 GB, 3.0 GB free for crops"],
            "images: crops that DALI made, kept on disk (GPU memory: needs 7.2 GB, 5.1 GB free for crops; "
            "memory: needs 7.2 GB, 3.0 GB free for crops), augmented on the CPU; "
            "steps: launched one by one (cache is disk)",
        ),
        (
            {"cache": "none"},
            ["as the run began"],
            "images: decoded for each epoch by DALI on the GPU (as the run began), augmented on the GPU; "
            "steps: launched one by one (cache is none)",
        ),
        (
            {"cache": "gpu", "accumulate": 2},
            [],
            "images: crops that DALI made, kept in GPU memory, augmented on the GPU; "
            "steps: launched one by one (accumulate is 2)",
        ),
        (
            {"cache": "gpu", "accumulate": 2, "cuda_graph": False},  # as it was asked for
            [],
            "images: crops that DALI made, kept in GPU memory, augmented on the GPU; steps: launched one by one",
        ),
    ],
)
def test_the_line_says_what_stood_in_the_way(make_config, settings, reasons, expected) -> None:
    loaders = [SimpleNamespace(decoder="dali")] * 2
    assert resources.describe_resources(make_config(**settings), loaders, GPU, None, ALONE, reasons) == expected


@pytest.mark.parametrize(
    ("cache", "decoders", "expected"),
    [
        ("gpu", ("dali", "torchvision"), "images: crops that DALI and torchvision made, kept in GPU memory,"),
        ("none", ("dali", "native"), "by DALI on the GPU and fastccsa's decoder, augmented on the GPU;"),
        ("none", ("native", "dali"), "by fastccsa's decoder and DALI on the GPU, augmented on the CPU;"),
    ],
)
def test_the_line_names_the_decoders_of_all_images(make_config, cache, decoders, expected) -> None:
    loaders = [SimpleNamespace(decoder=decoder) for decoder in decoders]
    assert expected in resources.describe_resources(make_config(cache=cache), loaders, GPU, None, ALONE)


def test_each_run_of_a_process_warns(make_config, monkeypatch, caplog) -> None:
    """Each may have a log of its own."""
    monkeypatch.setattr(store_choice, "dali_is_installed", lambda: False)
    for out in ("one", "other"):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            train(make_config(out, alignment="-", epochs=1, size=33, cache="disk"), progress=False)
        assert caplog.text.count("DALI is not installed: the crops of the images are made by torchvision") == 1


def test_a_run_tells_in_its_line_why_it_has_no_better_cache(make_config, monkeypatch, capsys) -> None:
    def choose(*args) -> tuple[str, ...]:
        args[-1]("GPU memory: needs 7.2 GB, 5.1 GB free for crops")
        return ("ram", "disk", "none")

    monkeypatch.setattr(loop_module, "choose_caches", choose)
    train(make_config(alignment="-", epochs=1, image_backend="torchvision"))
    assert ", kept in memory (GPU memory: needs 7.2 GB, 5.1 GB free for crops), aug" in capsys.readouterr().out


@pytest.mark.cuda
def test_a_gpu_with_room_has_the_crops_and_a_graph_by_default(make_config, capsys) -> None:
    config = make_config(alignment="-", epochs=3, device="cuda", amp="none")
    train(config)
    printed = capsys.readouterr().out
    assert "kept in GPU memory, augmented on the GPU; steps: a CUDA graph" in printed
    with pytest.raises(InputError, match="other settings"):
        train(replace(config, out=config.out, cache="none"), progress=False)


# Warm-up steps and captured ones read the learning rate as float32, which represents 2^-10 and 2^-13 exactly.
ON_GPU = {"alignment": "-", "device": "cuda", "cache": "gpu", "lr": 2.0**-10, "lr_gamma": 2.0**-3}


@pytest.mark.cuda
@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("backbone", ["shufflenet_v2_x0_5", "mobilenet_v3_small"])  # without and with dropout
def test_a_capture_that_fails_on_a_gpu_is_given_up(make_config, monkeypatch, caplog, backbone) -> None:
    settings = {**ON_GPU, "backbone": backbone, "graph_steps": 1}
    ordinary, graphed = (make_config(out, cuda_graph=None if out == "graphed" else False, **settings) for out in RUNS)
    expected = train(ordinary, progress=False)
    work, calls = GraphedStep.work, []

    def sometimes(self, plans) -> None:
        work(self, plans)
        calls.append(self)
        if len(calls) == 4:  # the capture, after three steps
            self.meter.sums.cpu()

    monkeypatch.setattr(GraphedStep, "work", sometimes)
    with caplog.at_level(logging.WARNING):
        assert train(graphed, progress=False) == expected
    assert caplog.text.count("the steps cannot be captured as a CUDA graph") == 1
    assert_same_weights(ordinary, graphed)


@pytest.mark.cuda
@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize("backbone", ["shufflenet_v2_x0_5", "mobilenet_v3_small"])
def test_a_validation_whose_capture_fails_leaves_the_graphs_of_the_steps(
    make_config, monkeypatch, caplog, backbone
) -> None:
    settings = {**ON_GPU, "backbone": backbone, "epochs": 3}  # the second validation is captured, between two epochs
    whole, failing = (make_config(out, **settings) for out in RUNS)
    expected = train(whole, progress=False)
    work = ReplayedPredictions._work

    def forbidden(self) -> None:
        work(self)
        if torch.cuda.is_current_stream_capturing():
            self._found.cpu()

    monkeypatch.setattr(ReplayedPredictions, "_work", forbidden)
    with caplog.at_level(logging.WARNING):
        assert train(failing, progress=False) == expected
    assert caplog.text.count("the validation cannot be captured as a CUDA graph") == 1
    assert "the steps cannot" not in caplog.text
    assert_same_weights(whole, failing)
