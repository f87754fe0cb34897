"""Times of the loss's kernels on a GPU in seconds, for machines that are lent for minutes.

    python -m benchmarks.gpu_probe                      # everything, about a minute
    python -m benchmarks.gpu_probe all-pairs float32 --out probe.jsonl

Each part prints a line per figure as soon as it has it, and appends a record to ``--out``, so that a run that is cut
off loses nothing. ``gpu`` is the time of the GPU: the median of replays of a CUDA graph, without the host. ``wall`` is
the median of plain calls with a synchronisation before and after each. Every run first measures the rates to compare
with: cuBLAS's bfloat16 and TF32 products of 16,384 x 16,384 x 512, and a copy of 1 GiB (bytes read and written).

The kernels are called by name, by the op's argument ``method``; `gpu_rivals` and ``fastccsa bench`` measure what users
call, beside rivals.
"""

from __future__ import annotations

import itertools
import json
import math
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any, get_args

import click
import torch
from torch import Tensor

from benchmarks.harness.graphs import captured
from fastccsa import functional
from fastccsa.collections.taxonomy import CLASSES, TABLE1
from fastccsa.ops import zipped as zipped_op
from fastccsa.ops.choices import Precision

DEVICE = "cuda"
WIDTH, MARGIN, VENDOR_ROWS = 512, 2.0, 16384
MIXES = {
    "uniform": [1] * len(CLASSES),
    "table1": [sum(domain[name] for domain in TABLE1.values()) for name in CLASSES],
}
SQUARES = [128, 256, 512, 1024, 2048, 4096, 16384, 65536]  # both sides have gradients
AGAINST_A_MEMORY = [32, 256]  # rows; only they have a gradient
MEMORY = 65536
# As given and by class: kernels that store coefficients, and one that does not; and by class without wgmma.
FUSED = ("stored", "stored_sorted", "fused", "fused_sorted", "fused_mma_sorted")
UNSORTED_MMA = ("fused_mma",)
STREAMED = ("streamed",)  # for few rows, only which have a gradient
FLOAT32_SIZES = [
    (512, 512, 3), (1024, 1024, 3), (4096, 4096, 3), (16384, 16384, 3), (32, MEMORY, 1), (MEMORY, MEMORY, 3),
]  # fmt: skip
# On Hopper GPUs, kernels that store coefficients; on others, "stored" is the same as "products".
FLOAT32 = ("stored", "products")
PRODUCTS_OF_PARTS = {"ieee": 6, "bf16x3": 3, "tf32": 1}
ERROR_ROWS = 2048
ERROR_WIDTHS = (2048, 776, 512, 500, 256, 128, 100, 20)
ERROR_SHAPES, ERROR_MARGIN = ((700, 1300), (1501, 333), (64, 5000)), 1.45
# Other widths: of ResNet-50 and of embeddings. The kernels that store coefficients, and cuBLAS's products.
WIDTHS_OF_16_BITS, WIDTHS_OF_FLOAT32, WIDE_ROWS = (768, 1024, 2048), (128, 1024, 2048), (256, 4096, 16384)
WIDE = ("stored", "stored_sorted", "products")
ZIPPED_ROWS = [32, 4096, 65536, 262144]
PROFILED = [
    (1024, 1024, 3, "stored"), (4096, 4096, 3, "stored"), (16384, 16384, 3, "stored_sorted"),
    (32, MEMORY, 1, "streamed"), (MEMORY, MEMORY, 3, "stored_sorted"),
]  # fmt: skip
FLOAT32_PROFILED = 16384  # rows of both sides
MANY_PAIRS = 1 << 30  # measured with fewer replays, and without CUDA graphs in float32, whose memory they would hold
FEW_PAIRS = 1 << 18  # up to which pairs are also computed from differences

Call = Callable[[], object]


class Report:
    """Prints figures, and appends them to a file, one record per line."""

    def __init__(self, out: Path | None) -> None:
        self.out, self.start = out, perf_counter()

    def __call__(self, part: str, name: str, **figures: Any) -> None:
        shown = " ".join(f"{key} {_shown(value)}" for key, value in figures.items())
        print(f"{part:10s} {name:44s} {shown}", flush=True)
        if self.out is not None:
            with self.out.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"part": part, "name": name, **figures}) + "\n")

    @contextmanager
    def attempt(self, part: str, name: str) -> Iterator[None]:
        """Report an error instead of ending the run."""
        try:
            yield
        except Exception as error:
            self(part, name, failed=f"{type(error).__name__}: {error}"[:300])


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


