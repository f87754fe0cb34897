"""The losses of a batch compared with their definitions, and the weights with the sampler's tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fastccsa import reference
from fastccsa.models import build_model
from fastccsa.runs.images import open_manifest, select_images
from fastccsa.runs.sampling_record import SamplingRecord
from fastccsa.system.errors import InputError
from fastccsa.training.objectives import build_objective

CPU = torch.device("cpu")
WIDTH = 1024  # width of the features of the network below
# Everything is float64, except for the float32 terms that objectives return, and a few sums of these.
ROUNDING = {"rtol": 2.0**-22, "atol": 0.0, "check_dtype": False}
# Features as they are, distances in their units, and weights with an expected value of 1.
PLAIN = {
    "recipe": "paper", "class_weight_scale": "mean", "pair_weight_scale": "mean", "margin": 3.0, "alpha": 0.3,
}  # fmt: skip


@pytest.fixture
def objective_of(make_config):
    opened = []

    def make(**settings):
        config, manifest = open_manifest(make_config(**settings))
        opened.append(build_objective(config, select_images(config, manifest), CPU, WIDTH))
        return opened[-1]

    yield make
    for objective in opened:
        objective.loader.close()


@pytest.fixture
def forward():
    model = build_model("shufflenet_v2_x0_5", 7, weights="none").eval().double()
    # The features of an untrained network hardly differ; scaled, their distances lie on both sides of the margin.
    return lambda images: tuple(30 * output for output in model(images.double()))


def test_baseline_is_weighted_cross_entropy(objective_of, forward) -> None:
    objective = objective_of(alignment="-", batch_size=8)
    batch = next(objective.loader.epoch(0))
    weight = objective.class_weight
    expected = F.cross_entropy(forward(batch["images"])[0], batch["target"], weight.double(), reduction="none").mean()
    torch.testing.assert_close(objective(forward, batch), expected.unsqueeze(0), **ROUNDING)
    assert objective.terms == ("loss",)
    # nv, mel and bcc are equally frequent; classes without images are never drawn.
    assert weight.tolist() == pytest.approx([1, 1, 1, 0, 0, 0, 0])


def test_unweighted_baseline(objective_of, forward) -> None:
    objective = objective_of(alignment="-", classification_weight="u")
    batch = next(objective.loader.epoch(0))
    expected = F.cross_entropy(forward(batch["images"])[0], batch["target"])
    torch.testing.assert_close(objective(forward, batch)[0], expected, **ROUNDING)


@pytest.mark.parametrize("pairs", ["zipped", "all"])
@pytest.mark.parametrize("joint_forward", [True, False])
def test_ccsa_is_the_reference_loss(objective_of, forward, joint_forward, pairs) -> None:
    objective = objective_of(batch_size=8, joint_forward=joint_forward, pairs=pairs, **PLAIN)
    batch = next(objective.loader.epoch(0))
    (logits1, features1), (logits2, features2) = forward(batch["images1"]), forward(batch["images2"])
    probabilities = objective.loader.sampler.probabilities(pairs)
    weights = [torch.tensor(safe_inverse(table), dtype=torch.float32) for table in probabilities]
    expected = reference.weighted_ccsa_loss(
        logits1, logits2, features1, features2, batch["target1"], batch["target2"], *weights, 3.0, 0.3, pairs
    )
    terms = dict(zip(objective.terms, objective(forward, batch), strict=True))
    torch.testing.assert_close(terms["loss"], expected, **ROUNDING)
    whole = 0.7 * (terms["classification1"] + terms["classification2"])
    whole = whole + 0.3 * (terms["alignment"] + terms["separation"])
    torch.testing.assert_close(terms["loss"], whole, **ROUNDING)


def test_each_stream_is_compared_with_the_memory_of_the_other(objective_of, forward) -> None:
    settings = {"batch_size": 8, "pairs": "all", **PLAIN}
    objective = objective_of(memory=20, **settings)
    objective.memory.double()
    weight = torch.tensor(safe_inverse(np.outer(*objective.loader.sampler.probabilities()[:2])))
    past: tuple[list, list] = ([], [])
    for batch in objective.loader.epoch(0):
        terms = dict(zip(objective.terms, objective(forward, batch), strict=True))
        features = forward(torch.cat([batch["images1"], batch["images2"]]))[1].double().detach().split(8)
        for rows, z, y in zip(past, features, (batch["target1"], batch["target2"]), strict=True):
            rows.extend(zip(z, y, strict=True))
        first, second = ((torch.stack(x) for x in zip(*rows[-20:], strict=True)) for rows in past)
        (z1, y1), (z2, y2) = first, second
        of_first = reference.pair_terms(features[0], z2, batch["target1"], y2, weight, 3.0, "all")
        of_second = reference.pair_terms(z1, features[1], y1, batch["target2"], weight, 3.0, "all")
        for name, a, b in zip(("alignment", "separation"), of_first, of_second, strict=True):
            expected = ((a.mean() + b.mean()) / 2).float()
            torch.testing.assert_close(terms[name], expected, **ROUNDING)
        whole = 0.7 * (terms["classification1"] + terms["classification2"])
        whole = whole + 0.3 * (terms["alignment"] + terms["separation"])
        torch.testing.assert_close(terms["loss"], whole, **ROUNDING)
        if len(past[0]) > 30:
            break


def test_a_memory_of_one_batch_changes_nothing(objective_of) -> None:
    settings = {"batch_size": 8, "pairs": "all", **PLAIN, "alpha": 0.5}
    plain, remembering = objective_of(**settings), objective_of(memory=8, **settings)
    remembering.memory.double()
    model = build_model("shufflenet_v2_x0_5", 7, weights="none").eval().double()
    batch = next(plain.loader.epoch(0))
    results = []
    for objective in (plain, remembering):
        terms = objective(lambda images: model(images.double()), batch)
        results.append((terms.detach(), torch.autograd.grad(terms[0], model.parameters())))
    (expected, expected_gradients), (terms, gradients) = results
    torch.testing.assert_close(terms, expected, **ROUNDING)
    largest = max(value.abs().max() for value in expected_gradients)
    for one, other in zip(expected_gradients, gradients, strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=1e-12 * largest)


def test_the_margin_is_a_multiple_of_the_distance_that_the_run_starts_with(objective_of) -> None:
    settings = {"margin_unit": "median", "margin": 1.5, "distance_unit": "margin", "alignment": "u"}
    objective = objective_of(**settings)
    objective.calibrate(lambda: 4.0)
    assert (objective.loss.margin, objective.record.margin) == (6.0, 6.0)
    assert objective.loss.pair_weight.unique().tolist() == pytest.approx([1 / 36])
    resumed = objective_of(**settings)
    resumed.memory.load_state_dict(objective.memory.state_dict())
    resumed.calibrate(lambda: pytest.fail("measured again"))
    assert resumed.loss.margin == 6.0
    in_features = objective_of(**{**settings, "margin_unit": "feature"})
    in_features.calibrate(lambda: pytest.fail("measured in vain"))
    assert in_features.loss.margin == 1.5


@pytest.mark.parametrize("memory", [0, 8])
@pytest.mark.parametrize("alignment", ["w", "u"])
@pytest.mark.parametrize("reduction", ["mean", "weighted_mean"])
def test_a_balance_reaches_the_loss(objective_of, forward, reduction, alignment, memory) -> None:
    """Unit features, distances in units of the margin, capped weights, and both means of the cross-entropy."""
    cap, margin, pairs = 1.1, 0.7, "all" if memory else "zipped"
    settings = {"batch_size": 8, "pairs": pairs, "memory": memory, "alignment": alignment, "alpha": 0.3}
    objective = objective_of(
        recipe="paper", normalize_features=True, distance_unit="margin", pair_weight_scale="max", pair_weight_cap=cap,
        margin=margin, classification_reduction=reduction, **settings,
    )  # fmt: skip
    if memory:
        objective.memory.double()
    batch = next(objective.loader.epoch(0))
    logits, features = forward(torch.cat([batch["images1"], batch["images2"]]))
    z1, z2 = (features / features.norm(dim=1, keepdim=True)).chunk(2)
    probabilities = objective.loader.sampler.probabilities(pairs)
    weight = np.ones((7, 7))
    if alignment == "w":
        plain = np.divide(1, probabilities.joint, out=np.zeros((7, 7)), where=probabilities.joint > 0)
        weight = plain / plain.max()
        expected_weight = (probabilities.joint * weight).sum()
        capped = weight.max() > cap * expected_weight
        assert capped == (pairs == "zipped")  # every x1 with every x2: all pairs of classes are equally probable here
        weight = np.array(objective.record.pair_weight) * margin**2
        assert (probabilities.joint * weight).sum() == pytest.approx(expected_weight)
        assert weight.max() == pytest.approx(cap * expected_weight if capped else 1)
    pair_terms = reference.pair_terms(z1, z2, batch["target1"], batch["target2"], torch.tensor(weight), margin, pairs)
    classification = 0
    for logit, target, p in zip(logits.chunk(2), (batch["target1"], batch["target2"]), probabilities, strict=False):
        weights = torch.tensor(np.divide(1, p, out=np.zeros(7), where=p > 0))[target]  # plain, as printed
        losses = weights * F.cross_entropy(logit, target, reduction="none")
        classification += losses.sum() / weights.sum() if reduction == "weighted_mean" else losses.mean()
    expected = 0.7 * classification + 0.3 * sum(term.mean() for term in pair_terms) / margin**2
    tolerance = {"rtol": 2.0**-20, "atol": 0.0, "check_dtype": False}  # the weights are float32
    torch.testing.assert_close(objective(forward, batch)[0], expected, **tolerance)


def safe_inverse(probability: np.ndarray) -> np.ndarray:
    """Return 1/p, scaled to mean 1 under p: p * (k / p) sums to 1 over the cells that occur."""
    inverse = np.divide(1, probability, out=np.zeros_like(probability), where=probability > 0)
    return inverse / (probability > 0).sum()


@pytest.mark.parametrize(("classification", "alignment"), [("w", "w"), ("w", "u"), ("u", "w"), ("u", "u")])
def test_each_weighting_is_switched_separately(objective_of, classification, alignment) -> None:
    loss = objective_of(classification_weight=classification, alignment=alignment, **PLAIN).loss
    assert (loss.class_weight1 is not None) == (classification == "w")
    assert (loss.class_weight2 is not None) == (classification == "w")
    assert (loss.pair_weight is not None) == (alignment == "w")


def test_a_last_batch_of_one_image_is_left_out(objective_of) -> None:
    assert len(objective_of(alignment="-", batch_size=4).loader) == 11  # 45 = 11 * 4 + 1
    assert len(objective_of(alignment="-", batch_size=8).loader) == 6  # 45 = 5 * 8 + 5
    assert len(objective_of(batch_size=4).loader) == 12  # one pair is two images
    assert len(objective_of(batch_size=4, joint_forward=False).loader) == 11


@pytest.mark.parametrize(
    "settings",
    [{"alignment": "-", "n_sec": 0}, {"alignment": "u", "n_sec": 2, "recipe": "paper"}, {"pairs": "all"}],
)
def test_the_record_has_the_samplers_tables_and_the_weights_of_the_loss(objective_of, tmp_path, settings) -> None:
    objective = objective_of(**settings)
    objective.record.write(tmp_path)
    record = SamplingRecord.read(tmp_path)
    assert record == objective.record
    counts = np.array(record.counts)
    images = 15 if settings.get("n_sec") == 0 else 45 if "pairs" in settings else 15 + 2 * 2 * 3
    assert counts.sum() == images
    assert record.domains[0] == "HAM"
    assert counts[0].tolist() == [5, 5, 5, 0, 0, 0, 0]
    np.testing.assert_allclose(record.first, counts.sum(axis=0) / images)
    if "alignment" in settings:
        assert record.pair_weight is None
    if settings.get("alignment") == "-":
        assert (record.second, record.joint, record.class_weight2) == (None, None, None)
        np.testing.assert_allclose(record.class_weight1, objective.class_weight)
    else:
        tables = objective.loader.sampler.probabilities(settings.get("pairs", "zipped"))
        np.testing.assert_allclose(record.joint, tables.joint)
        np.testing.assert_allclose(record.class_weight2, objective.loss.class_weight2)
        if "pairs" in settings:
            np.testing.assert_allclose(record.pair_weight, objective.loss.pair_weight)


def test_a_broken_record_is_an_error_and_a_missing_one_is_none(tmp_path) -> None:
    assert SamplingRecord.read(tmp_path) is None
    (tmp_path / "sampling.json").write_text('{"classes": [], "surprise": 1}')
    with pytest.raises(InputError, match=r"sampling\.json"):
        SamplingRecord.read(tmp_path)
