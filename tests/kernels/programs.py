"""Compiles programs that run kernels on this machine's CPU, instrumented by the compiler's sanitizers."""

from __future__ import annotations

import functools
import os
import platform
import shutil
import subprocess
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from filelock import FileLock

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
CSRC = TESTS.parent / "csrc"
FLAGS = ("-std=c++17", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Wno-psabi", "-g1", "-pthread")
# The emulator's headers come first, since they replace CUDA's.
INCLUDES = tuple(f"-I{folder}" for folder in (TESTS / "emulator/include", CSRC, TESTS, HERE))
# As in CMakeLists.txt.
INSTRUCTION_SETS = {
    "portable": (),
    "avx2": ("-mavx2", "-mfma", "-mf16c"),
    "avx512": ("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mfma", "-mf16c"),
}


@dataclass(frozen=True)
class Sanitizer:
    """Compiler flags for the kernels and for the emulator, and a program that runs if they work."""

    name: str
    kernels: tuple[str, ...]
    emulator: tuple[str, ...]
    probe: str


# Kernels are not optimised, so that they compile faster and no undefined behaviour is optimised away.
PLAIN = Sanitizer("plain", ("-O0",), ("-O2",), "int main() {}")
MEMORY = Sanitizer(
    "memory",
    ("-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"),
    ("-O2", "-fsanitize=address"),
    "int main() {}",
)
# The emulator tells the race detector which accesses of kernels are ordered. Its own accesses are not instrumented.
RACES = Sanitizer(
    "races",
    ("-O0", "-fsanitize=thread"),
    ("-O2", "-DEMULATOR_RACE_DETECTOR"),
    'extern "C" void* __tsan_create_fiber(unsigned); int main() { return __tsan_create_fiber(0) == nullptr; }',
)
# Counts how often each line runs, in place of AddressSanitizer: see docs/testing-kernels.md.
COVERAGE = Sanitizer("coverage", ("-O0", "--coverage", "-fprofile-update=atomic"), ("-O2",), "int main() {}")


@dataclass(frozen=True)
class Source:
    path: Path
    flags: tuple[str, ...]

    @property
    def object_name(self) -> str:
        return f"{self.path.parent.name}-{self.path.stem}-{zlib.crc32(' '.join(self.flags).encode()):08x}.o"


class Builder:
    """Builds each program once per test session, which several worker processes may share."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._lock = FileLock(folder / "lock")
        self._compiler = shutil.which("g++")
        if self._compiler is None or platform.system() != "Linux":
            pytest.skip("compiling the kernels for these tests needs g++ and Linux")

    @functools.cache  # noqa: B019 - one builder per session
    def works(self, sanitizer: Sanitizer) -> bool:
        """Return whether programs that are built with the sanitizer run here."""
        probe = self._folder / f"probe-{sanitizer.name}"
        command = [self._compiler, "-x", "c++", "-", *sanitizer.kernels, "-o", probe]
        with self._lock:
            built = subprocess.run(command, input=sanitizer.probe.encode(), capture_output=True).returncode == 0
            return built and subprocess.run([probe], capture_output=True).returncode == 0

    def memory_or_plain(self) -> Sanitizer:
        if os.environ.get("KERNEL_COVERAGE") == "1":
            return COVERAGE
        if self.works(MEMORY):
            return MEMORY
        warnings.warn("g++ has no AddressSanitizer here: kernels run without it", stacklevel=2)
        return PLAIN

    def races(self) -> Sanitizer:
        if not self.works(RACES):
            pytest.skip("g++ has no ThreadSanitizer here, or it does not run on this system")
        return RACES

    def emulated(self, name: str, sanitizer: Sanitizer) -> Path:
        """Build a program of this folder that runs CUDA kernels in the emulator."""
        emulator = [Source(path, sanitizer.emulator) for path in sorted((TESTS / "emulator").glob("*.cpp"))]
        return self._build(name, sanitizer, [*emulator, Source(HERE / f"{name}.cpp", sanitizer.kernels)])

    def standalone(self, name: str, sanitizer: Sanitizer) -> Path:
        """Build a program of this folder that consists of one file."""
        return self._build(name, sanitizer, [Source(HERE / f"{name}.cpp", sanitizer.kernels)])

    def cpu(self, name: str, sanitizer: Sanitizer, kernels: tuple[str, ...], sources: tuple[str, ...]) -> Path:
        """Build a program of this folder that runs CPU kernels, compiled for each instruction set."""
        isas = INSTRUCTION_SETS if platform.machine() in ("x86_64", "AMD64") else {"portable": ()}
        dispatch = ("-DFASTCCSA_X86=1",) if len(isas) > 1 else ()
        return self._build(
            name,
            sanitizer,
            [
                # Portable comes first: if several objects have the same inline function, the linker keeps the first.
                *(
                    Source(CSRC / kernel, (*sanitizer.kernels, f"-DFASTCCSA_ISA={isa}", *flags))
                    for isa, flags in isas.items()
                    for kernel in kernels
                ),
                *(
                    Source(CSRC / source, (*sanitizer.kernels, *dispatch))
                    for source in ("core/instruction_sets.cpp", *sources)
                ),
                Source(HERE / f"{name}.cpp", sanitizer.kernels),
            ],
        )

    def _build(self, name: str, sanitizer: Sanitizer, sources: list[Source]) -> Path:
        folder = self._folder / sanitizer.name
        folder.mkdir(exist_ok=True)
        program = folder / name
        with self._lock:
            if program.exists():
                return program
            objects = [folder / source.object_name for source in sources]
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                list(pool.map(self._compile, sources, objects))
            self._run([*sanitizer.kernels, "-pthread", *objects, "-o", program])
        return program

    def _compile(self, source: Source, to: Path) -> None:
        if not to.exists():
            self._run([*FLAGS, *source.flags, *INCLUDES, "-c", source.path, "-o", to])

    def _run(self, arguments: list[object]) -> None:
        done = subprocess.run([self._compiler, *map(str, arguments)], capture_output=True, text=True)
        if done.returncode != 0:
            pytest.fail(f"g++ {' '.join(map(str, arguments))}\n{done.stderr[:6000]}", pytrace=False)
