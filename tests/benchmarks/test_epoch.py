"""The figures of the benchmark of an epoch, from times by hand."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from benchmarks import commands, epoch
from benchmarks.epoch import PARTS, Clock, measure, report
from fastccsa.runs.config import TrainConfig


def clock_of(training: list[float], validation: list[float], saving: list[float], images: float) -> Clock:
    """Return a clock of a run whose first epoch begins 3 s after time 100."""
    clock, now = Clock(), 103.0
    for seconds in zip(training, validation, saving, strict=True):
        for part, wall in zip(PARTS, seconds, strict=True):
            clock.wall[part].append(wall)
            clock.processors[part].append(2 * wall)
        now += sum(seconds)
        clock.ends.append(now)
        clock.images.append(images)
    return clock


def test_the_first_epoch_is_part_of_the_whole_run_only(capsys) -> None:
    clock = clock_of([5.0, 1.0, 1.0], [2.0, 0.5, 0.5], [1.0, 0.25, 0.75], 800.0)
    record = report("A", clock, (1000.0, 1000.0), 100.0, 120.0)
    assert record["epoch_seconds"] == pytest.approx(2.0)
    assert record["loop_share"] == pytest.approx(0.8)
    assert sum(record["parts_seconds"].values()) == pytest.approx(record["run_seconds"]) == pytest.approx(20)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "A loop 800 images/s: 80.0 % of the bare step" in lines
    assert "A epoch 400 images/s: 40.0 % of the bare step" in lines
    assert "A saving 500.0 ms an epoch, processors 1000.0 ms" in lines
    assert lines[-1] == (
        "A whole run 20.0 s: until the first step 3.00 s, first epoch 8.00 s, further epochs 4.00 s, afterwards 5.00 s"
    )


@pytest.fixture
def two_runs(monkeypatch) -> TrainConfig:
    """Measure two runs of 3 epochs, of 20 s and of 800 images an epoch each, beside a bare step of 1000 images/s."""
    times = iter([100.0, 120.0, 100.0, 120.0])
    clocks = iter([clock_of([5.0, 1.0, 1.0], [2.0, 0.5, 0.5], [1.0, 0.5, 0.5], 800.0) for _ in "AK"])
    monkeypatch.setattr(epoch, "perf_counter", lambda: next(times))
    monkeypatch.setattr(epoch, "Clock", lambda: next(clocks))
    monkeypatch.setattr(epoch, "bare_rate", lambda *_: 1000.0)
    monkeypatch.setattr(epoch, "train", lambda config, progress: SimpleNamespace())
    return TrainConfig(alignment="-", epochs=3, size=32, batch_size=4)


def test_a_longer_run_is_computed_from_the_times_of_an_epoch(capsys, two_runs) -> None:
    records = list(measure(two_runs, two_runs, torch.device("cpu")))
    one, other = (line for line in capsys.readouterr().out.splitlines() if line.startswith("A then K"))
    assert " 120 images/s, 40.0 s for 3 and 3 epochs: 12.0 % of the bare step" in one
    assert [record["run"] for record in records] == ["A", "K", "A then K", "A then K, computed"]
    assert records[2]["share"] == pytest.approx(0.12)
    # 132 and 17 more epochs of 2 s, each of which the bare network would finish in 0.8 s.
    assert "computed for 135 and 20 epochs from the times of an epoch, 338 s: 36.7 % of the bare step" in other


def test_times_other_than_of_saving_are_in_proportion_to_the_images(capsys, two_runs) -> None:
    records = list(measure(two_runs, two_runs, torch.device("cpu"), rendered=0.1))
    assert records[-1]["run"] == "A then K, computed for all images"
    # 155 epochs are saved in 0.5 s each, and the other 260.5 s are ten times as many.
    assert "10 times as many images, as in the paper, 2682 s: 46.2 % of the bare step" in capsys.readouterr().out
    assert records[-1]["share"] == pytest.approx(1240 / 2682.5)


def test_a_run_is_yielded_as_soon_as_it_has_ended(two_runs) -> None:
    """Where the measurement is cut off in the second run, the first one's figures are not lost."""
    assert next(measure(two_runs, two_runs, torch.device("cpu")))["run"] == "A"


def test_the_bare_step_before_and_after_a_run_counts_by_its_time(capsys) -> None:
    """Half of the steps at 500 and half at 1500 images/s, as many images each, are 750 images/s."""
    clock = clock_of([5.0, 1.0, 1.0], [2.0, 0.5, 0.5], [1.0, 0.25, 0.75], 750.0)
    record = report("A", clock, (500.0, 1500.0), 100.0, 120.0)
    assert record["loop_share"] == pytest.approx(1)
    assert "bare step 750 images/s (500 before, 1500 after)" in " ".join(capsys.readouterr().out.split())


def test_results_are_written_after_each_run(tmp_path, monkeypatch) -> None:
    out, runs = tmp_path / "epoch.json", []

    def measured(
        baseline: TrainConfig, after: TrainConfig, device: torch.device, rendered: float
    ) -> Iterator[dict[str, object]]:
        assert (baseline.epochs, after.epochs, after.init, rendered) == (3, 2, baseline.out, 1.0)
        for run in "AK":
            yield {"size": baseline.size, "run": run}
            runs.append((baseline.size, run))
            assert [(record["size"], record["run"]) for record in json.loads(out.read_text())["records"]] == runs

    monkeypatch.setattr(epoch, "measure", measured)
    manifest = tmp_path / "manifest.csv"
    manifest.touch()
    words = f"--manifest {manifest} --device cpu --sizes 48,64 --epochs 2 --baseline-epochs 3 --out {out}"
    epoch.main(SimpleNamespace(**commands.bench.commands["epoch"].make_context("epoch", words.split()).params))
    found = json.loads(out.read_text())
    assert [record["size"] for record in found["records"]] == [48, 48, 64, 64]
    assert found["machine"]
