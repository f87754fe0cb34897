"""The four training examples, on small images: each trains on pairs of every domain, in another order in each epoch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

Example = Callable[[str], ModuleType]
EXAMPLES = {
    "plain_torch": None,
    "with_lightning": "lightning",
    "with_timm": "timm",
    "with_transformers": "transformers",
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_examples_train(example: Example, manifest_csv: Path, monkeypatch, one_thread, capsys, name) -> None:
    if EXAMPLES[name]:
        pytest.importorskip(EXAMPLES[name])
    module, shared = example(name), example("own_images")
    seen: list[tuple[int, torch.Tensor]] = []
    monkeypatch.setattr(module, "pair_loss", lambda model, loss_fn, batch: watched(model, loss_fn, batch))
    samplers = []
    first = shared.OwnImages.__init__

    def keep(images, args) -> None:
        first(images, args)
        samplers.append(images.sampler)

    def watched(model, loss_fn, batch):
        seen.append((samplers[0].epoch, batch["index1"]))
        return shared.pair_loss(model, loss_fn, batch)

    monkeypatch.setattr(shared.OwnImages, "__init__", keep)
    with torch.random.fork_rng():
        scores = module.main(
            ["--manifest", str(manifest_csv), "--epochs", "2", "--size", "32", "--batch-size", "8", "--lr", "1e-3"]
        )
    assert set(scores.domains) == {"DMF", "HAM", "SON"}
    assert sum(domain.count for domain in scores.domains.values()) == 18
    steps = len(samplers[0])
    assert [epoch for epoch, _ in seen] == [0] * steps + [1] * steps
    expected = [samplers[0].batch(epoch, step)[0].tolist() for epoch in (0, 1) for step in range(steps)]
    assert [index.tolist() for _, index in seen] == expected
    assert "HAM" in capsys.readouterr().out


def test_the_features_are_what_the_last_layer_gets(example: Example) -> None:
    transformers = pytest.importorskip("transformers")
    module = example("with_transformers")
    network = transformers.AutoModelForImageClassification.from_config(
        transformers.ResNetConfig(**module.CONFIG, num_labels=3)
    ).eval()
    model, images = module.WithFeatures(network), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        logits, features = model(images)
        torch.testing.assert_close(features, network.resnet(images).pooler_output.flatten(1))
        last = network.classifier[-1]
        torch.testing.assert_close(torch.nn.functional.linear(features, last.weight, last.bias), logits)
    assert model._kept == []
