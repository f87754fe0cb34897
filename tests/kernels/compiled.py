"""What the compiler makes of the kernels of the loss over all pairs on tensor cores, as a Markdown table.

    cd tests
    python -m kernels.compiled                       # for Hopper, and two GPUs with other amounts of shared memory
    python -m kernels.compiled --architecture 100

It needs nvcc, cuobjdump (of CUDA or of triton), g++ and c++filt, and no GPU.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click
import pandas as pd

from .nvcc import CSRC, HOPPER, compile_source, demangled

SOURCES = [CSRC / "all_pairs/cuda/fused" / name for name in ("fused.cu", "parts.cu")]
HERE = Path(__file__).resolve().parent
TESTS = HERE.parent
ARCHITECTURES = (HOPPER, "80", "120")
# Instructions of tensor cores, and those that load and store their factors.
COUNTED = ("HGMMA", "HMMA", "LDSM", "STSM")
TERMS = {"(FusedTerms)2": "separation", "(FusedTerms)3": "both"}


@click.command(help=(__doc__ or "").split("\n")[0])
@click.option("architectures", "-a", "--architecture", multiple=True, default=ARCHITECTURES, show_default=True)
def main(architectures: tuple[str, ...]) -> None:
    """Compile for each architecture, and print its kernels that use tensor cores."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            shared = dynamic_shared_memory(Path(folder))
            for architecture in architectures:
                rows = [row for source in SOURCES for row in rows_of(source, architecture, Path(folder), shared)]
                click.echo(f"\ncompute capability {architecture[:-1] if architecture == HOPPER else architecture}\n")
                click.echo(pd.DataFrame(rows).to_markdown(index=False))
    except (FileNotFoundError, RuntimeError) as error:
        raise click.ClickException(str(error)) from error


def rows_of(source: Path, architecture: str, folder: Path, shared: dict[str, int]) -> Iterator[dict[str, object]]:
    """Yield a row for each kernel with instructions of tensor cores."""
    compiled = compile_source(source, architecture, folder)
    code, kernels = compiled.instructions(), compiled.kernels()
    for mangled, name in sorted(zip(kernels, demangled([*kernels]), strict=True), key=lambda pair: pair[1]):
        counted = Counter(instruction.partition(".")[0] for instruction in code[mangled])
        if not counted["HGMMA"] + counted["HMMA"]:
            continue
        kernel = kernels[mangled]
        for written, plain in TERMS.items():
            name = name.replace(written, plain)
        yield {
            "kernel": f"`{name}`",
            "registers": kernel.registers,
            "spilled, bytes": kernel.spilled,
            "shared memory, bytes": kernel.shared + shared.get(mangled, 0),
            **{which: counted[which] for which in COUNTED},
            "instructions": len(code[mangled]),
        }


def dynamic_shared_memory(folder: Path) -> dict[str, int]:
    """Return the bytes of dynamic shared memory of each kernel by its mangled name."""
    compiler = shutil.which("g++")
    if compiler is None:
        raise FileNotFoundError("there is no g++ on PATH")
    program = folder / "list_shared_memory"
    includes = [f"-I{path}" for path in (TESTS / "emulator/include", CSRC, TESTS)]
    sources = [HERE / "list_shared_memory.cpp", *sorted((TESTS / "emulator").glob("*.cpp"))]
    command = [compiler, "-std=c++17", "-w", "-rdynamic", "-pthread", *includes, *sources, "-ldl", "-o", program]
    subprocess.run([*map(str, command)], check=True)
    lines = subprocess.run([program], capture_output=True, text=True, check=True).stdout.splitlines()
    return {name: int(size) for name, size in (line.split() for line in lines)}


if __name__ == "__main__":
    main()
