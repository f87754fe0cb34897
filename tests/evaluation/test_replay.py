"""Predictions from plans in memory equal those of an ordinary evaluation; their CUDA graph (only on a GPU)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastccsa.data import Manifest
from fastccsa.evaluation.inference import evaluation_loader, predict
from fastccsa.evaluation.replay import ReplayedPredictions
from fastccsa.models import build_model


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
@pytest.mark.parametrize("batch_size", [4, 7, 64])  # 18 images: several batches of two sizes, and a single one
def test_replayed_predictions_follow_the_model(manifest_csv, tmp_path, device, batch_size) -> None:
    images = Manifest.read(manifest_csv).select("validation")
    place = torch.device(device)
    torch.manual_seed(0)
    model = build_model("shufflenet_v2_x0_5", 3, weights="none").to(place).to(memory_format=torch.channels_last)
    cache = "gpu" if device == "cuda" else "ram"
    with evaluation_loader(images, place, 32, batch_size=batch_size, cache=cache) as loader:
        replayed, called = ReplayedPredictions(loader, None, capture=device == "cuda"), []
        seen = set()
        for _ in range(4):
            found = replayed(model.train(), lambda: called.append(0))
            expected = predict(model, loader.epoch(0), place)
            assert model.training
            assert found.targets.tolist() == images.labels.tolist()
            assert found.domains.tolist() == images.domain_indices.tolist()
            np.testing.assert_array_equal(found.predictions, expected.predictions)
            np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-4)
            seen.add(tuple(found.predictions))
            with torch.no_grad():  # in place, as an optimiser does
                for parameter in model.parameters():
                    parameter.add_(torch.randn_like(parameter) * parameter.std(correction=0))
        assert len(called) == 4 * len(loader)
        assert len(seen) > 1
        assert (replayed._graph is not None) == (device == "cuda")
