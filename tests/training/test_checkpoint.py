from __future__ import annotations

import os
import pickle

import pytest
import torch
from torch.amp.grad_scaler import GradScaler

from fastccsa.errors import InputError
from fastccsa.models import build_model
from fastccsa.training import TrainConfig
from fastccsa.training.checkpoint import TrainState, has_checkpoint, load_checkpoint, save_checkpoint
from fastccsa.training.schedule import build_optimizer


def fresh_state(backbone: str = "shufflenet_v2_x0_5") -> TrainState:
    model = build_model(backbone, 3, weights="none")
    return TrainState(model, *build_optimizer(TrainConfig(lr_step=1), model), GradScaler("cpu", enabled=False))


def step(state: TrainState) -> None:
    logits, _ = state.model(torch.randn(2, 3, 32, 32))
    state.optimizer.zero_grad()
    logits.square().sum().backward()
    state.optimizer.step()


def test_everything_comes_back(tmp_path) -> None:
    saved, loaded = fresh_state(), fresh_state()
    step(saved)
    saved.scheduler.step()
    saved.epoch, saved.step, saved.best_epoch, saved.best_recall = 3, 7, 2, 0.5
    saved.history = [{"epoch": 1, "validation": {"HAM": 0.25}}]
    saved.meter = {"sums": torch.tensor([1.5]), "samples": 4}
    save_checkpoint(tmp_path, saved, "{}")
    drawn = torch.rand(3)

    assert not load_checkpoint(tmp_path / "elsewhere", loaded)
    assert has_checkpoint(tmp_path)
    assert load_checkpoint(tmp_path, loaded)
    assert torch.equal(torch.rand(3), drawn)
    assert (loaded.epoch, loaded.step, loaded.best_epoch, loaded.best_recall) == (3, 7, 2, 0.5)
    assert loaded.history == saved.history
    assert loaded.meter["samples"] == 4
    assert loaded.scheduler.get_last_lr() == saved.scheduler.get_last_lr() == [pytest.approx(1e-5)]
    for key, value in saved.model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[key], value), key
    for mine, theirs in zip(
        loaded.optimizer.state_dict()["state"].values(),
        saved.optimizer.state_dict()["state"].values(),
        strict=True,
    ):
        assert all(torch.equal(mine[name], theirs[name]) for name in ("step", "exp_avg", "exp_avg_sq"))


class Bomb:
    def __reduce__(self):
        return os.mkdir, ("exploded",)


def test_a_crafted_pickle_runs_nothing(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "last.pt").write_bytes(pickle.dumps({"model": Bomb()}, protocol=2))
    with pytest.raises(InputError, match=r"last\.pt cannot be resumed from"):
        load_checkpoint(tmp_path, fresh_state())
    assert not (tmp_path / "exploded").exists()


def test_a_damaged_or_foreign_checkpoint_is_refused(tmp_path) -> None:
    save_checkpoint(tmp_path, fresh_state("mnasnet0_5"), "{}")
    with pytest.raises(InputError, match="remove it to train this run from its start"):
        load_checkpoint(tmp_path, fresh_state())
    content = (tmp_path / "last.pt").read_bytes()
    (tmp_path / "last.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="cannot be resumed from"):
        load_checkpoint(tmp_path, fresh_state("mnasnet0_5"))


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
