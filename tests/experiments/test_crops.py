"""The crops of several runs are made once, before the runs start."""

from __future__ import annotations

import json
import shutil

import pytest

from fastccsa.experiments import crops, scheduler
from fastccsa.experiments.crops import make_crops
from fastccsa.experiments.perform import Outcome, Slot
from fastccsa.images.store_choice import FOLDER
from fastccsa.runs.images import open_manifest, select_images
from fastccsa.system.errors import InputError


@pytest.fixture
def folder(manifest_csv):
    """The folder of stores, which is removed."""
    place = manifest_csv.parent / FOLDER
    shutil.rmtree(place, ignore_errors=True)
    yield place
    shutil.rmtree(place, ignore_errors=True)


def test_the_store_has_the_images_of_all_runs_that_cache_them(plan_of, folder) -> None:
    runs, said = plan_of("AK", settings=["cache=disk", "image_backend=torchvision"]).runs, []
    make_crops(runs, "cpu", said.append)
    (index,) = folder.glob("*/index.json")
    entries = json.loads(index.read_text())["entries"]
    used = set()
    for run in runs:
        _, manifest = open_manifest(run.config)
        images = select_images(run.config, manifest)
        used |= {*images.training.paths, *images.validation.paths}
    assert entries.keys() == used
    assert all(entry["pixels"] is not None for entry in entries.values())
    assert said == [f"crops of {len(used)} images of 32 px, for 2 runs"]


def test_the_images_that_runs_score_after_each_epoch_are_among_them(plan_of, folder) -> None:
    """All of a row without one domain: also its validation images, and every test image."""
    settings = ["cache=disk", "image_backend=torchvision"]
    runs = plan_of("K", settings=[*settings, "score_epochs=true", "exclude=UDA"]).runs
    make_crops([run for run in runs if run.row.letter == "K"], "cpu", lambda line: None)
    (index,) = folder.glob("*/index.json")
    table = open_manifest(runs[0].config)[1].table
    unused = table[(table["domain"] == "UDA") & (table["split"] == "train")]
    assert len(json.loads(index.read_text())["entries"]) == len(table) - len(unused) < len(table)


@pytest.mark.parametrize(
    ("cache", "device", "made"), [("auto", "cpu", 0), ("none", "cuda:0", 0), ("auto", "cuda:0", 1)]
)
def test_runs_without_a_cache_have_no_store(plan_of, monkeypatch, cache, device, made) -> None:
    opened = []
    monkeypatch.setattr(crops, "_make", lambda *args: opened.append(args))
    make_crops(plan_of("A", settings=[f"cache={cache}"]).runs, device, lambda line: None)
    assert len(opened) == made


def test_a_store_that_cannot_be_made_is_left_to_the_runs(plan_of, monkeypatch) -> None:
    def full(*args, **options):
        raise InputError("the disk is full")

    monkeypatch.setattr(crops, "open_store_of", full)
    said = []
    make_crops(plan_of("A", settings=["cache=disk"]).runs, "cpu", said.append)
    assert said[-1] == "the crops are left to the runs: the disk is full"


@pytest.mark.parametrize(("slots", "made"), [(1, 0), (2, 1)])
def test_crops_are_made_before_several_runs_at_a_time(plan_of, monkeypatch, slots, made) -> None:
    order = []

    class Children:
        def perform(self, run, slot):
            order.append("run")
            return Outcome("failed", "not trained")

        def end(self) -> None:
            pass

    monkeypatch.setattr(scheduler, "make_crops", lambda *args: order.append("crops"))
    monkeypatch.setattr(scheduler, "Children", Children)
    monkeypatch.setattr(scheduler, "perform", lambda run, slot: Children().perform(run, slot))
    scheduler.execute(plan_of("A").runs, [Slot("cpu", 1)] * slots, say=lambda line: None)
    assert order == ["crops"] * made + ["run"]


def test_runs_on_one_device_share_its_memory(monkeypatch) -> None:
    monkeypatch.setattr(scheduler, "pick_device", lambda name: scheduler.torch.device("cuda"))
    monkeypatch.setattr(scheduler.torch.cuda, "device_count", lambda: 2)
    assert [(slot.jobs, slot.jobs_on_device) for slot in scheduler.make_slots(3)] == [(3, 2)] * 3
    monkeypatch.undo()
    assert [(slot.jobs, slot.jobs_on_device) for slot in scheduler.make_slots(2, "cpu")] == [(2, 2)] * 2
