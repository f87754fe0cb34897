"""Accumulation, clipping, moving average, early stopping, and BatchNorm over processes."""

from __future__ import annotations

import errno
import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import nn

from fastccsa.models import build_model, load_model
from fastccsa.sampling import ImageSampler
from fastccsa.system.devices import deterministic
from fastccsa.system.errors import InputError
from fastccsa.training import loop as loop_module
from fastccsa.training import scoring, train
from fastccsa.training.average import WeightAverage
from fastccsa.training.batchnorm import share_batchnorm
from fastccsa.training.ranks import Ranks, open_ranks
from fastccsa.training.step import Step
from fastccsa.training.trace import KEPT

NO_BATCHNORM = {"backbone": "squeezenet1_1", "size": 64, "alignment": "-", "epochs": 1}


def gradients(monkeypatch) -> list[dict[str, torch.Tensor]]:
    """Collect the gradients of each update."""
    collected: list[dict[str, torch.Tensor]] = []
    update = Step.update

    def watched(self):
        collected.append({key: value.grad.clone() for key, value in self._state.model.named_parameters()})
        update(self)

    monkeypatch.setattr(Step, "update", watched)
    monkeypatch.setattr(nn.Dropout, "forward", lambda self, x: x)
    return collected


def test_accumulated_batches_give_the_gradient_of_one_batch(make_config, monkeypatch) -> None:
    # 45 images: the last batch of the last group has a single row.
    one, many = make_config("one", batch_size=16, **NO_BATCHNORM), make_config("many", batch_size=4, **NO_BATCHNORM)
    found = gradients(monkeypatch)
    start = loop_module.start_model

    def in_float64(*args):
        model = start(*args).double()
        model.register_forward_pre_hook(lambda module, inputs: (inputs[0].double(),))
        return model

    monkeypatch.setattr(loop_module, "start_model", in_float64)
    train(replace(one, lr=1e-9), progress=False)
    expected, found[:] = list(found), []
    train(replace(many, lr=1e-9, accumulate=4), progress=False)
    assert len(found) == len(expected) == 3
    for key, value in expected[0].items():
        # The loss is multiplied by the batch's share of the step's rows in float32.
        assert torch.allclose(found[0][key], value, rtol=0, atol=2.0**-23 * value.abs().max().item()), key


def test_a_checkpoint_is_saved_between_steps_and_not_within_one(make_config) -> None:
    config = make_config(alignment="-", epochs=1, accumulate=4, checkpoint_every=2, time_limit=1e-6)
    with pytest.raises(KeyboardInterrupt):
        train(config, progress=False)
    assert torch.load(Path(config.out) / "last.pt", weights_only=True)["step"] % 4 == 0


def test_a_longer_gradient_is_clipped_to_the_norm_in_its_direction(make_config, monkeypatch) -> None:
    before, after = gradients(monkeypatch), []
    step = torch.optim.AdamW.step

    def look(self, *args, **kwargs):
        after.append(torch.cat([value.grad.flatten() for group in self.param_groups for value in group["params"]]))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.AdamW, "step", look)
    train(make_config(alignment="-", epochs=1, clip=1.0), progress=False)
    whole = [torch.cat([value.flatten() for value in parts.values()]) for parts in before]
    assert any(gradient.norm() > 1 for gradient in whole)
    for gradient, clipped in zip(whole, after, strict=True):
        torch.testing.assert_close(clipped, gradient / max(1, gradient.norm()), rtol=1e-4, atol=1e-6)


def test_the_moving_average_is_validated_and_saved(make_config, monkeypatch) -> None:
    expected: dict[str, torch.Tensor] = {}
    update = Step.update

    def followed(self):
        if not expected:
            expected.update({key: value.clone().double() for key, value in self._state.model.named_parameters()})
        update(self)
        for key, value in self._state.model.named_parameters():
            expected[key] += 0.25 * (value.detach().double() - expected[key])

    monkeypatch.setattr(Step, "update", followed)
    seen = []
    predict = scoring.predict
    monkeypatch.setattr(scoring, "predict", lambda model, *args: (seen.append(model), predict(model, *args))[1])
    config = make_config(alignment="-", epochs=1, ema=0.75)
    train(config, progress=False)
    saved = dict(load_model(config.out).named_parameters())
    for key, value in expected.items():
        assert torch.allclose(saved[key].double(), value, rtol=1e-5, atol=1e-6), key
    assert all(torch.equal(value, saved[key]) for key, value in seen[0].named_parameters())
    assert torch.load(Path(config.out) / "last.pt", weights_only=True)["average"]


def test_the_average_copies_integers_and_follows_statistics() -> None:
    model = build_model("shufflenet_v2_x0_5", 3, weights="none")
    average = WeightAverage(model, 0.5)
    model.train()(torch.randn(4, 3, 32, 32))
    before = {key: value.clone() for key, value in average.model.named_buffers()}
    average.update(model)
    for key, value in model.named_buffers():
        mine = dict(average.model.named_buffers())[key]
        expected = value if not value.is_floating_point() else (before[key] + value) / 2
        assert torch.allclose(mine, expected), key


