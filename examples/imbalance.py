"""The contributions of inverse-probability weights and of the pair sampler when one domain is long-tailed.

    python examples/imbalance.py                                  # scikit-learn's digits, nothing to download
    python examples/imbalance.py --row-data CCSA/row_data         # MNIST to USPS (github.com/samotiian/CCSA)

The first domain has every digit about equally often. The training images of the second domain are long-tailed: 60 of
its most common digit, one of its rarest; each seed draws anew which digits are common. Its test images are not
long-tailed. The network is trained in four ways, with and without weights, on pairs from fastccsa.PairSampler or on
uniform pairs, and scored by the macro-average recall on the second domain. Finished runs are kept in --out; running the
same command again does the remaining ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from digits import Network, mean_and_error
from digits_data import CLASSES, read_digits
from run_file import RunFile
from torch import Tensor
from tqdm import tqdm

import fastccsa

COMMONEST, RAREST = 60, 1  # training images of the second domain's classes
TAIL = 5  # classes that count as rare
BATCH = 64
MARGIN, ALPHA = 1.0, 0.25
WAYS = [(weighted, sampled) for sampled in (False, True) for weighted in (False, True)]


@dataclass(frozen=True)
class Problem:
    """Training images of both domains, and test images of the second. [n, 1, 16, 16] float32 in [0, 1]."""

    images: Tensor
    labels: Tensor
    domains: Tensor
    test: Tensor
    test_labels: Tensor
    rare: Tensor  # the classes with the fewest images in the second domain


def long_tailed(source: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor], seed: int) -> Problem:
    """Hold out half of the target's images of each class for testing; train on a long tail of the others."""
    generator = torch.Generator().manual_seed(seed)
    common_first = torch.randperm(CLASSES, generator=generator)
    counts = np.geomspace(COMMONEST, RAREST, CLASSES).round().astype(int)
    images, labels = target
    train, test = [], []
    for digit, count in zip(common_first.tolist(), counts, strict=True):
        here = (labels == digit).nonzero().squeeze(1)
        here = here[torch.randperm(len(here), generator=generator)]
        half = len(here) // 2
        train.append(here[half : half + count])
        test.append(here[:half])
    chosen, held_out = torch.cat(train), torch.cat(test)
    return Problem(
        torch.cat([source[0], images[chosen]]),
        torch.cat([source[1], labels[chosen]]),
        torch.cat([torch.zeros(len(source[1])), torch.ones(len(chosen))]).long(),
        images[held_out],
        labels[held_out],
        common_first[-TAIL:],
    )


def published(folder: Path, seed: int) -> Problem:
    """Build the problem from MNIST, and from USPS made long-tailed."""
    digits = read_digits(folder, per_class=1, repetition=seed)
    return long_tailed((digits.source, digits.source_labels), (digits.test, digits.test_labels), seed)


def bundled(seed: int) -> Problem:
    """Build it from scikit-learn's digits: 600 unchanged; the others long-tailed, and altered as by another scanner."""
    from sklearn.datasets import load_digits

    data = load_digits()
    images = torch.from_numpy(data.images).float()[:, None].div(16)
    images = images.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)  # 8x8 to 16x16
    labels = torch.from_numpy(data.target).long()
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=generator)
    source, target = order[:600], order[600:]
    noise = torch.rand(len(target), 1, 16, 16, generator=generator)
    other = 0.7 * (1 - images[target].roll(1, dims=2)) + 0.3 * noise  # inverted, one pixel lower, noisy
    return long_tailed((images[source], labels[source]), (other, labels[target]), seed)


Batch = Callable[[int], tuple[Tensor, Tensor]]


def dynamic_pairs(problem: Problem, seed: int) -> tuple[Batch, tuple[Any, ...]]:
    """Return batches of fastccsa.PairSampler by step, and its P(y1), P(y2) and P(y1, y2)."""
    sampler = fastccsa.PairSampler(
        problem.labels, problem.domains, num_classes=CLASSES, batch_size=BATCH, seed=seed, drop_last=True
    )

    def batch(step: int) -> tuple[Tensor, Tensor]:
        index1, index2 = sampler.batch(*divmod(step, len(sampler)))
        return torch.from_numpy(index1), torch.from_numpy(index2)

    return batch, tuple(sampler.probabilities())


