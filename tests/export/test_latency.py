"""The command that times exported models: every size it leaves open is filled in, and bad files are named."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner

from fastccsa.cli import main
from fastccsa.export import Reference, export_program
from fastccsa.export.latency import measure


@pytest.fixture(scope="module")
def program(run_folder, tmp_path_factory):
    """A model that takes photographs."""
    path = tmp_path_factory.mktemp("latency") / "model.pt2"
    export_program(Reference(run_folder, None, preprocess="all"), path)
    return path


def test_a_model_of_photographs_is_timed_at_the_size_asked_for(program) -> None:
    found = measure(program, batch=2, photograph=(70, 90), seconds=0)
    assert found.shape == (2, 70, 90, 3)
    assert found.dtype == "uint8"
    assert found.calls == 1
    assert 0 < found.fastest <= found.median <= found.p90


def test_the_command_prints_and_writes_the_figures(program, tmp_path) -> None:
    threads = torch.get_num_threads()
    try:
        result = CliRunner().invoke(
            main,
            ["latency", str(program), "--seconds", "0", "--photograph", "48x64", "--threads", "1",
             "--json", str(tmp_path / "latency.json")],
        )  # fmt: skip
    finally:
        torch.set_num_threads(threads)
    assert result.exit_code == 0, result.output
    assert "(uint8 1x48x64x3, 1 calls)" in result.output
    figures = json.loads((tmp_path / "latency.json").read_text())
    assert figures["latency"][0]["shape"] == [1, 48, 64, 3]
    assert figures["machine"]["cpu"]


def test_it_needs_neither_the_packages_of_training_nor_the_run() -> None:
    code = (
        "import sys, fastccsa.export.latency, fastccsa.cli.latency; "
        "sys.exit(', '.join({'pandas', 'sklearn', 'torchvision', 'safetensors', 'onnx'} & set(sys.modules)) or 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("gone.onnx", [], "there is no file"),
        ("model.txt", [], r"must end in .onnx, .pt2, .pte"),
        ("damaged.onnx", [], "cannot be opened as an exported model"),
        ("damaged.pt2", [], "cannot be opened as an exported model"),
        ("damaged.pte", ["--threads", "2"], "ExecuTorch chooses its number of threads itself"),
        ("damaged.onnx", ["--photograph", "0x3"], "is not HEIGHTxWIDTH in pixels"),
    ],
)
def test_bad_input_is_named(tmp_path, name, arguments, message) -> None:
    if name.startswith("damaged"):
        (tmp_path / name).write_bytes(b"nothing")
    threads = torch.get_num_threads()
    try:
        result = CliRunner().invoke(main, ["latency", str(tmp_path / name), *arguments])
    finally:
        torch.set_num_threads(threads)
    assert result.exit_code == 2
    assert message in result.stderr