# ---- times ----


def events_ms(call: Call, count: int) -> float:
    """Return the median time of a call in milliseconds, by events on the stream."""
    pairs = [tuple(torch.cuda.Event(enable_timing=True) for _ in range(2)) for _ in range(count)]
    for begin, end in pairs:
        begin.record()
        call()
        end.record()
    torch.cuda.synchronize()
    return statistics.median(begin.elapsed_time(end) for begin, end in pairs)


def gpu_ms(call: Call, count: int = 20) -> float:
    """Return the time of a call on the GPU in milliseconds: replays of a CUDA graph."""
    replay = captured(call)
    replay()
    return events_ms(replay, count)


def wall_ms(call: Call, count: int = 10) -> float:
    """Return the time of a plain call in milliseconds, until the GPU has finished."""
    for _ in range(3):
        call()
    times = []
    for _ in range(count):
        torch.cuda.synchronize()
        start = perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(perf_counter() - start)
    return statistics.median(times) * 1e3


def peak_mib(call: Call) -> float:
    """Return the most memory that a call holds beyond its inputs, results included, in MiB."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


# ---- data ----


def make_labels(rows: int, mix: Sequence[int]) -> Tensor:
    """Make shuffled labels whose classes are as frequent as in a mix; what rounding leaves goes to the largest."""
    counts = [rows * share // sum(mix) for share in mix]
    counts[max(range(len(mix)), key=lambda k: mix[k])] += rows - sum(counts)
    labels = torch.repeat_interleave(torch.arange(len(mix)), torch.tensor(counts))
    return labels[torch.randperm(rows)].to(DEVICE)


def make_sides(rows: Sequence[int], mix: str, dtype: torch.dtype, width: int = WIDTH) -> tuple[Tensor, ...]:
    """Make the features and labels of both sides. Distances of pairs are near the square root of 2."""
    features = ((torch.randn(n, width, device=DEVICE) / math.sqrt(width)).to(dtype) for n in rows)
    return (*features, *(make_labels(n, MIXES[mix]) for n in rows))


def all_pairs_call(sides: tuple[Tensor, ...], method: str, gradients: int = 3, precision: str = "ieee") -> Call:
    """Return a call of the op: the loss, and the gradients of the sides whose bits are set."""
    op = torch.ops.fastccsa.all_pairs.default
    return lambda: op(
        *sides, None, labels=len(CLASSES), margin=MARGIN, mean=True, output_mask=gradients, per_term=False,
        precision=precision, method=method,
    )  # fmt: skip


def sizes() -> Iterator[tuple[int, int, int]]:
    """List the sizes of both sides, and the gradients' bits."""
    yield from ((n, n, 3) for n in SQUARES)
    yield from ((n, MEMORY, 1) for n in AGAINST_A_MEMORY)


# ---- parts ----


