"""The loss over all pairs by its definition in float64, and bounds of the errors of the fused CUDA kernels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["PARTS", "Exact", "exactly", "exactly_in_parts"]

# By precision, of float32 features in 16-bit parts: the largest relative error of a factor, a bound of what products
# that are left out add to that, and the number of terms that tensor cores add up without a sum in float32.
PARTS = {"ieee": (2.0**-24, 2.0**-23, 64), "bf16x3": (2.0**-17, 2.0**-16, 1 << 20), "tf32": (2.0**-11, 0.0, 1 << 20)}


@dataclass(frozen=True)
class Exact:
    """Alignment and separation, summed over all pairs."""

    terms: Tensor  # [2]
    gradients: tuple[Tensor, Tensor]  # [2, N, D], of each term
    bounds: tuple[Tensor, Tensor]  # the same shape
    term_bounds: Tensor  # [2]


def exactly(z1: Tensor, z2: Tensor, y1: Tensor, y2: Tensor, weight: Tensor | None, margin: float) -> Exact:
    """Compute the sums over all pairs in float64, and bounds of the errors of the fused kernels.

    A coefficient is rounded to the features' type, by at most u = eps / 2 of itself. Distances of products have an
    error of 2^-15 for pairs of different classes, and d^2 of one class of 2^-11 (see kFusedNear); above 512 columns,
    these grow with the width. float32 sums of N products of |z| <= norm have errors of at most N 2^-24 of the sum of
    the products' magnitudes.
    """
    a, b = z1.detach().double(), z2.detach().double()
    difference = a[:, None] - b[None]
    distance = difference.square().sum(-1).sqrt()
    same = y1[:, None] == y2[None]
    weights = torch.ones_like(distance) if weight is None else weight.double()[y1][:, y2]
    gap = (margin - distance).clamp(min=0)
    safe = torch.where(distance > 0, distance, torch.inf)
    values = (weights * distance.square() * same, weights * gap.square() * ~same)
    coefficients = (2 * weights * same, -2 * weights * gap / safe * ~same)
    u = torch.finfo(z1.dtype).eps / 2
    products = max(1.0, a.shape[1] / 512)
    # A change of d by e = 2^-15 changes (m - d) / d by m / d e, if the pair is within the margin afterwards.
    e = products * 2.0**-15
    near_margin = distance < margin * (1 + 2 * e)
    of_distance = (torch.zeros_like(weights), 2 * weights * margin / safe * ~same * near_margin * e)
    magnitude = (a.abs().amax(1)[:, None], b.abs().amax(1)[None])
    gradients, bounds = [], []
    for side in range(2):
        own = 1 - 2 * side
        pull = [torch.einsum("ij,ijd->id" if side == 0 else "ij,ijd->jd", k, own * difference) for k in coefficients]
        gradients.append(torch.stack(pull))
        allowed = []
        for k, extra in zip(coefficients, of_distance, strict=True):
            error = u * k.abs() + extra
            through = torch.einsum("ij,ijd->id" if side == 0 else "ij,ijd->jd", error, difference.abs())
            count = k.shape[1 - side] + 16
            sums = (k.abs() * (magnitude[0] + magnitude[1])).sum(1 - side)[:, None] * count * 2.0**-23
            allowed.append(through + sums + 1e-30)
        bounds.append(torch.stack(allowed))
    sums = torch.stack([v.sum() for v in values])
    of_gap = (2 * weights * gap * distance * ~same).sum() * e + sums[1] * 2.0**-20
    of_terms = torch.stack([sums[0] * products * 2.0**-11, of_gap])
    return Exact(sums, (gradients[0], gradients[1]), (bounds[0], bounds[1]), of_terms)


def exactly_in_parts(
    z1: Tensor, z2: Tensor, y1: Tensor, y2: Tensor, weight: Tensor | None, margin: float, precision: str
) -> Exact:
    """Compute the sums over all pairs in float64, and bounds of the errors of products of float32 features in parts.

    Factors are rows without their common centre. A pair whose distance is computed by products has d^2 of at least half
    of the sum n of its squared norms. Errors e of the factors change d by at most e (|a| + |b|), which is at most
    e sqrt(2 n) <= 2 e d. Products that are left out change d^2 by at most p n, so d by p d; sums of the width's terms
    in float32 by less than 2^-20 d. Coefficients have errors of e themselves. Gradients are sums of K a and K b with
    these errors.
    """
    factor, left_out, together = PARTS[precision]
    z = z1.detach().double(), z2.detach().double()
    centre = torch.cat(z).mean(0)
    a, b = z[0] - centre, z[1] - centre
    distance = torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")
    same = y1[:, None] == y2[None]
    weights = torch.ones_like(distance) if weight is None else weight.double()[y1][:, y2]
    gap = (margin - distance).clamp(min=0)
    safe = torch.where(distance > 0, distance, torch.inf)
    values = (weights * distance.square() * same, weights * gap.square() * ~same)
    coefficients = (2 * weights * same, -2 * weights * gap / safe * ~same)
    of_distance = 2 * factor + left_out + 2.0**-20
    reached = (distance < margin * (1 + 2 * of_distance)) & ~same
    error = factor * coefficients[1].abs() + 2 * weights * margin / safe * reached * of_distance
    gradients, bounds = [], []
    for side, (own, other) in enumerate(((a, b), (b, a))):

        def add_up(k: Tensor, own: Tensor, other: Tensor, side: int = side) -> Tensor:
            return k.sum(1 - side)[:, None] * own + (k if side == 0 else k.t()) @ other

        gradients.append(torch.stack([add_up(k, own, -other) for k in coefficients]))
        # float32 features and their means, and the subtraction of the centre.
        magnitudes = [x.abs() + centre.abs() for x in (z[side], z[1 - side])]
        rounding = [8 * 2.0**-24 * add_up(k.abs(), *magnitudes) for k in coefficients]
        of_sums = (min(len(other), together) + len(other) / together + 16) * 2.0**-23
        rounding[1] += add_up(error + (factor + left_out + of_sums) * coefficients[1].abs(), own.abs(), other.abs())
        bounds.append(torch.stack(rounding) + 1e-30)
    sums = torch.stack([v.sum() for v in values])
    of_gap = (2 * weights * (gap + margin * of_distance) * distance * reached).sum() * of_distance + sums[1] * 2.0**-20
    return Exact(sums, (gradients[0], gradients[1]), (bounds[0], bounds[1]), torch.stack([sums[0] * 2.0**-20, of_gap]))
