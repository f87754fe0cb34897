"""Fixtures that the whole suite shares."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from fastccsa.training import TrainConfig

# Only the checkout has `benchmarks`; at the end, so that the package under test stays the installed one.
sys.path.append(str(Path(__file__).resolve().parents[1]))

COLOURS = {"nv": (200, 60, 60), "mel": (60, 200, 60), "bcc": (60, 60, 200)}

DrawCollections = Callable[[Mapping[str, Sequence[str]], int], Path]
MakeConfig = Callable[..., "TrainConfig"]


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on a single thread, for networks that are too small for several."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def draw_collections(tmp_path_factory: pytest.TempPathFactory) -> DrawCollections:
    """Draw noisy 40 px images whose colour shows the class, and return their manifest.

    The arguments are the classes of each domain and the number of training images per class; validation and test have
    two images per class.
    """
    import numpy as np
    from PIL import Image

    def draw(classes: Mapping[str, Sequence[str]], training: int) -> Path:
        folder = tmp_path_factory.mktemp("images")
        random = np.random.default_rng(0)
        rows = ["image,label,domain,group,split"]
        for domain, labels in classes.items():
            for label in labels:
                for number, split in enumerate(["train"] * training + ["validation"] * 2 + ["test"] * 2):
                    name = f"{domain}_{label}_{number}.png"
                    pixels = random.normal(COLOURS[label], 30, (40, 40, 3)).clip(0, 255).astype(np.uint8)
                    Image.fromarray(pixels).save(folder / name)
                    rows.append(f"{name},{label},{domain},{name},{split}")
        path = folder / "manifest.csv"
        path.write_text("\n".join(rows) + "\n")
        return path

    return draw


@pytest.fixture(scope="session")
def manifest_csv(draw_collections: DrawCollections) -> Path:
    """Three domains with three classes, 45 training images in all."""
    return draw_collections(dict.fromkeys(("DMF", "HAM", "SON"), tuple(COLOURS)), 5)


@pytest.fixture
def make_config(manifest_csv: Path, tmp_path: Path) -> MakeConfig:
    """Make configurations of CCSA on `manifest_csv`, 12 steps per epoch; ``out`` names a folder in tmp_path."""
    from fastccsa.training import TrainConfig

    def make(out: str = "run", **changes: Any) -> TrainConfig:
        small = {
            "backbone": "shufflenet_v2_x0_5",
            "weights": "none",
            "size": 32,
            "epochs": 2,
            "batch_size": 4,
            "lr": 1e-3,
            "lr_step": 1,
            "device": "cpu",
            "workers": 1,
        }
        return TrainConfig(manifest=str(manifest_csv), out=str(tmp_path / out), **{**small, **changes})

    return make


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.cuda)])
def device(request: pytest.FixtureRequest) -> str:
    """Each device that has kernels."""
    return request.param


@dataclass(frozen=True)
class Launcher:
    """Starts scripts as several processes of torch.distributed, which `fastccsa.training.ranks.open_ranks` joins.

    Attributes:
        backend: what carries their tensors: gloo or nccl.
        device: where those tensors are: cpu, or cuda, and each process then has its own GPU.
    """

    backend: str
    device: str

    def check(self, processes: int = 2) -> None:
        """Skip the test if there are fewer GPUs than processes that need one each."""
        if self.device == "cuda":
            import torch

            if torch.cuda.device_count() < processes:
                pytest.skip(f"needs {processes} GPUs")

    def __call__(self, *arguments: str, processes: int = 2) -> list[str]:
        """Run Python with these arguments and the device in each process; return what each printed.

        All processes must succeed. None is left behind.
        """
        self.check(processes)
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        rendezvous = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "WORLD_SIZE": str(processes)}
        shared = {**os.environ, **rendezvous, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, *arguments, self.device]
        started = [
            subprocess.Popen(
                command, env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE, text=True
            )
            for rank in range(processes)
        ]
        try:
            printed = [process.communicate(timeout=300)[0] for process in started]
        finally:
            for process in started:
                process.kill()  # one that has ended ignores it
        assert [process.returncode for process in started] == [0] * processes
        return printed


@pytest.fixture(scope="session", params=["gloo", pytest.param("nccl", marks=pytest.mark.cuda)])
def run_ranks(request: pytest.FixtureRequest) -> Launcher:
    """Start processes with each backend: gloo on the CPU, and NCCL where each process has its own GPU."""
    return Launcher(request.param, {"gloo": "cpu", "nccl": "cuda"}[request.param])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `cuda` if there is no CUDA device."""
    marked = [item for item in items if "cuda" in item.keywords]
    if not marked:
        return
    import torch

    if not torch.cuda.is_available():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="no CUDA device"))
