"""What the whole suite shares."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

# Only the checkout has `benchmarks`; at the end, so that the package under test stays the installed one.
sys.path.append(str(Path(__file__).resolve().parents[1]))

COLOURS = {"nv": (200, 60, 60), "mel": (60, 200, 60), "bcc": (60, 60, 200)}

DrawCollections = Callable[[Mapping[str, Sequence[str]], int], Path]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on a single thread, for networks too small to share."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def draw_collections(tmp_path_factory: pytest.TempPathFactory) -> DrawCollections:
    """Draw noisy 40 px images whose colour tells the class; returns the manifest.

    Given the classes of each domain, and how many training images of each to draw; validation and test have two.
    """
    import numpy as np
    from PIL import Image

    def draw(classes: Mapping[str, Sequence[str]], training: int) -> Path:
        folder = tmp_path_factory.mktemp("images")
        random = np.random.default_rng(0)
        rows = ["image,label,domain,group,split"]
        for domain, labels in classes.items():
            for label in labels:
                for number, split in enumerate(["train"] * training + ["validation"] * 2 + ["test"] * 2):
                    name = f"{domain}_{label}_{number}.png"
                    pixels = random.normal(COLOURS[label], 30, (40, 40, 3)).clip(0, 255).astype(np.uint8)
                    Image.fromarray(pixels).save(folder / name)
                    rows.append(f"{name},{label},{domain},{name},{split}")
        path = folder / "manifest.csv"
        path.write_text("\n".join(rows) + "\n")
        return path

    return draw


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> str:
    """Every device that kernels exist for."""
    return request.param


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `cuda` are skipped, with a reason, where there is no CUDA device."""
    marked = [item for item in items if "cuda" in item.keywords]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
