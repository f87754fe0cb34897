"""The fused loss of zipped pairs against the reference in float64."""

from __future__ import annotations

import pytest
import torch

import fastccsa
from fastccsa import functional, reference

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
REDUCTIONS = ["mean", "sum", "none", "weighted_mean"]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_values_and_gradients(assert_as_good_as_torch, dtype, reduction, device):
    assert_as_good_as_torch(functional.weighted_ccsa_loss_terms, reduction, dtype=dtype, device=device)


@pytest.mark.parametrize("pairs", [1, 2, 31, 33, 252])
@pytest.mark.parametrize(("classes", "width"), [(1, 1), (2, 3), (7, 512), (33, 515), (1000, 64)])
def test_ragged_sizes(assert_as_good_as_torch, pairs, classes, width, device):
    sizes = {"pairs": pairs, "classes": classes, "width": width}
    assert_as_good_as_torch(functional.weighted_ccsa_loss_terms, **sizes, device=device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_many_pairs_on_several_threads(assert_as_good_as_torch, dtype, device):
    """More pairs than there are chunks on the CPU and groups in a CUDA grid."""
    sizes = {"pairs": 40_000, "classes": 3, "width": 9}
    assert_as_good_as_torch(functional.weighted_ccsa_loss_terms, draws=4, **sizes, dtype=dtype, device=device)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "view",
    [
        lambda x: x.t().contiguous().t(),
        lambda x: torch.cat([x, x], 1)[:, : x.shape[1]],
        lambda x: torch.stack([x, x], 2)[..., 1],
        lambda x: x.repeat_interleave(2, 0)[::2],
        lambda x: torch.cat([x.flatten()[:1], x.flatten()])[1:].view_as(x),
    ],
    ids=["transposed", "columns of a wider one", "every second column", "every second row", "misaligned"],
)
def test_views(make_case, dtype, view, device):
    """Strides do not change the result."""
    case = make_case(19, 7, 65, dtype=dtype, device=device)
    plain = functional.weighted_ccsa_loss_terms(*case.inputs, *case.targets, *case.weights, margin=12.0)
    gradients = torch.autograd.grad(plain.loss, case.inputs)
    leaves = [x.detach().clone().requires_grad_() for x in case.inputs]
    targets = [torch.stack([y, y], 1)[:, 0] for y in case.targets]
    weights = [torch.stack([w, w], -1)[..., 0] for w in case.weights]
    viewed = functional.weighted_ccsa_loss_terms(*map(view, leaves), *targets, *weights, margin=12.0)
    for a, b in zip(plain, viewed, strict=True):
        torch.testing.assert_close(a, b)
    for a, b in zip(gradients, torch.autograd.grad(viewed.loss, leaves), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("absent", [(0,), (1,), (2,), (0, 1, 2)])
def test_absent_weights_are_one(make_case, absent, device):
    case = make_case(dtype=torch.float64, device=device)
    weights = [None if k in absent else w for k, w in enumerate(case.weights)]
    ones = [torch.ones_like(w) if k in absent else w for k, w in enumerate(case.weights)]
    mine = functional.weighted_ccsa_loss(*case.inputs, *case.targets, *weights, margin=12.0)
    true = reference.weighted_ccsa_loss(*case.inputs, *case.targets, *ones, margin=12.0)
    torch.testing.assert_close(mine, true, rtol=1e-13, atol=0)


def test_weights_in_another_floating_dtype(make_case):
    case = make_case(dtype=torch.bfloat16)
    expected = case.call(functional.weighted_ccsa_loss)
    in_double = functional.weighted_ccsa_loss(
        *case.inputs, *case.targets, *(w.double() for w in case.weights), margin=case.margin, alpha=case.alpha
    )
    assert torch.equal(expected, in_double)
    assert expected.dtype == torch.float32


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_weighted_mean_is_torchs_cross_entropy(make_case, reduction, device):
    case = make_case(dtype=torch.float64, device=device)
    logits, target, weight = case.inputs[0], case.targets[0], case.weights[0]
    mine = functional.weighted_cross_entropy(logits, target, weight, reduction)
    if reduction == "weighted_mean":
        expected = torch.nn.functional.cross_entropy(logits, target, weight)
    elif reduction == "mean":
        expected = torch.nn.functional.cross_entropy(logits, target, weight, reduction="sum") / len(target)
    else:
        expected = torch.nn.functional.cross_entropy(logits, target, weight, reduction=reduction)
    torch.testing.assert_close(mine, expected, rtol=1e-12, atol=1e-14)
    upstream = torch.linspace(1, 2, mine.numel(), dtype=torch.float64, device=device).reshape(mine.shape)
    for a, b in zip(
        torch.autograd.grad(mine, logits, upstream), torch.autograd.grad(expected, logits, upstream), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_contrastive_alignment_without_classification(make_case, reduction, device):
    case = make_case(dtype=torch.float64, device=device)
    z1, z2 = case.inputs[2:]
    arguments = (z1, z2, *case.targets, case.weights[2], 12.0, "zipped", reduction)
    mine, true = functional.contrastive_alignment(*arguments), reference.contrastive_alignment(*arguments)
    torch.testing.assert_close(mine, true, rtol=1e-12, atol=1e-14)
    upstream = torch.linspace(1, 2, mine.numel(), dtype=torch.float64, device=device).reshape(mine.shape)
    for a, b in zip(
        torch.autograd.grad(mine, (z1, z2), upstream), torch.autograd.grad(true, (z1, z2), upstream), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_alignment_labels_need_no_bound_without_weights():
    z = torch.eye(3, dtype=torch.float64)
    labels = torch.tensor([-5, 10**12, 7])
    assert functional.contrastive_alignment(z, z, labels, labels) == 0
    apart = functional.contrastive_alignment(z, z, labels, labels.flip(0), margin=2.0, reduction="none")
    assert apart.tolist() == [4.0, 0.0, 4.0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_distance_exactly_zero_and_exactly_the_margin(dtype, device):
    """At distance 0 separation has no direction, so its gradient is 0; from the margin on it is 0 too."""
    z1 = torch.zeros(3, 4, dtype=dtype, device=device)
    z2 = torch.zeros(3, 4, dtype=dtype, device=device)
    z2[1, 0] = 3.0
    z2[2, 0] = 1.0
    z1.requires_grad_(), z2.requires_grad_()
    y1, y2 = torch.zeros(3, dtype=torch.int64, device=device), torch.ones(3, dtype=torch.int64, device=device)
    each = functional.contrastive_alignment(z1, z2, y1, y2, margin=3.0, reduction="none")
    assert each.tolist() == [9.0, 0.0, 4.0]
    g1, g2 = torch.autograd.grad(each.sum(), (z1, z2))
    assert g1.tolist() == [[0.0] * 4, [0.0] * 4, [4.0, 0.0, 0.0, 0.0]]
    assert torch.equal(g2, -g1)


def test_the_authors_formula(make_case):
    """Weights 1/p divided by their maximum, cross-entropies averaged by weight: the formula of the authors' code."""
    case = make_case(dtype=torch.float64)
    counts1, counts2, joint = (torch.rand(shape, dtype=torch.float64) + 0.1 for shape in ((7,), (7,), (7, 7)))
    w1, w2, pair_weight = ((1 / p) / (1 / p).max() for p in (counts1, counts2, joint))
    l1, l2, z1, z2 = case.inputs
    y1, y2 = case.targets
    distance = torch.nn.functional.pairwise_distance(z1, z2, eps=0.0)
    same = (y1 == y2).double()
    pair = same * distance**2 + (1 - same) * torch.relu(12.0 - distance) ** 2
    cross_entropy = torch.nn.functional.cross_entropy
    expected = 0.5 * (cross_entropy(l1, y1, w1) + cross_entropy(l2, y2, w2)) + 0.5 * (pair * pair_weight[y1, y2]).mean()
    loss_fn = fastccsa.WeightedCCSALoss(w1, w2, pair_weight, margin=12.0, reduction="weighted_mean")
    torch.testing.assert_close(loss_fn(l1, l2, z1, z2, y1, y2), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_no_pairs(make_case, reduction, device):
    """The sum over no pairs is 0 and the mean NaN, as in torch's own losses."""
    case = make_case(0, device=device)
    loss = case.call(functional.weighted_ccsa_loss, reduction)
    expected = torch.nn.functional.cross_entropy(
        case.inputs[0], case.targets[0], reduction="mean" if reduction == "weighted_mean" else reduction
    )
    torch.testing.assert_close(loss, expected, equal_nan=True)
    for gradient, x in zip(torch.autograd.grad(loss.sum(), case.inputs), case.inputs, strict=True):
        assert gradient.shape == x.shape


def test_extreme_logits_and_features(device):
    """Half-precision features whose squares would overflow, and logits whose exponentials would."""
    for dtype in DTYPES:
        largest = torch.finfo(dtype).max if dtype == torch.float16 else 6e4
        z1 = torch.full((2, 8), largest / 2, dtype=dtype, device=device)
        logits = torch.tensor([[3e4, -3e4], [-3e4, 3e4]], dtype=dtype, device=device)
        y = torch.tensor([0, 1], device=device)
        terms = functional.weighted_ccsa_loss_terms(logits, logits, z1, -z1, y, y.flip(0))
        assert terms.separation == 0
        assert terms.classification1 == 0
        assert terms.classification2 == float(logits[0, 0].double() * 2)
        together = functional.contrastive_alignment(z1, -z1, y, y)
        assert together.item() == pytest.approx(8 * float(z1[0, 0].double() * 2) ** 2, rel=1e-6)


def test_nan_stays_visible(make_case, device):
    for k in range(4):
        case = make_case(device=device)
        with torch.no_grad():
            case.inputs[k][3, 2] = float("nan")
        assert case.call(functional.weighted_ccsa_loss).isnan()


def test_same_bits_every_time(make_case, device):
    case = make_case(5000, 7, 33, device=device)
    first = torch.autograd.grad(case.call(functional.weighted_ccsa_loss), case.inputs)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        again = torch.autograd.grad(case.call(functional.weighted_ccsa_loss), case.inputs)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
        assert torch.equal(case.call(functional.weighted_ccsa_loss), case.call(functional.weighted_ccsa_loss))


def test_linear_in_pairs(make_case):
    """Shards' losses average to the whole batch's, which makes data parallelism exact."""
    case = make_case(64, dtype=torch.float64)
    whole = case.call(functional.weighted_ccsa_loss)
    halves = [
        functional.weighted_ccsa_loss(
            *(x[part] for x in (*case.inputs, *case.targets)), *case.weights, margin=case.margin, alpha=case.alpha
        )
        for part in (slice(0, 32), slice(32, 64))
    ]
    torch.testing.assert_close(sum(halves) / 2, whole, rtol=1e-14, atol=0)
