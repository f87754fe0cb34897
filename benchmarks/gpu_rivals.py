"""The loss over all pairs on a GPU beside what users could take instead: forward and both gradients, what they call.

    python -m benchmarks.gpu_rivals                                     # about a minute; most of it compiles
    python -m benchmarks.gpu_rivals -n 65536 -d 2048 --out rivals.jsonl

fastccsa has weights of pairs (all 1), which the others do not compute. "siglip-kernel" is the nearest public relative,
with a loss of its own: SigLIP+ is a sigmoid loss over all pairs, those of one class being positive, so the two jobs
differ only in what happens to a dot product. Lines are like those of `gpu_probe`: ``wall`` is the time of a plain call,
and ``gpu`` that of a CUDA graph's replay, for what can be captured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, get_args

import click
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from benchmarks import gpu_probe as probe
from benchmarks.gpu_probe import MARGIN, Call, Report
from benchmarks.harness.benchmark import CannotRun
from benchmarks.losses.all_pairs_contestants import lazy_loss, lazy_tensor
from fastccsa import functional
from fastccsa.collections.taxonomy import CLASSES
from fastccsa.ops.choices import Precision

Loss = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
ROWS, WIDTHS = (1024, 4096, 16384, 65536), (512,)
CHUNK = 4096  # rows at a time of the chunked rival
DENSE_ROWS, LAZY_ROWS = 16384, 4096  # up to which whole matrices of pairs fit, and KeOps takes seconds at most


# ---- contestants ----


def dense(a: Tensor, b: Tensor, y1: Tensor, y2: Tensor) -> Tensor:
    """Compute the mean over all pairs in plain PyTorch: the product in the features' dtype, the rest in float32."""
    return dense_sum(a, b, y1, y2) / (len(a) * len(b))


def dense_sum(a: Tensor, b: Tensor, y1: Tensor, y2: Tensor) -> Tensor:
    norms = a.float().square().sum(1)[:, None] + b.float().square().sum(1)
    squared = (norms - 2 * (a @ b.t()).float()).clamp_min(1e-12)
    gap = (MARGIN - squared.sqrt()).clamp_min(0)
    return torch.where(y1[:, None] == y2, squared, gap * gap).sum()


def chunked(a: Tensor, b: Tensor, y1: Tensor, y2: Tensor) -> Tensor:
    """The same for some rows at a time, which are computed again for the gradients."""
    chunks = zip(a.split(CHUNK), y1.split(CHUNK), strict=True)
    sums = [checkpoint(dense_sum, x, b, y, y2, use_reentrant=False) for x, y in chunks]
    return torch.stack(sums).sum() / (len(a) * len(b))


def keops() -> Loss:
    """Return the same by KeOps, which multiplies in float32."""
    lazy_tensor()
    return lambda a, b, y1, y2: lazy_loss(a.float(), b.float(), y1, y2, MARGIN)


def siglip_plus() -> Loss:
    """Return SigLIP+ with the temperature and the bias of its documentation, which are not trained here."""
    try:
        from siglip_kernel import fused_siglip_plus_loss
    except ImportError as error:
        raise CannotRun("not installed: pip install siglip-kernel") from error
    temperature, bias = (torch.tensor(value, device=probe.DEVICE) for value in (2.302, -10.0))

    def loss(a: Tensor, b: Tensor, y1: Tensor, y2: Tensor) -> Tensor:
        return fused_siglip_plus_loss(a, b, temperature, bias, y1, y2, num_groups=len(CLASSES))  # type: ignore[no-any-return]

    return loss


def ours(precision: Precision = "ieee") -> Loss:
    weight = torch.ones(len(CLASSES), len(CLASSES), device=probe.DEVICE)

    def loss(a: Tensor, b: Tensor, y1: Tensor, y2: Tensor) -> Tensor:
        return functional.contrastive_alignment(a, b, y1, y2, weight, MARGIN, "all", precision=precision)

    return loss


def of_bfloat16(rows: int) -> Iterator[tuple[str, Callable[[], Loss]]]:
    """List the contestants for bfloat16 features: their names, and what makes them."""
    yield "fastccsa", ours
    if rows <= DENSE_ROWS:
        yield "torch.compile", lambda: torch.compile(dense)
        yield "torch.compile, CUDA graphs", lambda: torch.compile(dense, mode="reduce-overhead")
        yield "eager", lambda: dense
    yield f"eager, {CHUNK} rows at a time", lambda: chunked
    if rows <= LAZY_ROWS:
        yield "KeOps, float32", keops
    yield "siglip-kernel, another loss", siglip_plus


def of_float32(rows: int) -> Iterator[tuple[str, Callable[[], Loss]]]:
    """List the contestants for float32 features. PyTorch's products are TF32 while these run."""
    for precision in get_args(Precision):
        yield f"fastccsa, {precision}", partial(ours, precision)
    if rows <= DENSE_ROWS:
        yield "torch.compile, TF32", lambda: torch.compile(dense)
        yield "torch.compile, TF32, CUDA graphs", lambda: torch.compile(dense, mode="reduce-overhead")
    yield f"eager, TF32, {CHUNK} rows at a time", lambda: chunked


# ---- times ----


def with_gradients(loss: Callable[..., Tensor], a: Tensor, b: Tensor, *rest: Any) -> Call:
    """Return a call of a loss, forward and backward."""

    def call() -> object:
        torch.compiler.cudagraph_mark_step_begin()  # so that torch.compile's graphs may reuse their memory
        return torch.autograd.grad(loss(a, b, *rest), (a, b))

    return call


@contextmanager
def tf32_products() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def compare(report: Report, rows: int, width: int) -> None:
    """Report wall time, memory and GPU time of each contestant for both dtypes."""
    for dtype, contestants in ((torch.bfloat16, of_bfloat16), (torch.float32, of_float32)):
        a, b, y1, y2 = probe.make_sides((rows, rows), "uniform", dtype, width)
        a.requires_grad_(), b.requires_grad_()
        for name, make in contestants(rows):
            title = f"{rows}x{rows}x{width} {str(dtype).removeprefix('torch.')} {name}"
            with tf32_products(), report.attempt("rivals", title):
                call = with_gradients(make(), a, b, y1, y2)
                report("rivals", title, wall_ms=probe.wall_ms(call, 10), peak_mib=probe.peak_mib(call))
                if "CUDA graphs" not in name:
                    report("rivals", title, gpu_ms=probe.gpu_ms(call, 10))


@click.command(help=(__doc__ or "").split("\n")[0])
@click.option("rows", "-n", "--rows", multiple=True, type=click.IntRange(min=1), default=ROWS, show_default=True)
@click.option("widths", "-d", "--width", multiple=True, type=click.IntRange(min=1), default=WIDTHS, show_default=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File to append the records to.")
def main(rows: tuple[int, ...], widths: tuple[int, ...], out: Path | None) -> None:
    """Measure all contestants for these rows on each side, and columns of the features."""
    report = probe.begin(out)
    for width in widths:
        for count in rows:
            compare(report, count, width)


if __name__ == "__main__":
    main()
