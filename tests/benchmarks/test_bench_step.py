from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from fastccsa.benchmarking.show import show
from fastccsa.benchmarking.step_times import StepTimes
from fastccsa.cli.bench_step import step_command


def test_the_table_has_medians_and_their_ratio_to_the_floor() -> None:
    times = StepTimes(64, loop=[0.3, 0.1, 0.2], plain=[], bare=[0.1, 0.1, 0.4], parts={"images": [0.1], "loss": [0.3]})
    lines = times.table().splitlines()
    assert lines[1].split() == ["fastccsa's", "loop", "200.00", "320", "2.000"]
    assert lines[2].split() == ["bare", "network", "(floor)", "100.00", "640", "1.000"]
    assert lines[3].split() == ["images", "100.00", "25.0%"]
    assert len(lines) == 5


@pytest.mark.usefixtures("one_thread")
def test_the_command_measures_all_three_and_the_parts(draw_collections, tmp_path: Path) -> None:
    manifest = draw_collections({"HAM": ("nv", "mel"), "SON": ("nv", "mel")}, 5)
    options = f"--manifest {manifest} --backbone shufflenet_v2_x0_5 --size 32 --pairs 4 --device cpu --workers 1 "
    options += f"--rounds 2 --steps 1 --out {tmp_path / 'step.json'}"
    result = CliRunner().invoke(step_command, options.split(), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "step.json").read_text())
    assert all(len(found[name]) == 2 for name in ("loop", "plain", "bare"))
    assert list(found["parts"]) == ["images", "network", "loss", "backward", "update"]
    assert found["config"]["batch_size"] == 4
    assert {"machine", "versions", "commit", "date", "command"} < found.keys()
    for name in ("fastccsa's loop", "plain PyTorch", "bare network (floor)"):
        assert name in result.output
    shown = show(tmp_path / "step.json")
    assert shown.startswith(result.stdout.rstrip())
    assert found["machine"]["cpu"] in shown
