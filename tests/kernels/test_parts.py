"""The parts of float32 that tensor cores multiply exactly, in TF32 and in bfloat16: csrc/all_pairs/cuda/parts.h."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import torch
from torch import Tensor

from .programs import Builder

U = 2.0**-24  # the unit roundoff of float32
COUNTS = {"TF32": (1,), "bfloat16": (1, 2, 3)}  # how many parts the program writes, in this order
BITS = {"TF32": 11, "bfloat16": 8}  # significant bits of a part
SPLITS = [(kind, count) for kind, counts in COUNTS.items() for count in counts]


@pytest.fixture(scope="module")
def program(builder: Builder) -> Path:
    return builder.emulated("split_parts", builder.memory_or_plain())


def split(program: Path, x: Tensor, kind: str, count: int) -> tuple[Tensor, Tensor]:
    """Return the parts, [values, parts], and their sums in float32."""
    output = subprocess.run([program], input=x.numpy().tobytes(), capture_output=True, check=True).stdout
    found = torch.frombuffer(bytearray(output), dtype=torch.float32).view(len(x), -1)
    first = 0
    for split_of in SPLITS:
        last = first + split_of[1]
        if split_of == (kind, count):
            return found[:, first:last], found[:, last]
        first = last + 1
    raise ValueError((kind, count))


def some(count: int) -> Tensor:
    """Return values of many magnitudes and both signs."""
    random = torch.Generator().manual_seed(0)
    return torch.randn(count, generator=random) * 2.0 ** torch.randint(-20, 20, (count,), generator=random)


@pytest.mark.parametrize(("kind", "count"), SPLITS)
def test_a_part_has_the_bits_that_tensor_cores_read(program: Path, kind: str, count: int) -> None:
    x = some(10000)
    parts, _ = split(program, x, kind, count)
    assert ((parts.view(torch.int32) & ((1 << (24 - BITS[kind])) - 1)) == 0).all()
    assert ((parts[:, 0] - x).abs() <= 2.0 ** -BITS[kind] * x.abs()).all()
    assert torch.equal(split(program, parts[:, 0].contiguous(), kind, count)[0][:, 0], parts[:, 0])
    assert torch.equal(split(program, -x, kind, count)[0], -parts)


@pytest.mark.parametrize(("kind", "count"), SPLITS)
def test_parts_represent_all_but_the_last_bits(program: Path, kind: str, count: int) -> None:
    """Each part has one bit more than its own: the sign of what the part before it left over."""
    x = some(10000)
    parts, total = split(program, x, kind, count)
    bound = max(2.0 ** -(BITS[kind] * count + count - 1), U)
    assert ((parts.double().sum(1) - x.double()).abs() <= bound * x.abs()).all()
    assert ((total.double() - parts.double().sum(1)).abs() <= U * x.abs()).all()


@pytest.mark.parametrize("kind", COUNTS)
def test_ties_go_to_even(program: Path, kind: str) -> None:
    unit = 2.0 ** (1 - BITS[kind])  # of the last bit of a part between 1 and 2
    x = torch.tensor([1 + unit / 2, 1 + 3 * unit / 2, 1 + unit / 2 + 2.0**-23])
    assert split(program, x, kind, 1)[0].flatten().tolist() == [1, 1 + 2 * unit, 1 + unit]


@pytest.mark.parametrize("kind", COUNTS)
def test_zero_infinity_and_nan_are_unchanged(program: Path, kind: str) -> None:
    parts, _ = split(program, torch.tensor([0.0, -torch.inf, torch.inf, torch.nan]), kind, 1)
    assert parts[:3, 0].tolist() == [0.0, -torch.inf, torch.inf]
    assert parts[3].isnan()


def test_two_bfloat16_parts_hold_a_float16_exactly(program: Path) -> None:
    x = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(torch.float16)
    x = x[x.isfinite()].float()
    _, total = split(program, x, "bfloat16", 2)
    assert torch.equal(total, x)
