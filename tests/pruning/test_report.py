"""``fastccsa bench prune``: its report on a pruned run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from benchmarks.bench_prune import Benchmark
from benchmarks.pruning_report import as_text, parameters_at, report_pruning
from fastccsa import InputError, load_model
from fastccsa.pruning import prune
from fastccsa.pruning.record import PruneRecord


@pytest.mark.parametrize("backbone", ["resnet_basic", "resnet_bottleneck"])
def test_it_measures_both_networks_and_counts_parameters_at_other_thresholds(make_run, tmp_path, backbone) -> None:
    run, out = make_run(backbone), tmp_path / "u"
    small = {"images": 24, "discrimination_images": 12, "epochs": 1, "device": "cpu", "workers": 1, "progress": False}
    prune(run, out, threshold=1e-2, **small)
    record, found = PruneRecord.read(out), report_pruning(out)
    assert found["record"]["after"]["parameters"] == record.after.parameters
    assert set(found["recall"]) == {"before", "selected", "after"}
    assert found["file_bytes"]["after"] < found["file_bytes"]["before"]
    counts = [count for _, count in found["curve"]]
    assert counts == sorted(counts, reverse=True)
    kept = {layer.name: len(layer.kept) for layer in record.layers}
    assert parameters_at(load_model(run), kept) == record.after.parameters
    assert f"{len(record.layers[0].kept)} of {record.layers[0].channels}" in as_text(found)
    benchmark = Benchmark(SimpleNamespace(run=(out,), rounds=3, seconds=0.0))
    assert {(cell.engine, cell.threads, cell.batch) for cell in benchmark.cells()} == {
        (engine, threads, batch) for engine in ("PyTorch", "ONNX Runtime") for threads in (1, 2) for batch in (1, 32)
    }
    for cell in benchmark.cells():
        if cell.batch == 1:
            rows = benchmark.measure(cell, benchmark.names())
            assert {row.contestant: len(row.seconds) for row in rows} == {"before": 3, "after": 3}


def test_a_run_that_was_not_pruned_is_an_error(make_run) -> None:
    with pytest.raises(InputError, match="pruned run"):
        Benchmark(SimpleNamespace(run=(make_run("resnet_basic"),), rounds=3, seconds=0.0)).cells()
