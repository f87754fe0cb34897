from __future__ import annotations

import errno
import json
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import SafetensorError
from torch.amp.grad_scaler import GradScaler

from fastccsa.models import ModelCard, build_model, load_model
from fastccsa.runs import run_files as run_files_module
from fastccsa.runs.background import Background
from fastccsa.runs.checkpoint import TrainState
from fastccsa.runs.folder import saving
from fastccsa.runs.run_files import RunFiles
from fastccsa.system.errors import InputError, WriteError
from fastccsa.training import TrainConfig
from fastccsa.training.optimizer import build_optimizer

CARD = ModelCard("shufflenet_v2_x0_5", ("a", "b", "c"), ("HAM",), 32, (0.5, 0.5, 0.5), (1.0, 1.0, 1.0))
FULL = WriteError("cannot write last.pt: No space left on device; make room", 28)


@pytest.fixture
def state() -> TrainState:
    model = build_model("shufflenet_v2_x0_5", 3, weights="none")
    return TrainState(model, *build_optimizer(TrainConfig(lr_step=1), model), GradScaler("cpu", enabled=False))


def add(state: TrainState, number: float) -> None:
    """Change the weights in place, as a step does."""
    with torch.no_grad():
        for parameter in state.model.parameters():
            parameter.add_(number)


def saved(folder: Path) -> torch.Tensor:
    return torch.load(folder / "last.pt", weights_only=True)["model"]["head.weight"]


def head(state: TrainState) -> torch.Tensor:
    return state.model.state_dict()["head.weight"].clone()


def test_training_goes_on_while_the_state_of_before_is_written(tmp_path, state, monkeypatch) -> None:
    may_write, write = threading.Event(), run_files_module.write_checkpoint
    monkeypatch.setattr(run_files_module, "write_checkpoint", lambda *args: (may_write.wait(60), write(*args)))
    expected = head(state)
    state.history.append({"epoch": 1})
    with Background(1.0) as background:
        files = RunFiles(tmp_path, TrainConfig(), CARD, background)
        files.save(state)
        add(state, 1.0)
        state.history.append({"epoch": 2})
        assert not (tmp_path / "last.pt").exists()
        may_write.set()
    assert torch.equal(saved(tmp_path), expected)
    assert [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()] == [{"epoch": 1}]


def test_a_model_is_written_with_the_next_checkpoint_and_before_it(tmp_path, state, monkeypatch) -> None:
    order = []
    for name in ("save_weights", "write_metrics", "write_checkpoint"):
        original = getattr(run_files_module, name)
        monkeypatch.setattr(
            run_files_module, name, lambda *args, name=name, original=original: (order.append(name), original(*args))
        )
    with Background(1.0) as background:
        files = RunFiles(tmp_path, TrainConfig(), CARD, background)
        kept = head(state)
        files.keep_model(state.model)
        files.save_metrics([])
        files.wait()
        assert not (tmp_path / "model.safetensors").exists()
        add(state, 1.0)
        files.save(state)
        files.save(state)
    assert order == ["write_metrics", "save_weights", "write_checkpoint", "write_checkpoint"]
    assert torch.equal(load_model(tmp_path).state_dict()["head.weight"], kept)
    assert torch.equal(saved(tmp_path), head(state))


def test_a_model_that_could_not_be_written_is_written_later(tmp_path, state, monkeypatch, caplog) -> None:
    kept = head(state)
    with Background(1.0) as background:
        files = RunFiles(tmp_path, TrainConfig(), CARD, background)
        files.keep_model(state.model)
        with monkeypatch.context() as patch:
            patch.setattr(run_files_module, "save_weights", raising(FULL))
            files.save(state, required=False)
            files.wait()
        assert "the run goes on" in caplog.text
        assert not (tmp_path / "last.pt").exists()
        add(state, 1.0)
        files.save(state)
    assert torch.equal(load_model(tmp_path).state_dict()["head.weight"], kept)


def raising(error: Exception):
    def raise_it(*args):
        raise error

    return raise_it


def test_the_error_of_a_required_write_reaches_the_run_and_names_the_file(tmp_path, state, monkeypatch) -> None:
    def full(content, file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with Background(1.0) as background:
        files = RunFiles(tmp_path, TrainConfig(), CARD, background)
        files.save(state)
        with pytest.raises(InputError, match=r"cannot be saved \(last\.pt: No space left on device; .*make room"):
            files.wait()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded"), "make room"),
        (OSError(errno.EFBIG, "File too large"), "make room"),
        (OSError(errno.EACCES, "Permission denied"), "remove the cause"),
        (OSError(errno.EIO, "Input/output error"), "remove the cause"),
        (RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"), "remove the cause"),
        (SafetensorError("I/O error: No space left on device (os error 28)"), "make room"),
    ],
)
def test_the_advice_on_a_failed_write_follows_from_its_reason(tmp_path, error, advice) -> None:
    message = (
        rf"cannot be saved \(.*; \d+\.\d\d GB free\): .* is kept; {advice}, then repeat the same command to resume$"
    )
    with pytest.raises(InputError, match=message), saving(tmp_path):
        raise error


@pytest.mark.parametrize("required", [True, False])
@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        torch.OutOfMemoryError("CUDA out of memory."),
        RuntimeError("CUDA error: unspecified launch failure"),
    ],
)
def test_a_fault_of_the_gpu_is_not_taken_for_a_full_disk(tmp_path, state, monkeypatch, caplog, error, required) -> None:
    """The thread that writes is the first to wait for the GPU."""
    monkeypatch.setattr(run_files_module.Snapshot, "on_host", raising(error))
    with Background(1.0) as background:
        files = RunFiles(tmp_path, TrainConfig(), CARD, background)
        files.save(state, required)
        with pytest.raises(type(error)) as raised:
            files.wait()
    assert raised.value is error
    assert caplog.text == ""


def test_all_time_that_training_waits_is_part_of_the_cost(tmp_path, state, monkeypatch) -> None:
    now, costs = [100.0], []

    class Copy(run_files_module.Snapshot):
        """A copy that takes a second."""

        def __init__(self, content) -> None:
            now[0] += 1
            super().__init__(content)

    monkeypatch.setattr(run_files_module, "Snapshot", Copy)
    monkeypatch.setattr(run_files_module, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    with Background(1.0) as background:
        submit = background.submit
        monkeypatch.setattr(background, "submit", lambda work, spent: (costs.append(spent), submit(work, spent)))
        files = RunFiles(tmp_path, TrainConfig(), CARD, background)
        files.keep_model(state.model)
        files.keep_model(state.model)
        files.save(state, spent=0.5)
        files.save(state)
    assert costs == [2 + 0.5 + 1, 1]


def test_checkpoints_are_due_at_their_batches_and_after_every_epoch(tmp_path) -> None:
    with Background(0.0) as background:
        files = RunFiles(tmp_path, TrainConfig(checkpoint_every=3), CARD, background)
        assert [files.is_due(batches) for batches in (1, 2, 3, 4)] == [False, False, True, True]
        assert files.is_due_after_epoch()
        files = RunFiles(tmp_path, TrainConfig(), CARD, background)
        assert not files.is_due(1000)
        assert not files.is_due_after_epoch()
