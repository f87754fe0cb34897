from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from fastccsa.cli import main
from fastccsa.collections.manifest import Manifest
from fastccsa.images import PairLoader, Transforms, preview
from fastccsa.sampling import PairSampler
from fastccsa.system.errors import InputError


@pytest.mark.parametrize("pairs", [3, 10])
def test_the_picture_shows_the_loaders_pairs(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pairs: int
) -> None:
    figures = []
    original = preview._figure
    monkeypatch.setattr(preview, "_figure", lambda *args: figures.append(original(*args)) or figures[0])
    preview.draw_pairs(manifest, tmp_path / "pairs.png", pairs, transforms=Transforms(32))
    sampler = PairSampler(manifest.labels, manifest.domain_indices, num_classes=3, batch_size=pairs)
    with PairLoader(manifest, sampler, transforms=Transforms(32)) as loader:
        batch = next(loader.epoch(0))
    shown = [axes for axes in figures[0].axes if axes.images]
    assert len(shown) == 2 * pairs
    titles = {1: [], 2: []}
    for axes in shown:
        titles[1 + axes.get_subplotspec().rowspan.start % 2].append(axes.get_title())
    for side in (1, 2):
        labels, domains = batch[f"target{side}"], batch[f"domain{side}"]
        expected = [f"{'abc'[y]} · {'PQ'[d]}" for y, d in zip(labels, domains, strict=True)]
        assert sorted(titles[side]) == sorted(expected)
    first = torch.from_numpy(np.asarray(shown[0].images[0].get_array())).permute(2, 0, 1).float()
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (Transforms().mean, Transforms().std))
    assert (first - 255 * (batch["images1"][0] * std + mean)).abs().max() < 0.51
    with Image.open(tmp_path / "pairs.png") as image:
        assert image.format == "PNG"
        assert image.width > 32 * min(pairs, 8)


def test_the_command_writes_a_picture_and_reports_unknown_domains(manifest: Manifest, tmp_path: Path) -> None:
    manifest.write(tmp_path / "manifest.csv")
    arguments = ["preview", "--manifest", str(tmp_path / "manifest.csv"), "--out", str(tmp_path / "a/pairs.png")]
    result = CliRunner().invoke(main, [*arguments, "--pairs", "2", "--size", "16"])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "a/pairs.png").stat().st_size > 1000
    result = CliRunner().invoke(main, [*arguments, "--primary", "X"])
    assert result.exit_code == 2
    assert "primary domain 'X' is not in the manifest, which has P, Q" in result.output


def test_zero_pairs_are_an_error(manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pairs is 0"):
        preview.draw_pairs(manifest, tmp_path / "pairs.png", 0)
