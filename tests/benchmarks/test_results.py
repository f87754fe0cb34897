"""Results survive a round trip through the file, and every figure in the table follows from the stored times."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.harness.chart import chart
from benchmarks.harness.results import FLOOR, OURS, RIVAL, Results, Row
from benchmarks.harness.table import floor_of, format_bytes, format_seconds, table
from fastccsa.system.errors import InputError

SECONDS = {
    "fastccsa": [2e-5, 4e-5, 3e-5],
    "eager": [3e-4, 2e-4, 9e-4],
    "floor: bytes": [1e-6, 1e-6, 1e-6],
    "floor: call": [1e-5, 1e-5, 1e-5],
}
STATS = {
    "min": 1.0, "max": 2.0, "mean": 1.5, "stddev": 0.1, "median": 1.5, "iqr": 0.1, "outliers": "0;0", "ops": 1.0,
    "rounds": 3, "iterations": 1,
}  # fmt: skip


def rows() -> list[Row]:
    return [
        Row("fastccsa", OURS, SECONDS["fastccsa"], 10, 1024, 1e-8, 2e-7),
        Row("eager", RIVAL, SECONDS["eager"], 2, 4096, 3e-6, 4e-5, note="as one writes it", cpu_seconds=[2.0, 4.0]),
        Row("floor: bytes", FLOOR, SECONDS["floor: bytes"], 100),
        Row("floor: call", FLOOR, SECONDS["floor: call"], 100),
        Row("other", RIVAL, not_measured="not installed"),
    ]


def entries(pairs: int) -> list[dict]:
    parameters = {"pairs": pairs, "width": 512, "classes": 7, "dtype": "float32", "mode": "forward", "weighted": True}
    found = []
    for row in rows():
        entry = {"group": f"N={pairs}", "name": row.contestant, "fullname": f"{pairs}-{row.contestant}"}
        entry |= {"params": parameters | {"contestant": row.contestant}, "extra_info": row.as_info()}
        found.append(entry | ({"stats": STATS | {"data": row.seconds}} if row.seconds else {}))
    return found


@pytest.fixture
def results() -> Results:
    machine = {
        "name": "desk", "system": "Linux x86_64", "cpu": "A CPU", "cores": 2, "memory_bytes": 2**34,
        "load_before": 0.1, "gpu": None, "environment": {"OMP_NUM_THREADS": "2"},
        "versions": {"python": "3.12.0", "torch": "2.10.0", "triton": None},
    }  # fmt: skip
    every = entries(32) + entries(64)
    return Results(
        machine, {"id": "abc123"}, "2026-01-02T03:04:05+00:00", "5.1.0", "fastccsa bench zipped",
        {"zipped": {"device": "cpu", "threads": 2}}, {},
        [entry for entry in every if "stats" in entry], [entry for entry in every if "stats" not in entry],
    )  # fmt: skip


def test_round_trip(results: Results, tmp_path: Path) -> None:
    results.write(tmp_path / "results.json")
    assert Results.read(tmp_path / "results.json") == results
    content = json.loads((tmp_path / "results.json").read_text())
    assert content["machine_info"]["cpu"] == "A CPU"
    assert content["commit_info"] == {"id": "abc123"}
    assert results.cells()["N=64"][1] == rows()


def test_results_without_cells_round_trip(results: Results, tmp_path: Path) -> None:
    results.benchmarks.clear()
    results.untimed.clear()
    results.write(tmp_path / "results.json")
    assert Results.read(tmp_path / "results.json") == results


def test_a_contestant_is_one_line(results: Results, tmp_path: Path) -> None:
    results.write(tmp_path / "results.json")
    lines = (tmp_path / "results.json").read_text().splitlines()
    assert [sum(f'"name": "{row.contestant}"' in line for line in lines) for row in rows()] == [2] * 5
    assert all(line.count('"group"') <= 1 for line in lines)


def test_times_keep_four_digits(results: Results, tmp_path: Path) -> None:
    results.benchmarks[0]["stats"]["data"] = [1.23456789e-5]
    results.benchmarks[0]["extra_info"]["cpu_seconds"] = [2.3456789]
    results.write(tmp_path / "results.json")
    row = Results.read(tmp_path / "results.json").cells()["N=32"][1][0]
    assert (row.seconds, row.cpu_seconds) == ([1.235e-5], [2.346])


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"machine_info": {}}', '{"benchmarks": [{"group": 1}]}'])
def test_another_file_is_rejected(content: str, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text(content)
    with pytest.raises(InputError, match=r"other\.json is not a file of benchmark results"):
        Results.read(path)


def test_quartiles_follow_from_the_times() -> None:
    assert rows()[0].quartiles == pytest.approx((2.5e-5, 3.5e-5))
    assert rows()[0].median == 3e-5
    assert Row("one", RIVAL, [7.0]).quartiles == (7.0, 7.0)


def test_the_floor_is_the_highest_lower_bound() -> None:
    assert floor_of(rows()).contestant == "floor: call"


def test_the_table_has_every_figure(results: Results) -> None:
    text = table(results)
    lines = text.splitlines()
    starts = ("   fastccsa ", "   eager ", "   other ", "   floor: call ")
    ours, eager, other, floor = (next(line for line in lines if line.startswith(start)) for start in starts)
    for part in ("30.0 µs", "25.0 µs - 35.0 µs", "3.00", "1.00 KiB", "1e-08", "2e-07"):
        assert part in ours
    for part in ("300 µs", "10.00", "30.00", "3.00 s", "4.00 KiB", "3e-06", "4e-05"):
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
    results.machine_info["load_before"] = 1.5
    assert "WARNING: the machine was busy" in table(results)


def test_units() -> None:
    assert [format_seconds(s) for s in (2.5, 0.0123, 45.6e-6, 7e-9)] == ["2.50 s", "12.3 ms", "45.6 µs", "7.00 ns"]
    assert [format_bytes(b) for b in (0, 1000, 2048, 3 * 2**20, 5000 * 2**30)] == [
        "0 B", "1000 B", "2.00 KiB", "3.00 MiB", "5000 GiB",
    ]  # fmt: skip


def test_a_chart_of_several_sizes(results: Results) -> None:
    drawn = chart(results)
    assert drawn.startswith("<?xml")
    assert all(text in drawn for text in ("fastccsa", "eager", "floor: call", "abc123"))
    assert ">other<" not in drawn


def test_one_size_makes_no_chart(results: Results) -> None:
    results.benchmarks = [entry for entry in results.benchmarks if entry["params"]["pairs"] == 32]
    assert chart(results) is None
    results.benchmarks = []
    assert chart(results) is None
