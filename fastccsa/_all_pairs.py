"""The loss over every pair of two sets, without their matrix.

Both sides are sorted by class. Alignment needs no pairs: around the class means it is a sum over rows. Separation needs
pairs of different classes alone: tiles of dot products come from torch's own matrix product, ``csrc/allpairs/`` turns a
tile into the coefficients of its gradient in place, and two more products add these up. So one sweep leaves the loss
and its gradient, and the backward pass only scales it. Memory is O((N1 + N2) D) and one tile.

On the CPU one call does all of this, with products of its own (``csrc/allpairs/cpu_panels.cpp``); the code here is what
CUDA takes.

Few pairs are computed one by one from the differences of their rows, in one call: what takes time then is not the
pairs, but calls. On CUDA these are two launches, and the host does not wait for them.

Near pairs: rows are centred before they are multiplied, and a pair whose squared distance comes out small against its
norms is computed again from its rows, difference by difference (``csrc/allpairs/params.h`` says how small, and why).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastccsa import _ops
from fastccsa._all_pairs_checks import check, check_values
from fastccsa._products import add_product, factor, products
from fastccsa.profiling import stage

_classes = torch.ops.fastccsa.all_pairs_classes.default
_centre = torch.ops.fastccsa.all_pairs_centre.default
_tile = torch.ops.fastccsa.all_pairs_tile.default
_finish = torch.ops.fastccsa.all_pairs_finish.default
_direct = torch.ops.fastccsa.all_pairs_direct.default
_panels = torch.ops.fastccsa.all_pairs_panels.default

# 8 MiB a tile. The list of its close pairs is short, but were all of them close, it would grow to 24 to 48 MiB.
TILE_ROWS, TILE_COLUMNS = 1024, 2048  # of float32; of float64 half as many columns
_CHUNK_COLUMNS = 64  # csrc/allpairs/params.h
_FEW_NUMBERS = 1 << 20
_PLAIN = (Tensor, torch.nn.Parameter)
# Other processors are not measured: there torch's products are trusted more.
PANELS_ON_CPU: bool = torch.ops.fastccsa.instruction_set() in ("avx2", "avx512")
FEW_PAIRS = 16384 if PANELS_ON_CPU else 65536  # on the CPU, by measurement
FEW_PAIRS_ON_CUDA = 65536  # not measured


# ---- both sides, sorted by class ----


@dataclass(frozen=True)
class _Side:
    """One side in the order of its classes, which are counted from 0 over both sides."""

    features: Tensor  # [N, D], in the caller's order
    order: Tensor  # [N]: sorted row k is row order[k]
    label: Tensor  # [N], of the sorted rows
    offset: Tensor  # [C + 1]
    mean: Tensor  # [C, D] float64; 0 for a class without rows
    spread: Tensor  # [C] float64, sum of |z - mean|^2

    @property
    def counts(self) -> Tensor:
        """Rows of each class, [C] float64."""
        return self.offset.diff().double()


def _sides(z1: Tensor, z2: Tensor, y1: Tensor, y2: Tensor) -> tuple[_Side, _Side, Tensor]:
    """Both sides, and the classes that occur in either."""
    classes, labels = torch.unique(torch.cat([y1, y2]), return_inverse=True)
    bounds = torch.arange(len(classes) + 1, device=y1.device)
    sides = []
    for z, label in zip((z1, z2), labels.split([len(y1), len(y2)]), strict=True):
        sorted_label, order = torch.sort(label, stable=True)
        offset = torch.searchsorted(sorted_label, bounds)
        mean = torch.zeros(len(classes), z.shape[1], dtype=torch.float64, device=z.device)
        spread = mean.new_zeros(len(classes), -(-z.shape[1] // _CHUNK_COLUMNS))
        _classes(z, order, sorted_label, offset, mean, spread)
        sides.append(_Side(z, order, sorted_label, offset, mean, spread.sum(1)))
    return sides[0], sides[1], classes


def _centred(side: _Side, centre: Tensor) -> tuple[Tensor, Tensor]:
    """Sorted rows less the centre, and their squared norms, in the type that sums are kept in."""
    rows, norms = _ops.large_empty(centre, *side.features.shape), centre.new_empty(len(side.features))
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


def _tiles(
    a: Tensor, b: Tensor, offset1: list[int], offset2: list[int], margin: float
) -> Iterator[tuple[slice, slice]]:
    """The tiles that cover every pair which may matter, as ranges of sorted rows."""
    rows, columns = _blocks(offset1, TILE_ROWS), _blocks(offset2, TILE_ROWS)
    widest = TILE_COLUMNS if a.dtype.itemsize <= 4 else -(-TILE_COLUMNS // 2)
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
    """What the tiles leave behind: the separation term, and the parts of its gradient by sorted row."""

    loss: Tensor  # [] float64
    sums: tuple[Tensor, Tensor]  # [N] float64: the sum of a row's coefficients
    products: tuple[Tensor | None, Tensor | None]  # [N, D]: less the other side's rows times these


def _sum_in_order(values: Tensor) -> Tensor:
    """The sum of many numbers, which torch's own would split by its threads."""
    return torch.nn.functional.pad(values, (0, -len(values) % 1024)).view(-1, 1024).sum(0).sum()


