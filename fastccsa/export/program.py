"""A run's model as one function from images to logits, for any number of images at once."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import torch
from torch import Tensor, nn

from fastccsa.models import Classifier, ModelCard, load_model
from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically

INPUT, OUTPUT = "images", "logits"
PROGRAM_ENDING = ".pt2"


class Exported(nn.Module):
    """A classifier that returns only its logits, optionally with the normalisation of its images in front.

    Args:
        model: the classifier.
        card: its card.
        pixels: take pixels as decoders return them, uint8 [n, S, S, 3] in RGB; else normalised float32 [n, 3, S, S].
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Classifier, card: ModelCard, pixels: bool = False) -> None:
        super().__init__()
        self.model = model.eval()
        self.size = card.size
        self.pixels = pixels
        self.register_buffer("mean", 255 * torch.tensor(card.mean).view(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(card.std).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Map images to logits [n, C]."""
        if self.pixels:
            images = (images.permute(0, 3, 1, 2).float() - self.mean) / self.std
        logits: Tensor = self.model(images)[0]
        return logits

    def example(self, count: int, seed: int = 0) -> Tensor:
        """Draw ``count`` images of noise in the model's input format."""
        generator = torch.Generator().manual_seed(seed)
        pixels = torch.randint(0, 256, (count, self.size, self.size, 3), generator=generator, dtype=torch.uint8)
        if self.pixels:
            return pixels
        return ((pixels.permute(0, 3, 1, 2).float() - self.mean) / self.std).contiguous()


def read_run(run: str | os.PathLike[str], pixels: bool = False) -> tuple[Exported, ModelCard]:
    """Read a run's model for export.

    Raises:
        InputError: there is no trained model in ``run``.
    """
    card = ModelCard.read(run)
    return Exported(load_model(run), card, pixels).eval(), card


def trace(module: Exported) -> torch.export.ExportedProgram:
    """Trace ``module`` with a variable number of images."""
    # Two images, because the tracer treats a dimension of size 1 as fixed.
    count = torch.export.Dim("batch", min=1, max=4096)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(module, (module.example(2),), dynamic_shapes={"images": {0: count}})


def export_program(run: str | os.PathLike[str], path: str | os.PathLike[str], pixels: bool = False) -> float:
    """Write a run's model as a program of ``torch.export``: ``torch.export.load(path).module()(images)``.

    Args:
        run: run folder.
        path: file to write; its name must end in .pt2.
        pixels: take uint8 pixels instead of normalised images (see `Exported`).

    Returns:
        The largest difference between the file's logits and the model's, relative to the largest logit.

    Raises:
        InputError: there is no trained model, or the file name is wrong.
    """
    check_ending(path, PROGRAM_ENDING)
    module, _ = read_run(run, pixels)
    program = trace(module)

    # Streams, not paths: torch requires the ending, which the temporary file does not have. torch's writer ends the
    # process if the disk is full, so it writes into memory.
    def save(file: Path) -> None:
        content = BytesIO()
        torch.export.save(program, content)
        file.write_bytes(content.getbuffer())

    def load(file: Path) -> Callable[[Tensor], Tensor]:
        with open(file, "rb") as stream:
            return torch.export.load(stream).module()

    return write_checked(path, module, save, load)


def write_checked(
    path: str | os.PathLike[str],
    module: Exported,
    save: Callable[[Path], object],
    load: Callable[[Path], Callable[[Tensor], Tensor]],
) -> float:
    """Write a file with ``save``, and keep it only if the function that ``load`` reads from it matches ``module``.

    Returns:
        The largest difference between their logits, relative to the largest logit.

    Raises:
        RuntimeError: the difference exceeds rounding errors; nothing is written.
    """
    with write_atomically(path) as file:
        save(file)
        return worst_difference(module, load(file))


def worst_difference(module: Exported, other: Callable[[Tensor], Tensor]) -> float:
    """Compare the logits of two functions of images, on 1, 2 and 5 images of noise.

    Returns:
        The largest difference, relative to the largest logit.

    Raises:
        RuntimeError: the difference exceeds rounding errors.
    """
    worst = 0.0
    with torch.no_grad():
        for count in (1, 2, 5):
            images = module.example(count, seed=count)
            expected = module(images)
            difference = float((other(images) - expected).abs().max() / expected.abs().max())
            if not difference <= 1e-3:
                raise RuntimeError(
                    f"the exported model's logits differ by {difference:.1e} of the largest: not written"
                )
            worst = max(worst, difference)
    return worst


def check_ending(path: str | os.PathLike[str], ending: str) -> None:
    """Check that the name of a file has the ending of its format.

    Raises:
        InputError: it does not.
    """
    if Path(path).suffix != ending:
        raise InputError(f"{path} must end in {ending}")
