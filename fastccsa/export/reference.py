"""A run's model and its logits on real images, which every exported file must reproduce."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fastccsa.cards import facts_for_export, write_export_card
from fastccsa.collections import Manifest
from fastccsa.collections.stratify import stratified_subset
from fastccsa.evaluation import score
from fastccsa.evaluation.inference import evaluation_loader
from fastccsa.export.agreement import (
    Agreement,
    DisagreementError,
    DomainAgreement,
    as_record,
    write_record,
)
from fastccsa.export.choices import Preprocess
from fastccsa.export.model import LARGEST, describe, read_run
from fastccsa.export.resample import SMALLEST
from fastccsa.images.decode import decode, read_image
from fastccsa.images.torchvision_backend import fused
from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically

COMPARED_ON = "validation"
IMAGES = 256
_IN_FLOAT64 = 32  # images whose logits are also computed in float64

# Two float32 programs sum the same products in another order. The error of a sum grows with the square root of its
# length if the products are added one by one, and is up to 4 times smaller if they are added in 16 lanes, as PyTorch
# does. So the file's error may be 4 times PyTorch's, and the difference of both 1 + 4 times. The factor of 2 is for the
# largest of many images, because PyTorch's error is that of the first `_IN_FLOAT64` images.
ROUNDING_FACTOR = 2 * (1 + 4)
# Pillow rounds to whole grey levels after each of its two passes, by half a level each; the rest is its fixed-point
# weights, of 22 bits.
GREY_LEVELS = 1.01

_CPU = torch.device("cpu")
_NOISE = "noise"


class Batch(NamedTuple):
    """Images as the exported model takes them, and as the run's own evaluation prepares them; classes and domains."""

    inputs: Tensor
    prepared: Tensor
    targets: Tensor
    domains: Tensor
    paths: list[str]


class Logits(NamedTuple):
    """Of n images: the logits of the exported model in PyTorch, and of the run's own evaluation, [n, C] each.

    ``rounding`` is the largest error of float32 in the former, and ``grey_levels`` the largest difference of its
    preprocessing from Pillow's.
    """

    exported: Tensor
    evaluated: Tensor
    targets: npt.NDArray[np.int64]
    domains: npt.NDArray[np.int64]
    rounding: float
    grey_levels: float | None


