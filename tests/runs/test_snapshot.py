from __future__ import annotations

from collections import OrderedDict
from copy import deepcopy

import pytest
import torch

from fastccsa.models import build_model
from fastccsa.runs import snapshot as snapshot_module
from fastccsa.runs.snapshot import Snapshot


def leaves(value, found=None) -> list[torch.Tensor]:
    found = [] if found is None else found
    if isinstance(value, torch.Tensor):
        found.append(value)
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            leaves(item, found)
    return found


def content(device: str) -> dict:
    torch.manual_seed(0)
    model = build_model("shufflenet_v2_x0_5", 3, weights="none").to(memory_format=torch.channels_last).to(device)
    state = model.state_dict()
    state._metadata = {"kept": 1}
    return {
        "model": state,
        "optimizer": {"state": {0: {"step": torch.tensor(3.0, device=device)}}, "groups": [{"lr": 0.1}]},
        "random": torch.get_rng_state(),
        "several": (torch.arange(6, device=device).reshape(2, 3).t(), torch.zeros(0), torch.tensor(1.5).double()),
        "narrow": torch.randn(4, 6, device=device)[:, ::2],
        "epoch": 3,
    }


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def test_a_snapshot_stays_as_it_was(device) -> None:
    values = content(device)
    expected = deepcopy(values)
    taken = Snapshot(values)
    for tensor in leaves(values):
        tensor.zero_() if tensor.is_floating_point() else tensor.fill_(7)
    values["optimizer"]["groups"][0]["lr"] = 0.5
    values["optimizer"]["state"][1] = {}
    found = taken.on_host()
    assert found["optimizer"]["groups"] == [{"lr": 0.1}]
    assert found["optimizer"]["state"].keys() == {0}
    assert found["epoch"] == 3
    assert type(found["model"]) is OrderedDict
    assert found["model"]._metadata == {"kept": 1}
    assert len(leaves(found)) == len(leaves(expected))
    for one, other in zip(leaves(found), leaves(expected), strict=True):
        assert one.device.type == "cpu"
        assert torch.equal(one, other.cpu())
        assert one.stride() == other.clone().stride()  # channels-last stays channels-last


def test_a_gpu_without_room_is_no_error(monkeypatch) -> None:
    values, empty, devices = content("cpu"), torch.empty, []

    def full(*args, device=None, **kwargs):
        devices.append(device)
        if device is not None:
            raise torch.OutOfMemoryError("out of memory")
        return empty(*args, **kwargs)

    monkeypatch.setattr(snapshot_module.torch, "empty", full)
    taken = Snapshot(values)
    monkeypatch.undo()
    assert all(torch.equal(*pair) for pair in zip(leaves(taken.on_host()), leaves(values), strict=True))
    assert devices.count(None) == devices.count(torch.device("cpu")) > 0
