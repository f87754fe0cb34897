"""A disk without room: every command says so in one line, whatever it was writing."""

from __future__ import annotations

import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from fastccsa.cli import main
from fastccsa.training import TrainConfig, train

COMMANDS = {
    "prepare": "prepare --folders {images} --out {new}/manifest.csv --duplicates off",
    "prepare with a cache": "prepare --folders {images} --out {new}/manifest.csv",
    "render": "render --out {new} --images 1",
    "preview": "preview --manifest {manifest} --out {new}/pairs.png --pairs 1 --size 32",
    "train": "train --manifest {manifest} --out {new} --weights none --size 32 --device cpu",
    "train with a store": "train --manifest {manifest} --out {new} --weights none --size 32 --cache disk",
    "evaluate": "evaluate --run {run} --json {new}/scores.json",
    "experiment": "experiment A --manifest {manifest} --out {new} --scale tiny --device cpu",
    "prune": "prune --run {run} --out {new} --rate 0.5 --device cpu",
    "export": "export --run {run} --torch-export {new}/model.pt2",
    "report": "report {run} --out {new}/report.html --no-images",
    "demo": "demo --out {new} --images 1",
}


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file grow beyond its size: the system refuses each write as a full disk does, with another number."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def finished(manifest_csv: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a network that can be pruned."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    settings = {"backbone": "resnet18", "weights": "none", "size": 32, "epochs": 1, "batch_size": 16, "workers": 1}
    train(TrainConfig(str(manifest_csv), str(folder), alignment="-", device="cpu", **settings), progress=False)
    return folder


def run(command: str) -> Result:
    with full_disk():
        return CliRunner().invoke(main, command.split())


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk_is_one_line(name: str, manifest_csv: Path, finished: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    for path in manifest_csv.parent.glob("HAM_*_[01].png"):
        folder = images / "HAM" / path.name.split("_")[1]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / path.name).write_bytes(path.read_bytes())
    new = tmp_path / "new"
    result = run(COMMANDS[name].format(images=images, manifest=manifest_csv, new=new, run=finished))
    lines = result.stderr.splitlines()
    errors = [line for line in lines if line.startswith("fastccsa: ")]
    assert len(errors) == 1, result.output
    assert "File too large" in errors[0]
    assert re.search(r"make room|choose another|free some", errors[0])
    assert "Traceback" not in result.output
    assert result.exit_code == (1 if name == "experiment" else 2)  # an experiment goes on with its other runs
    assert not list(tmp_path.rglob("*.part"))
