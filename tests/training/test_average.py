"""Averages of the weights compared with loops over their definitions in float64: uniform, SWAD, and ERM++ with them."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from fastccsa.models import Classifier, load_model
from fastccsa.runs.config import TrainConfig
from fastccsa.system.errors import InputError
from fastccsa.training import average as average_module
from fastccsa.training import loop as loop_module
from fastccsa.training import scoring, train
from fastccsa.training.average import UniformAverage, estimate_batchnorm
from fastccsa.training.step import Step
from fastccsa.training.swad import Swad

CPU = torch.device("cpu")
Weights = dict[str, Tensor]


class Killed(BaseException):
    """Simulates the death of the process: nothing in the package catches it."""


def tiny(seed: int = 0) -> Classifier:
    torch.manual_seed(seed)
    return Classifier(nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)), 3)


def weights_of(model: nn.Module) -> Weights:
    return {key: value.detach().clone().double() for key, value in model.state_dict().items()}


def mean_of(steps: list[Weights]) -> Weights:
    return {key: torch.stack([step[key] for step in steps]).mean(dim=0) for key in steps[0]}


def assert_close(model: nn.Module, expected: Weights) -> None:
    for key, value in model.state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value.double(), expected[key], rtol=1e-5, atol=1e-6)


def change(model: Classifier) -> None:
    """Change all weights and statistics, as a step does."""
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor += torch.randn(tensor.shape).to(tensor.dtype) if tensor.is_floating_point() else 1


def swad_by_definition(losses: list[float], patience: int = 3, overfit: int = 6, r: float = 1.3) -> tuple[int, int]:
    """Find the first and the last epoch of algorithm 1 of the paper, one validation per epoch, looking back only.

    Epochs at the end of the training whose loss is above the limit count as overfitted, as in the authors' code.
    """
    start = limit = None
    for i in range(len(losses)):
        if limit is None:
            if i >= patience - 1 and losses[i - patience + 1] == min(losses[i - patience + 1 : i + 1]):
                start = i - patience + 1
                limit = r / patience * sum(losses[start : i + 1])
        elif i - overfit >= start and limit < min(losses[i - overfit + 1 : i + 1]):
            return start, i - overfit
    if limit is None:  # no flat stretch: from the lowest loss on
        return losses.index(min(losses)), len(losses) - 1
    return start, max(i for i in range(start, len(losses)) if losses[i] <= limit or i == start)


@pytest.mark.parametrize("seed", range(40))
def test_swad(seed: int) -> None:
    """After every epoch, the mean is the one over the steps of the stretch that the losses so far define."""
    dice = random.Random(seed)
    noise, epochs = dice.choice([0.02, 0.3, 1.5]), dice.randint(1, 20)
    model = tiny(seed)
    average, steps, losses, over = Swad(model, epochs), [], [], False
    for epoch in range(epochs):
        steps.append([])
        for _ in range(3):
            change(model)
            average.update(model)
            steps[-1].append(weights_of(model))
        losses.append(max(1.0, 3 - 0.5 * epoch) + abs(dice.gauss(0, noise)) + 0.1 * max(0, epoch - 8))
        average.end_epoch(epoch, losses[-1])
        start, end = swad_by_definition(losses)
        found = average.stretch
        assert (found.start, found.end) == (start, end)
        assert_close(average.model(), mean_of([step for part in steps[start : end + 1] for step in part]))
        over = over or (found.is_certain and len(losses) - 1 - end >= 6)
        assert found.is_over == over
        if over:
            break


def test_swad_is_over_after_six_epochs_above_the_limit() -> None:
    model = tiny()
    average, seen = Swad(model, 20), []
    losses = [1.0, 1.1, 1.2, 1.4, 1.5, 9, 9, 9, 9, math.nan]  # the limit is 1.3 times 1.1
    for epoch, loss in enumerate(losses):
        change(model)
        average.update(model)
        seen.append(weights_of(model))
        average.end_epoch(epoch, loss)
        assert average.stretch.is_over == (epoch == len(losses) - 1)
    assert (average.stretch.start, average.stretch.end) == (0, 3)
    assert_close(average.model(), mean_of(seen[:4]))


def test_a_uniform_average() -> None:
    model = tiny()
    average, seen = UniformAverage(model, begin=2), []
    for epoch in range(4):
        for _ in range(5):
            change(model)
            average.update(model)
            seen.append(weights_of(model))
        average.end_epoch(epoch + 1)
        first = 5 * min(epoch, 2)  # until the second epoch is over, each epoch has its own mean
        assert_close(average.model, mean_of(seen[first:]))
        assert average.model.state_dict()["backbone.2.num_batches_tracked"] == 5 * (epoch + 1)


@pytest.mark.parametrize("joint", [False, True])
def test_statistics_of_batchnorm_are_those_of_the_first_batches(monkeypatch, joint: bool) -> None:
    monkeypatch.setattr(average_module, "ESTIMATION_BATCHES", 3)
    model, generator = tiny(), torch.Generator().manual_seed(1)
    batches = [{"images": torch.randn(4, 3, 2, 2, generator=generator)} for _ in range(5)]
    batches[1] = {"images1": batches[1]["images"][:2], "images2": batches[1]["images"][2:], "target": torch.zeros(2)}
    pair = [batches[1]["images1"], batches[1]["images2"]]
    passes = [batches[0]["images"], *([torch.cat(pair)] if joint else pair), batches[2]["images"]]
    inner = [model.backbone[1](images.flatten(1)).detach().double() for images in passes]
    before = {key: value for key, value in weights_of(model).items() if "running" not in key}
    estimate_batchnorm(model, iter(batches), CPU, None, joint)
    norm = model.backbone[2]
    torch.testing.assert_close(norm.running_mean.double(), torch.stack([x.mean(0) for x in inner]).mean(0))
    torch.testing.assert_close(norm.running_var.double(), torch.stack([x.var(0) for x in inner]).mean(0))
    assert norm.momentum == 0.1
    assert not any(module.training for module in model.modules())
    after = weights_of(model)
    assert all(torch.equal(value, after[key]) for key, value in before.items() if "tracked" not in key)


@pytest.fixture
def follow(monkeypatch):
    """Make a list that will contain the parameters after every step."""
    seen: list[Weights] = []
    update = Step.update

    def followed(self) -> None:
        update(self)
        seen.append({key: value.detach().clone().double() for key, value in self._state.model.named_parameters()})

    monkeypatch.setattr(Step, "update", followed)
    return seen


def with_losses(monkeypatch, losses: list[float]) -> None:
    remaining = iter(losses)
    monkeypatch.setattr(scoring, "mean_loss", lambda found: next(remaining))


@pytest.mark.parametrize("settings", [{"algorithm": "erm"}, {"n_sec": "all"}])
def test_a_run_with_swad(make_config, monkeypatch, follow, settings) -> None:
    """The model is the mean over the stretch, which ends the run; its recall and the last epoch's are recorded."""
    losses = [3.0, 1.0, 1.1, 1.2, 5, 5, 5, 5, 5, 5, 1, 1]
    with_losses(monkeypatch, losses)
    config = make_config(average="swad", epochs=12, batch_size=15, **settings)
    scores = train(config, progress=False)
    assert len(follow) == 3 * 10
    saved = dict(load_model(config.out).named_parameters())
    for key, value in mean_of(follow[3:12]).items():
        torch.testing.assert_close(saved[key].double(), value, rtol=1e-5, atol=1e-6)
    assert scores.selection.rule == "SWAD: mean of the weights of epochs 2 to 4, by the validation loss"
    assert (scores.selection.epoch, scores.selection.last.epoch) == (4, 10)
    assert 0 <= scores.selection.recall <= 1
    assert set(scores.selection.choices) == {"informative", "paper"}
    last = (Path(config.out) / "scores_last.json").read_text()
    assert '"rule": "last epoch"' in last


