"""Results are kept as they are, and every figure in the table follows from the times that are kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fastccsa.benchmarking.plot import plot
from fastccsa.benchmarking.results import FLOOR, OURS, RIVAL, CellResult, Measurement, Results
from fastccsa.benchmarking.table import format_bytes, format_seconds, table
from fastccsa.system.errors import InputError


def cell(pairs: int = 32, **values) -> CellResult:
    parameters = {"pairs": pairs, "width": 512, "classes": 7, "dtype": "float32", "mode": "forward", "weighted": True}
    rows = [
        Measurement("fastccsa", OURS, [2e-5, 4e-5, 3e-5], 10, 1024, 1e-8, 2e-7),
        Measurement("eager", RIVAL, [3e-4, 2e-4, 9e-4], 2, 4096, 3e-6, 4e-5, note="as one writes it"),
        Measurement("other", RIVAL, not_measured="not installed"),
        Measurement("floor: bytes", FLOOR, [1e-6, 1e-6, 1e-6], 100),
        Measurement("floor: call", FLOOR, [1e-5, 1e-5, 1e-5], 100),
    ]
    return CellResult(parameters | {"title": f"N={pairs}"} | values, 1000, 500, rows)


@pytest.fixture
def results() -> Results:
    machine = {
        "name": "desk", "system": "Linux x86_64", "cpu": "A CPU", "cores": 2, "memory_bytes": 2**34,
        "load_before": 0.1, "gpu": None, "environment": {"OMP_NUM_THREADS": "2"},
    }  # fmt: skip
    versions = {"python": "3.12.0", "torch": "2.10.0", "triton": None}
    settings = {"device": "cpu", "threads": 2, "rounds": 3, "seconds": 1.0, "minutes": None}
    date = "2026-01-02T03:04:05+00:00"
    return Results("zipped", machine, versions, "abc123", date, "fastccsa bench zipped", settings, [cell(), cell(64)])


def test_round_trip(results: Results, tmp_path: Path) -> None:
    results.write(tmp_path / "results.json")
    assert Results.read(tmp_path / "results.json") == results
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["machine"]["cpu"] == "A CPU"
    assert content["commit"] == "abc123"


def test_results_without_cells_round_trip(results: Results, tmp_path: Path) -> None:
    results.cells.clear()
    results.write(tmp_path / "results.json")
    assert Results.read(tmp_path / "results.json") == results


def test_times_keep_four_digits(results: Results, tmp_path: Path) -> None:
    results.cells[0].measurements[0].seconds = [1.23456789e-5]
    results.write(tmp_path / "results.json")
    assert Results.read(tmp_path / "results.json").cells[0]["fastccsa"].seconds == [1.235e-5]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": 0}', '{"format": 1, "cells": [{"cell": {}}]}'])
def test_another_file_is_refused(content: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"other\.json is not a file of benchmark results"):
        Results.read(path)


def test_quartiles_and_ratio_follow_from_the_times() -> None:
    result = cell()
    assert result["fastccsa"].quartiles == pytest.approx((2.5e-5, 3e-5, 3.5e-5))
    assert Measurement("one", RIVAL, [7.0]).quartiles == (7.0, 7.0, 7.0)
    assert result.ratio(result["eager"]) == pytest.approx(3e-4 / 3e-5)
    assert result.ratio(result["other"]) is None


def test_the_floor_is_the_highest_lower_bound() -> None:
    result = cell()
    assert result.floor is result["floor: call"]


def test_the_table_has_every_figure(results: Results) -> None:
    text = table(results)
    lines = text.splitlines()
    starts = ("   fastccsa ", "   eager ", "   other ", "   floor: call ")
    ours, eager, other, floor = (next(line for line in lines if line.startswith(start)) for start in starts)
    for part in ("30.0 µs", "25.0 µs - 35.0 µs", "3.00", "1.00 KiB", "1e-08", "2e-07"):
        assert part in ours
    for part in ("300 µs", "10.00", "30.00", "4.00 KiB", "3e-06", "4e-05"):
        assert part in eager
    assert "not measured" in other
    assert "0.33" in floor
    assert "not installed" in text
    assert "as one writes it" in text
    for origin in ("desk", "A CPU", "torch 2.10.0", "triton not installed", "abc123", "fastccsa bench zipped"):
        assert origin in text
    assert "OMP_NUM_THREADS=2" in text


def test_the_table_warns_of_a_busy_machine(results: Results) -> None:
    assert "WARNING" not in table(results)
    results.machine["load_before"] = 1.5
    assert "WARNING: the machine was busy" in table(results)


def test_units() -> None:
    assert [format_seconds(s) for s in (2.5, 0.0123, 45.6e-6, 7e-9)] == ["2.50 s", "12.3 ms", "45.6 µs", "7.00 ns"]
    assert [format_bytes(b) for b in (0, 1000, 2048, 3 * 2**20, 5000 * 2**30)] == [
        "0 B", "1000 B", "2.00 KiB", "3.00 MiB", "5000 GiB",
    ]  # fmt: skip


@pytest.mark.parametrize(("ending", "begins"), [(".svg", b"<?xml"), (".png", b"\x89PNG")])
def test_plot(results: Results, tmp_path: Path, ending: str, begins: bytes) -> None:
    path = tmp_path / f"times{ending}"
    plot(results, path, "pairs", "width", ("mode", "dtype"))
    assert path.read_bytes().startswith(begins)
    if ending == ".svg":
        drawn = path.read_text()
        assert all(text in drawn for text in ("fastccsa", "eager", "floor: call", "abc123"))
        assert ">other<" not in drawn


def test_plots_that_cannot_be(results: Results, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\.svg or \.png"):
        plot(results, tmp_path / "times.pdf", "pairs", "width", ("mode",))
    results.cells = []
    with pytest.raises(InputError, match="nothing to plot"):
        plot(results, tmp_path / "times.svg", "pairs", "width", ("mode",))
