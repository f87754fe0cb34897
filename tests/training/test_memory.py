"""Runs whose GPU has no memory left, which a cache in main memory stands for."""

from __future__ import annotations

import logging
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fastccsa.images import base_loader
from fastccsa.images.crop_file import CacheError
from fastccsa.models import Classifier
from fastccsa.runs.config import TrainConfig
from fastccsa.system.errors import InputError
from fastccsa.training import loop as loop_module
from fastccsa.training import memory, train
from fastccsa.training.memory import FullError, report_full_memory
from fastccsa.training.ranks import ALONE, Ranks
from fastccsa.training.step import Step


def raise_full() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee ...")


@pytest.fixture
def full(monkeypatch):
    """Return a function after which the memory is full at the batch of that number, with a cache."""

    def make(caches: tuple[str, ...], batch: int, used: str = "ram") -> None:
        learn, count = Step.learn, []

        def limited(self, *args):
            count.append(1)
            if self._config.cache == used and len(count) == batch:
                raise_full()
            learn(self, *args)

        monkeypatch.setattr(memory, "IN_GPU", ("ram",))
        monkeypatch.setattr(loop_module, "choose_caches", lambda *args: caches)
        monkeypatch.setattr(Step, "learn", limited)

    return make


def last(config: TrainConfig) -> dict:
    return torch.load(Path(config.out) / "last.pt", weights_only=True)


def assert_same_model(one: TrainConfig, other: TrainConfig) -> None:
    first, second = last(one)["model"], last(other)["model"]
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("settings", [{}, {"checkpoint_every": 3}])
def test_a_run_keeps_its_images_elsewhere(make_config, full, caplog, settings) -> None:
    """Before its first checkpoint it starts again; after that it resumes from the last one."""
    whole, config = make_config("whole", cache="disk", **settings), make_config("run", **settings)
    expected = train(whole, progress=False)
    full(("ram", "disk", "none"), 8)
    with caplog.at_level(logging.WARNING):
        assert train(config, progress=False) == expected
    message = "cache ram leaves too little memory, and disk is used: CUDA out of memory. Tried to allocate 2.00 GiB"
    assert caplog.text.count(message) == 1
    assert TrainConfig.read(config.out).cache == "disk"
    assert_same_model(whole, config)


@pytest.mark.parametrize(
    ("caches", "settings"), [(("ram",), {}), (("disk", "ram"), {}), (("ram", "none"), {"checkpoint_every": 3})]
)
def test_without_another_cache_the_error_says_what_to_change(make_config, full, caches, settings) -> None:
    """Decoded images may only follow cached ones before the first checkpoint."""
    config = make_config(amp="none", **settings)
    full(caches, 8)
    if caches[0] == "disk":
        memory_full = replace(config, cache="disk")
        with pytest.raises(FullError) as raised, report_full_memory(lambda: memory_full, caches, ALONE):
            raise_full()
    else:
        with pytest.raises(InputError) as raised:
            train(config, progress=False)
    message = str(raised.value)
    assert message.startswith("the GPU's memory is full (CUDA out of memory. Tried to allocate 2.00 GiB): end other")
    assert ("--cache ram" in message) == (caches[0] == "ram")
    assert "a smaller --batch-size (--accumulate keeps the size of a step) or --amp bfloat16" in message


def test_a_cache_that_replaced_one_in_the_gpu_is_not_replaced(make_config, full, monkeypatch) -> None:
    """It leaves as much memory as the next one."""
    store = base_loader.StoreBackend

    def without_memory(source, crops, transforms, device, cache, *more):
        if cache == "ram":
            raise CacheError("no room")
        return store(source, crops, transforms, device, cache, *more)

    full(("ram", "disk", "none"), 8, used="disk")
    monkeypatch.setattr(base_loader, "StoreBackend", without_memory)
    with pytest.raises(FullError):
        train(make_config(image_backend="torchvision"), progress=False)


@pytest.mark.parametrize(
    ("cache", "caches", "ranks", "expected"),
    [
        ("gpu", ("gpu", "ram", "disk", "none"), ALONE, ("ram", "disk", "none")),
        ("gpu", ("gpu",), ALONE, ()),
        ("ram", ("gpu", "ram", "disk"), ALONE, ()),
        ("gpu", ("gpu", "sharded", "ram"), Ranks(0, 2), ()),  # the others wait in the middle of a step
    ],
)
def test_caches_that_take_none_of_the_memory_follow(make_config, cache, caches, ranks, expected) -> None:
    config = make_config(cache=cache, amp="auto")
    with pytest.raises(FullError) as raised, report_full_memory(lambda: config, caches, ranks):
        raise_full()
    assert raised.value.following == expected
    assert "amp" not in str(raised.value)


def test_other_errors_are_left_alone(make_config) -> None:
    error = RuntimeError("CUDA error: an illegal memory access was encountered")
    with pytest.raises(RuntimeError) as raised, report_full_memory(make_config, ("gpu", "ram"), ALONE):
        raise error
    assert raised.value is error


def test_the_memory_of_the_first_attempt_is_free_for_the_second(make_config, full, monkeypatch) -> None:
    states, start, alive = [], loop_module.start_state, []

    def start_state(*args):
        alive.append([state() is not None for state in states])
        state = start(*args)
        states.append(weakref.ref(state.model))
        return state

    monkeypatch.setattr(loop_module, "start_state", start_state)
    full(("ram", "disk"), 8)
    train(make_config(epochs=1), progress=False)
    assert alive == [[], [False]]


def test_evaluations_without_room_take_fewer_images_at_a_time(make_config, monkeypatch, caplog) -> None:
    whole, config = (make_config(out, score_epochs=True) for out in ("whole", "run"))
    expected = train(whole, progress=False)
    forward = Classifier.forward

    def limited(self, images):
        if not self.training and len(images) > 9:
            raise_full()
        return forward(self, images)

    monkeypatch.setattr(Classifier, "forward", limited)
    with caplog.at_level(logging.WARNING):
        assert train(config, progress=False) == expected
    # Validation and watched test images once in both epochs, and the final outputs on both.
    assert caplog.text.count("an evaluation takes 9 images at a time instead of 18: CUDA out of memory.") == 4