def rates(report: Report) -> None:
    """Measure what the hardware does with the vendor's products, and with a copy."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    for name, dtype in (("bfloat16", torch.bfloat16), ("TF32", torch.float32)):
        x = torch.randn(VENDOR_ROWS, WIDTH, device=DEVICE, dtype=dtype)
        product = torch.empty(len(x), len(x), device=DEVICE, dtype=dtype)
        ms = gpu_ms(lambda x=x, product=product: torch.mm(x, x.t(), out=product))  # type: ignore[misc]
        size = f"{VENDOR_ROWS}x{VENDOR_ROWS}x{WIDTH}"
        report("rates", f"cuBLAS {name} {size}", gpu_ms=ms, tflops=2 * len(x) ** 2 * WIDTH / ms / 1e9)
    torch.set_float32_matmul_precision(before)
    source = torch.empty(1 << 28, device=DEVICE)
    target = torch.empty_like(source)
    ms = gpu_ms(lambda: target.copy_(source))
    report("rates", "copy of 1 GiB", gpu_ms=ms, tb_per_s=2 * source.nbytes / ms / 1e9)


def all_pairs(report: Report) -> None:
    """Measure the loss over all pairs of bfloat16 features, by each kernel."""
    for rows, columns, gradients in sizes():
        for mix in MIXES:
            pairs = rows * columns
            if mix == "table1" and min(rows, columns) < 1024:
                continue  # the order by class, and so the mix, matters only for many pairs
            sides = make_sides((rows, columns), mix, torch.bfloat16)
            methods = (*FUSED, "direct") if pairs <= FEW_PAIRS else FUSED
            for method in methods if gradients == 3 else (*STREAMED, *methods):
                name = f"{rows}x{columns} {mix} {method}"
                with report.attempt("all-pairs", name):
                    call = all_pairs_call(sides, method, gradients)
                    ms = gpu_ms(call, 10 if pairs >= MANY_PAIRS else 30)
                    # Kernels that store nothing compute the first product for each side.
                    products = 2 if gradients != 3 else 3 if method.startswith(("stored", "direct")) else 4
                    report(
                        "all-pairs", name, gpu_ms=ms, wall_ms=wall_ms(call), peak_mib=peak_mib(call),
                        tflops_dense=products * 2 * WIDTH * pairs / ms / 1e9,
                    )  # fmt: skip


def wide(report: Report) -> None:
    """Measure the loss over all pairs of features of other widths."""
    for width, rows, method in itertools.product(WIDTHS_OF_16_BITS, WIDE_ROWS, WIDE):
        sides = make_sides((rows, rows), "uniform", torch.bfloat16, width)
        name = f"{rows}x{rows}x{width} bfloat16 {method}"
        with report.attempt("wide", name):
            ms = gpu_ms(all_pairs_call(sides, method), 10)
            report("wide", name, gpu_ms=ms, tflops_of_three=3 * 2 * width * rows**2 / ms / 1e9)
    for width, rows, precision, method in itertools.product(
        WIDTHS_OF_FLOAT32, WIDE_ROWS, get_args(Precision), FLOAT32
    ):  # fmt: skip
        sides = make_sides((rows, rows), "uniform", torch.float32, width)
        name = f"{rows}x{rows}x{width} {precision} {method}"
        with report.attempt("wide", name):
            report("wide", name, gpu_ms=gpu_ms(all_pairs_call(sides, method, 3, precision), 5))


def errors(report: Report) -> None:
    """Compare gradients and loss of 16-bit features with float64, by each kernel: the largest relative errors."""
    for dtype in (torch.bfloat16, torch.float16):
        worst = {method: {"gradient": 0.0, "loss": 0.0} for method in (*FUSED, *UNSORTED_MMA)}
        for width, (rows, columns), weighted in itertools.product(ERROR_WIDTHS, ERROR_SHAPES, (False, True)):
            a, b = (torch.randn(n, width, device=DEVICE) / math.sqrt(width) + 0.05 for n in (rows, columns))
            y = [make_labels(n, MIXES["table1"]) for n in (rows, columns)]
            weight = torch.rand(len(CLASSES), len(CLASSES), device=DEVICE) + 0.1 if weighted else None
            z = a.to(dtype), b.to(dtype)
            loss, gradients = _exact(z, y, weight, ERROR_MARGIN)
            for method, found in worst.items():
                result = torch.ops.fastccsa.all_pairs.default(
                    *z, *y, weight, labels=len(CLASSES), margin=ERROR_MARGIN, mean=False, output_mask=3, per_term=False,
                    precision="ieee", method=method,
                )  # fmt: skip
                found["loss"] = max(found["loss"], abs(float(result[0]) - loss) / loss)
                for its, exact in zip(result[2:], gradients, strict=True):
                    found["gradient"] = max(found["gradient"], float((its[0] - exact).norm() / exact.norm()))
        for method, found in worst.items():
            report("errors", f"{str(dtype).removeprefix('torch.')} {method}", **found)


def _exact(
    z: Sequence[Tensor], y: Sequence[Tensor], weight: Tensor | None, margin: float
) -> tuple[float, tuple[Tensor, ...]]:
    """Return the sum over all pairs, and both gradients, in float64."""
    a, b = (side.double().requires_grad_() for side in z)
    squared = (a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.t()).clamp_min(1e-30)
    gap = (margin - squared.sqrt()).clamp_min(0)
    pairs = torch.where(y[0][:, None] == y[1], squared, gap.square())
    loss = (pairs if weight is None else pairs * weight.double()[y[0]][:, y[1]]).sum()
    return float(loss.detach()), torch.autograd.grad(loss, (a, b))


def float32(report: Report) -> None:
    """Measure the loss over all pairs of float32 features, by precision: first errors, then times."""
    _float32_errors(report)
    for rows, columns, gradients in FLOAT32_SIZES:
        sides = make_sides((rows, columns), "uniform", torch.float32)
        for precision, method in itertools.product(get_args(Precision), FLOAT32):
            name = f"{rows}x{columns} {precision} {method}"
            with report.attempt("float32", name):
                call = all_pairs_call(sides, method, gradients, precision)
                many = rows * columns >= MANY_PAIRS
                if many:
                    call()
                ms = events_ms(call, 2) if many else gpu_ms(call, 10)
                flops = (3 if gradients == 3 else 2) * PRODUCTS_OF_PARTS[precision] * 2 * WIDTH * rows * columns
                wall = {} if many else {"wall_ms": wall_ms(call)}
                report("float32", name, gpu_ms=ms, tflops_of_parts=flops / ms / 1e9, peak_mib=peak_mib(call), **wall)


def _float32_errors(report: Report) -> None:
    """Compare with float64 on two clusters: plain differences in float32, then each precision."""
    rows, margin, part = ERROR_ROWS, 60.0, 64
    random = torch.Generator(DEVICE).manual_seed(0)
    centres = torch.randn(2, WIDTH, device=DEVICE, generator=random)
    y1, y2 = (torch.randint(2, (rows,), device=DEVICE, generator=random) for _ in range(2))
    a, b = (centres[y] + 0.5 * torch.randn(rows, WIDTH, device=DEVICE, generator=random) for y in (y1, y2))

    def by_differences(dtype: torch.dtype) -> tuple[float, Tensor]:
        loss, gradient = 0.0, []
        for some, labels in zip(a.to(dtype).split(part), y1.split(part), strict=True):
            differences = some[:, None] - b.to(dtype)
            distance, same = differences.square().sum(-1).sqrt(), labels[:, None] == y2
            gap = (margin - distance).clamp_min(0)
            factor = torch.where(same, 2.0, -2 * gap / distance)
            loss += float(torch.where(same, distance.square(), gap.square()).double().sum())
            gradient.append((factor[:, :, None] * differences).sum(1))
        return loss, torch.cat(gradient).double()

    loss, gradient = by_differences(torch.float64)

    def show(name: str, its_loss: float, its_gradient: Tensor) -> None:
        error = float((its_gradient - gradient).norm() / gradient.norm())
        report("float32", f"error, {name}", gradient=error, loss=abs(its_loss - loss) / loss)

    show("differences in float32", *by_differences(torch.float32))
    for precision, method in itertools.product(get_args(Precision), FLOAT32):
        with report.attempt("float32", f"error, {precision} {method}"):
            result = torch.ops.fastccsa.all_pairs.default(
                a, b, y1, y2, None, labels=2, margin=margin, mean=False, output_mask=3, per_term=False,
                precision=precision, method=method,
            )  # fmt: skip
            show(f"{precision} {method}", float(result[0]), result[2][0].double())


def zipped(report: Report) -> None:
    """Measure the zipped pair terms, forward and both gradients, beside a copy of as many bytes as two passes move."""
    weight = torch.ones(len(CLASSES), len(CLASSES), device=DEVICE)
    for rows in ZIPPED_ROWS:
        for dtype in (torch.float32, torch.bfloat16):
            a, b, y1, y2 = make_sides((rows, rows), "uniform", dtype)
            a.requires_grad_(), b.requires_grad_()

            def call(a: Tensor = a, b: Tensor = b, y1: Tensor = y1, y2: Tensor = y2) -> object:
                loss = functional.contrastive_alignment(a, b, y1, y2, weight, 40.0)
                return torch.autograd.grad(loss, (a, b))

            size = f"{rows} {str(dtype).removeprefix('torch.')}"
            for name, leave_from in (("", zipped_op.LEAVE_GRADIENTS_FROM), (", two passes", sys.maxsize)):
                if name and rows < zipped_op.LEAVE_GRADIENTS_FROM:
                    continue
                with report.attempt("zipped", size + name), _leaving_gradients_from(leave_from):
                    report("zipped", size + name, gpu_ms=gpu_ms(call), wall_ms=wall_ms(call))
            # Two passes read the features twice and write gradients: six matrices of N x D, so a copy of three.
            source = torch.empty(3 * rows * WIDTH, device=DEVICE, dtype=dtype)
            target = torch.empty_like(source)
            ms = gpu_ms(lambda source=source, target=target: target.copy_(source))  # type: ignore[misc]
            report("zipped", f"{size}, copy", gpu_ms=ms, tb_per_s=2 * source.nbytes / ms / 1e9)


@contextmanager
def _leaving_gradients_from(rows: int) -> Iterator[None]:
    before = zipped_op.LEAVE_GRADIENTS_FROM
    zipped_op.LEAVE_GRADIENTS_FROM = rows
    try:
        yield
    finally:
        zipped_op.LEAVE_GRADIENTS_FROM = before


def profile(report: Report) -> None:
    """Measure the time of each kernel within a call, and the rate of those that multiply every pair."""
    for rows, columns, gradients, method in PROFILED:
        call = all_pairs_call(make_sides((rows, columns), "uniform", torch.bfloat16), method, gradients)
        _profile_kernels(report, f"{rows}x{columns} {method}", call, 2 * WIDTH * rows * columns, gradients)
    sides = make_sides((FLOAT32_PROFILED, FLOAT32_PROFILED), "uniform", torch.float32)
    for precision in get_args(Precision):
        call = all_pairs_call(sides, "stored", 3, precision)
        flops = PRODUCTS_OF_PARTS[precision] * 2 * WIDTH * FLOAT32_PROFILED**2
        _profile_kernels(report, f"{FLOAT32_PROFILED}x{FLOAT32_PROFILED} float32 {precision} stored", call, flops, 3)


def _profile_kernels(report: Report, name: str, call: Call, flops: int, gradients: int, repeats: int = 5) -> None:
    # How many products of all pairs a kernel computes. Sorted rows leave out some, so theirs is the rate of dense ones.
    products = {"coefficients_kernel": 1, "gradients_kernel": 2 if gradients == 3 else 1, "streamed_kernel": 2}
    for _ in range(3):
        call()
    torch.cuda.synchronize()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as found:
        for _ in range(repeats):
            call()
        torch.cuda.synchronize()
    kernels = [event for event in found.key_averages() if event.device_time_total > 0]
    for event in sorted(kernels, key=lambda event: -event.device_time_total):
        kernel = event.key.removeprefix("void ").replace("fastccsa::all_pairs::cuda::", "").partition("<")[0]
        ms = event.device_time_total / repeats / 1e3
        rates = [count * flops / ms / 1e9 for ending, count in products.items() if kernel.endswith(ending)]
        report("profile", f"{name}: {kernel}", gpu_ms=ms, **({"tflops_dense": rates[0]} if rates else {}))


PARTS: dict[str, Callable[[Report], None]] = {
    "all-pairs": all_pairs,
    "wide": wide,
    "errors": errors,
    "float32": float32,
    "zipped": zipped,
    "profile": profile,
}


@click.command(help=(__doc__ or "").split("\n")[0])
@click.argument("parts", nargs=-1, type=click.Choice([*PARTS]))
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File to append the records to.")
@click.option("--fits", is_flag=True, help="Only check that the library runs on this GPU; fails if it does not.")
def main(parts: tuple[str, ...], out: Path | None, fits: bool) -> None:
    """Measure some parts, by default all of them."""
    if fits:
        require_gpu()
        return check_library()
    report = begin(out)
    for part in parts or PARTS:
        PARTS[part](report)
        report("seconds", part, since_start=perf_counter() - report.start)


def require_gpu() -> None:
    if not torch.cuda.is_available():
        raise click.ClickException(f"torch {torch.__version__} sees no GPU, and everything here is measured on one")


def begin(out: Path | None) -> Report:
    """Start a report with the machine and its rates."""
    require_gpu()
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
    report = Report(out)
    report("machine", torch.cuda.get_device_name(), torch=torch.__version__, python=sys.version.split()[0])
    rates(report)
    return report


def check_library() -> None:
    """Run a kernel of each kind once, which fails where the library has no code for the GPU."""
    sides = make_sides((300, 300), "uniform", torch.bfloat16)
    try:
        for method in ("direct", "products", "fused_sorted"):
            all_pairs_call(sides, method)()
        torch.cuda.synchronize()
    except RuntimeError as error:
        raise click.ClickException(f"the library does not run on this GPU: {error}") from error
    print(f"the library runs on {torch.cuda.get_device_name()}")


if __name__ == "__main__":
    main()
