"""Install a release of torch without NVIDIA's libraries: ``python cpu_torch.py 2.10.0``, into the Python that runs it.

The word ``newest`` stands for the newest release that this Python can install.

The releases in the package index contain CUDA code and require gigabytes of NVIDIA's libraries. Without a GPU torch
calls none of them, but it does not load without them. So only the CUDA runtime (1 MB, called while torch loads) is
installed, and a stub library takes the place of the others: it defines their functions, each of which aborts the
process. For tests only: such a torch does not work on a GPU.
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
    """Return one of torch's requirements as it is needed here, or None if it is not."""
    if "extra ==" in requirement:
        return None
    if requirement.startswith("cuda-toolkit["):  # torch 2.11 and later
        return re.sub(r"\[.*?\]", "[cudart]", requirement)
    if re.match(r"nvidia-cuda-runtime\b", requirement):
        return requirement
    return None if re.match(r"nvidia-|cuda-|triton\b", requirement) else requirement


def add_stubs(folder: Path) -> list[str]:
    """Put the stub library into `folder`, next to torch's libraries, under each missing name; return these names."""
    torch = [folder / "libtorch_cuda.so", folder / "libtorch_python.so"]
    output = "".join(
        subprocess.run(["ldd", "-r", library], capture_output=True, text=True, check=False).stdout
        for library in torch
        if library.exists()
    )
    libraries = sorted(set(re.findall(r"^\s*(\S+) => not found", output, re.M)))
    if libraries:
        # Names that begin with Py belong to Python itself, which is loaded when torch is.
        functions = sorted(set(re.findall(r"^undefined symbol: (?!_?Py)(\w+)", output, re.M)))
        code = "void abort(void);\n" + "".join(f"void {name}(void) {{ abort(); }}\n" for name in functions)
        stub = folder / "libstub.so"
        with tempfile.TemporaryDirectory() as scratch:
            source = Path(scratch, "stub.c")
            source.write_text(code, encoding="utf-8")
            subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-o", stub, source], check=True)
        for name in libraries:
            (folder / name).symlink_to(stub.name)
    return libraries


def main(version: str) -> None:
    """Install ``version`` of torch and its requirements on a machine without a GPU."""
    subprocess.run([*PIP, "--no-deps", "torch" if version == "newest" else f"torch=={version}"], check=True)
    installed = distribution("torch")
    needed = [found for requirement in installed.requires or [] if (found := needed_on_a_cpu(requirement))]
    subprocess.run([*PIP, *needed], check=True)
    libraries = add_stubs(Path(str(installed.locate_file("torch"))) / "lib")
    print(f"torch {installed.version}; stubs for {', '.join(libraries) or 'nothing'}")


if __name__ == "__main__":
    main(sys.argv[1])
