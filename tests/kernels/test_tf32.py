"""The TF32 parts of float32, which tensor cores multiply exactly: csrc/all_pairs/cuda/tf32.h."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from .programs import Builder

U = 2.0**-24  # the unit roundoff of float32


@pytest.fixture(scope="module")
def program(builder: Builder) -> Path:
    return builder.standalone("split_tf32", builder.memory_or_plain())


def split(program: Path, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the large and the small parts."""
    output = subprocess.run([program], input=x.numpy().tobytes(), capture_output=True, check=True).stdout
    parts = torch.frombuffer(bytearray(output), dtype=torch.float32).view(-1, 2)
    return parts[:, 0], parts[:, 1]


def some(count: int) -> Tensor:
    """Return values of many magnitudes and both signs."""
    random = torch.Generator().manual_seed(0)
    return torch.randn(count, generator=random) * 2.0 ** torch.randint(-20, 20, (count,), generator=random)


def test_a_part_has_the_bits_of_tf32(program: Path) -> None:
    x = some(10000)
    large, _ = split(program, x)
    assert ((large.view(torch.int32) & 0x1FFF) == 0).all()
    assert ((large - x).abs() <= 2.0**-11 * x.abs()).all()
    assert torch.equal(split(program, large)[0], large)
    assert torch.equal(split(program, -x)[0], -large)


def test_two_parts_represent_all_but_the_last_bits(program: Path) -> None:
    x = some(10000)
    large, small = split(program, x)
    assert ((small.view(torch.int32) & 0x1FFF) == 0).all()
    assert ((large.double() + small.double() - x.double()).abs() <= 2 * U * x.abs()).all()


def test_ties_go_to_even(program: Path) -> None:
    unit = 2.0**-10  # of the last bit of a TF32 between 1 and 2
    x = torch.tensor([1 + unit / 2, 1 + 3 * unit / 2, 1 + unit / 2 + 2.0**-23])
    assert split(program, x)[0].tolist() == [1, 1 + 2 * unit, 1 + unit]


def test_zero_infinity_and_nan_are_unchanged(program: Path) -> None:
    large, _ = split(program, torch.tensor([0.0, -torch.inf, torch.inf, torch.nan]))
    assert large.tolist()[:3] == [0.0, -torch.inf, torch.inf]
    assert large[3].isnan()
