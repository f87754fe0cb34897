"""The adaptive stop, compared with least squares that are solved again for every number of channels."""

from __future__ import annotations

import copy
import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from fastccsa.pruning import PruneConfig, procedure, prune
from fastccsa.pruning.factor import RIDGE
from fastccsa.pruning.layer import BlockInputs, gram_of
from fastccsa.pruning.record import PruneRecord
from fastccsa.pruning.resnet import block_of, convolution, prunable_layers
from fastccsa.pruning.select import Selection
from fastccsa.pruning.state import PruneState
from fastccsa.pruning.stop import kept_by_threshold
from fastccsa.pruning.subset import default_images

_SPEC = importlib.util.spec_from_file_location("naive", Path(__file__).with_name("naive.py"))
naive = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(naive)

SMALL = {"images": 24, "discrimination_images": 12, "epochs": 1, "device": "cpu", "workers": 1, "progress": False}


def walk(model, baseline, number: int, images: torch.Tensor):
    """Follow the path of a layer without a discrimination loss."""
    state, layer = PruneState(model, baseline, None, 0), prunable_layers(model)[number]
    with torch.no_grad():
        inputs = BlockInputs(model, baseline, images)
        inputs.go_to(layer.block)
    return Selection(gram_of(state, layer, inputs), convolution(model, layer)).walk()


def least_squares(model, baseline, number: int, images: torch.Tensor, order) -> list[float]:
    """Compute the minimum of L_M for the first 0, 1, 2, ... channels of ``order`` in float64, each from scratch."""
    conv, base = (convolution(network.double(), prunable_layers(model)[number]) for network in (model, baseline))
    patches = naive._patches(model, conv, images.double()).numpy()
    with torch.no_grad():
        target = naive._output(baseline, base, images.double()).transpose(0, 1).flatten(1).numpy()
    taps = conv.weight[0, 0].numel()
    squares = np.square(patches).sum(1).reshape(-1, taps).mean(1).repeat(taps)
    losses = []
    for count in range(len(order) + 1):
        entries = [channel * taps + tap for channel in order[:count] for tap in range(taps)]
        ridge = np.diag(np.sqrt(RIDGE * squares[entries]))
        matrix = np.concatenate([patches[entries].T, ridge])
        right = np.concatenate([target.T, np.zeros((len(entries), len(target)))])
        solution = np.linalg.lstsq(matrix, right, rcond=None)[0] if entries else np.zeros((0, len(target)))
        losses.append(float(np.square(matrix @ solution - right).sum()) / (2 * target.size))
    model.float()
    return losses


@pytest.mark.parametrize("number", range(4))
def test_the_gap_to_the_whole_layer_decides_as_separate_least_squares_do(model, number) -> None:
    images = torch.randn(18, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    baseline = copy.deepcopy(model)
    with torch.no_grad():  # as after earlier pruning, the inputs are not those of the baseline
        model.backbone.conv1.weight[::2] = 0
    path = walk(model, baseline, number, images)
    expected = least_squares(model, baseline, number, images, path.order)
    np.testing.assert_allclose(path.reconstruction, expected, rtol=1e-3, atol=1e-5 * expected[0])
    gaps = [(loss - expected[-1]) / expected[0] for loss in expected]
    checked = 0
    for count in range(1, len(gaps)):
        larger, smaller = gaps[count - 1], gaps[count]
        if larger > 1.1 * smaller and larger > 1e-4:  # no rounding decides
            threshold = math.sqrt(larger * max(smaller, 1e-6))
            assert kept_by_threshold("gap", (), path.reconstruction, threshold) == count
            checked += 1
    assert checked


@pytest.mark.parametrize("threshold", [1e-1, 1e-2, 1e-3])
def test_inflated_features_keep_the_same_channels(model, threshold) -> None:
    images = torch.randn(18, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    before = walk(model, model, 2, images)
    with torch.no_grad():
        convolution(model, prunable_layers(model)[2]).weight.mul_(8)
    after = walk(model, model, 2, images)
    counts = [kept_by_threshold("gap", (), path.reconstruction, threshold) for path in (before, after)]
    assert counts[0] == counts[1] > 1


def test_the_gap_counts_what_is_left_and_not_what_the_last_channel_added() -> None:
    losses = (1.0, 0.5, 0.499, 0.2, 0.11, 0.1)
    assert [kept_by_threshold("gap", (), losses, threshold) for threshold in (0.5, 0.2, 0.05, 0.005)] == [1, 3, 4, 5]
    assert kept_by_threshold("fall", losses, (), 0.005) == 2


def test_a_layer_without_signal_keeps_one_channel() -> None:
    assert kept_by_threshold("gap", (), (0.0, 0.0, 0.0), 1e-4) == 1


def test_it_stops_at_the_first_fall_that_is_small_relative_to_the_first_loss() -> None:
    losses = (10.0, 6.0, 5.0, 4.9, 4.0)
    assert kept_by_threshold("fall", losses, (), 0.2) == 2
    assert kept_by_threshold("fall", losses, (), 0.11) == 2
    assert kept_by_threshold("fall", losses, (), 0.02) == 3
    assert kept_by_threshold("fall", losses, (), 0.005) == 4
    assert kept_by_threshold("fall", losses, (), 0.9) == 1


@pytest.mark.parametrize("stop", ["gap", "fall"])
def test_a_pruning_keeps_what_its_stop_says(make_run, tmp_path, stop) -> None:
    prune(make_run("resnet_basic"), tmp_path / "u", threshold=3e-2, stop=stop, **SMALL)
    for entry in PruneRecord.read(tmp_path / "u").layers:
        first = (entry.reconstruction if stop == "gap" else entry.losses)[0]
        if stop == "gap":
            meets = [loss - entry.reconstruction[-1] <= 3e-2 * first for loss in entry.reconstruction]
        else:
            meets = [False, *(abs(a - b) <= 3e-2 * first for a, b in zip(entry.losses, entry.losses[1:], strict=False))]
        assert len(entry.kept) == [*meets[1:], True].index(True) + 1


def test_by_default_there_are_as_many_pixels_as_in_512_images_of_224(make_run, tmp_path, monkeypatch) -> None:
    assert [default_images(size) for size in (224, 112, 64)] == [512, 2048, 6272]
    counts, load = [], procedure.load_subset
    monkeypatch.setattr(procedure, "load_subset", lambda *a, **k: (counts.append(k["count"]), load(*a, **k))[1])
    assert PruneConfig("k", "u", rate=0.5).images is None
    prune(make_run("resnet_basic"), tmp_path / "u", rate=0.5, **(SMALL | {"images": None}))
    assert counts == [default_images(32)]


def test_the_classification_loss_moves_weights_only_if_they_are_to_descend_it(make_run, tmp_path) -> None:
    weights = {}
    for name, options in {"squares": {"loss_weight": 0.0}, "default": {}, "joint": {"refit": "joint"}}.items():
        prune(make_run("resnet_basic"), tmp_path / name, rate=0.5, criterion="magnitude", **options, **SMALL)
        model = procedure.load_model(tmp_path / name / "selected")
        weights[name] = block_of(model, 0).conv2.weight.detach()
    torch.testing.assert_close(weights["default"], weights["squares"], rtol=0, atol=0)
    assert not torch.allclose(weights["joint"], weights["squares"], rtol=1e-3)
