"""The loss over many pairs by products of tiles: what CUDA takes, and processors for which we have no products.

Both sides are sorted by class. Alignment needs no pairs: around the class means it is a sum over rows. Separation needs
pairs of different classes alone: tiles of dot products come from torch's own matrix product, ``csrc/all_pairs/`` turns
a tile into the coefficients of its gradient in place, and two more products add these up. So one sweep leaves the loss
and its gradient. Memory is O((N1 + N2) D) and one tile.

Which tiles there are depends on the labels, and on a GPU the host has to wait for these. What waiting takes pays where
there are many pairs, most of all if most of them are of one class. Up to ``PAIRS_WITHOUT_WAITING`` tiles are cut by
sizes alone: all is queued at once, and a CUDA graph can hold it.

Near pairs: rows are centred before they are multiplied, and a pair whose squared distance comes out small against its
norms is computed again from its rows, difference by difference (``csrc/all_pairs/params.h`` says how small, and why).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from fastccsa.ops.allocator import large_empty
from fastccsa.ops.library import accumulation_dtype
from fastccsa.ops.products import add_product, factor

__all__ = ["PAIRS_WITHOUT_WAITING", "needs_to_wait", "sweep_tiles"]

_labels = torch.ops.fastccsa.all_pairs_labels.default
_classes = torch.ops.fastccsa.all_pairs_classes.default
_align = torch.ops.fastccsa.all_pairs_align.default
_centre = torch.ops.fastccsa.all_pairs_centre.default
_tile = torch.ops.fastccsa.all_pairs_tile.default
_finish = torch.ops.fastccsa.all_pairs_finish.default
_terms = torch.ops.fastccsa.all_pairs_terms.default

# 8 MiB a tile. The list of its close pairs is short, but were all of them close, it would grow to 24 to 48 MiB.
TILE_ROWS, TILE_COLUMNS = 1024, 2048  # of float32; of float64 half as many columns
PAIRS_WITHOUT_WAITING = 1 << 22  # on CUDA; not measured
_CHUNK_COLUMNS, _CHUNK_OF_A_WARP = 64, 256  # csrc/all_pairs/params.h: kChunkColumns, kTileColumns


# ---- both sides, sorted by class ----


class _Labels(NamedTuple):
    """The labels of both sides, counted from 0, and what goes with them."""

    sides: tuple[Tensor, Tensor]
    classes: int  # at least as many as occur
    weight: Tensor | None  # [classes, classes]
    # [], NaN as soon as a kernel finds a bad label or weight: the loss and the gradients are NaN then, and the next
    # call raises the error. None: the host looked.
    doubt: Tensor | None


def _good_labels(y1: Tensor, y2: Tensor, weight: Tensor | None) -> _Labels:
    """Those that occur, counted on the host."""
    occurring, labels = torch.unique(torch.cat([y1, y2]), return_inverse=True)
    if weight is not None:
        weight = weight[occurring][:, occurring].contiguous()
    label1, label2 = labels.split([len(y1), len(y2)])
    return _Labels((label1, label2), len(occurring), weight, None)


def _any_labels(y1: Tensor, y2: Tensor) -> _Labels:
    """The same where the host does not learn how many there are. None of them is bad, for there are no weights."""
    ordered, order = torch.sort(torch.cat([y1, y2]))
    steps = torch.nn.functional.pad((ordered[1:] != ordered[:-1]).long(), (1, 0))
    labels = torch.empty_like(ordered).scatter_(0, order, steps.cumsum(0))
    label1, label2 = labels.split([len(y1), len(y2)])
    return _Labels((label1, label2), len(labels), None, None)


def _checked_labels(y1: Tensor, y2: Tensor, weight: Tensor | None, classes: int, dtype: torch.dtype) -> _Labels:
    """Of `classes` that there may be; a kernel looks at them, and the host does not."""
    doubt = torch.zeros((), dtype=dtype, device=y1.device)
    label1, label2 = (torch.empty_like(y, memory_format=torch.contiguous_format) for y in (y1, y2))
    _labels(y1, y2, classes, label1, label2, doubt)
    return _Labels((label1, label2), classes, None if weight is None else weight.contiguous(), doubt)


@dataclass(frozen=True)
class _Side:
    """One side in the order of its classes."""

    features: Tensor  # [N, D], in the caller's order
    order: Tensor  # [N]: sorted row k is row order[k]
    label: Tensor  # [N], of the sorted rows
    offset: Tensor  # [C + 1]
    mean: Tensor  # [C, D] float64; 0 for a class without rows
    spread: Tensor  # [C, chunks of columns] float64, sum of |z - mean|^2


def _sides(z1: Tensor, z2: Tensor, labels: _Labels) -> tuple[_Side, _Side]:
    bounds = torch.arange(labels.classes + 1, device=z1.device)
    sides = []
    for z, label in zip((z1, z2), labels.sides, strict=True):
        sorted_label, order = torch.sort(label, stable=True)
        offset = torch.searchsorted(sorted_label, bounds)
        mean = torch.empty(labels.classes, z.shape[1], dtype=torch.float64, device=z.device)
        spread = mean.new_empty(labels.classes, -(-z.shape[1] // _CHUNK_COLUMNS))
        _classes(z, order, sorted_label, offset, mean, spread)
        sides.append(_Side(z, order, sorted_label, offset, mean, spread))
    return sides[0], sides[1]


class _Alignment(NamedTuple):
    """Alignment in closed form, and the centre of all rows."""

    of_class: Tensor  # [C] float64
    coefficients: tuple[Tensor, Tensor]  # [C] float64: its gradient is coefficient * (z - the other side's mean)
    centre: Tensor  # [D], in the type that sums are kept in


def _aligned(side1: _Side, side2: _Side, labels: _Labels) -> _Alignment:
    of_class, *coefficients = (side1.mean.new_empty(labels.classes) for _ in range(3))
    width = side1.mean.shape[1]
    centre = torch.empty(width, dtype=accumulation_dtype(side1.features.dtype), device=side1.mean.device)
    _align(
        side1.mean, side2.mean, side1.spread, side2.spread, side1.offset, side2.offset, labels.weight,
        of_class, *coefficients, centre, labels.doubt,
    )  # fmt: skip
    return _Alignment(of_class, (coefficients[0], coefficients[1]), centre)


def _centred(side: _Side, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Sorted rows less the centre, and their squared norms, in the type that sums are kept in."""
    rows, norms = large_empty(centre, *side.features.shape), centre.new_empty(len(side.features))
    _centre(side.features, side.order, side.label, centre, rows, norms)
    return rows, norms