def _sweep(
    side1: _Side, side2: _Side, a: Tensor, b: Tensor, norms: tuple[Tensor, Tensor], weight: Tensor | None,
    margin: float, wanted: int, precision: str,
) -> _Sweep:  # fmt: skip
    sums = (a.new_zeros(len(a), dtype=torch.float64), b.new_zeros(len(b), dtype=torch.float64))
    gradient1, gradient2 = (
        _ops.large_empty(z, *z.shape).zero_() if wanted >> k & 1 else None for k, z in enumerate((a, b))
    )
    loss = torch.zeros_like(sums[0])
    tiles = list(_tiles(a, b, side1.offset.tolist(), side2.offset.tolist(), margin))
    largest = max(((r.stop - r.start) * (c.stop - c.start) for r, c in tiles), default=0)
    workspace, close = _ops.large_empty(a, 1, largest)[0], _close_bits(a.device)
    factor1, factor2 = factor(a, precision), factor(b, precision)
    for rows, columns in tiles:
        shape = (rows.stop - rows.start, columns.stop - columns.start)
        tile = workspace[: shape[0] * shape[1]].view(shape)
        add_product(tile, factor1[rows], factor2[columns].t(), beta=0)
        _tile(
            side1.features, side2.features, side1.order, side2.order, side1.label, side2.label, *norms, weight,
            margin, rows.start, columns.start, tile, *sums, gradient1, gradient2, loss, close,
        )  # fmt: skip
        coefficients = factor(tile, precision)
        if gradient1 is not None:
            add_product(gradient1[rows], coefficients, factor2[columns], alpha=-1)
        if gradient2 is not None:
            add_product(gradient2[columns], coefficients.t(), factor1[rows], alpha=-1)
    return _Sweep(_sum_in_order(loss), sums, (gradient1, gradient2))