def test_the_validation_loss_is_averaged_by_domain_then_over_domains(make_config, monkeypatch) -> None:
    """The images of the domains do not count equally."""
    found = []
    after = loop_module.after_validation

    def looked(state, run, loss):
        batches = list(run.validation_loader.epoch(0))
        more = after(state, run, loss)
        by_domain: dict[int, list[float]] = {}
        state.model.eval()
        with torch.no_grad():
            for batch in batches:
                logits = state.model.double()(batch["images"].double())[0]
                for row, target, domain in zip(logits, batch["target"], batch["domain"], strict=True):
                    by_domain.setdefault(int(domain), []).append(-float(row.log_softmax(0)[target]))
        state.model.float()
        found.append((more["validation_loss"], sum(sum(x) / len(x) for x in by_domain.values()) / len(by_domain)))
        return more

    monkeypatch.setattr(loop_module, "after_validation", looked)
    train(make_config(algorithm="erm", average="swad", epochs=1, batch_size=15), progress=False)
    assert found[0][0] == pytest.approx(found[0][1], rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "deaths"),
    [
        ({"average": "swad", "algorithm": "erm"}, [2, 7]),
        ({"average": "uniform", "algorithm": "coral"}, [2, 7]),
        ({"algorithm": "ermpp", "weights": "auto"}, [2, 4]),
    ],
)
def test_a_killed_run_resumes_to_the_same_bits(make_config, monkeypatch, settings, deaths) -> None:
    monkeypatch.setattr("fastccsa.models.backbone._imagenet_network", lambda *arguments: None)
    settings = {"epochs": 5, "batch_size": 15, "checkpoint_every": 2, **settings}
    whole, broken = make_config("whole", **settings), make_config("broken", **settings)
    expected = train(whole, progress=False)
    for updates in deaths:
        update, left = Step.update, updates

        def dies(self, update=update) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            update(self)

        with monkeypatch.context() as patch:
            patch.setattr(Step, "update", dies)
            with pytest.raises(Killed):
                train(broken, progress=False)
        torch.manual_seed(99)
    assert train(broken, progress=False) == expected
    one, two = (load_model(config.out).state_dict() for config in (whole, broken))
    assert all(torch.equal(value, two[key]) for key, value in one.items())
    first, second = (torch.load(Path(config.out) / "last.pt", weights_only=True) for config in (whole, broken))
    assert first["average"].keys() == second["average"].keys()
    for key, value in first["average"].items():
        assert torch.equal(value.nan_to_num(), second["average"][key].nan_to_num()), key