# ---- which tiles there are ----


class _Block(NamedTuple):
    """Sorted rows [begin, end) of the classes first to last."""

    begin: int
    end: int
    first: int
    last: int

    def one_class_as(self, other: _Block) -> bool:
        return self.first == self.last == other.first == other.last


def _even_parts(begin: int, end: int, limit: int) -> list[tuple[int, int]]:
    """[begin, end) in as few parts of at most `limit` as there can be, of nearly one size."""
    parts = -(-(end - begin) // limit)
    cuts = [begin + (end - begin) * k // parts for k in range(parts + 1)]
    return list(pairwise(cuts))


def _blocks(offset: list[int], limit: int) -> list[_Block]:
    """Large classes get blocks of their own, small ones share: so most pairs of one class are never looked at."""
    blocks: list[_Block] = []
    for c, (begin, end) in enumerate(pairwise(offset)):
        if begin == end:
            continue
        if blocks and end - blocks[-1].begin <= limit and end - begin <= limit // 4 and blocks[-1].first < c:
            shared = blocks[-1]
            small = shared.first < shared.last or shared.end - shared.begin <= limit // 4
            if small:
                blocks[-1] = shared._replace(end=end, last=c)
                continue
        blocks.extend(_Block(b, e, c, c) for b, e in _even_parts(begin, end, limit))
    return blocks


def _balls(rows: Tensor, blocks: list[_Block]) -> tuple[Tensor, Tensor]:
    """Centre and radius of each block: no row lies farther from its block's centre."""
    centres = torch.stack([rows[b.begin : b.end].mean(0) for b in blocks])
    radii = [(rows[b.begin : b.end] - c).norm(dim=1).max() for b, c in zip(blocks, centres, strict=True)]
    return centres, torch.stack(radii)


def _beyond_margin(a: Tensor, b: Tensor, rows: list[_Block], columns: list[_Block], margin: float) -> list[list[bool]]:
    """Which pairs of blocks lie beyond the margin of each other as a whole, by the triangle inequality."""
    (centre1, radius1), (centre2, radius2) = _balls(a, rows), _balls(b, columns)
    between = torch.cdist(centre1, centre2, compute_mode="donot_use_mm_for_euclid_dist")
    size = centre1.norm(dim=1)[:, None] + centre2.norm(dim=1) + radius1[:, None] + radius2
    slack = 1e-5 * size  # more than any rounding of the balls
    return (between - radius1[:, None] - radius2 - slack >= margin).tolist()


def _widest(dtype: torch.dtype) -> int:
    """Columns of a tile of TILE_ROWS."""
    return TILE_COLUMNS if dtype.itemsize <= 4 else -(-TILE_COLUMNS // 2)


def _all_tiles(rows: int, columns: int, dtype: torch.dtype) -> Iterator[tuple[slice, slice]]:
    """Tiles that cover every pair, whatever the labels: wider ones where there are few rows."""
    for begin, end in _even_parts(0, rows, TILE_ROWS):
        for part in _even_parts(0, columns, max(1, TILE_ROWS * _widest(dtype) // (end - begin))):
            yield slice(begin, end), slice(*part)


def _tiles(
    a: Tensor, b: Tensor, offset1: list[int], offset2: list[int], margin: float
) -> Iterator[tuple[slice, slice]]:
    """The tiles that cover every pair which may matter, as ranges of sorted rows."""
    rows, columns = _blocks(offset1, TILE_ROWS), _blocks(offset2, TILE_ROWS)
    widest = _widest(a.dtype)
    several = len(rows) * len(columns) > 1
    beyond = _beyond_margin(a, b, rows, columns, margin) if several else [[False]]
    for r, row in enumerate(rows):
        wanted = [not row.one_class_as(column) and not beyond[r][c] for c, column in enumerate(columns)]
        for matter, run in groupby(range(len(columns)), key=wanted.__getitem__):
            if matter:
                neighbours = list(run)
                begin, end = columns[neighbours[0]].begin, columns[neighbours[-1]].end
                for part in _even_parts(begin, end, widest):
                    yield slice(row.begin, row.end), slice(*part)


# ---- the sweep ----


class _Sweep(NamedTuple):
    """What the tiles leave behind: parts of the separation term and of its gradient, by sorted row."""

    loss: Tensor  # [N1] float64
    sums: tuple[Tensor, Tensor]  # [N] float64: the sum of a row's coefficients
    products: tuple[Tensor | None, Tensor | None]  # [N, D]: less the other side's rows times these


def _sweep(
    side1: _Side, side2: _Side, centre: Tensor, labels: _Labels, margin: float, wanted: int, precision: str, waits: bool
) -> _Sweep:
    (a, norm1), (b, norm2) = _centred(side1, centre), _centred(side2, centre)
    sums1, sums2, loss = a.new_zeros(2 * len(a) + len(b), dtype=torch.float64).split([len(a), len(b), len(a)])
    gradient1, gradient2 = (large_empty(z, *z.shape).zero_() if wanted >> k & 1 else None for k, z in enumerate((a, b)))
    if waits:
        tiles = list(_tiles(a, b, side1.offset.tolist(), side2.offset.tolist(), margin))
    else:
        tiles = list(_all_tiles(len(a), len(b), a.dtype))
    largest = max(((r.stop - r.start) * (c.stop - c.start) for r, c in tiles), default=0)
    workspace, scratch = large_empty(a, 1, largest)[0], _scratch(tiles, a.device)
    factor1, factor2 = factor(a, precision), factor(b, precision)
    for rows, columns in tiles:
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        tile = workspace[: shape[0] * shape[1]].view(shape)
        add_product(tile, factor1[rows], factor2[columns].t(), beta=0)
        _tile(
            side1.features, side2.features, side1.order, side2.order, side1.label, side2.label, norm1, norm2,
            labels.weight, margin, rows.start, columns.start, tile, sums1, sums2, gradient1, gradient2, loss,
            *scratch, labels.doubt,
        )  # fmt: skip
        coefficients = factor(tile, precision)
        if gradient1 is not None:
            add_product(gradient1[rows], coefficients, factor2[columns], alpha=-1)
        if gradient2 is not None:
            add_product(gradient2[columns], coefficients.t(), factor1[rows], alpha=-1)
    return _Sweep(loss, (sums1, sums2), (gradient1, gradient2))


def _scratch(tiles: list[tuple[slice, slice]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Where a tile's kernels on CUDA leave for each other a bit a pair, and sums of parts of rows."""
    words = numbers = 0
    for rows, columns in tiles if device.type == "cuda" else ():
        height, width = rows.stop - rows.start, columns.stop - columns.start
        words = max(words, height * -(-width // 32))
        numbers = max(numbers, 2 * height * -(-width // _CHUNK_OF_A_WARP))
    return (
        torch.empty(words, dtype=torch.int32, device=device),
        torch.empty(numbers, dtype=torch.float64, device=device),
    )


# ---- all of it ----


def needs_to_wait(z1: Tensor, z2: Tensor, classes: int) -> bool:
    """Whether the host has to look at the labels, of which there may be so many (0: nobody knows)."""
    return z1.device.type == "cpu" or classes > len(z1) + len(z2) or len(z1) * len(z2) > PAIRS_WITHOUT_WAITING


def sweep_tiles(
    z1: Tensor, z2: Tensor, y1: Tensor, y2: Tensor, weight: Tensor | None, classes: int, margin: float, scale: float,
    wanted: int, apart: bool, precision: str, waits: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The loss [], both terms [2], and the gradients where wanted, [1, N, D] together or [2, N, D] apart.

    `classes`: how many there may be; 0 without weights, where nothing bounds the labels. `waits`: the host looks at
    labels and weights, and knows already that they are good.
    """
    if waits:
        labels = _good_labels(y1, y2, weight)
    elif classes == 0:
        labels = _any_labels(y1, y2)
    else:
        labels = _checked_labels(y1, y2, weight, classes, accumulation_dtype(z1.dtype))
    sides = _sides(z1, z2, labels)
    alignment = _aligned(*sides, labels)
    sweep = _sweep(*sides, alignment.centre, labels, margin, wanted, precision, waits)
    loss, terms = alignment.centre.new_empty(()), alignment.centre.new_empty(2)
    _terms(alignment.of_class, sweep.loss, scale, labels.doubt, loss, terms)
    gradients = []
    for side, other, coefficient, sums, product in zip(
        sides, sides[::-1], alignment.coefficients, sweep.sums, sweep.products, strict=True
    ):
        planes = 0 if product is None else 2 if apart else 1
        rows, width = side.features.shape
        gradient = large_empty(alignment.centre, planes * rows, width).view(planes, rows, width)
        if product is not None:
            _finish(
                side.features, side.order, side.label, other.mean, coefficient, alignment.centre, sums, product, scale,
                labels.doubt, gradient,
            )  # fmt: skip
        gradients.append(gradient)
    return loss, terms, gradients[0], gradients[1]
