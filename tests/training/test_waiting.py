"""There is no host sync, neither in a step nor within an evaluation."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fastccsa.data import Manifest
from fastccsa.evaluation.inference import evaluation_loader, predict
from fastccsa.evaluation.replay import ReplayedPredictions
from fastccsa.models import build_model
from fastccsa.training import train
from fastccsa.training.step import Step

# Operations that sync with a GPU: reading numbers from tensors, and results whose size depends on their content.
SYNCS = {
    torch.ops.aten._local_scalar_dense,
    torch.ops.aten.is_nonzero,
    torch.ops.aten.nonzero,
    torch.ops.aten.masked_select,
    torch.ops.aten._unique2,
    torch.ops.aten.equal,
}


LABELS = torch.tensor([0, 1])


class NoSync(TorchDispatchMode):
    """Fails on operations that would sync with a GPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func.overloadpacket not in SYNCS, f"a host sync in {func}"
        if func.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put_):
            assert all(x is None or x.dtype != torch.bool for x in args[1]), "a host sync to count a mask"
        return func(*args, **(kwargs or {}))


def fail(tensor: torch.Tensor) -> None:
    raise AssertionError("a host sync to list a tensor")


@contextmanager
def no_sync(device: str) -> Iterator[None]:
    if device == "cpu":
        with NoSync(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.Tensor, "tolist", fail)
            yield
        return
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize(
    "sync",
    [torch.Tensor.item, lambda x: x.tolist(), torch.Tensor.nonzero, bool, lambda x: x[x > 0]],
    ids=["item", "list", "nonzero", "bool", "mask"],
)
def test_host_syncs_are_detected(sync) -> None:
    with pytest.raises(AssertionError, match="a host sync"), no_sync("cpu"):
        sync(torch.ones(1))


@pytest.mark.parametrize("settings", [{"clip": 1.0, "ema": 0.5}, {"alignment": "-", "accumulate": 2}])
def test_a_step_has_no_host_sync(make_config, monkeypatch, device, settings) -> None:
    taken, take = [], Step.__call__

    def watched(self, *args):
        taken.append(self)
        if device == "cuda" and len(taken) == 1:
            return take(self, *args)  # libraries initialise themselves
        with no_sync(device):
            return take(self, *args)

    monkeypatch.setattr(Step, "__call__", watched)
    train(make_config(epochs=1, device=device, cache="none", cuda_graph=False, **settings), progress=False)
    assert len(taken) > 10


def test_an_evaluation_has_one_host_sync_at_its_end() -> None:
    model = build_model("shufflenet_v2_x0_5", 3, weights="none")
    batches = [{"images": torch.randn(2, 3, 32, 32), "target": LABELS, "domain": LABELS} for _ in range(3)]
    with no_sync("cpu"):
        assert len(predict(model, batches, torch.device("cpu")).predictions) == 6


@pytest.mark.parametrize("capture", [False, True])
def test_an_evaluation_from_memory_has_one_host_sync_at_its_end(manifest_csv, device, capture) -> None:
    images, place = Manifest.read(manifest_csv).select("validation"), torch.device(device)
    model = build_model("shufflenet_v2_x0_5", 3, weights="none").to(place)
    with evaluation_loader(images, place, 32, batch_size=4, cache="gpu" if device == "cuda" else "ram") as loader:
        replayed = ReplayedPredictions(loader, None, capture=capture and device == "cuda")
        for _ in range(2):  # libraries initialise themselves, and the capture waits for the GPU
            replayed(model)
        if device == "cpu":
            with no_sync("cpu"):
                replayed(model)
            return
        with warnings.catch_warnings(record=True) as syncs:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                replayed(model)
            finally:
                torch.cuda.set_sync_debug_mode("default")
        assert sum("called a synchronizing CUDA operation" in str(each.message) for each in syncs) == 1
