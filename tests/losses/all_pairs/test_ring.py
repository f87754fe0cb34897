"""Several processes: every pair of all ranks' batches, the gradients, and memories that stay equal."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from fastccsa import InputError, distributed, reference

# Sizes differ from rank to rank, and one rank has no second side.
ONE_RANK = """
import sys
import torch, torch.distributed as dist
from fastccsa import FeatureMemory
from fastccsa.losses import distributed
from fastccsa.training.ranks import open_ranks
torch.set_num_threads(1)
folder, device = sys.argv[1:]
largest = []
original = distributed._pass_on
def watched(tensor, rows, group):
    received = original(tensor, rows, group)
    largest.append(received.shape[0])
    return received
distributed._pass_on = watched
def compute(rank):
    found = {}
    inputs = torch.load(f"{folder}/inputs.pt", map_location=device)
    mine = inputs["ranks"][rank]
    for reduction in ("mean", "sum"):
        z1, z2 = (z.requires_grad_() for z in mine[:2])
        loss = distributed.contrastive_alignment(z1, z2, *mine[2:], inputs["weight"], 4.0, reduction)
        found[reduction] = (loss.detach(), *torch.autograd.grad((rank + 1) * loss, (z1, z2)))
    found["largest block"] = max(largest)
    memory = FeatureMemory(capacity=11, width=2).to(device)
    for step in range(3):
        first = 100 * step + 10 * rank
        values = torch.arange(first, first + 2 + rank, device=device)
        memory.push(torch.stack([values, -values], 1).float(), values % 7, values % 3, group=dist.group.WORLD)
    found["memory"] = memory.state_dict()
    torch.save(found, f"{folder}/{rank}.pt")
# A function, because what remembers the group must be gone when the group is left: its threads may end the process.
with open_ranks(device) as ranks:
    compute(ranks.rank)
"""


@pytest.mark.parametrize("world", [2, 4])
def test_all_ranks_together_are_one_batch(tmp_path: Path, world: int, run_ranks) -> None:
    random = torch.Generator().manual_seed(world)

    def batch(rank: int) -> tuple[torch.Tensor, ...]:
        sizes = (5 + 2 * rank, 0 if rank == 1 else 4 + rank)
        z = (torch.randn(n, 6, generator=random, dtype=torch.float64) for n in sizes)
        return (*z, *(torch.randint(3, (n,), generator=random) for n in sizes))

    batches = [batch(rank) for rank in range(world)]
    weight = torch.rand(3, 3, generator=random, dtype=torch.float64)
    torch.save({"ranks": batches, "weight": weight}, tmp_path / "inputs.pt")
    run_ranks("-c", ONE_RANK, str(tmp_path), processes=world)
    found = [torch.load(tmp_path / f"{rank}.pt", map_location="cpu", weights_only=True) for rank in range(world)]

    leaves = [[z.requires_grad_() for z in side] for side in list(zip(*batches, strict=True))[:2]]
    (z1, z2), (y1, y2) = map(torch.cat, leaves), map(torch.cat, list(zip(*batches, strict=True))[2:])
    whole = reference.contrastive_alignment(z1, z2, y1, y2, weight, 4.0, "all", "sum")
    expected = torch.autograd.grad(whole, [*leaves[0], *leaves[1]])
    upstream = sum(range(1, world + 1))  # the losses of the ranks have weights 1, 2, ...
    for reduction, scale in (("mean", 1 / (len(z1) * len(z2))), ("sum", 1.0)):
        for rank, result in enumerate(found):
            loss, g1, g2 = result[reduction]
            torch.testing.assert_close(loss, (scale * whole).detach())
            torch.testing.assert_close(g1, upstream * scale * expected[rank])
            torch.testing.assert_close(g2, upstream * scale * expected[world + rank])
    assert max(result["largest block"] for result in found) == max(len(z) for _, z, *_ in batches)

    for result in found:
        assert all(torch.equal(result["memory"][name], value) for name, value in found[0]["memory"].items())
    pushed = [100 * step + 10 * rank + k for step in range(3) for rank in range(world) for k in range(2 + rank)]
    assert sorted(found[0]["memory"]["_features"][:, 0].long().tolist()) == pushed[-11:]


def test_error_without_ranks_names_the_alternative() -> None:
    z, y = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(InputError, match=r"for one process use functional\.contrastive_alignment"):
        distributed.contrastive_alignment(z, z, y, y)
