"""The original CCSA experiment, MNIST to USPS, with fastccsa's loss and sampler in a plain training loop.

    git clone https://github.com/samotiian/CCSA
    python examples/digits.py --row-data CCSA/row_data --out digits.json

trains on 2000 labelled MNIST digits and n USPS digits per class (Motiian, Piccirilli, Adjeroh and Doretto, "Unified
Deep Supervised Domain Adaptation and Generalization", ICCV 2017) and prints the accuracy on USPS next to the
published one. Each run gives five figures:

published, best on test    the original protocol: fixed pairs, each batch twice with the streams swapped, the
                           classification loss on the first stream only, and the epoch with the best test accuracy
published, last epoch      the same run, but the last epoch, so that the test set is not used for selection
... without leakage        the same, without the test images that are also training images
PairSampler, ...           pairs drawn by fastccsa.PairSampler instead, with the classification loss on both streams
PairSampler, alpha = 0     the same without alignment: what the labelled images contribute on their own

Finished runs are kept in --out; running the same command again does the remaining ones.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from digits_data import CLASSES, Digits, read_digits
from run_file import RunFile
from torch import Tensor, nn
from tqdm import tqdm

import fastccsa

BATCH = 256
NEGATIVES = 3  # pairs of different classes for each of one class
MARGIN, ALPHA = 1.0, 0.25

FIGURES = {
    "best_on_test": "published, best on test",
    "last": "published, last epoch",
    "last_unseen": "published, last epoch, without leakage",
    "sampler_unseen": "PairSampler, last step, without leakage",
    "no_alignment_unseen": "PairSampler, alpha = 0, without leakage",
}
LITERATURE = {
    "Motiian et al. 2017 (best on test)": {1: 85.0, 3: 90.1, 5: 92.4, 7: 92.9},
    "re-run by others, without leakage": {1: 89.1, 3: 91.2, 5: 93.8, 7: 94.3},
}


class Network(nn.Module):
    """Two convolutions and three linear layers; the 84 outputs of the second linear layer are the features."""

    def __init__(self) -> None:
        super().__init__()
        # ReLU after max pooling gives the same result as before it, for a quarter of the work.
        self.maps = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.MaxPool2d(2), nn.ReLU())
        self.features = nn.Sequential(
            nn.Dropout(0.25), nn.Flatten(), nn.Linear(32 * 6 * 6, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()
        )
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(84, CLASSES))
        for layer in self.modules():
            if isinstance(layer, (nn.Conv2d, nn.Linear)):  # as in Keras, which the original used
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.bias)
        self.to(memory_format=torch.channels_last)

    def forward(self, images: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        """Compute logits [B, 10] and features [B, 84] of ``images[index]``.

        A batch contains each of the few target images many times. Each goes through the convolutions only once, because
        its copies only differ in the dropout that follows.
        """
        distinct, copies = index.unique(return_inverse=True)
        features = self.features(self.maps(images[distinct])[copies])
        return self.head(features).float(), features.float()


Batches = Iterable[tuple[Tensor, Tensor]]


class PublishedPairs:
    """All pairs of one class and three times as many others, drawn once; each epoch uses every pair in both orders."""

    def __init__(self, digits: Digits, seed: int) -> None:
        rng = np.random.default_rng(seed)
        same = digits.source_labels[:, None] == digits.target_labels[None]
        positives, negatives = same.nonzero().numpy(), (~same).nonzero().numpy()
        negatives = rng.permutation(negatives)[: NEGATIVES * len(positives)]
        pairs = torch.from_numpy(rng.permutation(np.concatenate([positives, negatives])))
        self.first, self.second = pairs[:, 0], pairs[:, 1] + len(digits.source)

    def __len__(self) -> int:
        return 2 * (len(self.first) // BATCH)  # the original drops the last pairs too

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for begin in range(0, len(self.first) - BATCH + 1, BATCH):
            first, second = self.first[begin : begin + BATCH], self.second[begin : begin + BATCH]
            yield first, second
            yield second, first


def sampled_pairs(digits: Digits, steps: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the first `steps` batches of fastccsa's sampler."""
    labels = torch.cat([digits.source_labels, digits.target_labels])
    domains = torch.arange(len(labels)) >= len(digits.source_labels)
    sampler = fastccsa.PairSampler(labels, domains.long(), num_classes=CLASSES, batch_size=BATCH, seed=seed)
    for step in range(steps):
        index1, index2 = sampler.batch(*divmod(step, len(sampler)))
        yield torch.from_numpy(index1), torch.from_numpy(index2)


