from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from fastccsa.system.devices import amp_dtype


@pytest.mark.parametrize(
    ("capability", "expected"),
    [((7, 0), torch.float16), ((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_a_gpu_that_only_emulates_bfloat16_uses_float16(monkeypatch, capability, expected) -> None:
    """torch's own function, with two GPUs: tensors of bfloat16 can be made on both, and the current one is new."""
    gpus, current = [(9, 0), capability], [0]

    class On:
        def __init__(self, device: torch.device) -> None:
            self.index = device.index

        def __enter__(self) -> None:
            current.append(self.index)

        def __exit__(self, *args: object) -> None:
            current.pop()

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device", On)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[-1])
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(major=gpus[index][0]))
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda index: True)
    assert amp_dtype("auto", torch.device("cuda", 1)) == expected
    assert amp_dtype("bfloat16", torch.device("cuda", 1)) == torch.bfloat16
    assert current == [0]


def test_a_cpu_computes_in_float32_unless_asked() -> None:
    assert amp_dtype("auto", torch.device("cpu")) is None
    assert amp_dtype("bfloat16", torch.device("cpu")) == torch.bfloat16
