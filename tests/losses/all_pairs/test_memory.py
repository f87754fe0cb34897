"""The memory of past features: it is a ring, works with the loss, and is equal on all ranks."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch

from fastccsa import FeatureMemory, InputError, PairMemory, functional, reference


def batch(first: int, rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return features, labels and domains of rows that contain their own number."""
    number = torch.arange(first, first + rows)
    return number[:, None] + torch.tensor([0.0, 0.5]), number % 7, number % 3


def test_the_newest_rows_are_kept():
    memory = FeatureMemory(capacity=10, width=2)
    assert len(memory) == 0
    assert memory.features.shape == (0, 2)
    pushed = 0
    for rows in (3, 4, 5, 1, 10, 0, 23, 2, 9):
        memory.push(*batch(pushed, rows))
        pushed += rows
        numbers = memory.features[:, 0].long()
        assert sorted(numbers.tolist()) == list(range(max(0, pushed - 10), pushed))
        assert torch.equal(memory.labels, numbers % 7)
        assert torch.equal(memory.domains, numbers % 3)
        assert torch.equal(memory.features[:, 1], numbers + 0.5)


def test_the_loss_of_a_batch_against_the_memory():
    random = torch.Generator().manual_seed(0)
    memory = FeatureMemory(capacity=100, width=8)
    past = torch.randn(70, 8, generator=random, requires_grad=True)
    memory.push(past, torch.arange(70) % 7, torch.zeros(70, dtype=torch.int64))
    assert not memory.features.requires_grad
    z, y = torch.randn(6, 8, generator=random, requires_grad=True), torch.arange(6)
    arguments = (z, memory.features, y, memory.labels, torch.rand(7, 7), 5.0, "all")
    loss, true = functional.contrastive_alignment(*arguments), reference.contrastive_alignment(*arguments)
    torch.testing.assert_close(loss, true)
    (expected,) = torch.autograd.grad(true, z)
    memory.push(z, y, y)  # before the backward pass: the forward pass has computed the gradient
    torch.testing.assert_close(torch.autograd.grad(loss, z)[0], expected)


def test_state_dict_contains_the_ring():
    memory = FeatureMemory(capacity=5, width=2)
    memory.push(*batch(0, 7))
    stored = io.BytesIO()
    torch.save(memory.state_dict(), stored)
    stored.seek(0)
    other = FeatureMemory(capacity=5, width=2)
    other.load_state_dict(torch.load(stored, weights_only=True))
    for m in (memory, other):
        m.push(*batch(7, 2))
    assert len(other) == 5
    assert torch.equal(other.features, memory.features)
    assert torch.equal(other.labels, memory.labels)
    other.clear()
    assert len(other) == 0


def test_gradients_do_not_shrink_with_the_memory():
    """The gradient of each image is that of its mean over the memory of the other stream. Past images have none."""
    random = torch.Generator().manual_seed(1)
    weight, memory = torch.rand(3, 3, generator=random), PairMemory(capacity=30, width=4)
    shown: list[tuple] = []
    for _ in range(5):
        z1, z2 = (torch.randn(9, 4, generator=random, requires_grad=True) for _ in "12")
        y1, y2 = torch.randint(3, (2, 9), generator=random)
        shown = [*shown, (z1.detach(), z2.detach(), y1, y2)]
        alignment, separation = memory.terms((z1, z2), (y1, y2), (y1, y2), weight, 2.0)
    past1, past2, label1, label2 = (torch.cat(x)[-30:] for x in zip(*shown, strict=True))
    of_first = reference.pair_terms(z1, past2, y1, label2, weight, 2.0, "all")
    of_second = reference.pair_terms(past1, z2, label1, y2, weight, 2.0, "all")
    for term, a, b in zip((alignment, separation), of_first, of_second, strict=True):
        torch.testing.assert_close(term, (a.mean() + b.mean()) / 2)
        actual = torch.autograd.grad(term, (z1, z2), retain_graph=True)
        expected = (torch.autograd.grad(m.mean(), z, retain_graph=True)[0] for m, z in ((a, z1), (b, z2)))
        for mine, true in zip(actual, expected, strict=True):
            torch.testing.assert_close(mine, true)


def test_a_batch_larger_than_the_memory_is_an_error():
    memory = PairMemory(capacity=4, width=2)
    z, y, domain = batch(0, 5)
    with pytest.raises(InputError, match="a batch of 5 does not fit into a memory of 4 rows"):
        memory.terms((z, z), (y, y), (domain, domain))


ONE_RANK = """
import sys
import torch, torch.distributed as dist
from fastccsa import FeatureMemory
from fastccsa.training.ranks import open_ranks
folder, device = sys.argv[1:]
with open_ranks(device) as ranks:
    memory = FeatureMemory(capacity=10, width=2).to(device)
    for step in range(3):
        first = 100 * step + 10 * ranks.rank
        values = torch.arange(first, first + 3, device=device)
        memory.push(torch.stack([values, -values], 1).float(), values % 7, values % 3, group=dist.group.WORLD)
    torch.save(memory.state_dict(), f"{folder}/{ranks.rank}.pt")
"""


def test_all_ranks_remember_the_same(tmp_path: Path, run_ranks):
    run_ranks("-c", ONE_RANK, str(tmp_path))
    first, second = (torch.load(tmp_path / f"{rank}.pt", map_location="cpu", weights_only=True) for rank in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    seen = first["_features"][:, 0].long().tolist()
    assert sorted(seen) == [102, 110, 111, 112, 200, 201, 202, 210, 211, 212]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": torch.zeros(3, 5)}, r"features must be floating \[B, 2\], but they are torch.float32 \[3, 5\]"),
        ({"labels": torch.zeros(4).long()}, r"labels must be int64 \[3\], one value per row of features"),
        ({"domains": torch.zeros(3)}, r"domains must be int64 \[3\]"),
    ],
)
def test_bad_batches(change, message):
    memory = FeatureMemory(capacity=4, width=2)
    rows = dict(zip(("features", "labels", "domains"), batch(0, 3), strict=True)) | change
    with pytest.raises(InputError, match=message):
        memory.push(**rows)
    assert len(memory) == 0


def test_bad_sizes():
    with pytest.raises(InputError, match="capacity is 0"):
        FeatureMemory(0, 4)
    with pytest.raises(InputError, match=r"dtype is torch\.int64"):
        FeatureMemory(4, 4, torch.int64)
