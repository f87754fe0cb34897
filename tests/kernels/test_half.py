"""The portable conversions of csrc/core/half.h, which the emulator also uses for CUDA kernels, against torch's."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from .programs import Builder

TYPES = (torch.bfloat16, torch.float16)


@pytest.fixture(scope="module")
def program(builder: Builder) -> Path:
    return builder.standalone("convert_halves", builder.memory_or_plain())


def all_of(dtype: torch.dtype) -> Tensor:
    """Return all values of a 16-bit type."""
    return torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(dtype)


def inputs() -> Tensor:
    """Return all values of both types, the midpoints between them, the floats next to those, and random bits."""
    exact = torch.cat([all_of(dtype).float() for dtype in TYPES])
    bits = exact.view(torch.int32)
    halfway = torch.cat([bits + (1 << 15), bits + (1 << 12)])
    random = torch.randint(-(1 << 31), 1 << 31, (1 << 18,), generator=torch.Generator().manual_seed(0))
    return torch.cat([bits, halfway, halfway + 1, halfway - 1, random.to(torch.int32)]).view(torch.float32)


def test_conversions_match_torch(program: Path) -> None:
    floats = inputs()
    output = subprocess.run([program], input=floats.numpy().tobytes(), capture_output=True, check=True).stdout
    narrow = torch.frombuffer(bytearray(output[: 4 * len(floats)]), dtype=torch.int16).view(2, -1)
    wide = torch.frombuffer(bytearray(output[4 * len(floats) :]), dtype=torch.float32).view(2, -1)
    for k, dtype in enumerate(TYPES):
        assert torch.equal(narrow[k].view(dtype).isnan(), floats.isnan())
        numbers = ~floats.isnan()
        assert torch.equal(narrow[k][numbers], floats[numbers].to(dtype).view(torch.int16))
        assert torch.equal(wide[k].isnan(), all_of(dtype).isnan())
        numbers = ~wide[k].isnan()
        assert torch.equal(wide[k][numbers].view(torch.int32), all_of(dtype).float()[numbers].view(torch.int32))
