from __future__ import annotations

import pytest
from click.testing import CliRunner

from fastccsa import training
from fastccsa.cli.train import train_command
from fastccsa.system.errors import InputError
from fastccsa.training import TrainConfig


@pytest.fixture
def trained(monkeypatch) -> list[TrainConfig]:
    configs: list[TrainConfig] = []
    monkeypatch.setattr(training, "train", lambda config, **options: configs.append(config), raising=False)
    return configs


def run(*arguments: str):
    return CliRunner().invoke(train_command, ["--manifest", "m.csv", "--out", "runs/x", *arguments])


def test_defaults_are_those_of_the_configuration(trained) -> None:
    assert run().exit_code == 0
    assert trained == [TrainConfig(manifest="m.csv", out="runs/x")]


def test_every_option_reaches_the_configuration(trained) -> None:
    options = """
        --init runs/a --n-sec 5 --fraction 0.5 --primary HAM --exclude SON --exclude UDA --classification-weight u
        --alignment u --backbone resnet50 --weights none --size 64 --epochs 3 --batch-size 16 --lr 0.01
        --lr-step 2 --lr-gamma 0.5 --weight-decay 0 --margin 10 --alpha 0.25 --pairs all --memory 256
        --match-probability 0.5
        --negatives any --separate-forward --image-backend torchvision --cache ram --amp none --seed 3
        --device cpu --workers 2 --checkpoint-every 100 --accumulate 2 --clip 1.5 --ema 0.99 --patience 4
        --head-epochs 2 --selection paper --time-limit 90 --broken-images stop --sync-batchnorm --compile
        --deterministic --cuda-graph --profile --score-epochs --layer-decay 0.75 --batchnorm frozen
    """
    result = run(*options.split())
    assert result.exit_code == 0, result.output
    assert trained == [
        TrainConfig(
            manifest="m.csv", out="runs/x", init="runs/a", n_sec=5, fraction=0.5, primary="HAM", exclude=("SON", "UDA"),
            classification_weight="u", alignment="u", backbone="resnet50", weights="none", size=64, epochs=3,
            batch_size=16, lr=0.01, lr_step=2, lr_gamma=0.5, weight_decay=0.0, margin=10.0, alpha=0.25,
            pairs="all", memory=256, match_probability=0.5, negatives="any", joint_forward=False,
            image_backend="torchvision", cache="ram", amp="none", seed=3, device="cpu", workers=2, checkpoint_every=100,
            accumulate=2, clip=1.5, ema=0.99, head_epochs=2, patience=4,
            selection="paper", time_limit=90.0, broken_images="stop", sync_batchnorm=True, compile=True,
            deterministic=True, cuda_graph=True, profile=True, score_epochs=True,
            layer_decay=0.75, batchnorm="frozen",
        )
    ]  # fmt: skip


def test_the_algorithm_and_the_average_reach_the_configuration(trained) -> None:
    assert run("--algorithm", "rsc", "--strength", "0.5", "--average", "swad").exit_code == 0
    assert run("--algorithm", "focal", "--tune", "head").exit_code == 0
    assert trained == [
        TrainConfig(manifest="m.csv", out="runs/x", algorithm="rsc", strength=0.5, average="swad"),
        TrainConfig(manifest="m.csv", out="runs/x", algorithm="focal", tune="head"),
    ]


def test_a_baseline_has_its_own_epochs(trained) -> None:
    assert run("--n-sec", "0", "--alignment", "-").exit_code == 0
    assert (trained[0].epochs, trained[0].lr_step, trained[0].n_sec) == (135, 45, 0)


@pytest.mark.parametrize("arguments", [("--n-sec", "-1"), ("--n-sec", "some"), ("--epochs", "0"), ("--amp", "x")])
def test_bad_options_are_usage_errors(trained, arguments) -> None:
    assert run(*arguments).exit_code == 2
    assert trained == []


def test_bad_values_and_files_are_input_errors() -> None:
    assert isinstance(run("--lr", "-1").exception, InputError)
    result = run()
    assert isinstance(result.exception, InputError)
    assert "m.csv" in str(result.exception)


def test_help_shows_the_defaults() -> None:
    text = " ".join(CliRunner().invoke(train_command, ["--help"]).output.split())
    assert "[default: (20, 135 for a baseline)" in text
    assert "--out runs/a --n-sec 0 --alignment - fastccsa train" in text
    assert "[default: (0.0001; for random weights 0.001, with CCSA 0.0003)]" in text
