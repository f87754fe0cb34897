"""Predictions of a model that learns, on the same images again and again, replayed as a CUDA graph."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastccsa.evaluation.inference import Predictions, pack, unpack
from fastccsa.evaluation.parts import Parts
from fastccsa.images import ImageLoader
from fastccsa.models import Classifier
from fastccsa.system.cuda_graphs import CaptureError, capture
from fastccsa.system.devices import autocast

logger = logging.getLogger("fastccsa.evaluation")


class ReplayedPredictions:
    """Does what `fastccsa.evaluation.inference.predict` does, for a loader whose crops are in the GPU's memory.

    The plans of its batches are loaded into that memory once, and the last batch is filled up to the size of the
    others. The first call is an ordinary evaluation, which initialises libraries; the next one captures the work on a
    batch as a CUDA graph, unless that fails, and later ones replay it. A call has a single host sync, at its end.

    Args:
        loader: a loader of evaluation images that has plans, none of which changes.
        dtype: dtype of autocast; None disables it.
        capture: capture a graph. Without it, every call is an ordinary evaluation.
        beside: predictions whose graph this one shares its memory and stream with; they never run at the same time.
    """

    def __init__(
        self,
        loader: ImageLoader,
        dtype: torch.dtype | None,
        capture: bool = True,
        beside: ReplayedPredictions | None = None,
    ) -> None:
        self._loader, self._dtype, self._capture = loader, dtype, capture
        self._parts: Parts = Parts() if beside is None else beside._parts
        self._places: list[tuple[torch.cuda.Stream, Any]] = [] if beside is None else beside._places
        plans = list(loader.plans(0))
        self._count = sum(len(plan) for plan in plans)
        rows = len(plans[0])
        plans[-1] = torch.cat([plans[-1], plans[-1][:1].expand(rows - len(plans[-1]), -1)])
        self._plans = torch.stack(plans).to(loader.device)
        self._plan = torch.empty_like(self._plans[0])
        self._found = torch.empty((4, rows), dtype=torch.int64, device=loader.device)
        self._all = torch.empty((len(plans), 4, rows), dtype=torch.int64, device=loader.device)
        self._model: Classifier | None = None
        self._graph: torch.cuda.CUDAGraph | None = None

    @torch.no_grad()
    def __call__(self, model: Classifier, between: Callable[[], None] = lambda: None) -> Predictions:
        """Predict the classes of all images, and call ``between`` before each batch.

        Afterwards the model is in the same mode as before. A graph is used as long as the model is the same one, whose
        weights have changed in place.
        """
        was_training = model.training
        model.eval()
        if model is not self._model:
            self._model, self._graph = model, None
        elif self._capture and self._graph is None:
            self._graph = self._captured()
        for plan, found in zip(self._plans, self._all, strict=True):
            between()
            self._plan.copy_(plan)
            if self._graph is None:
                self._work()
            else:
                self._graph.replay()
            found.copy_(self._found)
        model.train(was_training)
        return unpack(self._all.transpose(0, 1).flatten(1)[:, : self._count])

    def beside(self, loader: ImageLoader) -> ReplayedPredictions:
        """Return the same for another loader; its graph shares the memory of this one's."""
        return ReplayedPredictions(loader, self._dtype, self._capture, self)

    def _work(self) -> None:
        """Predict the classes of the batch whose plan has been copied."""
        assert self._model is not None
        batch = self._loader.make(self._plan)
        images: Tensor = batch["images"].contiguous(memory_format=torch.channels_last)
        with autocast(images.device, self._dtype):
            ((logits, _),) = self._parts.run([self._model], images)
        self._found.copy_(pack(batch, logits))

    def _captured(self) -> torch.cuda.CUDAGraph | None:
        """Capture the work on a batch; None if that is not possible."""
        if not self._places:
            self._places.append((torch.cuda.Stream(self._plan.device), torch.cuda.graph_pool_handle()))
        try:
            return capture(self._work, *self._places[0])
        except CaptureError as error:
            logger.warning("the validation cannot be captured as a CUDA graph (%s) and runs without one", error)
            self._places.clear()  # the memory of a capture that failed may not be usable
            self._capture = False
            return None
