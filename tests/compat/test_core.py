"""The core without the optional extras: what works, which features ask for an extra, and what an import loads."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("core.py")
# None of these may be loaded for the loss; some would take longer than torch itself.
HEAVY = (
    "matplotlib", "nvidia.dali", "nvtx", "pandas", "PIL", "rich", "safetensors", "scipy", "sklearn", "tensorboard",
    "torchvision", "torch._dynamo", "torch._inductor", "fastccsa.collections", "fastccsa.images", "fastccsa.training",
)  # fmt: skip


def test_with_only_the_core_installed(tmp_path: Path) -> None:
    """The checks of core.py, in a process from which everything else is hidden."""
    command = [sys.executable, str(SCRIPT), "--hide"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    results = [json.loads(line) for line in ended.stdout.splitlines()]
    failed = [f"{name}: {error}" for name, error in results if error]
    assert not failed, "\n".join(failed)
    assert len(results) == 9, ended.stderr


def test_the_loss_loads_no_heavy_module() -> None:
    code = (
        "import sys, torch\n"
        "before = set(sys.modules)\n"
        "import fastccsa.losses\n"
        f"print([name for name in {HEAVY!r} if name in set(sys.modules) - before])"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    assert ended.stdout == "[]\n"
