"""The picture of features, the pictures of the report, and the README on the package index."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image
from scipy.spatial.distance import cdist
from sklearn.decomposition import PCA

from fastccsa.evaluation import Outputs

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
README = ROOT / "README.md"
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def features(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """docs/site/features.py."""
    monkeypatch.syspath_prepend(DOCS / "site")
    return importlib.import_module("features")


def outputs_of(seed: int) -> Outputs:
    """Make outputs of 12 images of two classes in three domains."""
    random = np.random.default_rng(seed)
    targets, domains = np.arange(12) % 2, np.arange(12) % 3
    return Outputs(
        targets=targets,
        domains=domains,
        rows=np.arange(12),
        logits=random.normal(size=(12, 2)).astype(np.float32),
        features=(5 * random.normal(size=(12, 8)) + 9 * targets[:, None]).astype(np.float16),
        classes=("nv", "<mel>"),
        domain_names=("home", "near", "far"),
        split="test",
    )


def test_the_picture_has_a_mark_for_each_image_and_the_medians(features: ModuleType) -> None:
    before, after = outputs_of(0), outputs_of(1)
    picture = ElementTree.fromstring(features.draw(before, after, home="home", unseen=("far",)))
    panels = [group for group in picture.iter(f"{SVG}g") if group.find(f"{SVG}rect") is not None]
    assert len(panels) == 2
    for panel in panels:
        for kind in ("home", "seen", "unseen"):
            paths = [path.get("d", "") for path in panel.iter(f"{SVG}path") if path.get("class") == kind]
            assert sum(path.count("M") for path in paths) == 4
    text = ["".join(element.itertext()) for element in picture.iter(f"{SVG}text")]
    for outputs in (before, after):
        rows, columns = np.triu_indices(12, k=1)
        across = outputs.domains[rows] != outputs.domains[columns]
        one = outputs.targets[rows] == outputs.targets[columns]
        values = outputs.features.astype(np.float64)
        distances = cdist(values, values)[rows, columns]
        assert f"one class: {np.median(distances[across & one]):.1f}" in text
        assert f"two classes: {np.median(distances[across & ~one]):.1f}" in text


def test_the_panels_show_principal_components(features: ModuleType) -> None:
    values = outputs_of(2).features.astype(np.float64)
    points, share = features.principal_components(values)
    expected = PCA(2).fit(values)
    np.testing.assert_allclose(np.abs(points), np.abs(expected.transform(values)), atol=1e-8)
    np.testing.assert_allclose(share, expected.explained_variance_ratio_.sum())


def test_the_committed_picture_is_small_and_needs_no_other_file() -> None:
    path = DOCS / "pictures" / "features.svg"
    assert path.stat().st_size < 60_000
    text = path.read_text(encoding="utf-8")
    ElementTree.fromstring(text)
    assert "prefers-color-scheme: dark" in text
    assert not re.search(r"href|url\(|@import|<script|<image", text)


def test_the_gallery_shows_every_picture_of_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS / "site")
    parts = importlib.import_module("gallery").PARTS
    paths = sorted((DOCS / "pictures" / "report").iterdir())
    assert {path.stem for path in paths} == set(parts)
    shown = re.findall(r"!\[[^\]]+\]\((pictures/report/[\w-]+\.webp)\)", (DOCS / "gallery.md").read_text("utf-8"))
    assert sorted(DOCS / name for name in shown) == paths
    for path in paths:
        assert path.stat().st_size < 100_000
        with Image.open(path) as picture:
            assert picture.format == "WEBP"


def test_links_of_the_readme_lead_to_the_site_on_the_package_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS / "site")
    rewrite = importlib.import_module("absolute_links").absolute
    before = README.read_text(encoding="utf-8")
    after = rewrite(before, "https://example.org/docs/")
    targets = re.findall(r"\]\(([^)\s]+)\)", after)
    assert len(targets) == len(re.findall(r"\]\(([^)\s]+)\)", before)) > 10
    for target in targets:
        path = re.fullmatch(r"https://example\.org/docs/([\w./-]+?)(?:#[\w-]+)?", target)
        assert path, target
        assert (DOCS / re.sub(r"\.html$", ".md", path[1])).is_file(), target
    with pytest.raises(SystemExit, match=r"CHANGELOG\.md"):
        rewrite("[changes](CHANGELOG.md)", "https://example.org")


def test_the_readme_opens_with_code_and_stays_short() -> None:
    """Install, the loss, the picture and one table come before any section."""
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 150
    opening = text.split("\n## ")[0]
    order = [opening.index(part) for part in ("pip install", "```python", "docs/pictures/features.svg", "|---|")]
    assert order == sorted(order)
    assert len(re.findall(r"^\|(?:---\|)+$", opening, re.M)) == 1
