from __future__ import annotations

import dataclasses
import json
import math
from typing import get_args

import pytest

from fastccsa.sampling import RECIPES, Balance, Recipe
from fastccsa.system.errors import InputError
from fastccsa.training import TrainConfig, train

BALANCE = ("recipe", *(field.name for field in dataclasses.fields(Balance)))


def test_training_is_the_papers_by_default() -> None:
    ccsa, baseline = TrainConfig(), TrainConfig(alignment="-")
    assert (ccsa.epochs, ccsa.lr_step) == (20, 10)
    assert (baseline.epochs, baseline.lr_step) == (135, 45)
    assert (ccsa.lr, ccsa.weight_decay, ccsa.batch_size) == (1e-4, 1e-3, 32)
    assert (ccsa.backbone, ccsa.size, ccsa.match_probability) == ("resnet18", 224, 0.25)
    assert baseline.is_baseline
    assert not ccsa.is_baseline


@pytest.mark.parametrize("recipe", get_args(Recipe))
def test_a_recipe_gives_each_part_of_the_balance_that_is_not_given(recipe) -> None:
    assert TrainConfig(recipe=recipe).balance == RECIPES[recipe]
    changed = TrainConfig(recipe=recipe, alpha=0.25, joint_forward=False)
    assert changed.balance == dataclasses.replace(RECIPES[recipe], alpha=0.25, joint_forward=False)
    assert (changed.alpha, changed.margin) == (0.25, RECIPES[recipe].margin)


def test_a_configuration_without_a_recipe_keeps_its_meaning() -> None:
    """Written before there were recipes: raw features, alpha 0.5, and weights with an expected value of 1."""
    values = {key: value for key, value in json.loads(TrainConfig().to_json()).items() if key not in BALANCE}
    old = TrainConfig.from_json(json.dumps({**values, "alpha": 0.25, "margin": 12.0, "negatives": "any"}))
    assert old.balance == Balance(alpha=0.25, margin=12.0, negatives="any")


@pytest.mark.parametrize(
    "config", [TrainConfig(), TrainConfig(n_sec=5, exclude=("SON", "UDA"), init="runs/a", epochs=3, seed=7)]
)
def test_json_round_trip(config, tmp_path) -> None:
    assert TrainConfig.from_json(config.to_json()) == config
    (tmp_path / "config.json").write_text(config.to_json())
    assert TrainConfig.read(tmp_path) == config


def test_a_configuration_of_an_older_version_selects_by_the_paper_s_rule() -> None:
    values = json.loads(TrainConfig().to_json())
    assert values.pop("selection") == "informative"
    assert TrainConfig.from_json(json.dumps(values)).selection == "paper"


def test_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainConfig().lr = 1.0  # type: ignore[misc]


def test_differences_name_what_changes_the_result_and_nothing_else() -> None:
    config = TrainConfig(manifest="a.csv", out="runs/a")
    moved = dataclasses.replace(config, manifest="b.csv", out="runs/b", device="cpu", workers=3, checkpoint_every=9)
    assert config.differences(moved) == []
    other = dataclasses.replace(config, lr=1e-3, exclude=("SON",))
    assert other.differences(config) == ["exclude: ('SON',), not ()", "lr: 0.001, not 0.0001"]


def test_what_concerns_only_pairs_does_not_change_a_baseline() -> None:
    """So that experiments with another recipe start from the same baseline."""
    ours, theirs = TrainConfig(alignment="-"), TrainConfig(alignment="-", recipe="paper", class_weight_scale="mean")
    assert ours.differences(theirs) == []
    assert TrainConfig(alignment="-", classification_reduction="weighted_mean").differences(ours)
    assert "recipe: 'balanced', not 'paper'" in TrainConfig().differences(TrainConfig(recipe="paper"))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("alignment", "x"),
        ("classification_weight", "-"),
        ("negatives", "some"),
        ("recipe", "secret"),
        ("distance_unit", "metre"),
        ("class_weight_scale", "median"),
        ("pair_weight_scale", "median"),
        ("pair_weight_cap", 0.5),
        ("classification_reduction", "sum"),
        ("amp", "int8"),
        ("image_backend", "pil"),
        ("pairs", "some"),
        ("cache", "tape"),
        ("size", 4),
        ("batch_size", 0),
        ("epochs", -1),
        ("workers", -1),
        ("checkpoint_every", -1),
        ("accumulate", 0),
        ("patience", -1),
        ("clip", -1.0),
        ("time_limit", float("nan")),
        ("ema", 1.0),
        ("ema", -0.1),
        ("broken_images", "ignore"),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("weight_decay", -1.0),
        ("margin", float("nan")),
        ("alpha", 1.5),
        ("match_probability", -0.1),
        ("memory", -1),
        ("memory", 100),  # with zipped pairs
        ("n_sec", -1),
        ("n_sec", "some"),
        ("n_sec", 0),  # with alignment
    ],
)
def test_bad_values_are_named(field, value) -> None:
    with pytest.raises(InputError, match=f"^{field} "):
        TrainConfig(**{field: value})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("init", ""), ("primary", " "), ("weights", ""), ("backbone", "\t"), ("device", ""), ("exclude", ("UDA", "")),
        ("size", 10**12), ("size", math.inf), ("epochs", 1e20), ("seed", -1), ("seed", 2**63), ("workers", 10**6),
        ("memory", 10**12), ("time_limit", 1e12), ("lr", 1e20), ("lr", math.nan), ("clip", math.nan), ("ema", math.nan),
        ("fraction", math.nan), ("margin", 1e20), ("margin", math.nan), ("pair_weight_cap", 1e20),
        ("pair_weight_cap", math.nan), ("alpha", math.nan), ("n_sec", 10**12), ("batch_size", "32"), ("lr", True),
    ],
)  # fmt: skip
def test_odd_values_are_named(field, value) -> None:
    with pytest.raises(InputError, match=f"^{field} is "):
        TrainConfig(**{field: value})


def test_an_empty_text_of_an_older_version_is_none() -> None:
    assert TrainConfig.from_json('{"init": "", "primary": ""}') == TrainConfig.from_json("{}")


def test_a_training_needs_a_folder(make_config, tmp_path, monkeypatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(InputError, match="out is empty: name the run folder"):
        train(dataclasses.replace(make_config(alignment="-"), out=""), progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


def test_a_memory_needs_all_pairs_and_room_for_a_batch() -> None:
    assert TrainConfig(pairs="all", memory=32).memory == 32
    with pytest.raises(InputError, match="memory 31 does not hold a batch of 32"):
        TrainConfig(pairs="all", memory=31)
    with pytest.raises(InputError, match="memory 100 needs pairs"):
        TrainConfig(pairs="all", memory=100, alignment="-")


@pytest.mark.parametrize("text", ["no json", "[]", '{"learning_rate": 1}', '{"size": "wide"}', '{"lr": -1}'])
def test_bad_files_are_named(text, tmp_path) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json is not the configuration of a run \("):
        TrainConfig.read(tmp_path)


def test_missing_file_is_named(tmp_path) -> None:
    with pytest.raises(InputError, match=r"is not a run folder: config\.json is missing"):
        TrainConfig.read(tmp_path)


def test_json_has_plain_values(tmp_path) -> None:
    values = json.loads(TrainConfig(exclude=("SON",)).to_json())
    assert values["exclude"] == ["SON"]
    assert values["epochs"] == 20
