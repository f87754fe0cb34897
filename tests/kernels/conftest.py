"""Programs that run kernels, compiled once per session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from .cases import Kernels
from .programs import Builder


@pytest.fixture(autouse=True, scope="package")
def one_thread() -> Iterator[None]:
    """Use one thread: the references are so small that torch's threads would mostly wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def builder(tmp_path_factory: pytest.TempPathFactory) -> Builder:
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # shared by all workers
    return Builder(folder / "kernels")


@pytest.fixture(scope="session")
def cuda_kernels(builder: Builder) -> Path:
    """A program that runs the CUDA kernels in the emulator, under AddressSanitizer and UndefinedBehaviorSanitizer."""
    return builder.emulated("run_cuda_kernels", builder.memory_or_plain())


@pytest.fixture(scope="session")
def cuda_kernels_for_races(builder: Builder) -> Path:
    """A program that runs the CUDA kernels in the emulator, under ThreadSanitizer."""
    return builder.emulated("run_cuda_kernels", builder.races())


@pytest.fixture(scope="session")
def cpu_kernels(builder: Builder) -> Path:
    """A program that runs the CPU kernels, under AddressSanitizer and UndefinedBehaviorSanitizer."""
    sources = ("zipped/cpu_kernel.cpp",), ("zipped/cpu.cpp",)
    return builder.cpu("run_cpu_kernels", builder.memory_or_plain(), *sources)


@pytest.fixture(params=["emulated", "portable", "best"])
def kernels(request: pytest.FixtureRequest) -> Kernels:
    """The CUDA kernels in the emulator, or the CPU kernels: portable, or for this processor's best instruction set."""
    if request.param == "emulated":
        return Kernels(request.getfixturevalue("cuda_kernels"))
    return Kernels(request.getfixturevalue("cpu_kernels"), {"FASTCCSA_ISA": request.param})
