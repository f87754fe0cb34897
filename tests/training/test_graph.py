"""Steps in fixed memory equal the ordinary loop's; their capture as a CUDA graph (only on a GPU)."""

from __future__ import annotations

import gc
import json
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from fastccsa.models import load_model
from fastccsa.system.errors import InputError, Interrupted
from fastccsa.training import graph, train
from fastccsa.training import loop as loop_module
from fastccsa.training.graph import GraphedStep, Replay, StaticStep, check_graph
from fastccsa.training.ranks import ALONE, Ranks

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


def losses(out: str) -> list[float]:
    return [json.loads(line)["loss"] for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]


def assert_same_runs(one: str, other: str) -> None:
    """Compare the last states of both runs bit for bit, and the losses of their meters."""
    first, second = (torch.load(Path(out) / "last.pt", weights_only=True) for out in (one, other))
    for part in ("model", "average"):
        assert first[part].keys() == second[part].keys()
        for key, value in first[part].items():
            assert torch.equal(value, second[part][key]), key
    assert first["optimizer"]["param_groups"] == second["optimizer"]["param_groups"]
    assert losses(one) == losses(other)


@pytest.mark.parametrize(
    ("settings", "groups"),
    [
        # 45 images: the last of 6 batches is of another size.
        ({"ema": 0.5, "clip": 1.0, "batch_size": 8, "graph_steps": 1}, [1, 1, 1, 1, 1, 1]),
        ({"ema": 0.5, "clip": 1.0, "batch_size": 8, "graph_steps": 2}, [2, 2, 1, 1]),
        ({"alignment": "-", "batch_size": 9, "graph_steps": 1}, [1, 1, 1, 1, 1]),
        ({"alignment": "-", "batch_size": 9, "graph_steps": 3}, [3, 1, 1]),
        ({"alignment": "-", "batch_size": 9, "average": "uniform"}, [5]),
    ],
)
def test_a_step_in_fixed_memory_equals_an_ordinary_step(make_config, monkeypatch, settings, groups) -> None:
    ordinary, static = (make_config(out, cache="ram", **settings) for out in ("ordinary", "static"))
    expected = train(ordinary, progress=False)
    seen = []
    take = StaticStep.take
    monkeypatch.setattr(StaticStep, "take", lambda self, plans: (seen.append(plans), take(self, plans))[1])
    monkeypatch.setattr(loop_module, "Step", StaticStep)
    assert train(static, progress=False) == expected
    assert_same_runs(ordinary.out, static.out)
    assert [len(plans) for plans in seen] == 2 * groups
    assert len({plans.data_ptr() for plans in seen}) == len({plans.shape for plans in seen})


