"""Whole runs with scripted validation recalls: which epoch's model is kept, and what is recorded about the others."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fastccsa.evaluation import Scores
from fastccsa.models import load_model
from fastccsa.runs.config import CONFIG_FILE
from fastccsa.system.errors import InputError
from fastccsa.training import TrainConfig, scoring, train
from fastccsa.training import loop as loop_module

# With two validation images of each of three classes, the variance of a domain's recall is at most 3 / (9 * 8) = 1/24.
ERROR = 1 / math.sqrt(24)
RECALLS = (0.2, 0.8, 0.7, 0.3)
SELECTED = {"informative": 3, "paper": 2}


class Killed(BaseException):
    """Simulates the death of the process: nothing in the package catches it."""


@pytest.fixture
def make(make_config, monkeypatch):
    """Make configurations of baselines on HAM whose recalls are `RECALLS`."""
    validate = loop_module.validate

    def scripted(state, run):
        (scores, loss), recall = validate(state, run), RECALLS[state.epoch]
        return replace(scores, domains={k: replace(v, macro_recall=recall) for k, v in scores.domains.items()}), loss

    monkeypatch.setattr(loop_module, "validate", scripted)
    return lambda out="run", **changes: make_config(out, **{"alignment": "-", "n_sec": 0, "epochs": 4, **changes})


def follow_epochs(monkeypatch) -> list[dict[str, torch.Tensor]]:
    """Return a list that will contain the weights after every epoch."""
    weights: list[dict[str, torch.Tensor]] = []
    finish = loop_module.finish_epoch

    def followed(state, run, means):
        weights.append({key: value.clone() for key, value in state.model.state_dict().items()})
        finish(state, run, means)

    monkeypatch.setattr(loop_module, "finish_epoch", followed)
    return weights


def read(config: TrainConfig, name: str) -> Scores:
    return Scores.read(Path(config.out) / name)


@pytest.mark.parametrize("rule", ["informative", "paper"])
def test_the_rule_decides_which_model_is_kept(make, monkeypatch, rule, capsys) -> None:
    config, weights = make(selection=rule), follow_epochs(monkeypatch)
    scores, epoch = train(config), SELECTED[rule]
    kept = load_model(config.out).state_dict()
    assert all(torch.equal(value, kept[key]) for key, value in weights[epoch - 1].items())
    words = {
        "informative": f"latest epoch within one standard error ({100 * ERROR:.1f} points) of the highest "
        "validation macro-average recall of HAM",
        "paper": "highest mean validation macro-average recall of HAM",
    }[rule]
    assert f"test scores of epoch {epoch} ({words}):" in capsys.readouterr().out

    selection = scores.selection
    assert selection is not None
    assert (selection.rule, selection.epoch) == (words, epoch)
    assert selection.recall == pytest.approx(RECALLS[epoch - 1])
    assert {name: (item.epoch, item.recall) for name, item in selection.choices.items()} == {
        "informative": (3, pytest.approx(0.7)),
        "paper": (2, 0.8),
    }
    assert selection.last is not None
    assert (selection.last.epoch, selection.last.recall) == (4, pytest.approx(0.3))
    assert read(config, "scores.json") == scores
    records = [json.loads(line) for line in (Path(config.out) / "metrics.jsonl").read_text().splitlines()]
    assert [record["validation_recall"] for record in records] == list(RECALLS)
    assert [record["selection"] for record in records] == [
        {"informative": pytest.approx(recall), "paper": recall} for recall in RECALLS
    ]


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_the_last_epoch_s_model_is_scored_too(make, monkeypatch, ema) -> None:
    finish = loop_module.finish_epoch

    def answer(model, label: int) -> None:
        with torch.no_grad():
            model.head.weight.zero_()
            model.head.bias.copy_(10 * torch.eye(7)[label])

    def with_constant_answers(state, run, means):
        """After epoch 2 the model always answers mel, and after epoch 4 df, which no image shows."""
        answer(state.model, 0)
        answer(loop_module.model_to_keep(state), state.epoch)
        finish(state, run, means)

    monkeypatch.setattr(loop_module, "finish_epoch", with_constant_answers)
    config = make(ema=ema, selection="paper")
    scores = train(config, progress=False)
    last = read(config, "scores_last.json")
    assert scores.average == pytest.approx(1 / 3)
    assert [domain.recall[1] for domain in scores.domains.values()] == [1, 1, 1]
    assert last.average == 0
    assert [domain.count for domain in last.domains.values()] == [6, 6, 6]
    assert last.selection is not None
    assert (last.selection.rule, last.selection.epoch, last.selection.recall) == ("last epoch", 4, pytest.approx(0.3))


@pytest.mark.parametrize(("epochs", "tests"), [(4, 2), (3, 1)])
def test_a_model_is_tested_once(make, monkeypatch, epochs, tests) -> None:
    run_outputs, tested = scoring.run_outputs, []
    monkeypatch.setattr(scoring, "run_outputs", lambda *args: tested.extend(args[1]) or run_outputs(*args))
    config = make(epochs=epochs)
    scores = train(config, progress=False)
    assert len(tested) == tests
    if tests == 1:
        assert read(config, "scores_last.json").domains == scores.domains


@pytest.mark.parametrize("rule", ["informative", "paper"])
def test_an_interrupted_run_selects_the_same(make, monkeypatch, rule) -> None:
    whole, broken = make("whole", selection=rule), make("broken", selection=rule)
    expected = train(whole, progress=False)

    def die(*args, **kwargs):
        raise Killed

    def dies_in_epoch(number):
        original = loop_module.validate
        return lambda state, run: die() if state.epoch == number else original(state, run)

    deaths = [
        (loop_module, "validate", dies_in_epoch(2)), (loop_module, "validate", dies_in_epoch(3)),
        (scoring, "write_results", die),
    ]  # fmt: skip
    for module, name, replacement in deaths:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, replacement)
            with pytest.raises(Killed):
                train(broken, progress=False)
        assert not (Path(broken.out) / "scores.json").exists()
    assert train(broken, progress=False) == expected
    assert read(broken, "scores_last.json") == read(whole, "scores_last.json")
    kept = load_model(whole.out).state_dict()
    assert all(torch.equal(value, kept[key]) for key, value in load_model(broken.out).state_dict().items())


def test_a_run_of_an_older_version_resumes_with_the_paper_s_rule(make, monkeypatch) -> None:
    whole, old = make("whole", selection="paper"), make("old", selection="paper")
    expected = train(whole, progress=False)
    with monkeypatch.context() as patch:
        train_one_epoch = loop_module.train_one_epoch

        def dies(state, run):
            if state.epoch == 3:
                raise Killed
            return train_one_epoch(state, run)

        patch.setattr(loop_module, "train_one_epoch", dies)
        with pytest.raises(Killed):
            train(old, progress=False)
    # The files as they were before there was a choice of rules.
    out = Path(old.out)
    content = torch.load(out / "last.pt", weights_only=True)
    del content["digest"]
    for record in content["history"]:
        del record["selection"]
    torch.save({**content, "best_epoch": 2, "best_recall": 0.8}, out / "last.pt")
    values = json.loads((out / CONFIG_FILE).read_text())
    del values["selection"]
    (out / CONFIG_FILE).write_text(json.dumps(values))

    with pytest.raises(InputError, match=r"other settings \(selection: 'informative', not 'paper'\)"):
        train(replace(old, selection="informative"), progress=False)
    assert train(old, progress=False) == expected


@pytest.mark.parametrize("rule", ["informative", "paper"])
def test_patience_counts_from_the_highest_recall_not_from_the_selected_epoch(make, rule) -> None:
    config = make(selection=rule, patience=1)
    scores = train(config, progress=False)
    assert scores.selection is not None
    assert scores.selection.last is not None
    assert scores.selection.last.epoch == 3  # the highest was in epoch 2
    assert scores.selection.epoch == SELECTED[rule]
