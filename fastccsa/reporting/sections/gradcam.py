"""Grad-CAM of the most confident correct and wrong answers of an experiment's model."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image

from fastccsa.collections import Manifest
from fastccsa.evaluation import Outputs
from fastccsa.evaluation.gradcam import WITHOUT_MAPS, grad_cam
from fastccsa.images import Transforms
from fastccsa.images.decode import BrokenImageError, decode, read_image
from fastccsa.images.torchvision_backend import exact, normalise
from fastccsa.models import MODEL_FILE, load_model
from fastccsa.reporting.groups import RunGroup, read_outputs
from fastccsa.runs.records import Run
from fastccsa.system.errors import InputError

TILE = 128  # side length of an image on the page in pixels
QUALITY = 70  # of WebP, 0 to 100


@dataclass(frozen=True)
class Example:
    """An image, and next to it the same image with its Grad-CAM.

    Attributes:
        domain: key of the domain.
        is_right: whether the model's answer is the true class.
        truth, answer: names of the true class and of the model's answer.
        confidence: the model's probability of its answer.
        source: the picture, 2 TILE x TILE pixels, as a data URI.
    """

    domain: str
    is_right: bool
    truth: str
    answer: str
    confidence: float
    source: str

    @property
    def description(self) -> str:
        """A description of the picture."""
        result = "recognised" if self.is_right else f"mistaken for {self.answer}"
        return f"{self.domain}: {self.truth} {result}, {100 * self.confidence:.0f} % sure. The image, and its Grad-CAM."


@dataclass(frozen=True)
class GradCam:
    """Examples of one run; ``note`` says why there are none, what their resolution is, or how many are missing."""

    seed: int
    examples: tuple[Example, ...]
    note: str


def grad_cam_of(group: RunGroup) -> GradCam:
    """Return, for each domain, the most confident correct answer and the most confident wrong one.

    If something is missing (outputs, model, images, ...), a note says so instead of an error, because run folders are
    often copied without everything.
    """
    run = group.shown
    try:
        return GradCam(run.config.seed, *_examples(run))
    except InputError as error:
        return GradCam(run.config.seed, (), f"No Grad-CAM: {error}.")


def _examples(run: Run) -> tuple[tuple[Example, ...], str]:
    """Return the examples, and a note about them.

    Raises:
        InputError: there are none; the message says why.
    """
    outputs = read_outputs(run)
    if outputs is None:
        raise InputError("the run has no test outputs")
    if run.config.backbone.startswith(WITHOUT_MAPS):
        raise InputError(f"{run.config.backbone} has no convolutional feature maps at its end")
    if not (run.folder / MODEL_FILE).is_file():
        raise InputError(f"the run's {MODEL_FILE} is not here")
    chosen = outputs.take(list(surest(outputs)))
    images, readable = _read_images(run, chosen)
    broken = len(chosen) - len(readable)
    if not images:
        raise InputError("none of the images could be read")
    chosen = chosen.take(readable)
    transforms = Transforms(size=run.config.size)
    batch = torch.stack([normalise(image, transforms) for image in images])
    cams = grad_cam(load_model(run.folder), batch, torch.from_numpy(chosen.predictions)).numpy()
    confidence = chosen.probabilities.max(axis=1)
    examples = [
        Example(
            domain=chosen.domain_names[chosen.domains[row]],
            is_right=bool(chosen.predictions[row] == chosen.targets[row]),
            truth=chosen.classes[chosen.targets[row]],
            answer=chosen.classes[chosen.predictions[row]],
            confidence=float(confidence[row]),
            source=_data_uri(side_by_side(images[row], cams[row])),
        )
        for row in range(len(chosen))
    ]
    note = f"Each map has {cams.shape[1]} by {cams.shape[2]} values, interpolated."
    return tuple(examples), f"{note} {broken} images could not be read." if broken else note


def surest(outputs: Outputs) -> Iterator[int]:
    """Yield, for each domain, the positions of the correct and the wrong answer with the highest confidence."""
    confidence = outputs.probabilities.max(axis=1)
    right = outputs.predictions == outputs.targets
    for domain in range(len(outputs.domain_names)):
        for is_right in (True, False):
            places = np.flatnonzero((outputs.domains == domain) & (right == is_right))
            if len(places):
                yield int(places[confidence[places].argmax()])


def _read_images(run: Run, outputs: Outputs) -> tuple[list[Image.Image], list[int]]:
    """Return the images as the model saw them, and their positions in ``outputs``, without unreadable ones."""
    manifest, checksum = _read_manifest(run.config.manifest)
    if checksum != run.config.manifest_sha256:
        raise InputError(f"{run.config.manifest} has changed since the run")
    paths = manifest.paths
    transforms = Transforms(size=run.config.size)
    images, readable = [], []
    for position, row in enumerate(outputs.rows):
        try:
            image = decode(read_image(paths[row]).data)
        except BrokenImageError:
            continue
        images.append(exact(image, transforms, transforms.evaluation(1), 0))
        readable.append(position)
    return images, readable


@lru_cache(maxsize=4)  # the runs of a report share one manifest
def _read_manifest(path: str) -> tuple[Manifest, str]:
    manifest = Manifest.read(path, check_files=False)
    return manifest, hashlib.sha256(Path(path).read_bytes()).hexdigest()


def side_by_side(image: Image.Image, cam: np.ndarray) -> Image.Image:
    """Draw an image of any size next to the same image with its map [h, w] in [0, 1]: 2 TILE x TILE pixels."""
    plain = image.resize((TILE, TILE), Image.Resampling.BICUBIC)
    smooth = Image.fromarray(np.rint(255 * cam).astype(np.uint8)).resize((TILE, TILE), Image.Resampling.BICUBIC)
    colours = matplotlib.colormaps["inferno"](np.asarray(smooth))[..., :3]
    heat = Image.fromarray(np.rint(255 * colours).astype(np.uint8))
    pair = Image.new("RGB", (2 * TILE, TILE))
    pair.paste(plain, (0, 0))
    pair.paste(Image.blend(plain, heat, 0.55), (TILE, 0))
    return pair


def _data_uri(image: Image.Image) -> str:
    content = io.BytesIO()
    image.save(content, format="WEBP", quality=QUALITY)
    return "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode("ascii")