class Reference:
    """A run's model, and its logits on real images that every exported file must reproduce.

    The bound of the differences is derived from the model itself: PyTorch's logits in float32 are compared with those
    in float64, on up to 32 of the images. Ten times the largest error is what another order of summation can explain
    (see the comment at `ROUNDING_FACTOR`); anything beyond is a wrong file.

    Args:
        run: run folder.
        images: manifest whose validation images are compared; None compares noise only.
        preprocess: the steps that are part of the exported model: none, normalise (of uint8 images [n, S, S, 3]) or all
            (of photographs of any size, uint8 [n, H, W, 3]).
        count: maximum number of images, spread as evenly as possible over domains and classes.
        workers: number of threads that decode images; 0 lets the image pipeline choose.
        image_backend: native, dali, torchvision or auto; see `PairLoader`.

    Raises:
        InputError: there is no trained model, the manifest's classes are not the model's, or it has no validation
            image.
    """

    def __init__(
        self,
        run: str | os.PathLike[str],
        images: Manifest | None,
        *,
        preprocess: Preprocess = "none",
        count: int = IMAGES,
        workers: int = 0,
        image_backend: str = "auto",
    ) -> None:
        self.module, self.card = read_run(run, preprocess)
        self.preprocess: Preprocess = preprocess
        self.manifest = images
        self._run_path = Path(run)
        self._workers, self._image_backend = workers, image_backend
        self._images: Manifest | None = None
        if images is not None:
            if images.classes != self.card.classes:
                raise InputError(
                    f"the manifest's classes {', '.join(images.classes)} are not the model's, "
                    f"{', '.join(self.card.classes)}"
                )
            self._images = stratified_subset(images.select(COMPARED_ON), count)
            if not len(self._images):
                raise InputError("the manifest has no validation image to compare the exported model on")

    def batches(self, images: Manifest) -> Iterator[Batch]:
        """Iterate over images in the form that the exported model takes; photographs come one by one.

        Raises:
            InputError: there are no images, or none of them can be read.
        """
        with evaluation_loader(
            images, _CPU, self.card.size, batch_size=16, workers=self._workers, image_backend=self._image_backend
        ) as loader:
            for batch in loader.epoch(0):
                paths = [images.paths[row] for row in batch["index"].tolist()]
                prepared = batch["images"].contiguous()
                found = Batch(prepared, prepared, batch["target"], batch["domain"], paths)
                if self.preprocess == "normalise":
                    yield found._replace(inputs=self._levels(prepared).round().to(torch.uint8))
                elif self.preprocess == "all":
                    for row, path in enumerate(paths):
                        part = slice(row, row + 1)
                        yield Batch(_photograph(path), prepared[part], found.targets[part], found.domains[part], [path])
                else:
                    yield found

    def measure(self) -> None:
        """Compute the logits that files are compared with, once; `compare` and `write` do so too.

        Raises:
            DisagreementError: the run's own logits are not finite.
            InputError: no image can be read, or a photograph has a size that the exported model does not take.
        """
        _ = self._logits

    def compare(self, function: Callable[[Tensor], Tensor]) -> Agreement:
        """Compare the logits of ``function`` with the model's, by domain.

        Raises:
            DisagreementError: they differ by more than rounding, in at least one domain, or they are not finite.
        """
        logits = self._logits
        found = self._run(function)
        agreement = self._agreement(found)
        for name, domain in agreement.domains.items():
            if not domain.difference <= agreement.bound:
                raise DisagreementError(
                    f"the exported model's logits differ from PyTorch's by {domain.difference:.1e} on "
                    f"{agreement.compared_on} images of {name}, and rounding explains {agreement.bound:.1e}: "
                    "not written"
                )
        if logits.grey_levels is not None and not logits.grey_levels <= GREY_LEVELS:
            raise DisagreementError(
                f"the preprocessing in the model differs from Pillow's by {logits.grey_levels:.1f} grey levels, "
                f"and rounding explains {GREY_LEVELS}: not written"
            )
        return agreement

    def write(
        self,
        path: str | os.PathLike[str],
        save: Callable[[Path], object],
        load: Callable[[Path], Callable[[Tensor], Tensor]],
    ) -> Agreement:
        """Write a file with ``save`` and its record, if the function that ``load`` opens computes the model's logits.

        Raises:
            DisagreementError: it does not; nothing is written.
            InputError: the folder cannot be written.
        """
        with write_atomically(path) as file:
            save(file)
            agreement = self.compare(load(file))
            self.record(Path(path), as_record(agreement), file)
        return agreement

    def record(self, path: Path, figures: dict[str, Any], content: Path) -> None:
        """Write the record ``<path>.json``, with ``figures``, and the model card ``<path>.md``."""
        about = {"input": self.preprocess, "size": self.card.size} | describe(self.card, self.preprocess) | figures
        write_record(path, about, content)
        write_export_card(path, self._facts, about)

    @cached_property
    def _facts(self) -> dict[str, Any]:
        """The facts of the model card, which all exported files share."""
        return facts_for_export(self._run_path)

    @cached_property
    def _logits(self) -> Logits:
        precise = copy.deepcopy(self.module).double()
        columns: list[tuple[Tensor, ...]] = []
        rounding, levels, seen = 0.0, None, 0
        with torch.no_grad():
            for batch in self._batches():
                exported = self.module(batch.inputs)
                evaluated = exported
                if self.preprocess != "none" and batch.paths:
                    evaluated = self.module.model(batch.prepared)[0]
                if seen < _IN_FLOAT64:
                    inputs = batch.inputs if batch.inputs.dtype == torch.uint8 else batch.inputs.double()
                    rounding = max(rounding, float((precise(inputs) - exported.double()).abs().max()))
                    seen += len(exported)
                if self.preprocess == "all":
                    made = self._levels(self.module.prepare(batch.inputs))
                    difference = float((made - self._by_pillow(batch.inputs)).abs().max())
                    levels = max(levels or 0.0, difference)
                columns.append((exported, evaluated, batch.targets, batch.domains))
        exported, evaluated, targets, domains = (torch.cat(column) for column in zip(*columns, strict=True))
        if not exported.isfinite().all():
            raise DisagreementError("the run's own logits are not finite on these images: nothing can be exported")
        # The logits themselves are rounded to float32.
        rounding = max(rounding, float(exported.abs().max()) * torch.finfo(torch.float32).eps / 2)
        return Logits(exported, evaluated, targets.numpy(), domains.numpy(), rounding, levels)

    def _batches(self) -> Iterator[Batch]:
        """Iterate over the images that are compared: real ones, or noise in batches of 1, 2 and 5."""
        if self._images is not None:
            yield from self.batches(self._images)
            return
        for count in (1, 2, 5):
            images = self.module.prepare.example(count, seed=count)
            nothing = torch.zeros(count, dtype=torch.int64)
            yield Batch(images, images, nothing, nothing, [])

    def _run(self, function: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.no_grad():
            found = torch.cat([function(batch.inputs) for batch in self._batches()])
        expected = self._logits.exported
        if found.shape != expected.shape:
            raise DisagreementError(
                f"the exported model returns logits {list(found.shape)} instead of {list(expected.shape)}: not written"
            )
        return found

    def _agreement(self, found: Tensor) -> Agreement:
        logits = self._logits
        # NaN stays NaN, and is more than any bound.
        difference = (found.double() - logits.exported.double()).abs().amax(dim=1).numpy()
        before, after = logits.evaluated.argmax(1).numpy(), found.argmax(1).numpy()
        names = [_NOISE] if self._images is None else list(self._images.domains)
        domains = {}
        for index, name in enumerate(names):
            here = logits.domains == index
            if not here.any():
                continue
            recalls = [
                None
                if self._images is None
                else score(logits.targets[here], predicted[here], logits.domains[here], self.card.classes, names)
                .domains[name]
                .macro_recall
                for predicted in (before, after)
            ]
            domains[name] = DomainAgreement(
                int(here.sum()), float(difference[here].max()), int((before != after)[here].sum()), *recalls
            )
        return Agreement(
            _NOISE if self._images is None else COMPARED_ON,
            logits.rounding,
            ROUNDING_FACTOR * logits.rounding,
            logits.grey_levels,
            domains,
        )

    def _levels(self, prepared: Tensor) -> Tensor:
        """Undo the normalisation: grey levels [n, S, S, 3], not rounded."""
        return (prepared * self.module.prepare.std + self.module.prepare.mean).permute(0, 2, 3, 1).contiguous()

    def _by_pillow(self, photographs: Tensor) -> Tensor:
        """Resize and crop photographs with Pillow: grey levels [n, S, S, 3]."""
        from PIL import Image

        transforms = self.module.prepare.transforms
        view = transforms.evaluation(1)
        images = [fused(Image.fromarray(photograph.numpy()), transforms, view, 0) for photograph in photographs]
        return torch.from_numpy(np.stack([np.asarray(image, np.float32) for image in images]))


def _photograph(path: str) -> Tensor:
    """Decode a file to upright RGB, uint8 [1, H, W, 3].

    Raises:
        InputError: it is too small or too large for the exported model.
    """
    image = decode(read_image(path).data)
    if not SMALLEST <= min(image.size) <= max(image.size) <= LARGEST:
        raise InputError(
            f"{path} has {image.width} x {image.height} pixels, and a model that resizes photographs takes {SMALLEST} "
            f"to {LARGEST} in each direction: export with preprocess none or normalise"
        )
    return torch.from_numpy(np.array(image))[None]
