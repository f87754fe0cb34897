"""``fastccsa bench prune``: what it says of a pruned run."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from fastccsa import load_model
from fastccsa.benchmarking.pruned import parameters_at
from fastccsa.cli import main
from fastccsa.pruning import prune
from fastccsa.pruning.record import PruneRecord


@pytest.mark.parametrize("backbone", ["resnet_basic", "resnet_bottleneck"])
def test_it_measures_both_networks_and_counts_parameters_at_other_thresholds(make_run, tmp_path, backbone) -> None:
    run, out = make_run(backbone), tmp_path / "u"
    small = {"images": 24, "discrimination_images": 12, "epochs": 1, "device": "cpu", "workers": 1, "progress": False}
    prune(run, out, threshold=1e-2, **small)
    files = [str(tmp_path / "report.json"), str(tmp_path / "report.svg")]
    result = CliRunner().invoke(
        main,
        ["bench", "prune", "--run", str(out), "--rounds", "3", "--seconds", "0", "--out", files[0], "--plot", files[1]],
    )
    assert result.exit_code == 0, result.output
    record = PruneRecord.read(out)
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["record"]["after"]["parameters"] == record.after.parameters
    assert set(found["recall"]) == {"before", "selected", "after"}
    assert {(x["model"], x["engine"], x["threads"], x["batch"]) for x in found["latency"]} == {
        (model, engine, threads, batch)
        for model in ("before", "after")
        for engine in ("PyTorch", "ONNX Runtime")
        for threads in (1, 2)
        for batch in (1, 32)
    }
    assert all(len(x["seconds"]) == 3 for x in found["latency"])
    counts = [count for _, count in found["curve"]]
    assert counts == sorted(counts, reverse=True)
    assert "<svg" in (tmp_path / "report.svg").read_text()
    kept = {layer.name: len(layer.kept) for layer in record.layers}
    assert parameters_at(load_model(run), kept) == record.after.parameters


def test_a_run_that_was_not_pruned_is_refused(make_run) -> None:
    result = CliRunner().invoke(main, ["bench", "prune", "--run", str(make_run("resnet_basic"))])
    assert result.exit_code == 2
    assert "not a pruned run" in result.output
