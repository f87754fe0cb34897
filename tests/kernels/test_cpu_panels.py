"""The loss over all pairs on the CPU, in panels, under sanitizers. tests/losses/all_pairs tests its values."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from .programs import Builder

SOURCES = ("all_pairs/cpu/cpu.cpp", "all_pairs/cpu/panels.cpp")
KERNELS = ("all_pairs/cpu/tile_kernel.cpp", "all_pairs/cpu/direct_kernel.cpp", "all_pairs/cpu/product_kernel.cpp")


def run(program: Path, problems: int, threads: int, isa: str) -> None:
    call = [program, "0", str(problems), str(threads)]
    done = subprocess.run(call, capture_output=True, text=True, env=os.environ | {"FASTCCSA_ISA": isa}, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.mark.parametrize("isa", ["portable", "avx2", "best"])
def test_no_access_is_out_of_bounds(builder: Builder, isa: str) -> None:
    """Random sizes, classes, weights and requested gradients cause no such access and no undefined behaviour."""
    run(builder.cpu("run_cpu_panels", builder.memory_or_plain(), KERNELS, SOURCES), 12, 2, isa)


def test_threads_do_not_race(builder: Builder) -> None:
    run(builder.cpu("run_cpu_panels", builder.races(), KERNELS, SOURCES), 6, 3, "best")
