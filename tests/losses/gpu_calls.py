"""Small calls on a GPU: one for each kernel of the zipped loss and of all pairs, for compute-sanitizer.

PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --kernel-name kns=fastccsa python tests/losses/gpu_calls.py [PART]

Without PART both are called; PART is all-pairs.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable

import torch
from torch import Tensor

from fastccsa import functional, reference

# Rows of both sides, and the width. The last sizes have many pairs: 16-bit features take each of the fused kernels.
ALL_PAIRS_SIZES = [(1, 1, 1), (33, 70, 33), (64, 48, 512), (300, 400, 33), (300, 400, 200), (300, 400, 512)]
ALL_PAIRS_SIZES += [(520, 600, 400)]  # coefficients are stored, those of float32 in parts
ALL_PAIRS_SIZES += [(300, 400, 600)]  # those of wide 16-bit features are stored
MEMORY_SIZES = [(40, 2100, 400), (100, 2100, 512)]  # only the few rows have a gradient, and the many are read once
# Rows sorted by class, of which one has most: methods, and sizes of one and of two parts of the coefficients.
SORTED_METHODS = ("fused_sorted", "stored_sorted", "fused_mma_sorted")
SORTED_SIZES = [(1500, 1400, 400), (700, 900, 776), (400, 16600, 264)]
SORTED_LABELS = torch.tensor([0.7, 0.2, 0.06, 0.03, 0.01])  # shares of the classes
SIZES = [(1, 1, 1), (5, 7, 33), (40, 7, 512), (9, 1000, 2048), (2100, 3, 16)]  # pairs, classes, width
# Many pairs: the forward pass leaves gradients, and rows of float32 take 1, 2 and 4 packs per lane, or are too wide.
SIZES += [(8200, 7, 64), (16500, 20, 200), (8200, 7, 512), (8200, 3, 600)]
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 3e-2}


def check(
    name: str,
    shapes: list[tuple[int, int]],
    classes: int,
    dtype: torch.dtype,
    step: int,
    gradients: int | None = None,
    **options: str,
) -> None:
    """Compare a loss and its gradients with plain PyTorch; every ``step``-th column of a wider tensor is used.

    Only the first ``gradients`` tensors need one; None for all.
    """
    random = torch.Generator().manual_seed(sum(map(sum, shapes)))
    values = (torch.randn(rows, step * columns, generator=random).to("cuda", dtype) for rows, columns in shapes)
    inputs = [z[:, ::step].detach() for z in values]
    with_gradients = slice(gradients)
    targets = [torch.randint(classes, (rows,), generator=random).cuda() for rows, _ in shapes[-2:]]
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    sides = ((classes,), (classes,), (classes, classes))[-1 if len(shapes) == 2 else 0 :]
    weights = [torch.rand(*shape, generator=random).to("cuda", acc) for shape in sides]

    def results(of: object, *arguments: Tensor) -> list[Tensor]:
        loss_of: Callable[..., Tensor] = getattr(of, name)
        features = arguments[: len(inputs)][with_gradients]
        for z in features:
            z.requires_grad_()
        loss = loss_of(*arguments, margin=20.0, **options)
        return [loss, *torch.autograd.grad(loss.sum(), features)]

    exact = [x.double() for x in inputs]
    expected = results(reference, *exact, *targets, *(weight.double() for weight in weights))
    for got, true in zip(results(functional, *inputs, *targets, *weights), expected, strict=True):
        error = (got.double() - true).abs().max() / true.abs().max().clamp(min=1e-30)
        assert error < TOLERANCE[dtype], f"{name}, {shapes}, {dtype}, step {step}, {options}: error {error:.1e}"


def check_sorted(rows1: int, rows2: int, width: int, dtype: torch.dtype, method: str) -> None:
    """Compare the op, by a method, with all pairs in float64."""
    random = torch.Generator().manual_seed(rows1)
    sizes = (rows1, width), (rows2, width)
    z = [(torch.randn(*size, generator=random) / width**0.5).to("cuda", dtype) for size in sizes]
    y = [torch.multinomial(SORTED_LABELS, n, replacement=True, generator=random).cuda() for n in (rows1, rows2)]
    classes, margin = len(SORTED_LABELS), 1.45
    weight = torch.rand(classes, classes, generator=random).cuda()
    loss, _, *gradients = torch.ops.fastccsa.all_pairs(
        *z, *y, weight, labels=classes, margin=margin, mean=True, output_mask=3, per_term=False, precision="ieee",
        method=method,
    )  # fmt: skip
    a, b = exact = [side.double().requires_grad_() for side in z]
    # By products, since differences would take gigabytes; no pairs are near each other.
    squared = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.t()
    gap = (margin - squared.sqrt()).clamp_min(0)
    pairs = torch.where(y[0][:, None] == y[1], squared, gap.square())
    expected = (pairs * weight.double()[y[0]][:, y[1]]).mean()
    for got, true in zip(
        [loss, *(g[0] for g in gradients)], [expected, *torch.autograd.grad(expected, exact)], strict=True
    ):
        error = (got.double() - true).abs().max() / true.abs().max()
        assert error < TOLERANCE[dtype], f"{method}, {sizes}, {dtype}: error {error:.1e}"


def main() -> None:
    count = zipped() if sys.argv[1:] != ["all-pairs"] else 0
    count += all_pairs()
    torch.cuda.synchronize()
    print(f"{count} calls on {torch.cuda.get_device_name()}, all right")


def zipped() -> int:
    count = 0
    for (pairs, classes, width), dtype, step in itertools.product(SIZES, TOLERANCE, (1, 2)):
        for reduction in ("mean", "none") if pairs == 5 else ("mean",):
            shapes = [(pairs, classes)] * 2 + [(pairs, width)] * 2
            check("weighted_ccsa_loss", shapes, classes, dtype, step, reduction=reduction)
            count += 1
    return count


def all_pairs() -> int:
    count = 0
    for (rows1, rows2, width), dtype, step in itertools.product(ALL_PAIRS_SIZES, TOLERANCE, (1, 2)):
        check("contrastive_alignment", [(rows1, width), (rows2, width)], 7, dtype, step, pairs="all")
        count += 1
    for (rows, memory, width), dtype in itertools.product(MEMORY_SIZES, TOLERANCE):
        check("contrastive_alignment", [(rows, width), (memory, width)], 7, dtype, 1, gradients=1, pairs="all")
        count += 1
    for sizes, dtype, method in itertools.product(SORTED_SIZES, (torch.bfloat16, torch.float16), SORTED_METHODS):
        check_sorted(*sizes, dtype, method)
        count += 1
    return count


if __name__ == "__main__":
    main()
