"""The precision of float32 products: each choice on each device, independent of torch's own settings."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import torch

import fastccsa
from fastccsa import functional
from fastccsa.ops.choices import Precision


@pytest.mark.parametrize("precision", get_args(Precision))
def test_the_cpu_multiplies_exactly_with_every_precision(make_sets, precision: str) -> None:
    sets = make_sets(200, 300)
    arguments = (*sets.leaves, sets.y1, sets.y2, sets.weight, 12.0, "all", "mean")
    loss, exact = functional.contrastive_alignment(*arguments, precision), sets.loss()
    assert torch.equal(loss, exact)
    for a, b in zip(*(torch.autograd.grad(x, sets.leaves) for x in (loss, exact)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.cuda
@pytest.mark.parametrize(("precision", "largest"), [("ieee", 4e-6), ("bf16x3", 4e-5), ("tf32", 1e-2)])
def test_precisions_on_tensor_cores(make_sets, precision: str, largest: float) -> None:
    sets = make_sets(300, 400, width=512, device="cuda")
    exact = sets.to(torch.float64)
    loss = functional.contrastive_alignment(
        *sets.leaves, sets.y1, sets.y2, sets.weight, 12.0, "all", precision=precision
    )
    true = torch.autograd.grad(exact.loss(), exact.leaves)
    for gradient, expected in zip(torch.autograd.grad(loss, sets.leaves), true, strict=True):
        assert (gradient - expected).abs().max() <= largest * expected.abs().max()


@pytest.mark.cuda
@pytest.mark.parametrize("setting", ["ieee", "tf32"])
def test_torchs_setting_does_not_matter_on_cuda(make_sets, setting: str) -> None:
    sets = make_sets(300, 400, width=512, device="cuda")
    expected = torch.autograd.grad(sets.loss(), sets.leaves)
    before = torch.backends.cuda.matmul.fp32_precision
    try:
        torch.backends.cuda.matmul.fp32_precision = setting
        found = torch.autograd.grad(sets.loss(), sets.leaves)
    finally:
        torch.backends.cuda.matmul.fp32_precision = before
    assert all(map(torch.equal, found, expected))


# Once fp32_precision is set, reading allow_tf32 raises.
AFTER_THE_SETTING = """
import sys, torch
from fastccsa import functional
torch.backends.cuda.matmul.fp32_precision = sys.argv[1]
for rows in (20, 300):
    z1, z2 = (torch.randn(rows, 8, requires_grad=True) for _ in "12")
    y1, y2 = torch.randint(3, (2, rows))
    for precision in ("ieee", "bf16x3", "tf32"):
        functional.contrastive_alignment(z1, z2, y1, y2, pairs="all", precision=precision).backward()
assert torch.backends.cuda.matmul.fp32_precision == sys.argv[1]
"""


@pytest.mark.parametrize("setting", ["ieee", "tf32"])
def test_torch_keeps_its_setting(setting: str) -> None:
    done = subprocess.run([sys.executable, "-c", AFTER_THE_SETTING, setting], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_code_uses_torchs_settings_of_products() -> None:
    """They apply to the whole process, so they are the user's. The op passes its precision with each product."""
    package = Path(fastccsa.__file__).parent
    sources = list(package.rglob("*.py"))
    assert len(sources) > 50
    for path in sources:
        text = path.read_text()
        for setting in ("allow_tf32", "fp32_precision", "set_float32_matmul_precision"):
            assert setting not in text, f"{path} mentions {setting}"


LOOKED_UP = """
import ctypes, torch
library = ctypes.CDLL("libtorch_cuda.so")
for name in ("GemmEx", "GemmStridedBatchedEx", "GetMathMode", "SetMathMode"):
    getattr(library, "cublas" + name)
library.torch_get_current_cuda_blas_handle
"""


@pytest.mark.skipif(torch.version.cuda is None, reason="torch without CUDA")
def test_torch_has_loaded_the_functions_that_the_op_looks_up() -> None:
    """csrc/core/torch_blas.h finds them in torch's CUDA library, or in the libraries that it depends on."""
    done = subprocess.run([sys.executable, "-c", LOOKED_UP], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
