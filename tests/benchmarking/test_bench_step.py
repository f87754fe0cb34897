from __future__ import annotations

from fastccsa.benchmarking.step import StepTimes


def test_the_table_has_medians_and_their_ratio_to_the_floor() -> None:
    times = StepTimes(64, loop=[0.3, 0.1, 0.2], plain=[], bare=[0.1, 0.1, 0.4], parts={"images": [0.1], "loss": [0.3]})
    lines = times.table().splitlines()
    assert lines[1].split() == ["fastccsa's", "loop", "200.00", "320", "2.000"]
    assert lines[2].split() == ["bare", "network", "(floor)", "100.00", "640", "1.000"]
    assert lines[3].split() == ["images", "100.00", "25.0%"]
    assert len(lines) == 5
