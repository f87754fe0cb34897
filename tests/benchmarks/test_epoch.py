"""The figures of the benchmark of an epoch, from times by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from benchmarks import epoch
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
    assert report("A", clock, 1000.0, 100.0, 120.0) == pytest.approx(2.0)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "A loop 800 images/s: 80.0 % of the bare step" in lines
    assert "A epoch 400 images/s: 40.0 % of the bare step" in lines
    assert "A saving 500.0 ms an epoch, processors 1000.0 ms" in lines
    assert lines[-1] == (
        "A whole run 20.0 s: until the first step 3.00 s, first epoch 8.00 s, further epochs 4.00 s, afterwards 5.00 s"
    )


def test_a_longer_run_is_computed_from_the_times_of_an_epoch(capsys, monkeypatch) -> None:
    times = iter([100.0, 120.0, 100.0, 120.0])
    clocks = iter([clock_of([5.0, 1.0, 1.0], [2.0, 0.5, 0.5], [1.0, 0.5, 0.5], 800.0) for _ in "AK"])
    monkeypatch.setattr(epoch, "perf_counter", lambda: next(times))
    monkeypatch.setattr(epoch, "Clock", lambda: next(clocks))
    monkeypatch.setattr(epoch, "bare_rate", lambda *_: 1000.0)
    monkeypatch.setattr(epoch, "train", lambda config, progress: SimpleNamespace())
    config = TrainConfig(alignment="-", epochs=3, size=32, batch_size=4)
    measure(config, config, torch.device("cpu"))
    one, other = (line for line in capsys.readouterr().out.splitlines() if line.startswith("A then K"))
    assert " 120 images/s, 40.0 s for 3 and 3 epochs: 12.0 % of the bare step" in one
    # 132 and 17 more epochs of 2 s, each of which the bare network would finish in 0.8 s.
    assert "computed for 135 and 20 epochs from the times of an epoch, 338 s: 36.7 % of the bare step" in other
