"""The emulator's tensor cores and asynchronous copies compute matrix products, and their faults are found."""

from __future__ import annotations

import os
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from .cases import ORDERS, SANITIZER_OPTIONS
from .programs import Builder

ROWS, INNER = 64, 64
DTYPES = (torch.bfloat16, torch.float16)
KERNELS = [
    *(("warps_k", columns) for columns in (64, 128)),
    ("stored_k", 64),
    *(("warps_mn", columns) for columns in (64, 256)),
    *(("wgmma_k", columns) for columns in (64, 128)),
    *((name, columns) for name in ("wgmma_mn", "wgmma_mn_mn", "wgmma_registers") for columns in (64, 128, 256)),
    ("two_groups_k", 128),
]


@pytest.fixture(scope="module")
def program(builder: Builder) -> Path:
    return builder.emulated("run_tensor_core", builder.memory_or_plain())


@pytest.fixture(scope="module")
def program_for_races(builder: Builder) -> Path:
    return builder.emulated("run_tensor_core", builder.races())


@dataclass(frozen=True)
class Product:
    """D = A B^T or A B, plus a shift of each row; A has up to 64 rows, and beyond them D is 0.

    One kernel takes A by its columns, all 64 rows of it.
    """

    kernel: str
    columns: int
    dtype: torch.dtype = torch.bfloat16
    rows: int = 50

    def matrices(self) -> tuple[Tensor, Tensor, Tensor]:
        random = torch.Generator().manual_seed(self.columns)
        by_rows = self.kernel.endswith("_k")
        a = torch.randn(self.given_rows, INNER, generator=random).to(self.dtype)
        b = torch.randn((self.columns, INNER) if by_rows else (INNER, self.columns), generator=random).to(self.dtype)
        return a, b, torch.randn(self.given_rows, generator=random)

    @property
    def by_columns(self) -> bool:
        return self.kernel == "wgmma_mn_mn"

    @property
    def given_rows(self) -> int:
        return ROWS if self.by_columns else self.rows

    def run(self, program: Path, fault: str = "none", order: str = "forward") -> subprocess.CompletedProcess[bytes]:
        a, b, shift = self.matrices()
        a = a.T if self.by_columns else a
        dtype = str(self.dtype).removeprefix("torch.")
        command = [program, self.kernel, str(self.columns), fault, str(ORDERS.index(order))]
        command.insert(2, dtype)
        content = b"".join(x.contiguous().view(torch.uint8).numpy().tobytes() for x in (a, b, shift))
        request = struct.pack("<q", self.given_rows) + content
        return subprocess.run(command, input=request, capture_output=True, env={**os.environ, **SANITIZER_OPTIONS})

    def excess(self, done: subprocess.CompletedProcess[bytes]) -> float:
        """Return the largest error in units of its bound: a rounding for each of the 64 sums of products."""
        assert done.returncode == 0, done.stderr.decode()[:4000]
        d = torch.frombuffer(bytearray(done.stdout[8:]), dtype=torch.float32).view(ROWS, self.columns).double()
        a, b, shift = (x.double() for x in self.matrices())
        b = b.T if self.kernel.endswith("_k") else b
        exact, magnitude = torch.zeros(2, ROWS, self.columns, dtype=torch.float64)
        exact[: self.given_rows] = a @ b + shift[:, None]
        magnitude[: self.given_rows] = a.abs() @ b.abs() + shift.abs()[:, None]
        bound = (INNER + 1) * torch.finfo(torch.float32).eps / 2 * magnitude
        error = (d - exact).abs()
        assert not (error[self.given_rows :] > 0).any()
        return (error[: self.given_rows] / bound[: self.given_rows]).nan_to_num(torch.inf).max().item()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("kernel", "columns"), KERNELS)
def test_products_are_those_of_float64(program: Path, kernel: str, columns: int, dtype: torch.dtype) -> None:
    product = Product(kernel, columns, dtype)
    done = product.run(program)
    assert product.excess(done) <= 1
    for order in ORDERS[1:]:
        assert product.run(program, order=order).stdout == done.stdout


