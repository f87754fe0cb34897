"""Drives CMake; CMakeLists.txt alone knows the sources. Everything else stands in pyproject.toml.

Environment:
    FASTCCSA_CUDA         0: CPU code alone. 1: CUDA code, or an error. Unset: CUDA where an nvcc is found.
    CUDA_HOME             the CUDA toolkit to use (then nvcc on PATH, then the package index's own nvcc).
    TORCH_CUDA_ARCH_LIST  the GPU architectures, as PyTorch spells them: "8.0;9.0+PTX".
    MAX_JOBS              parallel compilations (default: the number of cores).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
HOW_TO_GET_NVCC = "set CUDA_HOME, put nvcc on PATH, or `pip install 'cuda-toolkit[nvcc,cudart,cccl]>=13,<14'`"


def find_nvcc() -> Path | None:
    """Return the CUDA compiler: from CUDA_HOME, PATH, or the package index's wheels, in this order."""
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if home:
        nvcc = Path(home, "bin", "nvcc")
        if not nvcc.exists():
            sys.exit(f"fastccsa: CUDA_HOME is {home}, but there is no bin/nvcc in it; correct or unset CUDA_HOME")
        return nvcc
    on_path = shutil.which("nvcc")
    if on_path:
        return Path(on_path)
    for folder in dict.fromkeys([sysconfig.get_path("platlib"), *sys.path]):
        for nvcc in sorted(Path(folder, "nvidia").glob("cu*/bin/nvcc"), reverse=True):
            return nvcc
    return None


def toolkit_of(nvcc: Path) -> Path:
    """The toolkit an nvcc belongs to, also when the nvcc on PATH is a script that calls another."""
    said = subprocess.run([nvcc, "--dryrun", "-c", "x.cu"], capture_output=True, text=True).stderr
    top = next((line.split("=", 1)[1] for line in said.splitlines() if line.startswith("#$ TOP=")), None)
    return Path(top).resolve() if top else nvcc.resolve().parents[1]


def cuda_options() -> list[str]:
    """CMake's options for the CUDA part of the build; said in one plain line."""
    choice = os.environ.get("FASTCCSA_CUDA", "")
    if choice not in ("", "0", "1"):
        sys.exit(f"fastccsa: FASTCCSA_CUDA is {choice!r}; use 0, 1 or leave it unset")
    nvcc = None if choice == "0" else find_nvcc()
    if nvcc is None:
        if choice == "1":
            sys.exit(f"fastccsa: FASTCCSA_CUDA=1, but no nvcc was found; {HOW_TO_GET_NVCC}")
        reason = "FASTCCSA_CUDA=0" if choice == "0" else f"no nvcc found; {HOW_TO_GET_NVCC}"
        print(f"fastccsa: building CPU code alone ({reason})", flush=True)
        return ["-DFASTCCSA_CUDA=OFF"]
    toolkit = toolkit_of(nvcc)
    print(f"fastccsa: building CPU and CUDA code with {toolkit / 'bin' / 'nvcc'}", flush=True)
    return ["-DFASTCCSA_CUDA=ON", f"-DCMAKE_CUDA_COMPILER={toolkit / 'bin' / 'nvcc'}"]


def build_environment(options: list[str]) -> dict[str, str]:
    """The environment of CMake and Ninja."""
    environment = dict(os.environ)
    for option in options:
        if option.startswith("-DCMAKE_CUDA_COMPILER="):
            # The wheels keep libcudart_static.a in lib/, where nvcc itself looks only in lib64/.
            library = Path(option.split("=", 1)[1]).parents[1] / "lib"
            paths = [str(library), environment.get("LIBRARY_PATH", "")]
            environment["LIBRARY_PATH"] = os.pathsep.join(filter(None, paths))
    return environment


class CMakeBuild(build_ext):
    """Configure, build and install with CMake and Ninja into the package's folder."""

    def run(self) -> None:
        try:
            import pybind11
            import torch
        except ModuleNotFoundError as error:
            sys.exit(
                f"fastccsa: {error.name} is needed to build without isolation; "
                "`pip install torch cmake ninja pybind11 setuptools` first, or drop --no-build-isolation"
            )
        package = ROOT / "fastccsa" if self.inplace else Path(self.build_lib).resolve() / "fastccsa"
        build = Path(self.build_temp).resolve()
        build.mkdir(parents=True, exist_ok=True)
        options = [
            "-GNinja",
            "-DCMAKE_BUILD_TYPE=" + ("Debug" if self.debug else "Release"),
            f"-DCMAKE_INSTALL_PREFIX={package}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DFASTCCSA_TORCH={Path(torch.__file__).parent}",
            f"-DFASTCCSA_TORCH_VERSION={torch.__version__}",
            *cuda_options(),
        ]
        environment = build_environment(options)
        jobs = os.environ.get("MAX_JOBS") or str(os.cpu_count() or 1)
        for command in (
            ["cmake", str(ROOT), *options],
            ["cmake", "--build", ".", "--parallel", jobs],
            ["cmake", "--install", "."],
        ):
            subprocess.run(command, cwd=build, env=environment, check=True)


setup(
    ext_modules=[Extension("fastccsa.sampling._sampler", sources=[])],
    cmdclass={"build_ext": CMakeBuild},
)
