"""Install a release of torch for the CPU alone: ``python cpu_torch.py 2.10.0``, into the Python that runs this.

The package index has releases with CUDA code alone, which ask for gigabytes of NVIDIA's libraries. Without a GPU torch
calls none of them, but it does not load without them. So all but the CUDA runtime (1 MB, called while torch loads) are
left out, and one library with the names of their functions, each of which ends the process, stands in for them. For
tests: such a torch is of no use on a GPU.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from importlib.metadata import distribution
from pathlib import Path

PIP = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-warn-conflicts"]


def needed_on_a_cpu(requirement: str) -> str | None:
    """One of torch's requirements as it is needed here; None where it is not."""
    if "extra ==" in requirement:
        return None
    if requirement.startswith("cuda-toolkit["):  # torch 2.11 and later
        return re.sub(r"\[.*?\]", "[cudart]", requirement)
    if re.match(r"nvidia-cuda-runtime\b", requirement):
        return requirement
    return None if re.match(r"nvidia-|cuda-|triton\b", requirement) else requirement


def add_stand_ins(folder: Path) -> list[str]:
    """Put a library into `folder`, torch's own, under each name that is missing there; returns these names."""
    torch = [folder / "libtorch_cuda.so", folder / "libtorch_python.so"]
    said = "".join(
        subprocess.run(["ldd", "-r", library], capture_output=True, text=True, check=False).stdout
        for library in torch
        if library.exists()
    )
    libraries = sorted(set(re.findall(r"^\s*(\S+) => not found", said, re.M)))
    if libraries:
        # What begins with Py is Python's, which is there when Python runs.
        functions = sorted(set(re.findall(r"^undefined symbol: (?!_?Py)(\w+)", said, re.M)))
        code = "void abort(void);\n" + "".join(f"void {name}(void) {{ abort(); }}\n" for name in functions)
        stand_in = folder / "libstand_in.so"
        with tempfile.TemporaryDirectory() as scratch:
            source = Path(scratch, "stand_in.c")
            source.write_text(code, encoding="utf-8")
            subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-o", stand_in, source], check=True)
        for name in libraries:
            (folder / name).symlink_to(stand_in.name)
    return libraries


def main(version: str) -> None:
    """See above."""
    subprocess.run([*PIP, "--no-deps", f"torch=={version}"], check=True)
    installed = distribution("torch")
    needed = [wanted for requirement in installed.requires or [] if (wanted := needed_on_a_cpu(requirement))]
    subprocess.run([*PIP, *needed], check=True)
    libraries = add_stand_ins(Path(str(installed.locate_file("torch"))) / "lib")
    print(f"torch {installed.version}; stand-ins for {', '.join(libraries) or 'nothing'}")


if __name__ == "__main__":
    main(sys.argv[1])