class Trainer:
    """Network, loss and optimiser, with the images of both domains."""

    def __init__(self, digits: Digits, loss_fn: nn.Module, seed: int, amp: bool) -> None:
        torch.manual_seed(seed)
        self.images = torch.cat([digits.source, digits.target])
        self.labels = torch.cat([digits.source_labels, digits.target_labels])
        self.loss_fn = loss_fn
        self.network = Network()
        self.optimizer = torch.optim.Adadelta(self.network.parameters(), lr=1.0, rho=0.95, eps=1e-8)
        self.amp = amp

    def train(self, batches: Batches, progress: tqdm) -> None:
        """Take one step per batch."""
        self.network.train()
        for index1, index2 in batches:
            self.step(index1, index2)
            progress.update()

    def step(self, index1: Tensor, index2: Tensor) -> tuple[Tensor, ...]:
        """Take a step on the pairs (index1[i], index2[i]) and return the arguments of the loss."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.amp):
            logits, features = self.network(self.images, torch.cat([index1, index2]))
        arguments = (*logits.chunk(2), *features.chunk(2), self.labels[index1], self.labels[index2])
        loss = self.loss_fn(*arguments)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return arguments

    @torch.no_grad()
    def right(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return which images are classified correctly, bool [n]."""
        self.network.eval()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.amp):
            logits, _ = self.network(images, torch.arange(len(images)))
        return logits.argmax(1) == labels

    def loss_share(self, batches: Batches, steps: int = 30) -> float:
        """Measure the share of the loss, forward and backward, in the CPU time of a step, in further training steps."""
        self.network.train()
        in_step = in_loss = 0.0
        for (index1, index2), _ in zip(batches, range(steps), strict=False):
            begin = time.process_time()
            *outputs, target1, target2 = self.step(index1, index2)
            end = time.process_time()
            outputs = [x.detach().requires_grad_() for x in outputs]
            begin_loss = time.process_time()
            self.loss_fn(*outputs, target1, target2).backward()
            in_loss += time.process_time() - begin_loss
            in_step += end - begin
        return in_loss / in_step


def run(digits: Digits, seed: int, *, epochs: int, sampler_steps: int, amp: bool, label: str) -> dict[str, float]:
    """Compute all figures of one split, accuracies in percent."""
    unseen = digits.unseen()

    def percent(right: Tensor) -> float:
        return 100 * right.double().mean().item()

    # The original classifies only the first stream; since the streams are swapped, each is the first one once.
    first_only = fastccsa.WeightedCCSALoss(class_weight2=torch.zeros(CLASSES), margin=MARGIN, alpha=ALPHA)
    trainer, pairs = Trainer(digits, first_only, seed, amp), PublishedPairs(digits, seed)
    began = time.process_time()
    by_epoch = []
    with tqdm(total=epochs * len(pairs), desc=f"{label} published", unit="step", disable=None) as progress:
        for _ in range(epochs):
            trainer.train(pairs, progress)
            by_epoch.append(trainer.right(digits.test, digits.test_labels))
    figures = {
        "best_on_test": max(map(percent, by_epoch)),
        "last": percent(by_epoch[-1]),
        "last_unseen": percent(by_epoch[-1][unseen]),
        "leaked": int((~unseen).sum()),
        "steps": epochs * len(pairs),
        "processor_seconds": time.process_time() - began,
        "loss_share": trainer.loss_share(pairs),
    }
    for key, alpha in (("sampler_unseen", ALPHA), ("no_alignment_unseen", 0.0)):
        trainer = Trainer(digits, fastccsa.WeightedCCSALoss(margin=MARGIN, alpha=alpha), seed, amp)
        with tqdm(total=sampler_steps, desc=f"{label} {key.partition('_')[0]}", unit="step", disable=None) as progress:
            trainer.train(sampled_pairs(digits, sampler_steps, seed), progress)
        figures[key] = percent(trainer.right(digits.test, digits.test_labels)[unseen])
    return figures


