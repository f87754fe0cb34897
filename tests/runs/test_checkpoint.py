from __future__ import annotations

import os
import pickle
import stat
from functools import partial
from pathlib import Path

import pytest
import torch
from torch.amp.grad_scaler import GradScaler

from fastccsa.losses.memory import FeatureMemory
from fastccsa.models import build_model
from fastccsa.runs.checkpoint import TrainState, has_checkpoint, load_checkpoint, save_checkpoint
from fastccsa.system.errors import InputError
from fastccsa.training import TrainConfig
from fastccsa.training.average import WeightAverage
from fastccsa.training.optimizer import build_optimizer


def fresh_state(backbone: str = "shufflenet_v2_x0_5", scale: float = 1.0) -> TrainState:
    model = build_model(backbone, 3, weights="none")
    return TrainState(model, *build_optimizer(TrainConfig(lr_step=1), model), GradScaler("cpu", init_scale=scale))


def step(state: TrainState) -> None:
    logits, _ = state.model(torch.randn(2, 3, 32, 32))
    state.optimizer.zero_grad()
    logits.square().sum().backward()
    state.optimizer.step()


def test_everything_is_restored(tmp_path) -> None:
    saved, loaded = fresh_state(scale=8.0), fresh_state()
    saved.memory, loaded.memory = FeatureMemory(4, 2), FeatureMemory(4, 2)
    saved.average, loaded.average = (WeightAverage(state.model, 0.5) for state in (saved, loaded))
    saved.memory.push(torch.randn(3, 2), torch.arange(3), torch.arange(3))
    step(saved)
    saved.scheduler.step()
    saved.epoch, saved.step = 3, 7
    saved.history = [{"epoch": 1, "loss": 0.5, "validation": {"HAM": 0.25}, "validation_recall": 0.25}]
    saved.meter = {"sums": torch.tensor([1.5]), "samples": 4}
    save_checkpoint(tmp_path, saved, "{}")
    drawn = torch.rand(3)

    assert not load_checkpoint(tmp_path / "elsewhere", loaded)
    assert has_checkpoint(tmp_path)
    assert load_checkpoint(tmp_path, loaded)
    assert torch.equal(torch.rand(3), drawn)
    assert (loaded.epoch, loaded.step) == (3, 7)
    assert loaded.history == saved.history
    assert loaded.meter["samples"] == 4
    assert loaded.scheduler.get_last_lr() == saved.scheduler.get_last_lr() == [pytest.approx(1e-5)]
    assert loaded.scaler.get_scale() == 8.0
    for part in ("model", "average", "memory"):
        for key, value in getattr(saved, part).state_dict().items():
            assert torch.equal(getattr(loaded, part).state_dict()[key], value), (part, key)
    for mine, theirs in zip(
        loaded.optimizer.state_dict()["state"].values(),
        saved.optimizer.state_dict()["state"].values(),
        strict=True,
    ):
        assert all(torch.equal(mine[name], theirs[name]) for name in ("step", "exp_avg", "exp_avg_sq"))


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


@pytest.mark.parametrize("file", ["last.pt", "previous.pt"])
@pytest.mark.parametrize("dump", [partial(pickle.dump, protocol=2), torch.save], ids=["pickle", "torch"])
def test_code_in_a_crafted_pickle_is_not_executed(tmp_path, monkeypatch, dump, file) -> None:
    monkeypatch.chdir(tmp_path)
    with open(file, "wb") as opened:
        dump({"model": Bomb()}, opened)
    with pytest.raises(InputError, match=r"last\.pt cannot be resumed from"):
        load_checkpoint(tmp_path, fresh_state())
    assert not (tmp_path / "exploded").exists()


def test_a_damaged_or_foreign_checkpoint_is_an_error(tmp_path) -> None:
    save_checkpoint(tmp_path, fresh_state("mnasnet0_5"), "{}")
    with pytest.raises(InputError, match="remove it to train this run from its start"):
        load_checkpoint(tmp_path, fresh_state())
    content = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cannot be resumed from"):
        load_checkpoint(tmp_path, fresh_state("mnasnet0_5"))


def test_a_checkpoint_is_synced_before_it_replaces_the_last_one(tmp_path, monkeypatch) -> None:
    state, done = fresh_state(), []
    save_checkpoint(tmp_path, state, "{}")
    sync, rename = os.fsync, os.replace

    def synced(handle: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else f"{os.fstat(handle).st_size} bytes")
        sync(handle)

    def renamed(old, new) -> None:
        done.append(f"{'new' if str(old).endswith('.part') else Path(old).name} to {Path(new).name}")
        rename(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    save_checkpoint(tmp_path, state, "{}")
    size = (tmp_path / "last.pt").stat().st_size
    assert done == [f"{size} bytes", "last.pt to previous.pt", "new to last.pt", "folder"]


def test_a_failed_write_keeps_the_last_good_checkpoint(tmp_path, monkeypatch) -> None:
    state = fresh_state()
    save_checkpoint(tmp_path, state, "{}")
    before = (tmp_path / "last.pt").read_bytes()

    def half_written(content, file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", half_written)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, state, "{}")
    assert (tmp_path / "last.pt").read_bytes() == before
    assert os.listdir(tmp_path) == ["last.pt"]
