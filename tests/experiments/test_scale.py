from __future__ import annotations

import pytest

from fastccsa.experiments import EXPERIMENTS, PRESETS, Scale
from fastccsa.experiments.scale import parse_scale, parse_settings, train_config
from fastccsa.system.errors import InputError
from fastccsa.training import TrainConfig


def config_of(letter: str, scale: str = "paper", **settings) -> TrainConfig:
    return train_config(EXPERIMENTS[letter], parse_scale(scale), settings)


def test_the_papers_scale_is_the_papers_training() -> None:
    assert config_of("K") == TrainConfig()
    assert config_of("A") == TrainConfig(n_sec=0, alignment="-")
    assert config_of("B").backbone == "resnet50"
    assert config_of("L").classification_weight == "u"
    assert config_of("O").exclude == ("DMF",)


@pytest.mark.parametrize(
    ("scale", "ccsa", "baseline"),
    [
        ("epochs=6", (6, 3), (6, 2)),
        ("epochs=0.2", (4, 2), (27, 9)),
        ("epochs=6,baseline_epochs=30", (6, 3), (30, 10)),
        ("epochs=1", (1, 1), (1, 1)),
        ("small,epochs=5", (5, 3), (5, 2)),
        ("small", (12, 6), (24, 8)),
    ],
)
def test_epochs_and_the_steps_of_the_learning_rate_scale_together(scale, ccsa, baseline) -> None:
    k, a = config_of("K", scale), config_of("A", scale)
    assert (k.epochs, k.lr_step) == ccsa
    assert (a.epochs, a.lr_step) == baseline


def test_the_rest_of_a_scale_reaches_the_configuration() -> None:
    config = config_of("K", "size=48,fraction=0.5,batch_size=8,lr=0.01,weights=none,cache=ram")
    assert config == TrainConfig(size=48, fraction=0.5, batch_size=8, lr=0.01, weights="none", cache="ram")
    assert config_of("A", "lr=0.01").lr == 0.01
    assert config_of("A", "lr=0.01,baseline_lr=0.1").lr == 0.1


def test_a_preset_can_be_changed() -> None:
    assert parse_scale("small,size=48").size == 48
    assert parse_scale("small,size=48").cache == PRESETS["small"].cache == "disk"
    assert parse_scale("paper") == Scale()


def test_settings_take_precedence_and_have_the_type_of_their_field() -> None:
    texts = [
        "epochs=8", "lr=1e-2", "joint_forward=false", "exclude=SON,UDA", "primary=none", "n_sec=3", "pairs=all",
    ]  # fmt: skip
    settings = parse_settings(texts)
    assert settings == {
        "epochs": 8, "lr": 0.01, "joint_forward": False, "exclude": ("SON", "UDA"), "primary": None, "n_sec": 3,
        "pairs": "all",
    }  # fmt: skip
    config = config_of("K", "small", **settings)
    assert (config.epochs, config.lr_step, config.exclude, config.joint_forward) == (8, 4, ("SON", "UDA"), False)
    assert parse_settings(["n_sec=all"]) == {"n_sec": "all"}


def test_a_setting_cannot_include_an_excluded_domain_again() -> None:
    assert config_of("O", exclude=("SON",)).exclude == ("DMF", "SON")
    assert config_of("O", exclude=()).exclude == ("DMF",)


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ("huge", "no scale 'huge': use paper, small, tiny"),
        ("small,sise=3", "'sise=3' is not key=value with a key of size"),
        ("size=big", "size cannot be 'big'"),
        ("epochs=1.5", "epochs is 1.5: give a whole number"),
        ("baseline_epochs=0", "baseline_epochs is 0"),
    ],
)
def test_bad_scales(scale: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_scale(scale)


@pytest.mark.parametrize("text", ["lr", "seed=3", "out=x", "init=x", "nonsense=1", "epochs=x", "joint_forward=maybe"])
def test_bad_settings(text: str) -> None:
    with pytest.raises(InputError, match=r"^set: "):
        parse_settings([text])