class FakeReplay:
    """Takes ordinary steps, and holds what a graph holds."""

    def __init__(self, work, optimizer, *_) -> None:
        self.work, self.optimizer = work, optimizer

    def __call__(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.work()


@pytest.mark.parametrize("stopped", [False, True])
def test_the_graphs_are_freed_before_the_test_and_nothing_keeps_the_run(make_config, monkeypatch, stopped) -> None:
    steps, scored = [], []
    score, start = loop_module.score_best, GraphedStep.__init__
    monkeypatch.setattr(graph, "Replay", FakeReplay)
    monkeypatch.setattr(loop_module, "Step", GraphedStep)
    monkeypatch.setattr(
        GraphedStep, "__init__", lambda self, **parts: (steps.append(weakref.ref(self)), start(self, **parts))[0]
    )
    monkeypatch.setattr(
        loop_module, "score_best", lambda *args: (scored.append(len(steps[0]()._replays)), score(*args))[1]
    )
    gc.collect()
    gc.disable()
    try:
        if stopped:
            with pytest.raises(Interrupted):
                train(make_config(cache="ram", epochs=1, time_limit=1e-6), progress=False)
        else:
            train(make_config(cache="ram", epochs=1), progress=False)
        assert steps[0]() is None
    finally:
        gc.enable()
    assert scored == ([] if stopped else [0])


@pytest.mark.parametrize(
    ("changes", "device", "dtype", "ranks", "reason"),
    [
        ({}, CPU, None, ALONE, r"device is cpu: it needs a CUDA GPU"),
        ({"cache": "ram"}, GPU, None, ALONE, "cache is ram: it needs the images in the GPU's memory"),
        ({"pairs": "all", "memory": 64}, GPU, None, ALONE, "pairs is all, with a memory"),
        ({"accumulate": 2}, GPU, None, ALONE, "accumulate is 2"),
        ({}, GPU, torch.float16, ALONE, "use bfloat16 or none"),
        ({}, GPU, None, Ranks(0, 2), "2 processes train together"),
    ],
)
def test_an_error_says_why_a_graph_is_not_available(make_config, changes, device, dtype, ranks, reason) -> None:
    config = make_config(**{"cache": "gpu", "cuda_graph": True, **changes})
    with pytest.raises(InputError, match=reason):
        check_graph(config, device, dtype, ranks)
    check_graph(replace(config, cuda_graph=False), device, dtype, ranks)


def test_a_graph_holds_any_number_of_pairs(make_config) -> None:
    check_graph(make_config(cache="gpu", cuda_graph=True, pairs="all", batch_size=1 << 16), GPU, None, ALONE)


def test_it_is_reported_before_anything_is_written(make_config) -> None:
    config = make_config(cuda_graph=True)
    with pytest.raises(InputError, match="cuda_graph is not available here"):
        train(config, progress=False)
    assert not Path(config.out).exists()


@pytest.mark.cuda
@pytest.mark.usefixtures("deterministic")
@pytest.mark.parametrize(
    ("amp", "pairs", "steps"),
    [
        ("none", "zipped", 1),
        ("bfloat16", "zipped", 1),
        ("none", "all", 1),
        ("none", "zipped", 3),
        ("bfloat16", "all", 7),
    ],
)
def test_a_captured_training_equals_an_ordinary_one(make_config, amp, pairs, steps) -> None:
    # Captured kernels read the learning rate as float32, which represents 2^-10 and 2^-13 exactly.
    settings = {
        "device": "cuda",
        "cache": "gpu",
        "amp": amp,
        "pairs": pairs,
        "lr": 2.0**-10,
        "lr_gamma": 2.0**-3,
        "ema": 0.5,
    }
    # 7 full batches, of which 3 or more warm up, and one of 3 rows.
    settings |= {"batch_size": 6, "clip": 1.0, "epochs": 4, "graph_steps": steps}
    ordinary, graphed = (make_config(out, cuda_graph=out == "graphed", **settings) for out in ("ordinary", "graphed"))
    expected = train(ordinary, progress=False)
    assert train(graphed, progress=False) == expected
    assert_same_runs(ordinary.out, graphed.out)


@pytest.mark.cuda
@pytest.mark.usefixtures("deterministic")
def test_a_captured_training_resumes_where_it_stopped(make_config) -> None:
    settings = {"device": "cuda", "cache": "gpu", "cuda_graph": True, "batch_size": 6, "graph_steps": 3, "epochs": 3}
    whole, limited = make_config("whole", **settings), make_config("limited", time_limit=1e-6, **settings)
    expected = train(whole, progress=False)
    with pytest.raises(KeyboardInterrupt):
        train(limited, progress=False)
    assert train(replace(limited, time_limit=0.0), progress=False) == expected
    one, other = load_model(whole.out).state_dict(), load_model(limited.out).state_dict()
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.cuda
def test_a_loss_that_is_not_finite_freezes_the_weights_of_a_graph_too(make_config) -> None:
    growing = {"lr": 1000.0, "weight_decay": 1000.0}  # each step multiplies the weights by a million
    config = make_config(device="cuda", cache="gpu", cuda_graph=True, batch_size=6, amp="none", **growing)
    with pytest.raises(InputError, match="the loss is not finite at epoch 1"):
        train(config, progress=False)


@pytest.mark.cuda
def test_random_numbers_continue_from_replay_to_replay() -> None:
    weight = torch.nn.Parameter(torch.ones(1000, device="cuda"))
    optimizer = torch.optim.AdamW([weight], lr=2.0**-10, fused=True)
    drawn = torch.zeros(1000, device="cuda")

    def work() -> None:
        drawn.copy_(torch.nn.functional.dropout(torch.ones_like(weight)))
        (weight * drawn).sum().backward()
        optimizer.step()

    replay = Replay(work, optimizer)
    torch.manual_seed(0)
    seen = []
    for _ in range(8):
        replay()
        seen.append(drawn.clone())
    torch.manual_seed(0)
    for number, mask in enumerate(seen):
        assert torch.equal(torch.nn.functional.dropout(torch.ones_like(weight)), mask), number
    assert optimizer.param_groups[0]["lr"] == 2.0**-10
