"""What the kernels that store coefficients do by mma.sync alone, in the emulator under sanitizers.

test_fused_kernels.py covers the rest.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from .emulated_all_pairs import Limits, emulated
from .programs import Builder
from .test_fused_kernels import Case, assert_right, both_orders, case, every_dtype, limits

KERNEL = "stored mma"


@pytest.fixture(scope="module")
def program(builder: Builder) -> Path:
    return builder.emulated("run_all_pairs_kernels", builder.memory_or_plain())


def check(program: Path, c: Case, limits: Limits) -> None:
    with emulated(program) as loss:
        found = loss.compute(*c.tensors, labels=c.labels, margin=c.margin, mean=False, limits=limits)
    assert_right(c, found, per_term=False)


@both_orders
@every_dtype
@pytest.mark.parametrize(("sizes", "width"), [((140, 150), 1), ((40, 290), 520), ((270, 30), 776), ((60, 50), 1100)])
def test_any_width(program: Path, sizes: tuple[int, int], width: int, dtype: torch.dtype, by_class: bool) -> None:
    """Fewer slabs of 32 values than stages, an odd number, and an even one; several parts of each side."""
    check(program, case(*sizes, width, dtype, weighted=width != 520), limits(KERNEL, 3, by_class))


@both_orders
@pytest.mark.parametrize("many", [0, 1])
def test_more_tiles_than_lanes(program: Path, many: int, by_class: bool) -> None:
    """34 on one side, in a single run: most have the class of the other side, one is beyond the margin."""
    few, count = (260 if by_class else 30), 34 * 128 - 30  # by class, a single row of tiles would be cut into four runs
    sizes = (count, few) if many == 0 else (few, count)
    c = case(*sizes, 24, torch.bfloat16, classes=9)
    place = torch.arange(count)
    of_many = (place >= 100).long() + (place >= 30 * 128) * (1 + (place - 30 * 128) // 70)
    y, z = [c.y1 * 0 + 1, c.y2 * 0 + 1], [c.z1, c.z2]
    y[many] = of_many
    z[many] = z[many] + 10 * ((of_many > 1) & (of_many < 5))[:, None]
    c = replace(c, z1=z[0], z2=z[1], y1=y[0], y2=y[1])
    check(program, c, replace(limits(KERNEL, 1, by_class), stored_part=34 * 128))