def test_only_the_head_learns_first(make_config, monkeypatch, follow) -> None:
    starts: list[Weights] = []
    epoch = loop_module.train_one_epoch

    def started(state, run):
        starts.append({key: value.detach().clone().double() for key, value in state.model.named_parameters()})
        return epoch(state, run)

    monkeypatch.setattr(loop_module, "train_one_epoch", started)
    config = make_config(algorithm="erm", head_epochs=2, epochs=4, batch_size=15, lr=2.0**-9, lr_step=2, lr_gamma=0.5)
    train(config, progress=False)
    before, heads = starts[0], {"head.weight", "head.bias"}
    for steps, changed in ((follow[:6], heads), (follow[6:], set(before))):
        assert {key for key, value in steps[-1].items() if not torch.equal(value, before[key])} == changed
        before = steps[-1]
    rates = torch.load(Path(config.out) / "last.pt", weights_only=True)["optimizer"]["param_groups"]
    assert [group["lr"] for group in rates] == [2.0**-11] * 2


def test_what_ermpp_is_made_of() -> None:
    trained, raw = TrainConfig(algorithm="ermpp"), TrainConfig(algorithm="ermpp", weights="none")
    assert (trained.average, trained.head_epochs, trained.alignment) == ("uniform", 1, "-")
    assert (raw.average, raw.head_epochs) == ("uniform", 0)
    assert TrainConfig(algorithm="ermpp", weights="none", init="runs/a").head_epochs == 1
    assert TrainConfig(algorithm="ermpp", average="swad", head_epochs=3).average == "swad"
    assert (TrainConfig().average, TrainConfig().head_epochs) == ("none", 0)


def test_two_averages_are_an_error() -> None:
    with pytest.raises(InputError, match=r"ema is 0\.9 and average is swad: choose one of them"):
        TrainConfig(ema=0.9, average="swad")
    assert TrainConfig(algorithm="ermpp", ema=0.9).average == "none"


@pytest.mark.cuda
@pytest.mark.parametrize("settings", [{"average": "uniform"}, {"head_epochs": 1, "average": "swad"}])
def test_a_captured_training_has_the_same_average(make_config, monkeypatch, settings) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    # Captured kernels read the learning rate as float32, which represents powers of two exactly.
    settings = {**settings, "lr": 2.0**-10, "lr_gamma": 2.0**-3, "batch_size": 6, "epochs": 4, "algorithm": "erm"}
    settings |= {"device": "cuda", "cache": "gpu"}
    ordinary, graphed = make_config("ordinary", **settings), make_config("graphed", cuda_graph=True, **settings)
    expected = train(ordinary, progress=False)
    assert train(graphed, progress=False) == expected
    one, two = (load_model(config.out).state_dict() for config in (ordinary, graphed))
    assert all(torch.equal(value, two[key]) for key, value in one.items())
