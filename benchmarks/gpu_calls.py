"""Small calls on a GPU: one for each kernel of the zipped loss and of all pairs, for compute-sanitizer.

PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --kernel-name kns=fastccsa python benchmarks/gpu_calls.py
"""

from __future__ import annotations

import itertools

import torch

from fastccsa import functional, reference

ALL_PAIRS_SIZES = [(1, 1, 1), (33, 70, 33), (64, 48, 512), (300, 400, 33)]  # rows of both sides, width
SIZES = [(1, 1, 1), (5, 7, 33), (40, 7, 512), (9, 1000, 2048), (2100, 3, 16)]  # pairs, classes, width
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 3e-2}

Tensors = tuple[torch.Tensor, ...]


def call(pairs: int, classes: int, width: int, dtype: torch.dtype, reduction: str, strided: bool) -> None:
    """Forward and backward, compared with plain PyTorch."""
    random = torch.Generator().manual_seed(pairs + width)
    step = 2 if strided else 1

    def normal(columns: int) -> torch.Tensor:
        values = torch.randn(pairs, step * columns, generator=random).to("cuda", dtype)
        return values[:, ::step].detach().requires_grad_()

    inputs = (normal(classes), normal(classes), normal(width), normal(width))
    targets = torch.randint(classes, (2, pairs), generator=random).cuda()
    acc = torch.float64 if dtype == torch.float64 else torch.float32
    shapes = ((classes,), (classes,), (classes, classes))
    weights = [torch.rand(*shape, generator=random).to("cuda", acc) for shape in shapes]
    loss = functional.weighted_ccsa_loss(*inputs, *targets, *weights, margin=20.0, reduction=reduction)
    gradients = torch.autograd.grad(loss.sum(), inputs)

    exact = tuple(x.detach().double().requires_grad_() for x in inputs)
    true = reference.weighted_ccsa_loss(
        *exact, *targets, *(w.double() for w in weights), margin=20.0, reduction=reduction
    )
    wanted = (true, *torch.autograd.grad(true.sum(), exact))
    compare((loss, *gradients), wanted, dtype, f"{(pairs, classes, width, dtype, reduction, strided)}")


def call_all_pairs(rows1: int, rows2: int, width: int, dtype: torch.dtype, strided: bool) -> None:
    """The same of every row with every row."""
    random = torch.Generator().manual_seed(rows1 + width)
    step = 2 if strided else 1
    values = (torch.randn(n, step * width, generator=random).to("cuda", dtype)[:, ::step] for n in (rows1, rows2))
    inputs = tuple(z.detach().requires_grad_() for z in values)
    targets = [torch.randint(7, (n,), generator=random).cuda() for n in (rows1, rows2)]
    weight = torch.rand(7, 7, generator=random, dtype=torch.float64).cuda()
    loss = functional.contrastive_alignment(*inputs, *targets, weight, margin=20.0, pairs="all")
    exact = tuple(z.detach().double().requires_grad_() for z in inputs)
    true = reference.contrastive_alignment(*exact, *targets, weight, margin=20.0, pairs="all")
    wanted = (true, *torch.autograd.grad(true, exact))
    compare((loss, *torch.autograd.grad(loss, inputs)), wanted, dtype, f"all pairs, {(rows1, rows2, width, dtype)}")


def compare(found: Tensors, wanted: Tensors, dtype: torch.dtype, what: str) -> None:
    """Errors relative to the largest value."""
    for got, true in zip(found, wanted, strict=True):
        error = (got.double() - true).abs().max() / true.abs().max().clamp(min=1e-30)
        assert error < TOLERANCE[dtype], f"{what}: error {error:.1e}"


def main() -> None:
    count = 0
    for size, dtype, strided in itertools.product(SIZES, TOLERANCE, (False, True)):
        for reduction in ("mean", "none") if size == SIZES[1] else ("mean",):
            call(*size, dtype, reduction, strided)
            count += 1
    for size, dtype, strided in itertools.product(ALL_PAIRS_SIZES, TOLERANCE, (False, True)):
        call_all_pairs(*size, dtype, strided)
        count += 1
    torch.cuda.synchronize()
    print(f"{count} calls on {torch.cuda.get_device_name()}, all right")


if __name__ == "__main__":
    main()
