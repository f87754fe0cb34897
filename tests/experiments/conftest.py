"""A small data set for experiments: HAM and three more domains, three classes, 40 px images that differ in colour."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from fastccsa.experiments.plan import Plan, make_plan
from fastccsa.experiments.scale import parse_scale, parse_settings

CLASSES = ("nv", "mel", "bcc")

# Runs of two seconds, with a network that trains at 32 px on a CPU.
SCALE = "size=32,epochs=1,weights=none,batch_size=16"
SETTINGS = ("backbone=shufflenet_v2_x0_5", "workers=1")


@pytest.fixture(autouse=True)
def _one_thread(one_thread) -> None:
    """Networks in this folder are too small for several threads."""


@pytest.fixture(scope="session")
def manifest_csv(draw_collections) -> Path:
    # Like SONIC, SON has only nevi.
    return draw_collections(dict.fromkeys(("HAM", "DMF", "UDA"), CLASSES) | {"SON": ("nv",)}, 7)


@pytest.fixture
def plan_of(manifest_csv, tmp_path) -> Callable[..., Plan]:
    """Return a function that makes plans for the small data set, with runs in ``tmp_path / "runs"``."""

    def plan(letters: str, seeds: int = 1, scale: str = SCALE, manifest: Path = manifest_csv, **options) -> Plan:
        settings = parse_settings([*SETTINGS, *options.pop("settings", ())])
        runs = options.pop("runs", tmp_path / "runs")
        return make_plan(letters, range(seeds), str(manifest), runs, parse_scale(scale), settings, **options)

    return plan
