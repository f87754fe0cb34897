"""The shares of tiles that are beyond a margin."""

from __future__ import annotations

import pytest
import torch

from benchmarks.bounds import MARGINS, SHARES, TILES, count_tiles

HALVES = torch.arange(512) // 256  # two classes


def shares(features: torch.Tensor, classes: torch.Tensor) -> dict[tuple[float, float], tuple[float, ...]]:
    return {(row["tile"], row["margin"]): tuple(row[name] for name in SHARES) for row in count_tiles(features, classes)}


def test_classes_far_from_each_other_are_left_out_by_bounds() -> None:
    """All pairs of different classes have the distance 1: bounds find every tile up to that margin, and none beyond."""
    found = shares(HALVES[:, None].double(), HALVES)
    assert found == {(tile, m): (float(m <= 1),) * 3 for tile in TILES for m in MARGINS}


def test_bounds_find_no_tile_whose_classes_overlap() -> None:
    """Rows at distances of 10 to 11 from the origin in random directions: tiles are beyond the margin, no bound is."""
    random = torch.Generator().manual_seed(0)
    features = torch.randn(512, 64, generator=random, dtype=torch.float64)
    features *= (10 + torch.rand(512, 1, generator=random)) / features.norm(dim=1, keepdim=True)
    found = shares(features, HALVES)
    for tile in TILES:
        assert found[tile, 0.5] == (1, 1, 0)  # the nearest of these pairs has more than half of the median distance
        assert found[tile, 1.0][0] == pytest.approx(0.5, abs=1e-4)


@pytest.mark.parametrize(("width", "share"), [(2.4, 1), (2.6, 0)])
def test_a_bound_has_the_radii_of_both_sides(width: float, share: float) -> None:
    """Classes at {0, width} and {5, 5 + width}: bounds are 5 - width, and the margin is half of the median of 5."""
    features = 5 * HALVES + width * (torch.arange(512) % 2)
    found = shares(features[:, None].double(), HALVES)
    assert [found[tile, 0.5][1:] for tile in TILES] == [(share, share)] * len(TILES)


def test_order_and_rows_beyond_the_last_whole_tile_do_not_matter() -> None:
    random = torch.Generator().manual_seed(1)
    order = torch.randperm(512, generator=random)
    features = HALVES[:, None].double() + torch.linspace(0, 0.01, 512, dtype=torch.float64)[:, None]
    assert shares(features[order], HALVES[order])[128, 0.5] == shares(features, HALVES)[128, 0.5]
    more = torch.cat([features, features[-3:]]), torch.cat([HALVES, HALVES[-3:]])
    assert shares(*more)[128, 0.5] == (1, 1, 1)
