"""An embedding trained with the loss over all pairs and a memory of past features, with torch.compile and DDP.

    python examples/metric_learning.py
    torchrun --standalone --nproc-per-node 2 examples/metric_learning.py

Trains on two thirds of scikit-learn's digits, each placed at random in a larger noisy image, and prints recall@1 before
and after: how often the training image nearest to a test image shows the same digit. Each step compares a batch with
the last 512 images of all processes. The processes share the batch, so the steps are the same with any number of
them.
"""

from __future__ import annotations

import argparse
import os

import numpy as np
import torch
import torch.distributed as dist
import torch.distributed.nn  # before there is a group, which its default arguments would keep alive, with its threads
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from tqdm import tqdm

import fastccsa
from fastccsa.functional import contrastive_alignment

DIGITS = 10
TRAINING = 1200  # of 1797 images
WIDTH = 32
MARGIN = 1.0


class Embedding(nn.Module):
    """Maps [N, 1, 14, 14] images to [N, WIDTH] points on the unit sphere."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 32, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(256, WIDTH),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """Embed images; see the class."""
        return nn.functional.normalize(self.layers(images), dim=1)


def read_images() -> tuple[Tensor, Tensor]:
    """Place each 8x8 digit of scikit-learn at random in a noisy image: [n, 1, 14, 14], and labels [n]."""
    data = load_digits()
    random = np.random.default_rng(0)
    images = 0.3 * random.random((len(data.images), 1, 14, 14), dtype=np.float32)
    for image, digit, (row, column) in zip(images, data.images, random.integers(0, 7, (len(images), 2)), strict=True):
        image[0, row : row + 8, column : column + 8] += 0.7 * digit / 16
    return torch.from_numpy(images), torch.from_numpy(data.target).long()


def balance(probability: Tensor) -> Tensor:
    """Compute weights [C, C] that give pairs of one class as much total weight as others; the expected weight is 1."""
    same = probability.square().sum()
    weight = torch.full((len(probability), len(probability)), float(0.5 / (1 - same)))
    return weight.fill_diagonal_(float(0.5 / same))


@torch.no_grad()
def recall_at_1(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Compute how often the training image nearest to a test image has its label, in percent."""
    points = network(images)
    nearest = torch.cdist(points[TRAINING:], points[:TRAINING]).argmin(1)
    return 100 * (labels[nearest] == labels[TRAINING:]).double().mean().item()


def train(args: argparse.Namespace, rank: int, world_size: int, device: torch.device) -> dict[str, float]:
    """Train on this process's share; return the last loss, averaged over processes, and recall@1 before and after."""
    images, labels = (x.to(device) for x in read_images())
    torch.manual_seed(0)
    embedding = Embedding().to(device)
    before = recall_at_1(embedding, images, labels)
    network = DistributedDataParallel(embedding) if world_size > 1 else embedding
    network = torch.compile(network, backend=args.backend)
    # dynamic: the same graph for every length of the memory while it fills.
    pair_loss = torch.compile(contrastive_alignment, backend=args.backend, fullgraph=True, dynamic=True)

    sampler = fastccsa.ImageSampler(
        labels[:TRAINING],
        num_classes=DIGITS,
        batch_size=args.batch // world_size,
        rank=rank,
        world_size=world_size,
        drop_last=True,
    )
    weight = balance(torch.from_numpy(sampler.probabilities()).float()).to(device)
    memory = fastccsa.FeatureMemory(capacity=512, width=WIDTH).to(device)
    group = dist.group.WORLD if world_size > 1 else None
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    for step in tqdm(range(args.steps), unit="step", disable=True if rank else None):
        index = torch.from_numpy(sampler.batch(*divmod(step, len(sampler)))).to(device)
        points, target = network(images[index]), labels[index]
        # Pushed first, so that the batch is also compared with itself. An image and its copy are at distance 0, where
        # the gradient is 0.
        memory.push(points, target, torch.zeros_like(target), group=group)
        loss = pair_loss(points, memory.features, target, memory.labels, pair_weight=weight, margin=MARGIN, pairs="all")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    last, after = loss.detach(), recall_at_1(embedding, images, labels)
    if world_size > 1:
        dist.all_reduce(last)  # at the end, so that no process exits while another still needs it
        last /= world_size
    return {"loss": last.item(), "before": before, "after": after}


def main(argv: list[str] | None = None) -> None:
    """Train in one process, or as one of torchrun's processes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--steps", type=int, default=600, help="training steps (default: 600)")
    parser.add_argument("--batch", type=int, default=64, help="images per step, over all processes (default: 64)")
    parser.add_argument("--backend", default="inductor", help="backend of torch.compile (default: inductor)")
    args = parser.parse_args(argv)
    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if args.steps < 1 or args.batch < world_size or args.batch % world_size:
        parser.error(f"--steps must be 1 or more, --batch a multiple of the number of processes ({world_size})")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if torch.cuda.is_available() else "cpu"
    if world_size > 1:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        figures = train(args, rank, world_size, torch.device(device))
    finally:
        if world_size > 1:
            dist.destroy_process_group()
    if rank == 0:
        print(f"loss after {args.steps} steps: {figures['loss']:.6f}")
        print(f"recall@1 on images never trained on: {figures['before']:.1f} % before, {figures['after']:.1f} % after")


if __name__ == "__main__":
    main()
