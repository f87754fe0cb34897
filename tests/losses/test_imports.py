"""The loss needs torch and numpy only."""

from __future__ import annotations

import subprocess
import sys

NEW_PACKAGES = """
import sys
import numpy, torch
before = set(sys.modules)
import fastccsa.losses, fastccsa.functional, fastccsa.reference
fastccsa.losses.WeightedCCSALoss()
print(*{name.partition(".")[0] for name in set(sys.modules) - before} - sys.stdlib_module_names)
"""

CHOICES = """
import sys
from fastccsa.ops.choices import Pairs
print(*{"numpy", "torch"} & set(sys.modules))
"""


def printed(code: str) -> set[str]:
    """Run code in a new process and return the words that it prints."""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(ended.stdout.split())


def test_the_loss_imports_torch_and_numpy_only() -> None:
    assert printed(NEW_PACKAGES) <= {"fastccsa", "torch"}


def test_a_command_line_can_list_the_choices_without_torch() -> None:
    assert printed(CHOICES) == set()
