"""The table of what the compiler makes of the kernels, from a report by hand and from the real shapes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from . import compiled
from .nvcc import Compiled, Kernel, demangled

ONE, OTHER = "_Z3oneIfEvT_", "_ZN1a1b5otherILi3EEEvi"
REPORT = f"""
ptxas info    : Compiling entry function '{ONE}' for 'sm_90a'
ptxas info    : Function properties for {ONE}
    48 bytes stack frame, 16 bytes spill stores, 24 bytes spill loads
ptxas info    : Used 96 registers, used 1 barriers, 1024 bytes smem
ptxas info    : Compiling entry function '{OTHER}' for 'sm_90a'
    0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
ptxas info    : Used 40 registers
"""


def test_the_report_of_the_compiler() -> None:
    assert Compiled(REPORT, Path("x.o")).kernels() == {ONE: Kernel(96, 16, 1024), OTHER: Kernel(40, 0, 0)}


@pytest.mark.skipif(shutil.which("c++filt") is None, reason="there is no c++filt")
def test_names_are_those_of_the_source() -> None:
    assert [*demangled([ONE, OTHER])] == ["one<float>", "other<3>"]


def test_a_row_adds_both_kinds_of_shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels without instructions of tensor cores have no row."""
    instructions = {ONE: ["HMMA.16816.F32", "LDSM.16.M88.4", "HMMA.16816.F32", "IADD3"], OTHER: ["IADD3"]}
    monkeypatch.setattr(Compiled, "instructions", lambda self: instructions)
    monkeypatch.setattr(compiled, "compile_source", lambda *_: Compiled(REPORT, tmp_path))
    monkeypatch.setattr(compiled, "demangled", lambda names: iter(names))
    (row,) = compiled.rows_of(Path("x.cu"), "80", tmp_path, {ONE: 4096})
    assert list(row.values()) == [f"`{ONE}`", 96, 16, 5120, 0, 2, 1, 0, 4]


def test_the_shared_memory_of_every_kernel_is_listed(tmp_path: Path) -> None:
    if shutil.which("g++") is None or shutil.which("c++filt") is None:
        pytest.skip("it needs g++ and c++filt")
    found = compiled.dynamic_shared_memory(tmp_path)
    names = dict(zip(demangled([*found]), found.values(), strict=True))
    assert {name.partition("<")[0] for name in names} >= {
        "fused_mma_kernel", "fused_wgmma_kernel", "coefficients_kernel", "gradients_kernel", "fused_streamed_kernel",
        "parts_coefficients_kernel", "parts_gradients_kernel", "mma_coefficients_kernel", "mma_gradients_kernel",
    }  # fmt: skip
    assert len(found) == len(names)
    assert all(0 < size <= 227 * 1024 for size in found.values())


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    result = CliRunner().invoke(compiled.main)
    assert result.exit_code == 1
    assert "there is no g++ on PATH" in result.output
