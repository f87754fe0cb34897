from __future__ import annotations

from collections import OrderedDict
from copy import deepcopy
from types import SimpleNamespace

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


GPU = torch.device("cuda", 0)


@pytest.fixture
def gpu(monkeypatch) -> SimpleNamespace:
    """A GPU with 1000 free bytes and others that torch has reserved; empty tensors tell where they would be."""
    state = SimpleNamespace(reserved=0, allocated=0, is_full=False, empty=torch.empty)

    def empty(length, dtype=None, device=None, pin_memory=False):
        if device == GPU and state.is_full:
            raise torch.OutOfMemoryError("CUDA out of memory")
        memory = state.empty(length, dtype=dtype)
        memory.place = "GPU" if device == GPU else "pinned" if pin_memory else "host"
        return memory

    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: state.reserved)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: state.allocated)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 9000))
    return state


@pytest.mark.parametrize(
    ("bytes_", "reserved", "allocated", "is_full", "expected"),
    [
        (1000, 500, 500, False, "GPU"),
        (1008, 500, 500, False, "pinned"),
        (600, 900, 500, False, "GPU"),
        (608, 900, 500, False, "pinned"),  # the steps may need the other 400 bytes again, and 400 more
        (600, 900, 500, True, "pinned"),  # another process was faster
    ],
)
def test_a_copy_leaves_the_gpu_what_its_steps_need(gpu, bytes_, reserved, allocated, is_full, expected) -> None:
    gpu.reserved, gpu.allocated, gpu.is_full = reserved, allocated, is_full
    memory = snapshot_module._allocate(bytes_ // 8, torch.float64, GPU)
    assert (memory.place, memory.nbytes) == (expected, bytes_)
    assert snapshot_module._allocate(4, torch.float64, torch.device("cpu")).place == "host"


def test_a_copy_in_main_memory_is_used_once_the_gpu_has_made_it() -> None:
    memory, waited = torch.ones(3), []
    assert snapshot_module._to_host(memory, SimpleNamespace(synchronize=lambda: waited.append(1))) is memory
    assert waited


@pytest.mark.cuda
def test_a_snapshot_in_main_memory_stays_as_it_was(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 0))
    values = content("cuda")
    expected = deepcopy(values)
    torch.cuda._sleep(100_000_000)  # the copies are queued behind it, and the changes behind the copies
    taken = Snapshot(values)
    for tensor in leaves(values):
        tensor.zero_() if tensor.is_floating_point() else tensor.fill_(7)
    assert all(block.memory.device.type == "cpu" for block in taken._blocks)
    for one, other in zip(leaves(taken.on_host()), leaves(expected), strict=True):
        assert torch.equal(one, other.cpu())
