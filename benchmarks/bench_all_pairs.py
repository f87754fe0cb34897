"""What the loss over all pairs costs, forward and backward, beside the dense products that anything else needs.

    python benchmarks/bench_all_pairs.py                                   4096 x 4096 pairs of width 512
    python benchmarks/bench_all_pairs.py --rows 65536 --width 128 --contenders fastccsa --rounds 1
    python benchmarks/bench_all_pairs.py --hard                            errors on near pairs, side by side

Contenders, taken in turn within each round, so that a change of the machine's pace meets all of them:
    products   three products of matrices of that size: A B^T, K B, K^T A; the floor of every dense method
    fastccsa   contrastive_alignment(pairs="all")
    eager      torch.cdist and autograd
    compile    the same, |a|^2 + |b|^2 - 2ab, under torch.compile
    chunked    eager in chunks of rows with checkpointing: the matrix is never whole
Labels: "uniform" draws 7 classes alike, "table1" as often as they occur in the paper's Table 1. One line of JSON a
contender: median and least seconds, the least against that of `products`, and the process's peak of memory above
what it held before (one contender a run gives each its own).
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from fastccsa import functional, reference
from fastccsa.data.taxonomy import TABLE1

MARGIN = 30.0


def labels_of(mix: str, rows: int) -> Tensor:
    if mix == "uniform":
        return torch.randint(7, (rows,))
    counts = torch.tensor([sum(domain[c] for domain in TABLE1.values()) for c in next(iter(TABLE1.values()))])
    return torch.multinomial(counts.double(), rows, replacement=True)


def dense(distance: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """The loss from a whole matrix of distances."""

    def loss(a: Tensor, b: Tensor, y1: Tensor, y2: Tensor) -> Tensor:
        d = distance(a, b)
        same = y1[:, None] == y2
        return torch.where(same, d.square(), (MARGIN - d).clamp(min=0).square()).mean()

    return loss


def by_norms(a: Tensor, b: Tensor) -> Tensor:
    squares = a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.t()
    return squares.clamp(min=1e-12).sqrt()


def chunked(a: Tensor, b: Tensor, y1: Tensor, y2: Tensor, rows: int = 512) -> Tensor:
    parts = [
        checkpoint(dense(torch.cdist), x, b, y, y2, use_reentrant=False) * len(x)
        for x, y in zip(a.split(rows), y1.split(rows), strict=True)
    ]
    return torch.stack(parts).sum() / len(a)


def products(a: Tensor, b: Tensor) -> Callable[[], None]:
    a, b = a.detach(), b.detach()
    matrix, grad_a, grad_b = a.new_empty(len(a), len(b)), torch.empty_like(a), torch.empty_like(b)

    def run() -> None:
        torch.mm(a, b.t(), out=matrix)
        torch.mm(matrix, b, out=grad_a)
        torch.mm(matrix.t(), a, out=grad_b)

    return run


def fastccsa_loss(a: Tensor, b: Tensor, y1: Tensor, y2: Tensor) -> Tensor:
    return functional.contrastive_alignment(a, b, y1, y2, margin=MARGIN, pairs="all")


LOSSES: dict[str, Callable[..., Tensor]] = {
    "fastccsa": fastccsa_loss,
    "eager": dense(torch.cdist),
    "compile": torch.compile(dense(by_norms), dynamic=False),
    "chunked": chunked,
}


def contender(name: str, a: Tensor, b: Tensor, y1: Tensor, y2: Tensor) -> Callable[[], object]:
    if name == "products":
        return products(a, b)
    return lambda: torch.autograd.grad(LOSSES[name](a, b, y1, y2), (a, b))


def finish(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def peak(device: str) -> int:
    """Bytes at the highest point so far."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(arguments: argparse.Namespace, mix: str) -> None:
    torch.manual_seed(0)
    shape = (arguments.rows, arguments.width)
    # Distances spread around the margin: some pairs push, some do not.
    a, b = (torch.randn(shape, device=arguments.device).mul_(MARGIN / (2 * shape[1]) ** 0.5) for _ in "12")
    a.requires_grad_(), b.requires_grad_()
    y1, y2 = (labels_of(mix, arguments.rows).to(arguments.device) for _ in "12")
    before = peak(arguments.device)
    runs = {name: contender(name, a, b, y1, y2) for name in arguments.contenders}
    if arguments.rounds > 1:
        for run in runs.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(arguments.rounds):
        for name, run in runs.items():
            finish(arguments.device)
            start = time.perf_counter()
            run()
            finish(arguments.device)
            seconds[name].append(time.perf_counter() - start)
    floor = min(seconds.get("products", [float("nan")]))
    for name, times in seconds.items():
        line = {"labels": mix, "rows": shape[0], "width": shape[1], "contender": name}
        line |= {"median_s": round(statistics.median(times), 4), "least_s": round(min(times), 4)}
        line |= {"of_products": round(min(times) / floor, 3) if "products" in seconds else None}
        if len(runs) == 1:
            line["peak_extra_mib"] = (peak(arguments.device) - before) >> 20
        print(json.dumps(line), flush=True)


def hard_cases(device: str) -> None:
    """Relative errors of loss and gradient in float32 where points are near each other and far from the origin."""
    torch.manual_seed(0)
    place = torch.randn(256, 128, dtype=torch.float64)
    place *= 1e3 / place.norm(dim=1, keepdim=True)
    for distance in (10.0, 1e-1, 1e-3):
        step = torch.randn_like(place)
        z1, z2 = place[:1] + 0 * place, place[:1] + distance * step / step.norm(dim=1, keepdim=True)
        y1, y2 = (torch.full((256,), k, device=device) for k in (0, 1))
        leaves = [z.float().to(device).requires_grad_() for z in (z1, z2)]
        exact = [z.detach().double().requires_grad_() for z in leaves]
        true = reference.contrastive_alignment(*exact, y1, y2, margin=MARGIN, pairs="all")
        truth = torch.autograd.grad(true, exact)[1]
        for name, loss in {**LOSSES, "differences": differences}.items():
            value = loss(*leaves, y1, y2)
            gradient = torch.autograd.grad(value, leaves)[1]
            errors = {
                "loss": abs(value.item() - true.item()) / true.item(),
                "gradient": ((gradient.double() - truth).norm() / truth.norm()).item(),
            }
            print(json.dumps({"norm": 1e3, "distance": distance, "contender": name, "error": errors}), flush=True)


def differences(a: Tensor, b: Tensor, y1: Tensor, y2: Tensor) -> Tensor:
    return reference.contrastive_alignment(a, b, y1, y2, margin=MARGIN, pairs="all")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--labels", nargs="+", default=["uniform", "table1"], choices=["uniform", "table1"])
    parser.add_argument("--contenders", nargs="+", default=["products", "fastccsa", "eager", "compile"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--hard", action="store_true", help="errors instead of times")
    arguments = parser.parse_args()
    unknown = set(arguments.contenders) - {"products", *LOSSES}
    if unknown:
        parser.error(f"--contenders: {sorted(unknown)} unknown; choose from products, {', '.join(LOSSES)}")
    torch.set_num_threads(arguments.threads)
    if arguments.hard:
        hard_cases(arguments.device)
        return
    for mix in arguments.labels:
        measure(arguments, mix)


if __name__ == "__main__":
    main()