def _close_bits(device: torch.device) -> Tensor:
    """Where a tile's kernels on CUDA leave a bit a pair for each other; those of the CPU keep a list of their own."""
    words = TILE_ROWS * -(-TILE_COLUMNS // 32) if device.type == "cuda" else 0
    return torch.empty(words, dtype=torch.int32, device=device)


def _alignment(side1: _Side, side2: _Side, weight: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Alignment in closed form, and by class the factor of its gradient: factor * (z - the other side's mean).

    For one class the sum over i, j of |a_i - b_j|^2 is n_b sum |a_i - A|^2 + n_a sum |b_j - B|^2 + n_a n_b |A - B|^2,
    A and B the means: three terms that are never negative, so nothing cancels.
    """
    n1, n2 = side1.counts, side2.counts
    between = (side1.mean - side2.mean).square().sum(1)
    value = weight * (n2 * side1.spread + n1 * side2.spread + n1 * n2 * between)
    return value.sum(), (2 * weight * n2, 2 * weight * n1)


def _all_pairs(
    z1: Tensor, z2: Tensor, y1: Tensor, y2: Tensor, weight: Tensor | None, margin: float, scale: float,
    wanted: int, apart: bool, precision: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """The two terms, and the gradients of both sides where wanted."""
    side1, side2, classes = _sides(z1, z2, y1, y2)
    by_class = None if weight is None else weight[classes][:, classes].contiguous()
    own_weight = side1.spread.new_ones(len(classes)) if by_class is None else by_class.diagonal().double()
    alignment, coefficients = _alignment(side1, side2, own_weight)
    total = side1.counts @ side1.mean + side2.counts @ side2.mean
    centre = (total / (len(z1) + len(z2))).nan_to_num(0, 0, 0).to(_ops._acc_dtype(z1.dtype))
    (a, norm1), (b, norm2) = _centred(side1, centre), _centred(side2, centre)
    sweep = _sweep(side1, side2, a, b, (norm1, norm2), by_class, margin, wanted, precision)
    terms = (scale * torch.stack([alignment, sweep.loss])).to(a.dtype)
    gradients = []
    for k, (side, other, centred) in enumerate(((side1, side2, a), (side2, side1, b))):
        planes = _planes(wanted >> k & 1, apart)
        gradient = _ops.large_empty(centred, planes * len(centred), centred.shape[1]).view(planes, *centred.shape)
        product = sweep.products[k]
        if product is not None:
            _finish(
                side.features, side.order, side.label, other.mean, coefficients[k], centre, sweep.sums[k], product,
                scale, gradient,
            )  # fmt: skip
        gradients.append(gradient)
    return terms, gradients[0], gradients[1]


def _few_pairs(
    z1: Tensor, z2: Tensor, y1: Tensor, y2: Tensor, weight: Tensor | None, margin: float, scale: float,
    wanted: int, apart: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """The same, pair by pair: the loss, and the rest."""
    if z1.device.type == "cpu":  # kernels on CUDA take any strides, and 16 bits
        acc = _ops._acc_dtype(z1.dtype)
        z1, z2 = z1.to(acc).contiguous(), z2.to(acc).contiguous()
    return _result(_direct(z1, z2, y1, y2, weight, margin, scale, wanted, apart), z1, z2, apart)


def _result(found: tuple[Tensor, ...], z1: Tensor, z2: Tensor, apart: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What an op for the whole loss returns, with its planes of gradients apart."""
    loss, terms, g1, g2 = found
    planes = [g.view(_planes(len(g), apart), *z.shape) for g, z in ((g1, z1), (g2, z2))]
    return loss, terms, planes[0], planes[1]


def _are_few(z1: Tensor, z2: Tensor) -> bool:
    """Whether pairs are computed one by one."""
    return 0 < len(z1) * len(z2) <= (FEW_PAIRS if z1.device.type == "cpu" else FEW_PAIRS_ON_CUDA)


def _go_in_panels(z1: Tensor, z2: Tensor) -> bool:
    """Whether one call does it all, by products of its own."""
    return z1.device.type == "cpu" and PANELS_ON_CPU


# ---- the op ----


def _planes(wanted: int, apart: bool) -> int:
    return 0 if not wanted else 2 if apart else 1


def _empty_gradient(z: Tensor, wanted: int, apart: bool) -> Tensor:
    return z.new_empty((_planes(wanted, apart), *z.shape), dtype=_ops._acc_dtype(z.dtype))


def _compute(
    z1: Tensor, z2: Tensor, y1: Tensor, y2: Tensor, weight: Tensor | None, labels: int, margin: float,
    mean: bool, wanted: int, apart: bool, precision: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Loss [], alignment and separation [2], and the gradients, [1, N, D] together or [2, N, D] apart.

    `labels`: the number of classes, or 0 where nothing bounds the labels. `wanted`: bit k asks for the gradient of
    side k; without it there are no planes.
    """
    check(z1, z2, y1, y2, weight, labels)
    few = _are_few(z1, z2)
    if not few or z1.device.type == "cpu":  # else the kernel does, and nobody waits for it
        check_values(y1, y2, weight, labels if weight is None else weight.shape[0])
    if len(z1) == 0 or len(z2) == 0:
        terms = z1.new_full((2,), torch.nan if mean else 0.0, dtype=_ops._acc_dtype(z1.dtype))
        g1, g2 = (_empty_gradient(z, wanted >> k & 1, apart).zero_() for k, z in enumerate((z1, z2)))
        return terms.sum(), terms, g1, g2
    scale = 1 / (len(z1) * len(z2)) if mean else 1.0
    with stage("all_pairs forward"):
        if few:
            return _few_pairs(z1, z2, y1, y2, weight, margin, scale, wanted, apart)
        if _go_in_panels(z1, z2):
            return _result(_panels(z1, z2, y1, y2, weight, margin, scale, wanted, apart), z1, z2, apart)
        with torch.autocast(z1.device.type, enabled=False), products(precision):
            terms, g1, g2 = _all_pairs(z1, z2, y1, y2, weight, margin, scale, wanted, apart, precision)
    return terms.sum(), terms, g1, g2


_op = torch.library.custom_op("fastccsa::all_pairs", _compute, mutates_args=())


@_op.register_fake
def _(z1: Tensor, z2: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    wanted, apart = args[6], args[7]
    dtype = _ops._acc_dtype(z1.dtype)
    g1, g2 = (_empty_gradient(z, wanted >> k & 1, apart) for k, z in enumerate((z1, z2)))
    return z1.new_empty((), dtype=dtype), z1.new_empty((2,), dtype=dtype), g1, g2


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*output[2:])
    ctx.dtype = inputs[0].dtype
    ctx.set_materialize_grads(False)
    apart = inputs[9]
    ctx.mark_non_differentiable(*output[2 if apart else 1 :])


def _backward(ctx: Any, grad_loss: Tensor | None, grad_terms: Tensor | None, *_: Any) -> tuple[Any, ...]:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "fastccsa's loss over all pairs has no second derivative; "
            "use the same function of fastccsa.reference where create_graph=True is needed"
        )
    if grad_loss is None and grad_terms is None:
        return (None,) * 11
    with stage("all_pairs backward"):
        gradients = [
            _scaled(unit, grad_loss, grad_terms).to(ctx.dtype) if needed else None
            for unit, needed in zip(ctx.saved_tensors, ctx.needs_input_grad[:2], strict=True)
        ]
    return (*gradients, *(None,) * 9)


def _scaled(unit: Tensor, grad_loss: Tensor | None, grad_terms: Tensor | None) -> Tensor:
    """The gradient of one side from its planes, together or apart."""
    if unit.shape[0] == 1:
        assert grad_loss is not None  # the terms have no gradient then
        few = type(unit) is Tensor and unit.numel() < _FEW_NUMBERS  # else a tracer asks, or it pays
        out = None if few else _ops.large_empty(unit, *unit.shape[1:])
        return torch.mul(unit[0], grad_loss, out=out)
    upstream = torch.stack([g.expand(2) for g in (grad_loss, grad_terms) if g is not None]).sum(0)
    return upstream[0] * unit[0] + upstream[1] * unit[1]


_op.register_autograd(_backward, setup_context=_setup_context)


class _Eager(torch.autograd.Function):
    """The same without the op's wrappers, which take longer than a small batch's pairs."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:
        output = _compute(*inputs)
        _setup_context(ctx, inputs, output)
        return output

    backward = staticmethod(_backward)


def all_pairs(
    z1: Tensor, z2: Tensor, y1: Tensor, y2: Tensor, weight: Tensor | None, margin: float, reduction: str,
    apart: bool, precision: str, labels: int = 0,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Alignment + separation over all pairs, and the two ([2]), which have gradients of their own if `apart`.

    With `apart` each plane of gradients is kept; else their sum alone, and only the loss can be differentiated.
    """
    if z1.dtype != z2.dtype and torch.is_autocast_enabled(z1.device.type):
        widest = torch.promote_types(z1.dtype, z2.dtype)
        widest = widest if widest == torch.float64 else torch.float32
        z1, z2 = z1.to(widest), z2.to(widest)
        weight = None if weight is None else weight.to(widest)
    wanted = (z1.requires_grad | z2.requires_grad << 1) if torch.is_grad_enabled() else 0
    inputs = (z1, z2, y1, y2, weight, labels, margin, reduction != "sum", wanted, apart, precision)
    loss, terms, _, _ = _Eager.apply(*inputs) if _is_eager(z1, z2) else _op(*inputs)
    return loss, terms


def _is_eager(*tensors: Tensor) -> bool:
    """Whether tensors hold numbers, and nobody but autograd looks on."""
    return (
        all(type(x) in _PLAIN for x in tensors)
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()
    )
