"""The learning rate that a run gets whose command names none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from fastccsa import training
from fastccsa.cli.train import train_command
from fastccsa.runs.config import TrainConfig
from fastccsa.training import loop as loop_module
from fastccsa.training import train
from fastccsa.training.start import suit_rates


class Killed(BaseException):
    """Simulates the death of the process: nothing in the package catches it."""


def rates_of(out: str) -> tuple[float, int, list[float]]:
    """Return the rate and its step in the configuration, and the rate of each epoch."""
    values = json.loads((Path(out) / "config.json").read_text())
    lines = (Path(out) / "metrics.jsonl").read_text().splitlines()
    return values["lr"], values["lr_step"], [json.loads(line)["lr"] for line in lines]


@pytest.fixture
def offline(monkeypatch) -> None:
    monkeypatch.setattr("fastccsa.models.backbone._imagenet_network", lambda *arguments: None)


@pytest.mark.parametrize("weights", ["none", "auto"])
def test_random_weights_get_a_higher_rate_that_falls(make_config, offline, capsys, weights: str) -> None:
    config = make_config(algorithm="erm", weights=weights, epochs=3, lr=1e-4, lr_step=0, batch_size=15)
    train(config, suits_weights=True)
    assert rates_of(config.out) == (1e-3, 1, pytest.approx([1e-3, 1e-4, 1e-5]))
    line = "random weights: learning rate 0.001 instead of 0.0001, times 0.1 after every 1 of 3 epochs; --lr"
    assert capsys.readouterr().out.count(line) == 1


def test_the_rate_of_a_configuration_is_taken_as_it_is(make_config) -> None:
    """As the experiments do, whose rates belong to their scale."""
    config = make_config(algorithm="erm", epochs=1, lr=1e-4, lr_step=0, batch_size=15)
    train(config, progress=False)
    assert rates_of(config.out) == (1e-4, 45, [1e-4])


def test_what_random_weights_get() -> None:
    lines: list[str] = []
    ccsa = suit_rates(TrainConfig(), "none", lines.append)
    assert (ccsa.lr, ccsa.lr_step, ccsa.epochs) == (3e-4, 10, 20)
    assert suit_rates(TrainConfig(epochs=200, lr_step=7), "none", lines.append).lr_step == 7
    assert len(lines) == 2
    for config, weights in ((TrainConfig(), "imagenet"), (TrainConfig(), "w.pt"), (TrainConfig(init="runs/a"), "none")):
        assert suit_rates(config, weights, lines.append) is config
    assert len(lines) == 2


def test_a_resumed_run_keeps_its_rate(make_config, offline, monkeypatch, capsys) -> None:
    """Even if the pretrained weights have become available meanwhile."""
    config = make_config(algorithm="erm", weights="auto", epochs=3, lr=1e-4, lr_step=0, batch_size=15)
    validate = loop_module.validate

    def dies(state, run):
        if state.epoch == 1:
            raise Killed
        return validate(state, run)

    with monkeypatch.context() as patch:
        patch.setattr(loop_module, "validate", dies)
        with pytest.raises(Killed):
            train(config, suits_weights=True)
    monkeypatch.setattr(loop_module, "suit_rates", lambda *arguments: pytest.fail("chosen again"))
    train(config, suits_weights=True)
    assert rates_of(config.out) == (1e-3, 1, pytest.approx([1e-3, 1e-4, 1e-5]))
    content = torch.load(Path(config.out) / "last.pt", weights_only=True)
    assert content["optimizer"]["param_groups"][0]["lr"] == pytest.approx(1e-6)


@pytest.mark.parametrize(("arguments", "suits"), [([], True), (["--lr", "0.0001"], False)])
def test_the_command_chooses_unless_it_is_told(monkeypatch, arguments: list[str], suits: bool) -> None:
    calls: list[bool] = []

    def record(config: TrainConfig, suits_weights: bool = False) -> None:
        calls.append(suits_weights)

    monkeypatch.setattr(training, "train", record, raising=False)
    result = CliRunner().invoke(train_command, ["--manifest", "m.csv", "--out", "runs/x", *arguments])
    assert (result.exit_code, calls) == (0, [suits])
