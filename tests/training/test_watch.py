"""Scores after each epoch on images that decide nothing: from plans in memory they are those of an ordinary run."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch

from fastccsa.data import Manifest
from fastccsa.evaluation import replay
from fastccsa.evaluation.replay import ReplayedPredictions
from fastccsa.models import build_model
from fastccsa.system.errors import Interrupted
from fastccsa.training import loop as loop_module
from fastccsa.training import train
from fastccsa.training.graph import StaticStep
from fastccsa.training.ranks import ALONE
from fastccsa.training.watch import Watch, open_share

CPU = torch.device("cpu")


def watched_scores(out: str) -> list[dict[str, dict[str, float]]]:
    records = [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]
    return [{name: record[name] for name in ("unseen", "test")} for record in records]


def test_scores_from_memory_are_those_of_an_ordinary_evaluation(make_config, manifest_csv) -> None:
    config, manifest = make_config(cache="ram", score_epochs=True), Manifest.read(manifest_csv)
    torch.manual_seed(0)
    model, called = build_model("shufflenet_v2_x0_5", 3, weights="none"), []
    validation = open_share(manifest.select("validation", ["HAM"]), config, CPU, ALONE)
    with validation, Watch(config, manifest, ("HAM",), CPU, ALONE) as watch:
        expected = watch.record(model, CPU, None, lambda: called.append("ordinary"))
        watch.replay(ReplayedPredictions(validation, None, capture=False))
        found = watch.record(model, CPU, None, lambda: called.append("from memory"))
    assert found == expected
    assert set(found["unseen"]) == {"DMF", "SON"}
    assert set(found["test"]) == {"DMF", "HAM", "SON"}
    assert called == ["ordinary", "ordinary", "from memory", "from memory"]


def test_a_stop_is_noticed_while_images_are_watched(make_config, manifest_csv) -> None:
    config, manifest = make_config(cache="ram", score_epochs=True), Manifest.read(manifest_csv)
    model = build_model("shufflenet_v2_x0_5", 3, weights="none")

    def stop() -> None:
        raise Interrupted("stopped", 0)

    with Watch(config, manifest, ("HAM",), CPU, ALONE) as watch:
        for _ in range(2):
            with pytest.raises(Interrupted):
                watch.record(model, CPU, None, stop)
            with open_share(manifest.select("validation"), config, CPU, ALONE) as validation:
                watch.replay(ReplayedPredictions(validation, None, capture=False))


def test_a_run_with_a_graph_watches_from_memory(make_config, monkeypatch) -> None:
    """The whole loop as on a GPU, with steps and evaluations in fixed memory that are not captured."""
    settings = {"alignment": "-", "exclude": ("SON",), "cache": "ram", "score_epochs": True}
    ordinary, graphed = (make_config(out, **settings) for out in ("ordinary", "graphed"))
    expected = train(ordinary, progress=False)
    monkeypatch.setattr(loop_module, "use_graph", lambda *args: True)
    monkeypatch.setattr(loop_module, "GraphedStep", StaticStep)
    monkeypatch.setattr(loop_module, "ReplayedPredictions", partial(ReplayedPredictions, capture=False))
    call, seen = ReplayedPredictions.__call__, []
    monkeypatch.setattr(ReplayedPredictions, "__call__", lambda self, *args: (seen.append(self), call(self, *args))[1])
    assert train(graphed, progress=False) == expected
    assert watched_scores(graphed.out) == watched_scores(ordinary.out)
    assert len(seen) == 2 * 3  # epochs; validation, unseen and test
    assert len(set(map(id, seen))) == 3


@pytest.mark.cuda
@pytest.mark.usefixtures("deterministic")
def test_watched_images_are_replayed_on_a_gpu(make_config, monkeypatch) -> None:
    settings = {"alignment": "-", "exclude": ("SON",), "device": "cuda", "cache": "gpu", "score_epochs": True}
    settings |= {"lr": 2.0**-10, "lr_gamma": 2.0**-3, "epochs": 3}
    ordinary, graphed = (
        make_config(out, cuda_graph=None if out == "graphed" else False, **settings) for out in ("ordinary", "graphed")
    )
    expected = train(ordinary, progress=False)
    captures, capture = [], replay.capture
    monkeypatch.setattr(replay, "capture", lambda *args: (captures.append(args[1:]), capture(*args))[1])
    assert train(graphed, progress=False) == expected
    assert watched_scores(graphed.out) == watched_scores(ordinary.out)
    assert len(captures) == 3
    assert len(set(captures)) == 1  # one stream, and one memory
