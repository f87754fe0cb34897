"""A run's model as one function from images to logits, with the preprocessing that is part of it."""

from __future__ import annotations

import os
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from fastccsa.export.choices import Preprocess
from fastccsa.export.resample import SMALLEST, resize_and_crop
from fastccsa.export.runners import INPUT
from fastccsa.images import Transforms
from fastccsa.models import Classifier, ModelCard, load_model

LARGEST = 16384  # side of the largest photograph


class Preparation(nn.Module):
    """The steps from the input of an exported model to its network.

    Args:
        card: the model's card.
        preprocess: none takes normalised images, float [n, 3, S, S]; normalise takes images as uint8 [n, S, S, 3]; all
            takes upright photographs of one size, uint8 [n, H, W, 3]. The colours are RGB.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, card: ModelCard, preprocess: Preprocess) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.transforms = Transforms(size=card.size)
        self.register_buffer("mean", 255 * torch.tensor(card.mean).view(3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(card.std).view(3, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Map images to normalised images [n, 3, S, S] of the buffers' dtype."""
        dtype = self.mean.dtype
        if self.preprocess == "none":
            return images.to(dtype)
        if self.preprocess == "normalise":
            levels = images.permute(0, 3, 1, 2).to(dtype)
        else:
            levels = resize_and_crop(images, self.transforms, dtype)
        return (levels - self.mean) / self.std

    def example(self, count: int, seed: int = 0) -> Tensor:
        """Draw ``count`` images of noise; photographs are a little larger than the resized image, and not square."""
        size, resize = self.transforms.size, self.transforms.resize
        height, width = (max(resize, SMALLEST) + 3, max(resize, SMALLEST) + 8)
        if self.preprocess != "all":
            height = width = size
        generator = torch.Generator().manual_seed(seed)
        pixels = torch.randint(0, 256, (count, height, width, 3), generator=generator, dtype=torch.uint8)
        if self.preprocess != "none":
            return pixels
        return ((pixels.permute(0, 3, 1, 2) - self.mean) / self.std).contiguous()


class Exported(nn.Module):
    """A classifier that returns only its logits, with its preparation in front.

    Args:
        model: the classifier.
        card: its card.
        preprocess: see `Preparation`.
    """

    def __init__(self, model: Classifier, card: ModelCard, preprocess: Preprocess = "none") -> None:
        super().__init__()
        self.prepare = Preparation(card, preprocess)
        self.model = model.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Map images to logits [n, C]."""
        logits: Tensor = self.model(self.prepare(images))[0]
        return logits


def read_run(run: str | os.PathLike[str], preprocess: Preprocess = "none") -> tuple[Exported, ModelCard]:
    """Read a run's model for export.

    Raises:
        InputError: there is no trained model in ``run``.
    """
    card = ModelCard.read(run)
    return Exported(load_model(run), card, preprocess).eval(), card


def trace(module: nn.Module, example: Tensor, sizes: bool, count: int | None = None) -> torch.export.ExportedProgram:
    """Trace ``module`` for export.

    Args:
        module: the module.
        example: images, 2 of them unless ``count`` is given: the tracer treats a dimension of size 1 as fixed.
        sizes: accept photographs of any size.
        count: number of images of a call; None accepts any number.
    """
    dimensions: dict[int, Any] = {} if count else {0: torch.export.Dim("batch", min=1, max=4096)}
    if sizes:
        dimensions |= {
            axis: torch.export.Dim(name, min=SMALLEST, max=LARGEST) for axis, name in ((1, "height"), (2, "width"))
        }
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.export.export(
            module,
            (example,),
            dynamic_shapes={INPUT: dimensions},
            # The sizes of the middle half are no constants; they are checked when the program runs.
            prefer_deferred_runtime_asserts_over_guards=sizes,
        )


def describe(card: ModelCard, preprocess: Preprocess) -> dict[str, Any]:
    """Describe the classes of the logits and the preprocessing of an image, which is that of evaluation.

    ``preprocessing`` lists only the steps that are not part of the model.
    """
    transforms = Transforms(size=card.size)
    resize = transforms.resize
    offset = transforms.crop_offset + transforms.evaluation_offset
    steps: list[dict[str, Any]] = [{"step": "decode", "colour": "RGB", "orientation": "upright"}]
    if preprocess != "all":
        steps += [
            {"step": "resize", "height": resize, "width": resize, "keep_aspect": False,
             "filter": "bilinear, antialiased"},
            {"step": "crop", "top": offset, "left": offset, "height": card.size, "width": card.size},
        ]  # fmt: skip
    if preprocess == "none":
        steps += [
            {"step": "scale", "multiply_by": 1 / 255},
            {"step": "normalise", "mean": list(card.mean), "std": list(card.std)},
            {"step": "transpose", "to": "NCHW"},
        ]
    return {"classes": list(card.classes), "domains": list(card.domains), "preprocessing": steps}
