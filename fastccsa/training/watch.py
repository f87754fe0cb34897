"""Scores after each epoch on images that no rule within the run may look at, to compare rules of selection later."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from fastccsa.collections import Manifest
from fastccsa.evaluation import score
from fastccsa.evaluation.inference import Predictions, evaluation_loader, predict
from fastccsa.evaluation.parts import Parts
from fastccsa.evaluation.replay import ReplayedPredictions
from fastccsa.images import ImageLoader
from fastccsa.models import Classifier
from fastccsa.runs.config import TrainConfig
from fastccsa.runs.images import watched_images
from fastccsa.training.ranks import Ranks

if TYPE_CHECKING:
    from typing_extensions import Self


def open_share(
    images: Manifest, config: TrainConfig, device: torch.device, ranks: Ranks, pixels: torch.dtype = torch.float32
) -> ImageLoader:
    """Open the loader of this rank's share of images that a run scores, cached as its training images are."""
    return evaluation_loader(
        images,
        device,
        config.size,
        workers=config.workers,
        image_backend=config.image_backend,
        cache=config.image_cache,
        rank=ranks.rank,
        world_size=ranks.world,
        pixels=pixels,
    )


class Watch:
    """One rank's share of the images to watch: the test images, and the validation images of domains left out.

    Args:
        config: the run; without ``score_epochs`` nothing is watched.
        manifest: all images.
        trained: keys of the training domains.
        device: the device of the model.
        ranks: the processes that train together.
        pixels: number type of the images.
    """

    def __init__(
        self,
        config: TrainConfig,
        manifest: Manifest,
        trained: tuple[str, ...],
        device: torch.device,
        ranks: Ranks,
        pixels: torch.dtype = torch.float32,
    ) -> None:
        self._parts: dict[str, tuple[Manifest, ImageLoader]] = {}
        self._replayed: dict[str, ReplayedPredictions] = {}
        self._halved = Parts()
        self._opened, self._ranks = ExitStack(), ranks
        with ExitStack() as opened:
            for name, images in watched_images(config, manifest, trained).items():
                loader = open_share(images, config, device, ranks, pixels)
                self._parts[name] = images, opened.enter_context(loader)
            self._opened = opened.pop_all()

    def replay(self, validation: ReplayedPredictions) -> None:
        """Predict in the way of ``validation`` from now on; the crops must be in the memory of the device."""
        self._replayed = {name: validation.beside(loader) for name, (_, loader) in self._parts.items()}

    def record(
        self,
        model: Classifier,
        device: torch.device,
        dtype: torch.dtype | None,
        stop_if_requested: Callable[[], None],
    ) -> dict[str, dict[str, float]]:
        """Return the macro-average recall by domain, in [0, 1]: ``unseen`` on validation images, and ``test``.

        ``stop_if_requested`` is called before each batch. All ranks must call this together.
        """
        found = {}
        for name, (images, loader) in self._parts.items():
            if name in self._replayed:
                share = self._replayed[name](model, stop_if_requested)
            else:
                share = predict(model, _calling(stop_if_requested, loader.epoch(0)), device, dtype, self._halved)
            shares = self._ranks.gather(share)
            joined = Predictions(*(np.concatenate(columns) for columns in zip(*shares, strict=True)))
            scores = score(*joined[:3], classes=images.classes, domains=images.domains, split=name)
            found[name] = {domain: each.macro_recall for domain, each in scores.domains.items()}
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._opened.close()


def _calling(before: Callable[[], None], batches: Iterator[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    """Yield ``batches``, and call ``before`` before each of them."""
    for batch in batches:
        before()
        yield batch
