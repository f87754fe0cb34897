"""The settings of a sweep, and the command of the best trial."""

from __future__ import annotations

import shlex

import pytest

from fastccsa.cli.train import command_of, train_command
from fastccsa.runs.config import TrainConfig
from fastccsa.sweep import Choice, Span, SweepConfig, parse_setting
from fastccsa.system.errors import InputError


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("lr=1e-5..1e-3:log", Span("lr", 1e-5, 1e-3, log=True, whole=False)),
        ("alpha=0.1..0.9", Span("alpha", 0.1, 0.9, log=False, whole=False)),
        ("alpha=0..1", Span("alpha", 0, 1, log=False, whole=False)),
        ("batch-size=8..64:log", Span("batch_size", 8, 64, log=True, whole=True)),
        ("ema=0,0.99", Choice("ema", (0, 0.99))),
        ("n_sec=5, all", Choice("n_sec", (5, "all"))),
        ("backbone=resnet18,timm/vit_tiny.x", Choice("backbone", ("resnet18", "timm/vit_tiny.x"))),
        ("joint-forward=true,false", Choice("joint_forward", (True, False))),
        ("algorithm=ccsa,coral", Choice("algorithm", ("ccsa", "coral"))),
        ("alignment=w,-", Choice("alignment", ("w", "-"))),
        ("init=none,runs/a", Choice("init", (None, "runs/a"))),
    ],
)  # fmt: skip
def test_settings(text: str, setting: Span | Choice) -> None:
    assert parse_setting(text) == setting


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr", "'lr' names no values: give NAME=LOW"),
        ("lr=", "names no values"),
        ("seed=1,2", "'seed' cannot be varied; choose among n_sec, fraction"),
        ("selection=paper,informative", "cannot be varied"),
        ("exclude=MSK,UDA", "cannot be varied"),
        ("out=a,b", "cannot be varied"),
        ("device=cpu,cuda", "cannot be varied"),
        ("lr=fast,slow", "lr is 'fast': it must be a number"),
        ("algorithm=ccsa,magic", "algorithm is 'magic': it must be one of"),
        ("backbone=a..b", "is a span, but backbone is no number"),
        ("lr=1e-3..1e-5", "give a lower and a higher number"),
        ("lr=0..1:log", "above 0 for :log"),
        ("lr=1e-3,0.001", "has one value twice"),
        ("batch_size=1.5..8", "batch_size is 1.5: it must be a whole number"),
    ],
)
def test_what_is_no_setting(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message.replace("(", r"\(")):
        parse_setting(text)


def config(*vary: str, **training) -> SweepConfig:
    return SweepConfig("sweep", vary, {"manifest": "m.csv", **training})


def test_values_must_suit_the_other_settings() -> None:
    with pytest.raises(InputError, match="lr is varied twice"):
        config("lr=1e-5..1e-3", "lr=1,2")
    with pytest.raises(InputError, match="n_sec 0 is judged by other images"):
        config("n_sec=0,5", alignment="-")
    with pytest.raises(InputError, match="strength is 1, but algorithm erm has none"):
        config("strength=1..2", algorithm="erm")
    with pytest.raises(InputError, match="lr is 5000"):
        config("lr=1..5000")
    with pytest.raises(InputError, match="nothing is varied"):
        config()
    with pytest.raises(InputError, match="out is set for each trial by the sweep"):
        config("lr=1,2", out="x")
    with pytest.raises(InputError, match="manifest is missing"):
        SweepConfig("sweep", ("lr=1,2",))
    with pytest.raises(InputError, match="strength is 2, but algorithm erm has none"):
        config("strength=1..2", "algorithm=erm,coral")
    # A memory suits one of the kinds of pairs, which is enough; a trial with the other one fails.
    config("memory=0,64", "pairs=zipped,all")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"algorithm": "coral", "strength": 0.5, "lr": 3e-4},
        {"algorithm": "erm", "n_sec": 0, "exclude": ("MSK", "UDA")},
        {"alignment": "u", "recipe": "authors", "alpha": 0.3, "joint_forward": False, "pairs": "all", "memory": 64},
        {"backbone": "timm/a b", "epochs": 7, "ema": 0.99, "cache": "ram", "deterministic": True, "amp": "none"},
        {"normalize_features": True, "margin": 2.5, "recipe": "paper", "n_sec": 5, "track": ("mlflow", "wandb")},
    ],
)
def test_the_command_trains_with_the_same_settings(settings: dict) -> None:
    expected = TrainConfig(manifest="a b.csv", out="sweeps/x/best", **settings)
    program, name, *words = shlex.split(command_of(expected))
    assert (program, name) == ("fastccsa", "train")
    context = train_command.make_context("train", words)
    given = {name: value for name, value in context.params.items() if value is not None}
    assert TrainConfig(**given) == expected
