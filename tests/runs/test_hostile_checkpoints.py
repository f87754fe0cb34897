"""A checkpoint is compared with the run that it shall resume before anything in it is used."""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.amp.grad_scaler import GradScaler

from fastccsa.losses.memory import PairMemory
from fastccsa.models import build_model, load_weights
from fastccsa.runs.checkpoint import TrainState, load_checkpoint, save_checkpoint
from fastccsa.runs.checkpoint_check import Resumed
from fastccsa.runs.config import TrainConfig
from fastccsa.system.errors import InputError
from fastccsa.training.optimizer import build_optimizer

BACKBONE = "shufflenet_v2_x0_5"
CONFIG = TrainConfig(lr_step=1, epochs=3)
RECORD = {"epoch": 1, "loss": 0.5, "validation": {"HAM": 0.25}, "validation_recall": 0.25}
Content = dict[str, Any]


def fresh_state() -> TrainState:
    model = build_model(BACKBONE, 3, weights="none")
    state = TrainState(model, *build_optimizer(CONFIG, model), GradScaler("cpu", enabled=False))
    state.memory = PairMemory(4, 2)
    return state


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A checkpoint after an epoch and two steps."""
    folder, state = tmp_path_factory.mktemp("saved"), fresh_state()
    state.model(torch.randn(2, 3, 32, 32))[0].square().sum().backward()
    state.optimizer.step()
    state.scheduler.step()
    state.epoch, state.step, state.history = 1, 2, [RECORD]
    state.meter = {"sums": torch.ones(2, dtype=torch.float64), "samples": 4}
    save_checkpoint(folder, state, CONFIG.to_json())
    return (folder / "last.pt").read_bytes()


@pytest.fixture
def crafted(saved: bytes, tmp_path: Path) -> Callable[[Callable[[Content], object]], Path]:
    """Write a checkpoint that was changed; its digest is removed, as older versions have none."""

    def craft(change: Callable[[Content], object]) -> Path:
        content = torch.load(io.BytesIO(saved), weights_only=True)
        del content["digest"]
        change(content)
        torch.save(content, tmp_path / "last.pt")
        return tmp_path

    return craft


def load(folder: Path, config: TrainConfig = CONFIG, steps: int = 5) -> TrainState:
    state = fresh_state()
    load_checkpoint(folder, state, Resumed(config, steps, 2, ("HAM",)))
    return state


def put(*path: Any, value: Any) -> Callable[[Content], object]:
    """Return a change of the value at a path; a function is called with the old value."""

    def change(content: Content) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = value(content[path[-1]]) if callable(value) else value

    return change


def itself(content: Content) -> None:
    content["history"].append(content["history"])


def laughs(content: Content) -> None:
    """Make lists that would expand to 10^9 values."""
    value: Any = 1
    for _ in range(9):
        value = [value] * 10
    content["meter"]["samples"] = value


MOMENT = ("optimizer", "state", 0, "exp_avg")
CRAFTED: dict[str, tuple[Callable[[Content], object], str]] = {
    "short moment": (put(*MOMENT, value=torch.zeros(1)), "exp_avg of parameter 0"),
    "long moment": (put(*MOMENT, value=lambda old: torch.zeros(2 * old.numel())), "exp_avg of parameter 0"),
    "moment of doubles": (put(*MOMENT, value=Tensor.double), "exp_avg of parameter 0"),
    "moment of text": (put(*MOMENT, value="moment"), "exp_avg of parameter 0"),
    "moment missing": (lambda content: content["optimizer"]["state"][0].pop("exp_avg"), "moments of AdamW"),
    "unknown parameter": (put("optimizer", "state", 10**6, value={}), "parameter 1000000"),
    "other parameters": (put("optimizer", "param_groups", 0, "params", value=[0]), "other parameters"),
    "learning rate": (put("optimizer", "param_groups", 0, "lr", value=float("nan")), "optimizer lr"),
    "optimiser missing": (lambda content: content.pop("optimizer"), "optimizer is missing"),
    "weight shape": (put("model", "head.weight", value=torch.zeros(3, 1)), "model head.weight"),
    "weight dtype": (put("model", "head.weight", value=lambda old: old.long()), "model head.weight"),
    "sparse weight": (put("model", "head.weight", value=Tensor.to_sparse), "unknown kind"),
    "weight missing": (lambda content: content["model"].pop("head.bias"), "another network"),
    "labels": (put("memory", "first._labels", value=lambda old: old + 3), "_labels is out of range"),
    "rows": (put("memory", "first._pushed", value=lambda old: old - 1), "_pushed is out of range"),
    "schedule": (put("scheduler", "_last_lr", value=["fast"]), "_last_lr"),
    "epoch": (put("epoch", value=-1), "epoch is -1"),
    "epoch is text": (put("epoch", value="1"), "epoch is '1'"),
    "later epoch": (put("epoch", value=9), "epoch 9"),
    "later step": (put("step", value=6), "step 6"),
    "history": (put("history", value=[]), "one record for each"),
    "history of another domain": (put("history", 0, "validation", value={"SON": 0.5}), "other domains"),
    "history of text": (put("history", value=["epoch"]), "the record of an epoch"),
    "meter": (put("meter", "sums", value=torch.ones(3, dtype=torch.float64)), "3 terms"),
    "meter of nothing": (put("meter", value={}), "meter does not belong"),
    "random state": (put("random", value=torch.zeros(3, dtype=torch.uint8)), "random is"),
    "random states": (put("random_cuda", value=[1]), "random_cuda"),
    "a list in itself": (itself, "nested too deeply"),
    "very many values": (laughs, "too many values|samples"),
    "settings": (put("config", value=3), "config is not text"),
    "settings that are not JSON": (put("config", value="["), "not valid JSON"),
}


@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_checkpoint_is_refused_before_it_is_used(crafted, name: str) -> None:
    change, message = CRAFTED[name]
    with pytest.raises(InputError, match=rf"last\.pt cannot be resumed from \(.*({message})"):
        load(crafted(change))


def test_memory_of_a_moment_is_laid_out_like_its_parameter(crafted) -> None:
    """With strides of 0 one number in memory has the shape of a moment, and the fused optimiser would write past it."""
    folder = crafted(put(*MOMENT, value=lambda old: torch.full((1,), 0.5).expand(old.shape)))
    state = load(folder)
    moment, parameter = state.optimizer.state_dict()["state"][0]["exp_avg"], next(state.model.parameters())
    assert moment.stride() == parameter.stride()
    assert moment.untyped_storage().nbytes() >= 4 * parameter.numel()
    assert bool((moment == 0.5).all())


def test_settings_in_the_file_do_not_replace_those_of_the_run(crafted) -> None:
    """`load_state_dict` of a schedule would set any attribute; that of an optimiser would take any weight decay."""

    def change(content: Content) -> None:
        content["scheduler"] |= {"gamma": 7.0, "step": "x", "get_lr": 3}
        content["optimizer"]["param_groups"][0] |= {"weight_decay": 9.0, "fused": False, "surprise": 1}

    state = load(crafted(change))
    assert callable(state.scheduler.step)
    assert state.scheduler.gamma == 0.1
    assert state.scheduler.last_epoch == 1
    group = state.optimizer.param_groups[0]
    assert (group["weight_decay"], group["fused"], "surprise" in group) == (1e-3, True, False)
    assert group["lr"] == pytest.approx(1e-5)


def test_the_checkpoint_of_another_run_is_refused_and_kept(saved: bytes, tmp_path: Path) -> None:
    """Even if the previous one belongs to this run: the file may be the only copy of the other run's state."""
    other = TrainConfig(lr_step=1, epochs=3, seed=7)
    for name in ("last.pt", "previous.pt"):
        (tmp_path / name).write_bytes(saved)
    with pytest.raises(InputError, match=r"last\.pt is the checkpoint of another run \(seed: 7, not 0\)"):
        load(tmp_path, config=other)
    assert sorted(os.listdir(tmp_path)) == ["last.pt", "previous.pt"]
    assert (tmp_path / "last.pt").read_bytes() == saved
    assert load(tmp_path).epoch == 1


def test_a_compressed_checkpoint_is_refused(saved: bytes, tmp_path: Path) -> None:
    """`torch.load` would unpack it to any size."""
    with (
        zipfile.ZipFile(io.BytesIO(saved)) as source,
        zipfile.ZipFile(tmp_path / "last.pt", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for part in source.infolist():
            target.writestr(part.filename, source.read(part))
    with pytest.raises(InputError, match="parts are compressed"):
        load(tmp_path)


def test_a_warm_start_compares_the_digest_too(saved: bytes, tmp_path: Path) -> None:
    """One flipped bit in a weight is not noticed by torch."""
    weight = torch.load(io.BytesIO(saved), weights_only=True)["model"]["head.weight"]
    at = saved.index(weight.numpy().tobytes())
    file = tmp_path / "other.pt"
    file.write_bytes(saved[: at + 2] + bytes([saved[at + 2] ^ 1]) + saved[at + 3 :])
    model = build_model(BACKBONE, 3, weights="none")
    with pytest.raises(InputError, match=r"other\.pt is not a readable weights file: its content has changed"):
        load_weights(model, file)
    file.write_bytes(saved)
    assert load_weights(model, file)
