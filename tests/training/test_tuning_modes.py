"""Linear probes, frozen BatchNorm, and learning rates that decay from layer to layer."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from fastccsa.models import load_model
from fastccsa.models.depth import layers_by_depth
from fastccsa.runs.config import TrainConfig
from fastccsa.system.errors import InputError
from fastccsa.training import loop as loop_module
from fastccsa.training import train
from fastccsa.training.step import Step

State = dict[str, Tensor]
HEAD = {"head.weight", "head.bias"}


class Killed(BaseException):
    """Simulates the death of the process: nothing in the package catches it."""


def state_of(model) -> State:
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


@pytest.fixture
def starts(monkeypatch) -> list[State]:
    """Make a list that will contain the model before each epoch."""
    seen: list[State] = []
    epoch = loop_module.train_one_epoch
    monkeypatch.setattr(
        loop_module, "train_one_epoch", lambda state, run: (seen.append(state_of(state.model)), epoch(state, run))[1]
    )
    return seen


def changed(before: State, after: State) -> set[str]:
    return {key for key, value in after.items() if not torch.equal(value, before[key])}


@pytest.mark.parametrize("average", ["none", "uniform"])
def test_a_linear_probe_changes_only_the_head(make_config, starts, capsys, average: str) -> None:
    config = make_config(algorithm="erm", tune="head", average=average, batch_size=15)
    train(config)
    assert changed(starts[0], load_model(config.out).state_dict()) == HEAD
    content = torch.load(Path(config.out) / "last.pt", weights_only=True)
    assert [len(group["params"]) for group in content["optimizer"]["param_groups"]] == [2]
    assert "of which only the head is trained" in capsys.readouterr().out


def test_a_linear_probe_is_a_regression_on_the_features(make_config, monkeypatch) -> None:
    """Its gradients are those of the cross-entropy on the features of evaluation mode, at the first weights."""
    first, found = [], []
    learn, start = Step.learn, loop_module.start_state

    def started(config, model, *arguments):
        first.append(deepcopy(model).double().eval())
        return start(config, model, *arguments)

    def learned(self, batch, share: float) -> None:
        learn(self, batch, share)
        head, target = self._state.model.head, batch["target"]
        with torch.no_grad():
            features = first[0](batch["images"].double())[1]
        weight = head.weight.detach().double().requires_grad_()
        losses = cross_entropy(features @ weight.T + head.bias.double(), target, reduction="none")
        loss = (losses * self._objective.class_weight.double()[target]).mean()
        found.append((head.weight.grad.clone(), torch.autograd.grad(loss, weight)[0]))

    monkeypatch.setattr(loop_module, "start_state", started)
    monkeypatch.setattr(Step, "learn", learned)
    train(make_config(algorithm="erm", tune="head", epochs=1, batch_size=15), progress=False)
    assert len(found) == 3
    for own, expected in found:
        torch.testing.assert_close(own.double(), expected, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("settings", [{"algorithm": "erm", "average": "swad"}, {"n_sec": "all"}])
def test_frozen_batchnorm_keeps_its_statistics_and_learns_its_weights(make_config, starts, settings: dict) -> None:
    config = make_config(batchnorm="frozen", batch_size=15, **settings)
    train(config, progress=False)
    after = load_model(config.out).state_dict()
    moved = changed(starts[0], after)
    assert not any("running" in key or "tracked" in key for key in moved)
    assert set(dict(load_model(config.out).named_parameters())) == moved


def test_the_learning_rate_decays_from_layer_to_layer(make_config, monkeypatch) -> None:
    """The first step of Adam changes each weight by its learning rate, except where the gradient is tiny."""
    steps = []
    update = Step.update

    def followed(self) -> None:
        model = self._state.model
        before = [[parameter.detach().clone() for parameter in layer] for layer in layers_by_depth(model)]
        update(self)
        after = layers_by_depth(model)
        steps.append(
            [
                max(float((a - b).detach().abs().max()) for a, b in zip(new, old, strict=True))
                for new, old in zip(after, before, strict=True)
            ]
        )

    monkeypatch.setattr(Step, "update", followed)
    config = make_config(
        algorithm="erm", layer_decay=0.5, weight_decay=0.0, lr=2.0**-4, lr_step=2, epochs=3, batch_size=15
    )
    train(config, progress=False)
    assert steps[0] == pytest.approx([2.0 ** -(4 + depth) for depth in range(len(steps[0]))], rel=1e-2)
    groups = torch.load(Path(config.out) / "last.pt", weights_only=True)["optimizer"]["param_groups"]
    rates = [2.0 ** -(4 + depth) * 0.1 for depth in range(len(steps[0]))]  # reduced after two epochs
    assert [group["lr"] for group in groups] == pytest.approx(rates)


def test_a_resumed_run_with_decay_is_the_same(make_config, monkeypatch) -> None:
    settings = {"algorithm": "erm", "layer_decay": 0.7, "head_epochs": 1, "batchnorm": "frozen", "epochs": 3}
    whole, broken = (make_config(out, batch_size=15, checkpoint_every=1, **settings) for out in ("whole", "broken"))
    expected = train(whole, progress=False)
    update, left = Step.update, 5

    def dies(self) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise Killed
        update(self)

    with monkeypatch.context() as patch:
        patch.setattr(Step, "update", dies)
        with pytest.raises(Killed):
            train(broken, progress=False)
    assert train(broken, progress=False) == expected
    assert not changed(load_model(whole.out).state_dict(), load_model(broken.out).state_dict())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tune": "head"}, "tune is head, which leaves the features as they are, and algorithm ccsa compares them"),
        ({"tune": "head", "algorithm": "coral"}, "algorithm coral compares them"),
        ({"tune": "head", "algorithm": "erm", "layer_decay": 0.9}, r"layer_decay is 0\.9, which has no effect"),
        ({"tune": "head", "algorithm": "erm", "head_epochs": 1}, "head_epochs is 1, which has no effect"),
        ({"layer_decay": 0.0}, r"layer_decay is 0\.0: it must be above 0"),
    ],
)
def test_contradictions(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainConfig(**settings)


def test_ermpp_as_a_linear_probe_has_no_head_epochs() -> None:
    assert TrainConfig(algorithm="ermpp", tune="head").head_epochs == 0
