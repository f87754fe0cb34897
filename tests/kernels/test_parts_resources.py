"""What the compilers make of the kernels that multiply float32 features in parts: registers, and spilled values."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest
from filelock import FileLock

from .programs import CSRC
from .test_resources import ARCHITECTURE, NVCC_OPTIONS

NAMES = {(name, parts) for name in ("coefficients", "gradients") for parts in (1, 2, 3)}
# Bytes that a kernel may store to local memory for want of registers, by nvcc 13.0; 0 for all others.
# 44. A thread keeps 64 products, 64 sums and, for a slab, 32 more.
SPILLS = {("coefficients", 3): 48}


@pytest.fixture(scope="session")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The compiler's report on parts.cu, compiled once for all workers."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("there is no nvcc on PATH")
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    target, report = folder / "parts.o", folder / "parts.txt"
    architecture = f"-gencode=arch=compute_{ARCHITECTURE},code=sm_{ARCHITECTURE}"
    command = (nvcc, *NVCC_OPTIONS, f"-I{CSRC}", "-DFASTCCSA_HOPPER=1", architecture, "-Xptxas=-v", "-c")
    with FileLock(folder / "parts.lock"):
        if not report.exists():
            source = CSRC / "all_pairs/cuda/fused/parts.cu"
            done = subprocess.run([*command, source, "-o", target], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
            report.write_text(done.stdout + done.stderr)
    return report.read_text()


def test_no_remark_of_the_compiler(report: str) -> None:
    """It reports products that it cannot run at the same time as other work: then they are many times slower."""
    assert not re.search(r"\bC7\d\d\d\b|performance loss|serialized", report, re.IGNORECASE)


def test_registers(report: str) -> None:
    """A block of three warpgroups fits, and values are spilled within limits."""
    found = set()
    for block in report.split("Compiling entry function '")[1:]:
        match = re.search(r"parts_(coefficients|gradients)_kernelI.*?PartsI.*?Li(\d)E", block.split("'", 1)[0])
        key = match[1], int(match[2])
        (registers,), (spilled,) = (
            re.findall(r"Used (\d+) registers", block),
            re.findall(r"(\d+) bytes spill stores", block),
        )
        found.add(key)
        assert int(spilled) <= SPILLS.get(key, 0), key
        assert -(-int(registers) // 8) * 8 * 384 <= 65536, key
    assert found == NAMES