def mean_and_error(values: list[float]) -> str:
    """Format the mean with its standard error, which needs at least two values."""
    if not values:
        return "not measured"
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values) / math.sqrt(len(values)):.1f}"


def table(runs: list[dict[str, Any]]) -> str:
    """Format a Markdown table with one column per n."""
    per_class = sorted({run["n"] for run in runs})

    def row(name: str, cell: Callable[[int], str]) -> str:
        return f"| {name} | " + " | ".join(cell(n) for n in per_class) + " |"

    def measured(key: str, n: int) -> list[float]:
        return [run[key] for run in runs if run["n"] == n]

    lines = [row("accuracy on USPS, %", lambda n: f"n = {n}"), "|---|" + "---|" * len(per_class)]
    for name, figures in LITERATURE.items():
        lines.append(row(name, lambda n, figures=figures: str(figures.get(n, ""))))
    for key, name in FIGURES.items():
        lines.append(row(name, lambda n, key=key: mean_and_error(measured(key, n))))
    lines.append(row("repetitions", lambda n: str(len(measured("last", n)))))
    lines.append(row("loss, % of a step's processor time", lambda n: mean_and_error(
        [100 * share for share in measured("loss_share", n)])))  # fmt: skip
    lines.append(row("processor time of the published protocol, s", lambda n: mean_and_error(
        measured("processor_seconds", n))))  # fmt: skip
    return "\n".join(lines)


def arguments(argv: list[str] | None) -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--row-data", type=Path, required=True, help="folder of the published npy files")
    parser.add_argument("--out", type=Path, default=Path("digits.json"), help="results (default: digits.json)")
    parser.add_argument("--n", type=int, nargs="+", default=[1, 3, 5, 7], help="labelled target images per class")
    parser.add_argument(
        "--repetitions", type=int, nargs="+", default=list(range(10)), help="repetitions to run (default: 0 to 9)"
    )
    parser.add_argument("--epochs", type=int, default=80, help="epochs of the published protocol (default: 80)")
    parser.add_argument("--sampler-steps", type=int, default=2000, help="steps with PairSampler (default: 2000)")
    parser.add_argument("--amp", action="store_true", help="run the layers in bfloat16, the loss in float32")
    return parser, parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Do the runs that are not yet in --out, and print the table."""
    parser, args = arguments(argv)
    settings = {"epochs": args.epochs, "sampler_steps": args.sampler_steps, "amp": args.amp}
    try:
        kept = RunFile(args.out, settings)
        done = {(run["n"], run["repetition"]) for run in kept.runs}
        # Repetition by repetition, so that the results form a complete table at any time.
        todo = [(n, repetition) for repetition in args.repetitions for n in args.n if (n, repetition) not in done]
        for n, repetition in todo:
            read_digits(args.row_data, n, repetition)  # reports a missing file before any work
        for n, repetition in todo:
            digits = read_digits(args.row_data, n, repetition)
            label = f"n={n} repetition={repetition}"
            figures = run(digits, repetition, **settings, label=label)
            kept.add({"n": n, "repetition": repetition, **figures})
    except fastccsa.InputError as error:
        parser.error(str(error))
    print(table(kept.runs))


if __name__ == "__main__":
    main()
