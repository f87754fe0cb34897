"""A small data set for experiments: HAM and three more domains, three classes, 40 px images told by their colours."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from fastccsa.experiments.plan import Plan, make_plan
from fastccsa.experiments.scale import parse_scale, parse_settings

COLOURS = {"nv": (200, 60, 60), "mel": (60, 200, 60), "bcc": (60, 60, 200)}
DOMAINS = ("HAM", "DMF", "UDA", "SON")
SPLITS = ["train"] * 7 + ["validation"] * 2 + ["test"] * 2

# Runs of two seconds, on a network that trains at 32 px on a CPU.
SCALE = "size=32,epochs=1,weights=none,batch_size=16"
SETTINGS = ("backbone=shufflenet_v2_x0_5", "workers=1")


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def manifest_csv(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    rows = ["image,label,domain,group,split"]
    for domain in DOMAINS:
        for label, colour in COLOURS.items():
            if domain == "SON" and label != "nv":  # as SONIC, all nevus
                continue
            for number, split in enumerate(SPLITS):
                name = f"{domain}_{label}_{number}.png"
                pixels = random.normal(colour, 30, (40, 40, 3)).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / name)
                rows.append(f"{name},{label},{domain},{name},{split}")
    path = folder / "manifest.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture
def plan_of(manifest_csv, tmp_path) -> Callable[..., Plan]:
    """Make plans on the small data set, with runs in ``tmp_path / "runs"``."""

    def plan(letters: str, seeds: int = 1, scale: str = SCALE, manifest: Path = manifest_csv, **options) -> Plan:
        settings = parse_settings([*SETTINGS, *options.pop("settings", ())])
        runs = options.pop("runs", tmp_path / "runs")
        return make_plan(letters, range(seeds), str(manifest), runs, parse_scale(scale), settings, **options)

    return plan
