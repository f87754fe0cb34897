"""The memory of a call in addition to its inputs, even if every pair is computed from its rows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

LIMIT = 64 * 2**20

# Prints the peak of the process during the call, as the kernel counts pages. Torch and its threads are loaded before.
ONE_CALL = """
import sys, torch
from pathlib import Path
from fastccsa import functional
dtype, spread = getattr(torch, sys.argv[1]), float(sys.argv[2])
torch.set_num_threads(2)
def call(rows):
    random = torch.Generator().manual_seed(0)
    # Two places, so that the common centre is near neither of them; almost all rows are at one place.
    z = spread * torch.randn(2, rows, 4, generator=random, dtype=torch.float64) + 1
    z = torch.cat([z[:, :-2], z.new_tensor([-1.0]).expand(2, 2, 4) * rows], 1).to(dtype)
    y = torch.zeros(2, rows, dtype=torch.int64)
    y[1] = 1
    z1, z2 = (x.clone().requires_grad_() for x in z)
    functional.contrastive_alignment(z1, z2, *y, None, 1.0, "all").backward()
def kibibytes(key):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(key))
    return int(line.split()[1])
call(64)
Path("/proc/self/clear_refs").write_text("5")
before = kibibytes("VmRSS")
call(3000)
print(1024 * (kibibytes("VmHWM") - before))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux")
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("spread", [1e-6, 1.0], ids=["every pair near", "few pairs near"])
def test_a_call_takes_at_most_64_mib(dtype: str, spread: float) -> None:
    call = [sys.executable, "-c", ONE_CALL, dtype, str(spread)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=300)
    if "PermissionError" in done.stderr:
        pytest.skip("the peak memory of a process cannot be reset here")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= LIMIT
