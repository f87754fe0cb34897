"""Runs CMake; CMakeLists.txt lists the sources, and pyproject.toml has everything else.

Environment:
    FASTCCSA_CUDA         0: CPU code only. 1: CUDA code too, or an error. Unset: CUDA code if an nvcc is found.
    CUDA_HOME             the CUDA toolkit to use (else nvcc on PATH, else the nvcc of Python's packages).
    TORCH_CUDA_ARCH_LIST  the GPU architectures, as PyTorch spells them: "8.0;9.0+PTX".
    MAX_JOBS              parallel compilations (default: the number of cores).
    FASTCCSA_LABEL        the local label of the version, such as cpu or cu128: for wheels of one release that differ
                          in their CUDA code.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
HOW_TO_GET_NVCC = "set CUDA_HOME, put nvcc on PATH, or `pip install 'cuda-toolkit[nvcc,cudart,cccl]>=13,<14'`"


def version() -> str:
    """Return the version of the package, with the label of this build if it has one."""
    found = re.search(r'^__version__ = "(.+)"$', (ROOT / "fastccsa" / "_version.py").read_text(encoding="utf-8"), re.M)
    if not found:
        sys.exit("fastccsa: fastccsa/_version.py has no line with the version")
    label = os.environ.get("FASTCCSA_LABEL", "")
    if not re.fullmatch(r"[a-z0-9]*", label):
        sys.exit(f"fastccsa: FASTCCSA_LABEL is {label!r}; use lower-case letters and digits, such as cu128")
    return found[1] + ("+" + label if label else "")


def find_nvcc() -> Path | None:
    """Return the CUDA compiler: from CUDA_HOME, from PATH, or from Python's packages, in this order."""
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
    """Return the toolkit of an nvcc, even if the nvcc on PATH is a script that calls another."""
    output = subprocess.run([nvcc, "--dryrun", "-c", "x.cu"], capture_output=True, text=True).stderr
    top = next((line.split("=", 1)[1] for line in output.splitlines() if line.startswith("#$ TOP=")), None)
    return Path(top).resolve() if top else nvcc.resolve().parents[1]


def cuda_options() -> list[str]:
    """Return CMake's options for the CUDA code, and print what will be built."""
    choice = os.environ.get("FASTCCSA_CUDA", "")
    if choice not in ("", "0", "1"):
        sys.exit(f"fastccsa: FASTCCSA_CUDA is {choice!r}; use 0, 1 or leave it unset")
    nvcc = None if choice == "0" else find_nvcc()
    if nvcc is None:
        if choice == "1":
            sys.exit(f"fastccsa: FASTCCSA_CUDA=1, but no nvcc was found; {HOW_TO_GET_NVCC}")
        reason = "FASTCCSA_CUDA=0" if choice == "0" else f"no nvcc found; {HOW_TO_GET_NVCC}"
        print(f"fastccsa: building CPU code only ({reason})", flush=True)
        return ["-DFASTCCSA_CUDA=OFF"]
    toolkit = toolkit_of(nvcc)
    print(f"fastccsa: building CPU and CUDA code with {toolkit / 'bin' / 'nvcc'}", flush=True)
    return ["-DFASTCCSA_CUDA=ON", f"-DCMAKE_CUDA_COMPILER={toolkit / 'bin' / 'nvcc'}"]


def build_environment(options: list[str]) -> dict[str, str]:
    """Return the environment for CMake and Ninja."""
    environment = dict(os.environ)
    for option in options:
        if option.startswith("-DCMAKE_CUDA_COMPILER="):
            # Wheels have libcudart_static.a in lib/, but nvcc looks for it in lib64/ only.
            library = Path(option.split("=", 1)[1]).parents[1] / "lib"
            paths = [str(library), environment.get("LIBRARY_PATH", "")]
            environment["LIBRARY_PATH"] = os.pathsep.join(filter(None, paths))
    return environment


class CMakeBuild(build_ext):
    """Configure, build and install into the package's folder, with CMake and Ninja."""

    def run(self) -> None:
        try:
            import torch
        except ModuleNotFoundError as error:
            sys.exit(
                f"fastccsa: {error.name} is needed to build without isolation; "
                "`pip install torch cmake ninja setuptools` first, or drop --no-build-isolation"
            )
        package = ROOT / "fastccsa" if self.inplace else Path(self.build_lib).resolve() / "fastccsa"
        build = Path(self.build_temp).resolve()
        build.mkdir(parents=True, exist_ok=True)
        options = [
            "-GNinja",
            "-DCMAKE_BUILD_TYPE=" + ("Debug" if self.debug else "Release"),
            f"-DCMAKE_INSTALL_PREFIX={package}",
            f"-DFASTCCSA_TORCH={Path(torch.__file__).parent}",
            f"-DFASTCCSA_TORCH_VERSION={torch.__version__}",
            *cuda_options(),
        ]
        environment = build_environment(options)
        jobs = os.environ.get("MAX_JOBS") or str(os.cpu_count() or 1)
        for command in (
            ["cmake", str(ROOT), *options],
            ["cmake", "--build", ".", "--parallel", jobs],
            ["cmake", "--install", ".", *([] if self.debug else ["--strip"])],
        ):
            subprocess.run(command, cwd=build, env=environment, check=True)

    def get_outputs(self) -> list[str]:
        """Return no files: CMake installs the libraries, whose names do not depend on the Python."""
        return []


class AnyPython(bdist_wheel):
    """Tags the wheel for every Python from 3.10 on: the libraries know torch's stable ABI, but no version of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        return "py310", "none", super().get_tag()[2]


setup(
    version=version(),
    ext_modules=[Extension("fastccsa.ops.libfastccsa", sources=[])],  # makes the wheel one for this platform
    cmdclass={"build_ext": CMakeBuild, "bdist_wheel": AnyPython},
)
