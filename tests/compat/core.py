"""A list of checks that must pass with only torch, numpy and click installed.

``python core.py`` runs them all and prints one line of JSON per check: its name, and the error or null. With ``--hide``
a Python with everything installed serves as well: see `hide`.
"""

from __future__ import annotations

import importlib
import json
import pkgutil
import sys
import traceback
from collections.abc import Callable
from operator import attrgetter

if "--hide" in sys.argv:
    import hide  # noqa: F401 - before all others

TRAIN = "pip install 'fastccsa[train]'"
LIGHT = ("losses", "ops", "sampling", "system")
# Each command with arguments that are valid as far as can be told without the images and the runs they name.
COMMANDS = {
    "prepare": ("--csv", "own=own.csv", "--out", "manifest.csv"),
    "render": ("--out", "rendered"),
    "preview": ("--manifest", "manifest.csv", "--out", "pairs.png"),
    "train": ("--manifest", "manifest.csv", "--out", "run"),
    "sweep": ("--manifest", "manifest.csv", "--out", "sweep", "--vary", "lr=1e-4,1e-3"),
    "evaluate": ("--run", "run"),
    "experiment": ("A", "--manifest", "manifest.csv"),
    "prune": ("--run", "run", "--out", "pruned", "--rate", "0.5"),
    "export": ("--run", "run", "--onnx", "model.onnx"),
    "compare": ("run",),
    "report": ("run",),
    "demo": (),
}
NAMES = (
    "Manifest", "load_model", "models.build_model", "data.Manifest", "data.PairLoader", "data.prepare",
    "training.train", "evaluation.evaluate", "experiments.make_plan", "pruning.prune", "export.export_onnx",
    "reporting.score_table",
)  # fmt: skip


def nothing_else_is_installed() -> None:
    """Check that no extra is installed; otherwise the other checks prove nothing.

    torch itself requires jinja2, and the tests that follow these checks may need scipy.
    """
    from fastccsa.system.extras import EXTRAS, not_installed

    assert {"jinja2"} <= set(EXTRAS["train"]) - set(not_installed("train")) <= {"jinja2", "scipy"}


def light_packages_import() -> None:
    """Import every module of the light packages; the compiled libraries look like modules, but are none."""
    for name in LIGHT:
        package = importlib.import_module(f"fastccsa.{name}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if not module.name.rpartition(".")[2].startswith("lib"):
                importlib.import_module(module.name)
    for name in ("functional", "reference", "distributed"):
        importlib.import_module(f"fastccsa.{name}")


def loss_and_gradient() -> None:
    """Compare loss and gradient with plain PyTorch, for both ways to form pairs."""
    import torch

    import fastccsa

    torch.manual_seed(0)
    weights = [torch.rand(7) + 0.5, torch.rand(7) + 0.5, torch.rand(7, 7) + 0.5]
    targets = [torch.randint(7, (16,)) for _ in range(2)]
    for pairs in ("zipped", "all"):
        inputs = [torch.randn(16, width, requires_grad=True) for width in (7, 7, 24, 24)]
        loss = fastccsa.WeightedCCSALoss(*weights, margin=8.0, pairs=pairs)(*inputs, *targets)
        expected = fastccsa.reference.weighted_ccsa_loss(*inputs, *targets, *weights, margin=8.0, pairs=pairs)
        torch.testing.assert_close(loss, expected)
        for found, wanted in zip(*(torch.autograd.grad(x, inputs) for x in (loss, expected)), strict=True):
            torch.testing.assert_close(found, wanted)


def pair_sampler() -> None:
    """Draw one epoch, and make the weights from the probabilities."""
    import numpy as np

    import fastccsa

    labels, domains = np.random.default_rng(0).integers(0, (7, 3), (200, 2)).T
    sampler = fastccsa.PairSampler(labels, domains, primary=0, num_classes=7, batch_size=32)
    first = np.concatenate([first for first, _ in sampler])
    assert sorted(first) == list(range(200))
    probabilities = sampler.probabilities()
    for p in probabilities:
        assert abs(p.sum() - 1) < 1e-12
        assert fastccsa.inverse_probability(p).shape == p.shape


def names_that_need_an_extra() -> None:
    """Check that they raise an ImportError with the command that installs the extra."""
    for path in NAMES:
        assert TRAIN in import_error(attrgetter(path), importlib.import_module("fastccsa")), path


def nvtx_ranges() -> None:
    """Check that ranges cannot be switched on, and that the loss works without them."""
    import fastccsa

    assert TRAIN in import_error(fastccsa.nvtx_ranges)
    assert fastccsa.nvtx_ranges(False) is False
    loss_and_gradient()


def check_command() -> None:
    """Check that `fastccsa check` runs and lists what is missing."""
    status, output, _ = run("check")
    assert status == 0, output
    assert TRAIN in output


def help_of_every_command() -> None:
    """Print the help of every command without any extra; bench is left out because it needs a checkout."""
    from fastccsa.cli.main import SUMMARIES

    assert SUMMARIES.keys() == COMMANDS.keys() | {"check", "bench", "latency"}
    for arguments in ([], *([name] for name in SUMMARIES.keys() - {"bench"})):
        status, output, errors = run(*arguments, "--help")
        assert (status, errors) == (0, ""), (arguments, errors)
        assert output.startswith("Usage:")


def commands_that_need_an_extra() -> None:
    """Check for exit status 2, and for one line with the command that installs the extra."""
    for name, arguments in COMMANDS.items():
        status, output, errors = run(name, *arguments)
        assert (status, errors.count("\n")) == (2, 1), (name, status, output, errors)
        assert errors.startswith("fastccsa: error: "), errors
        assert TRAIN in errors, errors


def import_error(function: Callable[..., object], *arguments: object) -> str:
    """Return the message of the ImportError that a call raises."""
    try:
        function(*arguments)
    except ImportError as error:
        return str(error)
    return "no error"


def run(*arguments: str) -> tuple[int, str, str]:
    """Return exit status, standard output and standard error of ``fastccsa ARGUMENTS``."""
    from click.testing import CliRunner

    from fastccsa.cli import main

    result = CliRunner().invoke(main, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout, result.stderr


CHECKS: tuple[Callable[[], None], ...] = (
    nothing_else_is_installed,
    light_packages_import,
    loss_and_gradient,
    pair_sampler,
    names_that_need_an_extra,
    nvtx_ranges,
    check_command,
    help_of_every_command,
    commands_that_need_an_extra,
)


def main() -> int:
    """Run all checks; return the number of failures as the exit status."""
    failed = 0
    for check in CHECKS:
        error = None
        try:
            check()
        except Exception:
            error = traceback.format_exc()
            failed += 1
        print(json.dumps([check.__name__, error]), flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(main())