def uniform_pairs(problem: Problem, seed: int) -> tuple[Batch, tuple[Any, ...]]:
    """Return batches that pair any image with any image of the second domain, and their three probabilities."""
    generator = torch.Generator().manual_seed(seed)
    second_domain = (problem.domains == 1).nonzero().squeeze(1)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        index1 = torch.randint(len(problem.labels), (BATCH,), generator=generator)
        index2 = torch.randint(len(second_domain), (BATCH,), generator=generator)
        return index1, second_domain[index2]

    first, second = (
        torch.bincount(labels, minlength=CLASSES).double() / len(labels)
        for labels in (problem.labels, problem.labels[second_domain])
    )
    return batch, (first, second, torch.outer(first, second))


def train(problem: Problem, *, weighted: bool, sampled: bool, steps: int, seed: int) -> Network:
    """Train a network in one of the four ways."""
    batch, probabilities = (dynamic_pairs if sampled else uniform_pairs)(problem, seed)
    weights = [torch.as_tensor(fastccsa.inverse_probability(p)).float() for p in probabilities] if weighted else []
    loss_fn = fastccsa.WeightedCCSALoss(*weights, margin=MARGIN, alpha=ALPHA)
    torch.manual_seed(seed)
    network = Network()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for step in range(steps):
        index1, index2 = batch(step)
        logits, features = network(problem.images, torch.cat([index1, index2]))
        loss = loss_fn(*logits.chunk(2), *features.chunk(2), problem.labels[index1], problem.labels[index2])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network


@torch.no_grad()
def recalls(network: Network, images: Tensor, labels: Tensor) -> Tensor:
    """Compute the recall of each class in percent, [C]."""
    logits, _ = network.eval()(images, torch.arange(len(images)))
    right = logits.argmax(1) == labels
    return torch.stack([100 * right[labels == c].double().mean() for c in range(CLASSES)])


def table(runs: list[dict[str, Any]]) -> str:
    """Format a Markdown table; gains are relative to the run of the same seed without weights and sampler."""

    def of(key: str, weighted: bool, sampled: bool) -> list[float]:
        return [run[key] for run in runs if (run["weighted"], run["sampled"]) == (weighted, sampled)]

    lines = [
        f"| weights | pairs | macro-average recall, % | gain | recall of the {TAIL} rarest, % | gain |",
        "|---|---|---|---|---|---|",
    ]
    for weighted, sampled in WAYS:
        cells = ["inverse probability" if weighted else "none", "PairSampler" if sampled else "uniform"]
        for key in ("macro", "rare"):
            values, plain = of(key, weighted, sampled), of(key, False, False)
            gains = [value - base for value, base in zip(values, plain, strict=True)]
            cells += [mean_and_error(values), mean_and_error(gains) if weighted or sampled else ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Train in all four ways for each seed, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--row-data", type=Path, help="folder of the published npy files (default: bundled digits)")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)), help="seeds to run (default: 0 to 4)")
    parser.add_argument("--steps", type=int, default=1000, help="training steps (default: 1000)")
    parser.add_argument("--out", type=Path, help="keep the results in this JSON file")
    args = parser.parse_args(argv)
    settings = {"steps": args.steps, "data": "MNIST to USPS" if args.row_data else "scikit-learn's digits"}
    try:
        kept = RunFile(args.out, settings)
        done = {(run["seed"], run["weighted"], run["sampled"]) for run in kept.runs}
        problems = {seed: published(args.row_data, seed) if args.row_data else bundled(seed) for seed in args.seeds}
        todo = [(seed, *way) for seed in args.seeds for way in WAYS if (seed, *way) not in done]
        for seed, weighted, sampled in tqdm(todo, unit="run", disable=None):
            problem = problems[seed]
            network = train(problem, weighted=weighted, sampled=sampled, steps=args.steps, seed=seed)
            recall = recalls(network, problem.test, problem.test_labels)
            figures = {"macro": recall.mean().item(), "rare": recall[problem.rare].mean().item()}
            kept.add({"seed": seed, "weighted": weighted, "sampled": sampled, **figures})
    except fastccsa.InputError as error:
        parser.error(str(error))
    print(table(kept.runs))


if __name__ == "__main__":
    main()
