"""What nvcc makes of a source of kernels: registers, spilled values, shared memory and machine instructions."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

CSRC = Path(__file__).resolve().parents[2] / "csrc"
# As in CMakeLists.txt.
OPTIONS = ("-std=c++17", "-O3", "--expt-relaxed-constexpr", "-Xcompiler=-Wall,-Wextra", "-Werror=all-warnings")
HOPPER = "90a"


@dataclass(frozen=True)
class Kernel:
    """The compiler's report on a kernel."""

    registers: int
    spilled: int  # bytes of stores to local memory, for want of registers
    shared: int  # bytes that are reserved at compile time


@dataclass(frozen=True)
class Compiled:
    """A compiled source: the report of ptxas, and the object file."""

    report: str
    object: Path

    def kernels(self) -> dict[str, Kernel]:
        """Return all kernels by their mangled names."""
        found = {}
        for block in self.report.split("Compiling entry function '")[1:]:
            (registers,) = re.findall(r"Used (\d+) registers", block)
            (spilled,) = re.findall(r"(\d+) bytes spill stores", block)
            shared = re.search(r"(\d+) bytes smem", block)
            found[block.split("'", 1)[0]] = Kernel(int(registers), int(spilled), int(shared[1]) if shared else 0)
        return found

    def instructions(self) -> dict[str, list[str]]:
        """Return the machine instructions of each kernel, without predicates and operands.

        Raises:
            FileNotFoundError: there is no cuobjdump.
        """
        command = [find_disassembler(), "-sass", str(self.object)]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        instruction = re.compile(r"/\*[0-9a-f]{4,5}\*/ +(?:@!?U?P\w+ )?([A-Z]\S*)[^;]*;")
        functions = (function.partition("\n") for function in text.split("Function : ")[1:])
        return {name.strip(): instruction.findall(code) for name, _, code in functions}


def compile_source(source: Path, architecture: str, folder: Path) -> Compiled:
    """Compile a source for one architecture, such as "80" or "90a".

    Raises:
        FileNotFoundError: there is no nvcc on PATH.
        RuntimeError: the source does not compile; says why.
    """
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        raise FileNotFoundError("there is no nvcc on PATH")
    target, report = (folder / f"{source.stem}-{architecture}.{ending}" for ending in ("o", "txt"))
    if not report.exists():
        options = [*OPTIONS, f"-I{CSRC}", f"-gencode=arch=compute_{architecture},code=sm_{architecture}", "-Xptxas=-v"]
        options += ["-DFASTCCSA_HOPPER=1"] if architecture == HOPPER else []
        done = subprocess.run([nvcc, *options, "-c", str(source), "-o", str(target)], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"nvcc does not compile {source}: {(done.stdout + done.stderr)[-4000:]}")
        report.write_text(done.stdout + done.stderr)
    return Compiled(report.read_text(), target)


def find_disassembler() -> str:
    """Return cuobjdump, which comes with CUDA, and with triton.

    Raises:
        FileNotFoundError: there is none.
    """
    found = shutil.which("cuobjdump")
    if found is None and (triton := importlib.util.find_spec("triton")) is not None and triton.origin:
        found = shutil.which(Path(triton.origin).parent / "backends/nvidia/bin/cuobjdump")
    if found is None:
        raise FileNotFoundError("there is no cuobjdump, on PATH or in triton")
    return str(found)


def demangled(names: list[str]) -> Iterator[str]:
    """Yield the names of kernels as they stand in the source, without namespaces and parameters.

    Raises:
        FileNotFoundError: there is no c++filt.
    """
    text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    for name in text.splitlines():
        plain = re.sub(r"(?:\w+::)+", "", name.removeprefix("void "))
        yield plain[: plain.index(">(") + 1] if ">(" in plain else plain.partition("(")[0]
