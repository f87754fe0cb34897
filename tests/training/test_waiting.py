"""The host tells the device what to do next and never waits for it: not in a step, not in an evaluation."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fastccsa.evaluation.evaluate import predict
from fastccsa.models import build_model
from fastccsa.training import train
from fastccsa.training.step import Step

# What makes the host wait for a GPU: numbers taken out of tensors, and results whose size depends on their content.
WAITS = {
    torch.ops.aten._local_scalar_dense,
    torch.ops.aten.is_nonzero,
    torch.ops.aten.nonzero,
    torch.ops.aten.masked_select,
    torch.ops.aten._unique2,
    torch.ops.aten.equal,
}


LABELS = torch.tensor([0, 1])


class NoWaiting(TorchDispatchMode):
    """Refuses operations that would wait, if this were a GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket not in WAITS, f"the host would wait for {func}"
        if func.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put_):
            assert all(x is None or x.dtype != torch.bool for x in args[1]), "the host would wait to count a mask"
        return func(*args, **(kwargs or {}))


def refuse(tensor: torch.Tensor) -> None:
    raise AssertionError("the host would wait to list a tensor")


@contextmanager
def no_waiting(device: str) -> Iterator[None]:
    if device == "cpu":
        with NoWaiting(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.Tensor, "tolist", refuse)
            yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    "waits",
    [torch.Tensor.item, lambda x: x.tolist(), torch.Tensor.nonzero, bool, lambda x: x[x > 0]],
    ids=["item", "list", "nonzero", "bool", "mask"],
)
def test_what_waits_is_found(waits) -> None:
    with pytest.raises(AssertionError, match="the host would wait"), no_waiting("cpu"):
        waits(torch.ones(1))


@pytest.mark.parametrize("settings", [{"clip": 1.0, "ema": 0.5}, {"alignment": "-", "accumulate": 2}])
def test_a_step_never_waits(make_config, monkeypatch, device, settings) -> None:
    taken, take = [], Step.__call__

    def watched(self, *args):
        taken.append(self)
        if device == "cuda" and len(taken) == 1:
            return take(self, *args)  # libraries set themselves up
        with no_waiting(device):
            return take(self, *args)

    monkeypatch.setattr(Step, "__call__", watched)
    train(make_config(epochs=1, device=device, **settings), progress=False)
    assert len(taken) > 10


def test_an_evaluation_waits_once_at_its_end() -> None:
    model = build_model("shufflenet_v2_x0_5", 3, weights="none")
    batches = [{"images": torch.randn(2, 3, 32, 32), "target": LABELS, "domain": LABELS} for _ in range(3)]
    with no_waiting("cpu"):
        assert len(predict(model, batches, torch.device("cpu")).predictions) == 6
