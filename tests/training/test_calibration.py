"""The distance that the margin refers to, and that a resumed run keeps it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fastccsa.evaluation.inference import evaluation_loader
from fastccsa.runs.folder import CONFIG_FILE
from fastccsa.runs.images import open_manifest, select_images
from fastccsa.runs.sampling_record import SamplingRecord
from fastccsa.system.errors import InputError, Interrupted
from fastccsa.training import calibration, train
from fastccsa.training.calibration import PER_GROUP, typical_distance
from fastccsa.training.ranks import Ranks

CPU = torch.device("cpu")


class Colours(nn.Module):
    """Stands for a classifier: its features are the mean colours of an image, times a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.factor * images.float().mean((2, 3))
        return torch.zeros(len(images), 7), features


@pytest.fixture
def opened(make_config):
    return lambda **settings: open_manifest(make_config(**settings))


def measured(model: nn.Module, config, manifest) -> float:
    return typical_distance(model, select_images(config, manifest).training, config, CPU, None)


def test_it_is_the_median_over_pairs_of_two_domains_and_classes(opened) -> None:
    config, manifest = opened(batch_size=15)  # 45 images: none is dropped
    training = select_images(config, manifest).training
    assert training.summary().to_numpy().max() <= PER_GROUP  # every image is used
    with evaluation_loader(training, CPU, config.size) as loader:
        batches = [
            (batch["images"].double().mean((2, 3)), batch["target"], batch["domain"]) for batch in loader.epoch(0)
        ]
    colours, targets, domains = (torch.cat(column).numpy() for column in zip(*batches, strict=True))
    distances = [
        np.linalg.norm(colours[i] - colours[j])
        for i in range(len(colours))
        for j in range(i)
        if domains[i] != domains[j] and targets[i] != targets[j]
    ]
    assert measured(Colours(1.0), config, manifest) == pytest.approx(np.median(distances), rel=1e-4)
    assert measured(Colours(7.0), config, manifest) == pytest.approx(7 * np.median(distances), rel=1e-4)


def test_normalised_features_have_distances_on_the_unit_sphere(opened) -> None:
    config, manifest = opened(normalize_features=True)
    one, other = (measured(Colours(factor), config, manifest) for factor in (1.0, 50.0))
    assert 0 < one <= 2
    assert other == pytest.approx(one, rel=1e-3)  # the mean colours are near 0, and computed in float32


def test_batches_give_the_statistics_and_the_model_stays_as_it_is(make_config) -> None:
    """In evaluation, the second BatchNorm would pass on features a thousand times as large."""
    config, manifest = open_manifest(make_config(batch_size=15))

    class Normalised(Colours):
        def __init__(self) -> None:
            super().__init__(1000.0)
            self.norm, self.dropout = nn.BatchNorm1d(3), nn.Dropout(1e-9)

        def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
            logits, features = super().forward(images)
            return logits, self.dropout(self.norm(features))

    model = Normalised().eval()
    before, random = {key: value.clone() for key, value in model.state_dict().items()}, torch.get_rng_state()
    assert 0.1 < measured(model, config, manifest) < 10
    assert not model.training
    assert torch.equal(torch.get_rng_state(), random)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key]), key


def test_equal_features_are_an_error(opened) -> None:
    with pytest.raises(InputError, match=r"median distance .* is 0\.0 before training"):
        measured(Colours(0.0), *opened())


@pytest.mark.parametrize(
    ("rank", "shared", "measured"), [(0, False, [2.0]), (1, False, []), (0, True, [2.0]), (1, True, [2.0])]
)
def test_ranks_measure_only_what_they_must(make_config, monkeypatch, rank, shared, measured) -> None:
    """The first one; the others only where the forward pass exchanges statistics, and would wait for them."""
    called = []
    monkeypatch.setattr(calibration, "typical_distance", lambda *args: called.append(2.0) or 2.0)
    monkeypatch.setattr(Ranks, "gather", lambda self, value: [2.0, value] if self.rank else [value, 0.0])
    config = make_config(sync_batchnorm=shared)
    assert calibration.shared_distance(None, None, config, CPU, None, Ranks(rank, 2)) == 2.0
    assert called == measured


def test_a_resumed_run_keeps_the_distance_it_started_with(make_config, monkeypatch) -> None:
    """The weights have changed by then: measured again, the distance would be another one."""
    config = make_config(epochs=2, recipe="balanced")
    measurements = []

    def count(*args) -> float:
        measurements.append(typical_distance(*args))
        return measurements[-1]

    monkeypatch.setattr("fastccsa.training.calibration.typical_distance", count)
    with monkeypatch.context() as patch:
        patch.setattr("fastccsa.training.loop.validate", lambda *_: (_ for _ in ()).throw(Interrupted("stop", 0)))
        with pytest.raises(Interrupted):
            train(replace(config, checkpoint_every=1), progress=False)
    folder = Path(config.out)
    assert (folder / CONFIG_FILE).exists()
    (distance,) = measurements
    assert SamplingRecord.read(folder).margin == pytest.approx(config.balance.margin * distance)
    train(replace(config, checkpoint_every=1), progress=False)
    assert measurements == [distance]
    assert SamplingRecord.read(folder).margin == pytest.approx(config.balance.margin * distance)
