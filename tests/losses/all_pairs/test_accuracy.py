"""The accuracy in float32: even for near pairs, errors are at most twice those of plain differences."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from fastccsa import functional, reference

from ...pairs_by_definition import exactly

EPS = torch.finfo(torch.float32).eps


def far_from_the_origin(z, random):
    """Return points of norm 1e3, and points of the other side at distance 1e-3 from them."""
    z = z * (1e3 / z.norm(dim=1, keepdim=True))
    step = torch.randn(z.shape, generator=random, dtype=torch.float64)
    return z, z + 1e-3 * step / step.norm(dim=1, keepdim=True)


def one_cluster(z, random):
    """Return points that are all within 1e-3 of one point of norm 1e3."""
    centre = 1e3 * z[:1] / z[:1].norm()
    return centre + 1e-4 * z, centre + 1e-4 * z.flip(0).roll(1, 1)


def two_clusters(z, random):
    """Return pairs at distance 1, around two places at distance 1e3: no common centre is near both places."""
    place = torch.zeros_like(z)
    place[::2, 0] = 1e3
    step = torch.randn(z.shape, generator=random, dtype=torch.float64)
    return place + 0.1 * z, place + 0.1 * z + step / step.norm(dim=1, keepdim=True)


def duplicates(z, random):
    return z, z.clone()


def independent(z, random):
    return z, torch.randn(z.shape, generator=random, dtype=torch.float64)


def low_dimensional(z, random):
    """Return points of a plane: many pairs are near, at every scale."""
    basis = torch.randn(2, z.shape[1], generator=random, dtype=torch.float64)
    return z[:, :2] @ basis, z[:, 2:4] @ basis


CASES = [far_from_the_origin, one_cluster, two_clusters, duplicates, independent, low_dimensional]


def assert_as_accurate_as_differences(draws):
    """Errors of loss and gradients are at most twice those of differences in float32, over some draws of features."""
    errors, plain, sizes = [], [], []
    for draw in draws:
        sets, exact = draw.to(torch.float32), draw.to(torch.float64)
        true = exact.reference()
        truth = [true.detach()[None], *torch.autograd.grad(true, exact.leaves)]
        for outcome, loss in ((errors, sets.loss()), (plain, sets.reference())):
            values = [loss.detach()[None], *torch.autograd.grad(loss, sets.leaves)]
            outcome.append([v.double() - t for v, t in zip(values, truth, strict=True)])
        sizes.append(truth)
    for k, name in enumerate(("loss", "gradient of z1", "gradient of z2")):
        ours, theirs, size = (
            torch.cat([draw[k].flatten() for draw in draws]).square().mean().sqrt().item()
            for draws in (errors, plain, sizes)
        )
        assert ours <= 2 * max(theirs, EPS * size), f"{name}: error {ours:.3g}, plain differences' {theirs:.3g}"


def draw_case(make_sets, case, rows, width, seed, device):
    """Draw the features of a case, in float32."""
    random = torch.Generator().manual_seed(seed)
    z1, z2 = case(torch.randn(rows, width, generator=random, dtype=torch.float64), random)
    sets = replace(make_sets(rows, rows, 5, width, seed=seed), z1=z1.float().to(device), z2=z2.float().to(device))
    return replace(sets, y1=sets.y1.to(device), y2=sets.y2.to(device), weight=sets.weight.to(device))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_error_against_plain_differences(make_sets, device, case):
    assert_as_accurate_as_differences([draw_case(make_sets, case, 90, 64, seed, device) for seed in range(6)])


@pytest.mark.parametrize("share", [0.05, 0.07, 0.2, 0.45, 0.55, 0.9])
@pytest.mark.parametrize("along", ["one axis", "all axes"])
def test_pairs_that_are_equally_near_relative_to_their_norms(device, along, share):
    """Around two distant places, d^2 is about `share` of |a|^2 + |b|^2. Shares just above a threshold are worst."""
    rows, width = 60, 256
    errors, plain, sizes = [], [], []
    for seed in range(4):
        random = torch.Generator().manual_seed(seed)
        spread = (share / (1 - share)) ** 0.5
        place = torch.eye(width, dtype=torch.float64)[0] if along == "one axis" else torch.full((width,), width**-0.5)
        sign = torch.where(torch.arange(rows) % 2 == 0, 1.0, -1.0).double()[:, None]
        noise = torch.randn(2, rows, width, generator=random, dtype=torch.float64) / width**0.5
        z1, z2 = (sign * place + spread * noise).float().to(device)
        y1, y2 = torch.randint(5, (2, rows), generator=random).to(device)
        truth, mine, theirs = (
            gradients(function, z1.to(dtype), z2.to(dtype), y1, y2, margin=1.25 * 2**0.5 * spread)
            for function, dtype in ((reference, torch.float64), (functional, torch.float32), (reference, torch.float32))
        )
        errors.append(mine - truth)
        plain.append(theirs - truth)
        sizes.append(truth)
    ours, by_differences, size = (torch.cat(x).square().mean().sqrt().item() for x in (errors, plain, sizes))
    assert ours <= 2 * max(by_differences, EPS * size)


def gradients(implementation, z1, z2, y1, y2, margin):
    leaves = [z.requires_grad_() for z in (z1.clone(), z2.clone())]
    loss = implementation.contrastive_alignment(*leaves, y1, y2, None, margin, "all")
    return torch.cat([g.double().flatten() for g in torch.autograd.grad(loss, leaves)])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_16_bit_features_are_summed_in_float32(request, device, dtype):
    """Only the gradients are rounded to 16 bits, once at the end, and on CUDA the coefficients. The loss is float32."""
    random = torch.Generator().manual_seed(0)
    z1, z2 = torch.randn(2, 300, 40, generator=random).to(device, dtype)
    y1, y2 = torch.randint(4, (2, 300), generator=random).to(device)
    arguments = (y1, y2, None, 9.0, "all")
    true = reference.contrastive_alignment(z1.double(), z2.double(), *arguments)
    loss = functional.contrastive_alignment(z1, z2, *arguments)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(true.item(), rel=1e-6)
    exact = gradients(reference, z1.double(), z2.double(), y1, y2, 9.0)
    error = (gradients(functional, z1, z2, y1, y2, 9.0) - exact).abs()
    of_coefficients = ROUNDING_OF_COEFFICIENTS[request.node.callspec.params["device"]](z1, z2, y1, y2, 9.0)
    kind = torch.finfo(dtype)
    rounding = (exact.abs() + of_coefficients).clamp(min=kind.smallest_normal) * kind.eps / 2
    assert (error <= 1.01 * rounding + 1e-6 * exact.abs().max() + of_coefficients).all()


def by_fused_kernels(z1, z2, y1, y2, margin):
    bounds = exactly(z1, z2, y1, y2, None, margin).bounds
    return torch.cat([side.sum(0).flatten() for side in bounds]) / (len(z1) * len(z2))


def by_products(z1, z2, y1, y2, margin):
    """Coefficients of separation are rounded to 8 bits, or to 15 and more by parts of float16."""
    unit = {torch.bfloat16: 2.0**-9, torch.float16: 2.0**-16}[z1.dtype]
    return unit * sizes_of_terms(z1.double(), z2.double(), y1, y2, margin)


ROUNDING_OF_COEFFICIENTS = {
    "cpu": lambda *_: 0.0,
    "cpu in panels": lambda *_: 0.0,
    "cuda": by_fused_kernels,
    "cuda in tiles": by_products,
}


def sizes_of_terms(z1, z2, y1, y2, margin):
    """Return the sums of |K| (|a| + |b|) for each value of the gradients of the mean, flattened."""
    distance = torch.cdist(z1, z2, compute_mode="donot_use_mm_for_euclid_dist")
    k = torch.where(y1[:, None] != y2, 2 * (margin - distance).clamp(min=0) / distance, 0) / distance.numel()
    own, other = z1.abs(), z2.abs()
    sizes = [k.sum(1, keepdim=True) * own + k @ other, k.sum(0)[:, None] * other + k.t() @ own]
    return torch.cat([x.flatten() for x in sizes])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_gradient_at_distance_zero_is_zero(device, dtype):
    """For equal points of different classes, the loss is margin^2, and the gradient is 0 and not NaN."""
    z1 = torch.full((5, 8), 100.0, dtype=dtype, device=device, requires_grad=True)
    z2 = torch.full((3, 8), 100.0, dtype=dtype, device=device, requires_grad=True)
    y1, y2 = torch.zeros(5, dtype=torch.int64, device=device), torch.ones(3, dtype=torch.int64, device=device)
    loss = functional.contrastive_alignment(z1, z2, y1, y2, margin=3.0, pairs="all")
    assert loss.item() == 9.0
    assert all((g == 0).all() for g in torch.autograd.grad(loss, (z1, z2)))


def test_a_near_pair_far_from_the_origin(device):
    """|a|^2 + |b|^2 - 2ab loses this distance entirely in float32."""
    z1 = torch.tensor([[1e3, 0.0], [-1e3, 0.0]], device=device, requires_grad=True)
    z2 = torch.tensor([[1e3, 1e-3]], device=device, requires_grad=True)
    y1, y2 = torch.tensor([0, 1], device=device), torch.tensor([1], device=device)
    loss = functional.contrastive_alignment(z1[:1], z2, y1[:1], y2, margin=1.0, pairs="all")
    assert loss.item() == pytest.approx((1 - 1e-3) ** 2, rel=1e-6)
    both = functional.contrastive_alignment(z1, z2, y1, y2, margin=1.0, pairs="all", reduction="sum")
    g1, g2 = torch.autograd.grad(both, (z1, z2))
    assert g1[0].tolist() == pytest.approx([0.0, 2 * (1 - 1e-3)], rel=1e-6)
    assert g1[1].tolist() == pytest.approx([-4e3, -2e-3], rel=1e-6)
    assert g2[0].tolist() == pytest.approx([4e3, 2e-3 - 2 * (1 - 1e-3)], rel=1e-6)


def test_half_precision_does_not_overflow(device):
    z1 = torch.full((2, 8), 3e4, dtype=torch.float16, device=device)
    y = torch.tensor([0, 1], device=device)
    separate = functional.contrastive_alignment(z1, -z1, y, y.flip(0), pairs="all")
    assert separate.item() == pytest.approx(8 * float(z1[0, 0].double() * 2) ** 2 / 2, rel=1e-6)
