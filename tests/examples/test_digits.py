"""The original CCSA experiment: its exact protocol, its table, and resuming it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch

import fastccsa

Example = Callable[[str], ModuleType]


@pytest.fixture
def digits(example: Example, row_data: Path):
    return example("digits_data").read_digits(row_data, 1, 0)


def test_arrays_are_read_as_images_and_labels(digits) -> None:
    assert digits.source.shape == (150, 1, 16, 16)
    assert digits.source.dtype == torch.float32
    assert digits.test_labels.dtype == torch.int64
    assert digits.unseen().tolist() == [False, False] + [True] * 58


def test_published_pairs(example: Example, digits, monkeypatch: pytest.MonkeyPatch) -> None:
    module = example("digits")
    monkeypatch.setattr(module, "BATCH", 100)
    pairs = module.PublishedPairs(digits, seed=0)
    labels = torch.cat([digits.source_labels, digits.target_labels])
    same = labels[pairs.first] == labels[pairs.second]
    assert int(same.sum()) == 150  # each source image with the one target image of its class
    assert int((~same).sum()) == 450
    assert len({*zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)}) == 600
    assert bool((pairs.first < 150).all())
    assert bool((pairs.second >= 150).all())
    batches = list(pairs)
    assert len(batches) == len(pairs) == 12
    for straight, swapped in zip(batches[::2], batches[1::2], strict=True):
        assert torch.equal(straight[0], swapped[1])
        assert torch.equal(straight[1], swapped[0])


def test_repeated_images_give_what_single_ones_do(example: Example) -> None:
    network = example("digits").Network().eval()
    images = torch.rand(5, 1, 16, 16)
    index = torch.tensor([3, 0, 3, 3, 4])
    logits, features = network(images, index)
    expected = network.features(network.maps(images[index]))
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(logits, network.head(expected))
    assert features.shape == (5, 84)


def test_loss_is_the_published_one(example: Example, digits) -> None:
    """(1 - 0.25) cross-entropy of the first stream, plus 0.25 times the squared distance or the hinge at margin 1."""
    module = example("digits")
    loss_fn = fastccsa.WeightedCCSALoss(class_weight2=torch.zeros(10), margin=module.MARGIN, alpha=module.ALPHA)
    logits, features = torch.randn(2, 8, 10), torch.rand(2, 8, 84) * 0.1
    y1, y2 = torch.arange(8), torch.arange(8) // 2
    distance = (features[0] - features[1]).norm(dim=1)
    separate = torch.where(y1 == y2, distance**2, (1 - distance).clamp(min=0) ** 2).mean()
    expected = 0.75 * torch.nn.functional.cross_entropy(logits[0], y1) + 0.25 * separate
    torch.testing.assert_close(loss_fn(*logits, *features, y1, y2), expected)


def test_table_and_resuming(
    example: Example, row_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    module, out = example("digits"), tmp_path / "digits.json"
    monkeypatch.setattr(module, "BATCH", 100)
    command = ["--row-data", str(row_data), "--n", "1", "--epochs", "8", "--sampler-steps", "30", "--out", str(out)]
    module.main([*command, "--repetitions", "0"])
    first = json.loads(out.read_text())["runs"]
    assert len(first) == 1
    assert first[0]["leaked"] == 2
    assert first[0]["best_on_test"] >= first[0]["last"] > 50  # the squares are easy
    assert 0 < first[0]["loss_share"] < 1
    module.main([*command, "--repetitions", "0", "1"])
    runs = json.loads(out.read_text())["runs"]
    assert runs[0] == first[0]  # not run again
    assert [run["repetition"] for run in runs] == [0, 1]
    shown = capsys.readouterr().out
    assert "| Motiian et al. 2017 (best on test) | 85.0 |" in shown
    mean = (runs[0]["last"] + runs[1]["last"]) / 2
    error = abs(runs[0]["last"] - runs[1]["last"]) / 2  # the standard error of two values
    assert f"| published, last epoch | {mean:.1f} ± {error:.1f} |" in shown


@pytest.mark.parametrize(
    ("change", "message"),
    [(["--n", "3"], "does not exist"), (["--row-data", "nowhere"], "give the folder row_data")],
)
def test_missing_files_are_reported_before_any_work(
    example: Example, row_data: Path, tmp_path: Path, capsys, change: list[str], message: str
) -> None:
    command = ["--row-data", str(row_data), "--repetitions", "0", "--n", "1", "--out", str(tmp_path / "digits.json")]
    with pytest.raises(SystemExit) as stop:
        example("digits").main([*command, *change])
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "digits.json").exists()


def test_other_settings_do_not_mix(example: Example, row_data: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "digits.json"
    out.write_text(json.dumps({"settings": {"epochs": 80}, "runs": []}))
    with pytest.raises(SystemExit):
        example("digits").main(["--row-data", str(row_data), "--out", str(out), "--epochs", "1"])
    assert "choose another --out" in capsys.readouterr().err
