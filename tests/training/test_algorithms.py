"""The losses of the named algorithms compared with loops over their definitions in float64."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fastccsa.models import load_model
from fastccsa.runs.config import STRENGTHS, Algorithm, TrainConfig
from fastccsa.runs.images import open_manifest, select_images
from fastccsa.sampling import BalancedSampler
from fastccsa.system.errors import InputError
from fastccsa.training import loop, train
from fastccsa.training.algorithms import ALGORITHMS
from fastccsa.training.objectives import build_objective

CPU = torch.device("cpu")
DOMAINS, CLASSES, WIDTH = 3, 7, 6
SINGLE = [name for name in ALGORITHMS if name not in ("ccsa", "erm")]
# Sums of some hundred float32 terms that partly cancel.
CLOSE = {"rtol": 1e-4, "atol": 1e-6, "check_dtype": False}


@pytest.fixture
def objective_of(make_config):
    opened = []

    def make(algorithm: str, **settings):
        config, manifest = open_manifest(make_config(algorithm=algorithm, **settings))
        opened.append(build_objective(config, select_images(config, manifest), CPU, WIDTH))
        return opened[-1]

    yield make
    for objective in opened:
        objective.loader.close()


def batch_of(seed: int = 0, rows: int = 24, domains: int = DOMAINS) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return logits, features, targets and domains; the last domain has a single row."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, CLASSES, generator=generator) * 2
    features = torch.randn(rows, WIDTH, generator=generator)
    target = torch.randint(3, (rows,), generator=generator)  # classes that have images
    domain = torch.randint(domains - 1, (rows,), generator=generator)
    domain[-1] = domains - 1
    features += domain[:, None] * 0.3
    return logits, features, target, domain


def weighted(objective, logits: Tensor, target: Tensor) -> Tensor:
    return objective.class_weight.double()[target] * F.cross_entropy(logits.double(), target, reduction="none")


def test_every_name_has_a_class() -> None:
    assert set(ALGORITHMS) == set(get_args(Algorithm)) - {"auto"}
    assert set(STRENGTHS) <= set(ALGORITHMS)
    for name, algorithm in ALGORITHMS.items():
        assert algorithm.__doc__, name


def test_balanced_is_plain_cross_entropy_on_balanced_draws(objective_of) -> None:
    objective = objective_of("balanced")
    assert isinstance(objective.loader.sampler, BalancedSampler)
    logits, features, target, domain = batch_of()
    # Classes are equally probable, so that their weights are 1.
    expected = F.cross_entropy(logits.double(), target)
    torch.testing.assert_close(objective.loss(logits, features, target, domain)[0], expected, **CLOSE)


@pytest.mark.parametrize("strength", [0.5, 2.0])
def test_focal(objective_of, strength: float) -> None:
    objective = objective_of("focal", strength=strength)
    logits, features, target, domain = batch_of()
    losses = []
    for row, label in zip(logits.double(), target, strict=True):
        p = row.softmax(0)[label]
        losses.append(-objective.class_weight.double()[label] * (1 - p) ** strength * p.log())
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(objective.loss(logits, features, target, domain)[0], expected, **CLOSE)


def test_logit_adjusted(objective_of) -> None:
    objective = objective_of("logit_adjusted", strength=1.5)
    logits, features, target, domain = batch_of()
    p = objective.loader.sampler.probabilities()
    shift = np.array([1.5 * math.log(value) if value else 0.0 for value in p])
    expected = F.cross_entropy(logits.double() + torch.from_numpy(shift), target)
    torch.testing.assert_close(objective.loss(logits, features, target, domain)[0], expected, **CLOSE)


def test_mixup_mixes_images_as_it_mixes_losses(objective_of) -> None:
    objective = objective_of("mixup")
    torch.manual_seed(0)
    images, target = torch.rand(8, 3, 4, 4), torch.arange(8) % 3
    seen = []

    def forward(mixed: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(mixed)
        return mixed.flatten(1)[:, :CLASSES], mixed.flatten(1)

    (loss,) = objective(forward, {"images": images, "target": target, "domain": target})
    # Each mixed image is share * own + (1 - share) * other, with one share for all: find it and the others.
    found = []
    for number in range(8):
        options = []
        for other in range(8):
            direction = images[number] - images[other]
            if other == number:
                continue
            share = float(((seen[0][number] - images[other]) * direction).sum() / direction.square().sum())
            error = (torch.lerp(images[other], images[number], share) - seen[0][number]).abs().max()
            options.append((float(error), other, share))
        found.append(min(options))
    shares = [share for error, _, share in found if error < 1e-5]
    share = float(np.median(shares))
    assert 0 <= share <= 1
    other = [found[n][1] if found[n][0] < 1e-5 and abs(found[n][2] - share) < 1e-3 else n for n in range(8)]
    assert sorted(other) == list(range(8))
    logits = seen[0].flatten(1)[:, :CLASSES]
    own, others = weighted(objective, logits, target).mean(), weighted(objective, logits, target[other]).mean()
    torch.testing.assert_close(loss, share * own + (1 - share) * others, rtol=1e-3, atol=1e-5, check_dtype=False)


def test_mixup_draws_from_torchs_generator(objective_of) -> None:
    """So that a resumed run draws the same."""
    objective = objective_of("mixup")
    batch = {
        "images": torch.rand(6, 3, 4, 4),
        "target": torch.arange(6) % 3,
        "domain": torch.zeros(6, dtype=torch.int64),
    }
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(float(objective(lambda x: (x.flatten(1)[:, :CLASSES], x), batch)))
    assert losses[0] == losses[1] != losses[2]


def coral_by_loops(features: Tensor, domain: Tensor) -> Tensor:
    groups = [features[domain == d].double() for d in range(DOMAINS) if (domain == d).sum() >= 2]
    gaps = []
    for one, two in itertools.combinations(groups, 2):
        mean_gap = (one.mean(0) - two.mean(0)).square().mean()
        gaps.append(mean_gap + (torch.cov(one.T) - torch.cov(two.T)).square().mean())
    return torch.stack(gaps).mean()


def mmd_by_loops(features: Tensor, domain: Tensor) -> Tensor:
    gammas = (0.001, 0.01, 0.1, 1, 10, 100, 1000)

    def kernel(one: Tensor, two: Tensor) -> Tensor:
        squares = (one[:, None] - two[None, :]).square().sum(-1)
        return sum((torch.exp(-gamma * squares) for gamma in gammas), torch.zeros(())).mean()

    groups = [features[domain == d].double() for d in range(DOMAINS) if (domain == d).any()]
    gaps = [kernel(a, a) + kernel(b, b) - 2 * kernel(a, b) for a, b in itertools.combinations(groups, 2)]
    return torch.stack(gaps).mean()


def irm_by_autograd(objective, logits: Tensor, target: Tensor, domain: Tensor) -> Tensor:
    penalties = []
    for d in range(DOMAINS):
        here = domain == d
        if here.any():
            scale = torch.ones((), dtype=torch.float64, requires_grad=True)
            loss = weighted(objective, logits[here].double() * scale, target[here]).mean()
            (gradient,) = torch.autograd.grad(loss, scale, create_graph=True)
            penalties.append(gradient.square())
    return torch.stack(penalties).mean()


@pytest.mark.parametrize("name", ["coral", "mmd", "irm"])
@pytest.mark.parametrize("strength", [0.5, 3.0])
def test_penalties(objective_of, name: str, strength: float) -> None:
    objective = objective_of(name, strength=strength)
    logits, features, target, domain = batch_of()
    logits, features = logits.requires_grad_(), features.requires_grad_()
    penalty = {
        "coral": lambda: coral_by_loops(features, domain),
        "mmd": lambda: mmd_by_loops(features, domain),
        "irm": lambda: irm_by_autograd(objective, logits, target, domain),
    }[name]()
    classification = weighted(objective, logits, target).mean()
    terms = objective.loss(logits, features, target, domain)
    expected = torch.stack([classification + strength * penalty, classification, penalty])
    torch.testing.assert_close(terms, expected.detach(), **CLOSE)
    compared = features if name in ("coral", "mmd") else logits
    (own,) = torch.autograd.grad(terms[0] - terms[1], compared)
    (right,) = torch.autograd.grad(strength * penalty, compared)
    torch.testing.assert_close(own, right, rtol=1e-3, atol=1e-5, check_dtype=False)


@pytest.mark.parametrize("name", ["coral", "mmd"])
def test_one_domain_has_no_penalty(objective_of, name: str) -> None:
    logits, features, target, domain = batch_of()
    terms = objective_of(name).loss(logits, features, target, torch.zeros_like(domain))
    assert terms[2] == 0
    assert terms[0] == terms[1]


def test_group_dro(objective_of) -> None:
    """Three steps: weights are multiplied by exp(strength * loss), and absent domains keep theirs."""
    objective = objective_of("group_dro", strength=0.3)
    q = np.ones(DOMAINS) / DOMAINS
    for seed, present in enumerate([(0, 1, 2), (0, 1), (0, 1, 2)]):
        logits, features, target, domain = batch_of(seed)
        if present == (0, 1):
            domain = domain.clamp_max(1)
        losses = weighted(objective, logits, target)
        by_domain = {d: float(losses[domain == d].mean()) for d in present}
        for d, value in by_domain.items():
            q[d] *= math.exp(0.3 * value)
        q /= q.sum()
        share = {d: q[d] / sum(q[e] for e in present) for d in present}
        expected = sum(share[d] * by_domain[d] for d in present)
        assert float(objective.loss(logits, features, target, domain)) == pytest.approx(expected, rel=1e-4)
    assert objective.memory.get_buffer("log_weights").exp().tolist() == pytest.approx(q.tolist(), rel=1e-4)


def rsc_by_loops(objective, head, logits: Tensor, features: Tensor, target: Tensor, strength: float) -> Tensor:
    """Follow the loss of DomainBed, row by row, with NumPy's percentiles and autograd's gradients."""
    weight, bias = head.weight.double(), head.bias.double()
    masks, changes = [], []
    for row, own, label in zip(features.detach().double(), logits.detach().double(), target, strict=True):
        row = row.requires_grad_()
        (gradient,) = torch.autograd.grad((weight @ row + bias)[label], row)
        masks.append(gradient < np.percentile(gradient.numpy(), 100 * (1 - strength)))
        muted = (weight @ (row * masks[-1]) + bias).softmax(0)[label]
        changes.append(float(own.softmax(0)[label] - muted.detach()))
    least = np.percentile(changes, 100 * (1 - strength))
    losses = []
    for row, label, mask, change in zip(features.double(), target, masks, changes, strict=True):
        answer = weight @ (row * (mask if change >= least else torch.ones_like(mask))) + bias
        losses.append(-objective.class_weight.double()[label] * answer.log_softmax(0)[label])
    return torch.stack(losses).mean()


@pytest.mark.parametrize("strength", [1 / 3, 0.6])
def test_rsc(objective_of, strength: float) -> None:
    objective = objective_of("rsc", strength=strength)
    torch.manual_seed(3)
    model = torch.nn.Module()
    model.head = torch.nn.Linear(WIDTH, CLASSES)
    objective.attach(model)
    _, features, target, domain = batch_of()
    features = features.requires_grad_()
    logits = model.head(features)
    loss = objective.loss(logits, features, target, domain)[0]
    expected = rsc_by_loops(objective, model.head, logits, features, target, strength)
    torch.testing.assert_close(loss, expected.detach(), **CLOSE)
    variables = [features, *model.head.parameters()]
    for own, right in zip(torch.autograd.grad(loss, variables), torch.autograd.grad(expected, variables), strict=True):
        torch.testing.assert_close(own, right, rtol=1e-3, atol=1e-6, check_dtype=False)


@pytest.mark.cuda
@pytest.mark.parametrize("name", [name for name in SINGLE if name not in ("mixup", "rsc")])
def test_a_gpu_computes_the_same_loss(make_config, name: str) -> None:
    results = []
    for device in ("cpu", "cuda"):
        config, manifest = open_manifest(make_config(algorithm=name, device=device))
        objective = build_objective(config, select_images(config, manifest), torch.device(device), WIDTH)
        try:
            results.append(objective.loss(*(tensor.to(device) for tensor in batch_of())).cpu())
        finally:
            objective.loader.close()
    torch.testing.assert_close(*results, **CLOSE)


@pytest.mark.cuda
@pytest.mark.parametrize("name", SINGLE)
def test_a_run_trains_as_a_cuda_graph(make_config, name: str) -> None:
    config = make_config(algorithm=name, epochs=1, batch_size=4, device="cuda", cache="gpu", cuda_graph=True)
    assert 0 <= train(config, progress=False).average <= 1
    (epoch,) = (Path(config.out) / "metrics.jsonl").read_text().splitlines()
    assert math.isfinite(json.loads(epoch)["loss"])


@pytest.mark.parametrize("name", SINGLE)
def test_a_run_trains(make_config, name: str) -> None:
    config = make_config(algorithm=name, epochs=1, batch_size=8)
    assert 0 <= train(config, progress=False).average <= 1
    again = TrainConfig.read(config.out)
    assert (again.algorithm, again.alignment, again.strength) == (name, "-", STRENGTHS.get(name))
    (epoch,) = (Path(config.out) / "metrics.jsonl").read_text().splitlines()
    assert set(ALGORITHMS[name].terms) <= json.loads(epoch).keys()


@pytest.mark.parametrize("name", ["mixup", "group_dro"])
def test_a_resumed_run_is_the_same(make_config, monkeypatch, name: str) -> None:
    """Random draws and the weights of domains go on where they stopped."""
    whole, broken = (make_config(out, algorithm=name, batch_size=8) for out in ("whole", "broken"))
    train(whole, progress=False)
    validate = loop.validate

    def stops(state, run):
        if state.epoch == 1:
            raise RuntimeError("stopped")
        return validate(state, run)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "validate", stops)
        with pytest.raises(RuntimeError, match="stopped"):
            train(broken, progress=False)
    assert (Path(broken.out) / "last.pt").exists()
    train(broken, progress=False)
    one, two = (load_model(config.out).state_dict() for config in (whole, broken))
    for key, value in one.items():
        assert torch.equal(value, two[key]), key


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"algorithm": "ccsa", "alignment": "-"}, "algorithm ccsa needs alignment w or u"),
        ({"algorithm": "erm", "strength": 1.0}, "strength is 1.0, but algorithm erm has none"),
        ({"strength": 1.0}, "algorithm ccsa has none"),
        ({"algorithm": "coral", "strength": 0.0}, "strength is 0.0: it must be above 0"),
        ({"algorithm": "focal", "strength": math.nan}, "strength is nan"),
        ({"algorithm": "sagnet"}, "algorithm"),
        ({"algorithm": "rsc", "strength": 1.0}, "which is a share with algorithm rsc"),
    ],
)
def test_bad_settings(settings: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainConfig(**settings)


def test_the_algorithm_follows_from_the_alignment() -> None:
    assert TrainConfig().named_algorithm == "ccsa"
    assert TrainConfig(alignment="-").named_algorithm == "erm"
    assert TrainConfig(algorithm="erm").differences(TrainConfig(alignment="-")) == []
    assert TrainConfig(algorithm="ccsa").differences(TrainConfig()) == []
    assert TrainConfig(algorithm="coral").alignment == "-"
    assert TrainConfig(algorithm="coral").epochs == 135