def test_training_ends_early_without_improvement(make_config, monkeypatch) -> None:
    recalls = iter([0.5, 0.4, 0.5, 0.9])
    validate = loop_module.validate

    def scripted(state, run):
        (scores, loss), recall = validate(state, run), next(recalls)
        return replace(scores, domains={k: replace(v, macro_recall=recall) for k, v in scores.domains.items()}), loss

    monkeypatch.setattr(loop_module, "validate", scripted)
    config = make_config(alignment="-", n_sec=0, epochs=9, patience=2, selection="paper")
    scores = train(config, progress=False)
    assert scores.selection is not None
    assert scores.selection.epoch == 1
    records = (Path(config.out) / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(record)["epoch"] for record in records] == [1, 2, 3]


def test_ranks_share_batches_evenly_or_raise_an_error() -> None:
    assert Ranks(1, 4).share(32) == 8
    with pytest.raises(InputError, match="batch_size 30 is that of a step over all processes, and 4 cannot share it"):
        Ranks(0, 4).share(30)


def test_rows_of_a_step_count_all_ranks() -> None:
    sampler = ImageSampler([0] * 22, num_classes=1, batch_size=4, rank=1, world_size=2)
    assert [sampler.rows(step) for step in range(len(sampler))] == [8, 8, 6]


def test_deterministic_sets_torchs_mode_during_a_run(make_config, monkeypatch) -> None:
    modes = []
    monkeypatch.setattr(
        loop_module, "train_with", lambda *args: modes.append(torch.are_deterministic_algorithms_enabled())
    )
    train(make_config())
    train(make_config(deterministic=True))
    assert modes == [False, True]
    assert not torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"]


def test_an_operation_that_is_not_deterministic_is_an_error_of_one_line() -> None:
    with pytest.raises(InputError, match=r"deterministic is not possible here \(put_ .*\): omit it"), deterministic():
        torch.zeros(3).put_(torch.tensor([0]), torch.ones(1))
    with pytest.raises(RuntimeError, match="something else"), deterministic():
        raise RuntimeError("something else")
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.fixture
def group_of_one(monkeypatch, tmp_path):
    """A process group with only this process."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("group_of_one")
def test_shared_batchnorm_is_batchnorm_over_all_rows() -> None:
    torch.manual_seed(0)
    own = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.BatchNorm2d(8, affine=False)).double()
    shared = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.BatchNorm2d(8, affine=False)).double()
    shared.load_state_dict(own.state_dict())
    share_batchnorm(shared, torch.device("cpu"))
    images = torch.randn(6, 3, 9, 9, dtype=torch.float64)
    results = []
    for network in (own, shared):
        x = images.clone().requires_grad_()
        output = network(x)
        (output * torch.arange(6.0)[:, None, None, None]).sum().backward()
        results.append([output, x.grad, *(p.grad for p in network.parameters()), *network.buffers()])
    assert own.state_dict().keys() == shared.state_dict().keys()
    for expected, found in zip(*results, strict=True):
        assert torch.allclose(found, expected, rtol=1e-9, atol=1e-10)
    network_input = images[:2]
    assert torch.allclose(own.eval()(network_input), shared.eval()(network_input))


@pytest.mark.usefixtures("group_of_one")
def test_a_process_group_of_the_caller_is_used_and_not_destroyed() -> None:
    with open_ranks("cpu") as ranks:
        assert (ranks.rank, ranks.world) == (0, 1)
    assert dist.is_initialized()
    with pytest.raises(InputError, match="is one GPU for all processes"), open_ranks("cuda:1"):
        pass


def test_the_trace_parses_and_has_the_stages_of_a_few_steps(make_config, capsys) -> None:
    config = make_config(epochs=1, profile=True, pairs="all")
    train(config)
    file = Path(config.out) / "trace.json"
    assert f"a trace of {KEPT} steps is in {file}" in capsys.readouterr().out
    events = json.loads(file.read_text())["traceEvents"]
    ranges = Counter(event["name"] for event in events if event.get("cat") == "user_annotation")
    for name in ("data", "forward", "loss", "all_pairs forward", "all_pairs backward", "backward", "optimizer"):
        assert ranges[name] == KEPT, (name, ranges)


def test_a_short_run_warns_about_its_trace_and_a_failed_write_does_not_stop_the_run(
    make_config, monkeypatch, caplog
) -> None:
    train(make_config(alignment="-", n_sec=0, epochs=1, profile=True), progress=False)  # 4 steps
    assert "4 steps are too few for a complete trace" in caplog.text
    caplog.clear()

    def fail(self, path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(torch.profiler.profile, "export_chrome_trace", fail)
    config = make_config("full", alignment="-", epochs=1, profile=True)
    train(config, progress=False)
    assert "the trace cannot be written" in caplog.text
    assert not (Path(config.out) / "trace.json").exists()


def test_a_compiled_network_is_trained_and_saved_like_any_other(make_config, monkeypatch) -> None:
    # Without code generation, which takes a minute: what fastccsa does for compilation is the same.
    compiled = []
    make = nn.Module.compile
    monkeypatch.setattr(
        nn.Module, "compile", lambda self: (compiled.append(self), make(self, backend="eager"))[1]
    )  # fmt: skip
    settings = {**NO_BATCHNORM, "n_sec": 0, "batch_size": 5}
    plain, fast = (make_config(out, **settings) for out in ("plain", "fast"))
    train(plain, progress=False)
    train(replace(fast, compile=True), progress=False)
    assert len(compiled) == 1
    one, other = load_model(plain.out).state_dict(), load_model(fast.out).state_dict()
    for key, value in one.items():
        assert torch.allclose(value, other[key], rtol=1e-4, atol=1e-6), key
