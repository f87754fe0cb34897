"""Opening exported files in their runtimes, as functions from images to logits. Needs torch and the runtime only."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastccsa.system.errors import InputError
from fastccsa.system.extras import require

INPUT, OUTPUT = "images", "logits"
ONNX_ENDING, PROGRAM_ENDING, EXECUTORCH_ENDING = ".onnx", ".pt2", ".pte"

_ONNX_DTYPES = {"tensor(float)": torch.float32, "tensor(uint8)": torch.uint8}
_EXECUTORCH_DTYPES = {0: torch.uint8, 6: torch.float32}  # numbers of torch's ScalarType


@dataclass(frozen=True)
class Runner:
    """An exported file that was opened, as a function from images to logits on the CPU.

    Attributes:
        function: the function.
        dtype: dtype of the images.
        shape: shape of the images; None where any size is accepted.
    """

    function: Callable[[Tensor], Tensor]
    dtype: torch.dtype
    shape: tuple[int | None, ...]

    def __call__(self, images: Tensor) -> Tensor:
        """Map images to logits [n, C]."""
        return self.function(images)


def open_session(path: str | os.PathLike[str], threads: int = 0) -> Runner:
    """Open an ONNX file in ONNX Runtime on the CPU.

    Args:
        path: the file.
        threads: number of threads of a call; 0 lets ONNX Runtime choose.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3  # errors
    session = onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])

    def run(images: Tensor) -> Tensor:
        (logits,) = session.run([OUTPUT], {INPUT: images.numpy()})
        return torch.from_numpy(np.asarray(logits))

    (images,) = session.get_inputs()
    return Runner(run, _ONNX_DTYPES[images.type], _sizes(images.shape))


def open_program(path: str | os.PathLike[str]) -> Runner:
    """Open a program of torch.export; it uses torch's threads."""
    with open(path, "rb") as stream:
        program = torch.export.load(stream)
    (name,) = program.graph_signature.user_inputs
    (example,) = (node.meta["val"] for node in program.graph.nodes if node.name == name)
    return Runner(program.module(), example.dtype, _sizes(example.shape))


def open_executorch(path: str | os.PathLike[str]) -> Runner:
    """Open an ExecuTorch file, which takes one image at a time; those of a batch run one after the other."""
    from executorch.runtime import Runtime

    content = Path(path).read_bytes()
    program = Runtime.get().load_program(content)
    method: Any = program.load_method("forward")
    images = method.metadata.input_tensor_meta(0)
    kept = (content, program)  # the method points into both

    def run(images: Tensor, _: Any = kept) -> Tensor:
        # A copy, because the next call overwrites the result.
        return torch.cat([method.execute([image[None].contiguous()])[0].clone() for image in images])

    return Runner(run, _EXECUTORCH_DTYPES[int(images.dtype())], (None, *tuple(images.sizes())[1:]))


def open_exported(path: str | os.PathLike[str], threads: int = 0) -> Runner:
    """Open an exported file of any format, by the ending of its name.

    Raises:
        InputError: the file is missing or is not an exported model, a package is missing, or the runtime has no setting
            for the number of threads.
    """
    path = Path(path)
    openers: dict[str, Callable[[Path], Runner]] = {
        ONNX_ENDING: lambda file: open_session(file, threads),
        PROGRAM_ENDING: open_program,
        EXECUTORCH_ENDING: open_executorch,
    }
    if path.suffix not in openers:
        raise InputError(f"{path} is not an exported model: its name must end in {', '.join(openers)}")
    if not path.is_file():
        raise InputError(f"there is no file {path}: export a model first")
    if path.suffix == EXECUTORCH_ENDING and threads:
        raise InputError("ExecuTorch chooses its number of threads itself: limit them with `taskset`")
    require(*{ONNX_ENDING: ("onnxruntime",), EXECUTORCH_ENDING: ("executorch",)}.get(path.suffix, ()))
    try:
        return openers[path.suffix](path)
    # Each runtime has its own errors about damaged files.
    except Exception as error:
        first_line = str(error).partition("\n")[0]
        raise InputError(f"{path} cannot be opened as an exported model: {first_line}; export it again") from error


def check_ending(path: str | os.PathLike[str], ending: str) -> None:
    """Check that the name of a file has the ending of its format.

    Raises:
        InputError: it does not.
    """
    if Path(path).suffix != ending:
        raise InputError(f"{path} must end in {ending}")


def _sizes(shape: Any) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in shape)
