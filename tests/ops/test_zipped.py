"""The fake kernel of the zipped loss allocates the same sizes as the real one, which computes them in C++."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from fastccsa.ops import zipped  # noqa: F401 - registers the fake kernels

# The number of partial sums grows with the pairs up to 1024.
SIZES = [0, 1, 2, 7, 1023, 1024, 1025, 3000]


def forward(pairs: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, ...]:
    logits, target = torch.zeros(pairs, 3, dtype=dtype), torch.zeros(pairs, dtype=torch.int64)
    arguments = (logits, logits, None, None, target, target, None, None, None, 1.0, 0.5, 1)
    return torch.ops.fastccsa.zipped_ccsa_forward(*arguments)


@pytest.mark.parametrize("pairs", SIZES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_fake_results_are_like_the_real_ones(pairs: int, dtype: torch.dtype) -> None:
    real = forward(pairs, dtype)
    with FakeTensorMode():
        fake = forward(pairs, dtype)
    assert [(x.shape, x.dtype) for x in fake] == [(x.shape, x.dtype) for x in real]


def test_the_size_of_what_is_saved_is_symbolic_where_the_number_of_pairs_is() -> None:
    """One compiled graph serves all sizes."""
    environment = ShapeEnv()
    pairs = environment.create_unbacked_symint()
    torch._check(pairs >= 0)
    with FakeTensorMode(shape_env=environment):
        _, _, saved = forward(pairs)
    for size in SIZES:
        expected = forward(size)[2].numel()
        assert saved.shape[0].node.expr.subs(pairs.node.expr, size) == expected, size