WRONG = [
    ("warps_k", 64, "wait_for_copies"),
    ("warps_k", 64, "barrier_after_copies"),
    ("warps_k", 64, "commit_copies"),
    ("wgmma_k", 64, "wait_for_copies"),
    ("wgmma_mn", 128, "wgmma_commit"),
    ("wgmma_registers", 256, "wgmma_wait"),
    ("wgmma_mn", 64, "barrier_before_overwriting"),
]


@pytest.mark.parametrize(("kernel", "columns", "fault"), WRONG)
def test_results_are_wrong_if_something_is_missing(program: Path, kernel: str, columns: int, fault: str) -> None:
    product = Product(kernel, columns)
    assert max(product.excess(product.run(program, fault, order)) for order in ORDERS) > 1


ERRORS = [
    ("wgmma_fence", "wgmma_fence() must precede the first product"),
    ("one_warp", "the warps of a warpgroup started different numbers of products"),
    ("bounds", "is not that of 16 aligned bytes in dynamic shared memory"),
]


@pytest.mark.parametrize(("fault", "message"), ERRORS)
def test_errors_of_products(program: Path, fault: str, message: str) -> None:
    done = Product("wgmma_mn", 64).run(program, fault)
    assert done.returncode == 1
    assert message in done.stderr.decode()


@pytest.mark.parametrize(
    ("kernel", "fault"),
    [
        ("warps_k", "barrier_after_copies"),
        ("wgmma_k", "barrier_after_copies"),
        ("wgmma_mn", "barrier_after_copies"),
        ("wgmma_k", "async_proxy_fence"),
        ("wgmma_mn", "async_proxy_fence"),
        ("wgmma_registers", "async_proxy_fence"),
        ("wgmma_mn", "barrier_before_overwriting"),
    ],
)
def test_races_are_found(program_for_races: Path, kernel: str, fault: str) -> None:
    done = Product(kernel, 64).run(program_for_races, fault)
    assert done.returncode != 0
    assert b"data race" in done.stderr


@pytest.mark.parametrize(("kernel", "columns"), KERNELS)
def test_no_races_are_found_in_correct_kernels(program_for_races: Path, kernel: str, columns: int) -> None:
    product = Product(kernel, columns)
    assert product.excess(product.run(program_for_races)) <= 1


def test_packed_pairs_and_reciprocal_square_roots(builder: Builder) -> None:
    random = torch.Generator().manual_seed(0)
    values = torch.randn(1000, generator=random) * 2.0 ** torch.randint(-30, 18, (1000,), generator=random)
    values[:4] = torch.tensor([0.0, torch.inf, 1e-39, 65520.0])
    program = builder.emulated("pack_pairs", builder.memory_or_plain())
    environment = {**os.environ, **SANITIZER_OPTIONS}
    done = subprocess.run([program], input=values.numpy().tobytes(), capture_output=True, check=True, env=environment)
    parts = torch.frombuffer(bytearray(done.stdout), dtype=torch.int32)[: 2 * 3 * 500].view(2, 500, 3)
    for dtype, pairs in zip(DTYPES, parts, strict=True):
        rounded = values.to(dtype)
        assert torch.equal(pairs[:, 0], rounded.view(torch.int32))
        assert torch.equal(pairs[:, 1:].contiguous().view(torch.float32).flatten(), rounded.float())
    roots = torch.frombuffer(bytearray(done.stdout), dtype=torch.float32)[2 * 3 * 500 :].double()
    assert torch.equal(roots.isnan(), values < 0)
    assert roots[:3].tolist() == [torch.inf, 0, torch.inf]  # of a subnormal number too
    ratio = roots[3:] * values[3:].double().sqrt()
    ratio = ratio[values[3:] > 0]
    assert (ratio - 1).abs().max() <= 2 * torch.finfo(torch.float32).eps
