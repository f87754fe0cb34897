"""The embedding example, compiled: one process and two ranks take the same steps."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import torch

Example = Callable[[str], ModuleType]
EXAMPLES = Path(__file__).resolve().parents[2] / "examples"

COMMAND = [str(EXAMPLES / "metric_learning.py"), "--steps", "6", "--backend", "aot_eager"]

# gloo's threads can abort a process that exits while they run. The system may list a thread for a moment after its end.
CHECK_THREADS = """
import runpy, sys, time
from pathlib import Path
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
for _ in range(100):
    left = [name for file in Path("/proc/self/task").glob("*/comm") if "gloo" in (name := file.read_text())]
    if not left:
        break
    time.sleep(0.1)
assert not left, f"threads left: {left}"
"""


def last_loss(device: str, *launcher: str) -> float:
    """Run the example on a device and return the last loss that it prints."""
    command = [sys.executable, *launcher, *COMMAND]
    # The example uses the GPUs that it sees. TF32 rounds more coarsely than the comparison allows.
    environment = {**os.environ, **({"CUDA_VISIBLE_DEVICES": ""} if device == "cpu" else {"NVIDIA_TF32_OVERRIDE": "0"})}
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)
    assert ended.returncode == 0, ended.stderr
    assert "% after" in ended.stdout
    return float(re.search(r"loss after 6 steps: ([\d.]+)", ended.stdout)[1])


def test_two_ranks_take_the_steps_of_one(tmp_path: Path, run_ranks) -> None:
    """And they leave no thread of gloo behind."""
    run_ranks.check()
    (tmp_path / "check.py").write_text(CHECK_THREADS)
    alone = last_loss(run_ranks.device)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    together = last_loss(run_ranks.device, *torchrun, str(tmp_path / "check.py"))
    assert 0 < alone < 1
    assert abs(alone - together) < 1e-4 * alone


def test_pairs_of_one_class_and_of_two_count_equally(example: Example) -> None:
    probability = torch.tensor([0.5, 0.3, 0.2])
    joint = torch.outer(probability, probability)
    said = example("metric_learning").balance(probability) * joint
    assert torch.isclose(said.diagonal().sum(), torch.tensor(0.5))
    assert torch.isclose(said.sum(), torch.tensor(1.0))


def test_recall_at_1(example: Example, monkeypatch) -> None:
    module = example("metric_learning")
    monkeypatch.setattr(module, "TRAINING", 3)
    points = torch.tensor([[0.0], [10.0], [20.0], [1.0], [19.0], [11.0], [2.0]])
    labels = torch.tensor([0, 1, 2, 0, 2, 2, 0])
    assert module.recall_at_1(torch.nn.Identity(), points, labels) == 75
