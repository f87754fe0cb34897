"""fastccsa.check: its report about a build, a machine and the installed extras."""

from __future__ import annotations

import json
import platform
import sys

import pytest
from click.testing import CliRunner

import fastccsa
import fastccsa.ops
from fastccsa.cli import main
from fastccsa.system import doctor


def test_every_part_is_named_and_usable_parts_say_so():
    report = fastccsa.check()
    assert report.usable
    assert report["PyTorch"].state.startswith(__import__("torch").__version__)
    assert report["ops"].state.endswith(("avx512", "avx2", "portable"))
    text = str(report)
    assert fastccsa.__version__ in text
    for part in ("PyTorch", "ops", "CUDA code", "GPU", "DALI", "extra train"):
        assert part in text


def test_the_json_report_has_what_a_bug_report_needs():
    result = CliRunner().invoke(main, ["check", "--json"])
    report = json.loads(result.stdout)
    assert report["fastccsa"] == fastccsa.__version__
    assert report["python"].endswith(f" {platform.python_version()}")
    assert platform.system() in report["system"]
    assert report["usable"] is True
    assert result.exit_code == 0
    for part, printed in zip(fastccsa.check().checks, report["checks"], strict=True):
        assert printed == {"name": part.name, "usable": part.usable, "state": part.state, "advice": part.advice}


def test_what_is_missing_comes_with_advice():
    for part in fastccsa.check().checks:
        assert part.usable or part.advice or part.name == "CUDA code"


def test_a_build_without_cuda_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr("fastccsa._build_info.CUDA_VERSION", "")
    part = fastccsa.check()["CUDA code"]
    assert not part.usable
    assert "nvcc" in part.advice


def test_missing_dali_names_the_wheel(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    part = doctor._dali()
    assert not part.usable
    assert "nvidia-dali-cuda130" in part.advice


def test_each_extra_is_listed(monkeypatch):
    """The line names the missing packages and the command that installs them."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name in ("pandas", "onnx") else name)
    report = fastccsa.check()
    train, export = report["extra train"], report["extra export"]
    assert train.state.endswith("not installed: pandas")
    assert train.advice == "`pip install 'fastccsa[train]'`"
    assert export.state.endswith("not installed: onnx")
    assert export.advice == "`pip install 'fastccsa[export]'`"
    assert not train.usable
    assert not export.usable
    for name in ("prune", "bench"):
        part = report[f"extra {name}"]
        assert part.usable
        assert part.state.endswith("; installed")
        assert part.advice == ""


def test_a_missing_extra_leaves_the_loss_usable(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert fastccsa.check().usable


def test_missing_ops_are_reported_not_raised(monkeypatch):
    monkeypatch.setitem(sys.modules, "fastccsa.ops.library", None)
    monkeypatch.delattr(fastccsa.ops, "library", raising=False)
    report = fastccsa.check()
    assert not report["ops"].usable
    assert not report.usable


@pytest.mark.parametrize(
    ("capability", "built", "runs"),
    [
        ((9, 0), ("90-real",), True),
        ((8, 9), ("80-real",), True),
        ((8, 0), ("86-real",), False),
        ((9, 0), ("80-real",), False),
        ((9, 0), ("80-virtual",), True),
        ((12, 1), ("120-real", "120-virtual"), True),
        ((7, 5), ("80-real", "120-virtual"), False),
        ((10, 0), ("90a-real",), False),
        ((9, 0), ("90a-real",), True),
        ((9, 1), ("90a-real",), False),
        ((8, 9), ("90a-real",), False),
        ((10, 0), ("90a-real", "90-virtual"), True),
    ],
)
def test_which_gpus_a_build_runs_on(capability, built, runs):
    assert doctor._runs_on(capability, built) == runs


def test_architectures_are_written_as_pytorch_does():
    assert doctor._architecture_names(("80-real", "90a-real", "120-real", "120-virtual")) == "8.0, 9.0a, 12.0+PTX"
