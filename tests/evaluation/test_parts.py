"""Batches that do not fit into the memory of a GPU, which a network that counts images stands for."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch

from fastccsa.data import Manifest
from fastccsa.evaluation.inference import evaluation_loader, predict
from fastccsa.evaluation.parts import Parts
from fastccsa.evaluation.replay import ReplayedPredictions
from fastccsa.models import build_model
from fastccsa.system.gpu_memory import ran_out

CPU = torch.device("cpu")
FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee ...")


class Counted(torch.nn.Module):
    """A network that has room for some images at a time."""

    def __init__(self, room: int, error: Exception = FULL) -> None:
        super().__init__()
        self.room, self.error, self.seen = room, error, []

    def forward(self, images):
        self.seen.append(len(images))
        if len(images) > self.room:
            raise self.error
        return images.sum((1, 2, 3)), images.amax((2, 3))


@pytest.mark.parametrize(
    ("room", "first", "second"),
    [(12, [11], [5]), (6, [11, 6, 5], [5]), (2, [11, 6, 3, 2, 2, 2, 2, 2, 1], [2, 2, 1]), (1, None, [1] * 5)],
)
def test_batches_are_halved_until_they_fit(caplog, room, first, second) -> None:
    parts, model = Parts(), Counted(room)
    for rows, expected in ((11, first), (5, second)):
        images = torch.randn(rows, 3, 4, 4)
        model.seen = []
        with caplog.at_level(logging.WARNING):
            ((logits, features),) = parts.run([model], images)
        assert expected is None or model.seen == expected
        assert torch.equal(logits, images.sum((1, 2, 3)))
        assert torch.equal(features, images.amax((2, 3)))
    assert caplog.text.count("CUDA out of memory. Tried to allocate 2.00 GiB.") == {12: 0, 6: 1, 2: 3, 1: 4}[room]
    assert "See" not in caplog.text


def test_several_models_share_the_parts_of_a_batch() -> None:
    images, models = torch.randn(4, 3, 2, 2), [Counted(9), Counted(2)]
    found = Parts().run(models, images)
    assert [model.seen for model in models] == [[4, 2, 2], [4, 2, 2]]
    assert all(torch.equal(features, images.amax((2, 3))) for _, features in found)


@pytest.mark.parametrize(("room", "error"), [(0, FULL), (1, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))])
def test_what_halving_does_not_mend_is_raised(room, error) -> None:
    with pytest.raises(type(error)) as raised:
        Parts().run([Counted(room, error)], torch.randn(4, 3, 2, 2))
    assert raised.value is error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (FULL, True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (RuntimeError("CUDA runtime API error cudaErrorMemoryAllocation (2):\nout of memory"), True),  # of DALI
        (torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might ..."), True),
        (torch.AcceleratorError("CUDA error: an illegal memory access was encountered"), False),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), False),
        (MemoryError("out of memory"), False),
    ],
)
def test_a_full_gpu_is_recognised(error, expected) -> None:
    assert ran_out(error) is expected


@pytest.mark.parametrize("replayed", [False, True])
def test_an_evaluation_finds_the_same_in_parts(manifest_csv, monkeypatch, replayed) -> None:
    images = Manifest.read(manifest_csv).select("validation")
    torch.manual_seed(0)
    model = build_model("shufflenet_v2_x0_5", 3, weights="none")
    with evaluation_loader(images, CPU, 32, cache="ram") as loader:
        expected = predict(model, loader.epoch(0), CPU)
        seen, forward = [], model.forward

        def limited(batch):
            seen.append(len(batch))
            if len(batch) > 9:
                raise FULL
            return forward(batch)

        monkeypatch.setattr(model, "forward", limited)
        parts = Parts()
        again = ReplayedPredictions(loader, None, capture=False)
        for _ in range(2):
            found = again(model) if replayed else predict(model, loader.epoch(0), CPU, None, parts)
            assert all((one == other).all() for one, other in zip(found[:3], expected[:3], strict=True))
        np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-5)
    assert seen == [18, 9, 9, 9, 9]


@pytest.mark.cuda
def test_a_batch_that_a_gpu_has_no_room_for_is_halved() -> None:
    class Large(torch.nn.Module):
        def forward(self, images):
            free, _ = torch.cuda.mem_get_info()
            torch.empty(free // 8 * len(images), dtype=torch.uint8, device="cuda")
            return images.sum((1, 2, 3)), images

    images = torch.randn(16, 3, 2, 2, device="cuda")
    ((logits, features),) = Parts().run([Large()], images)
    assert torch.equal(logits, images.sum((1, 2, 3)))
    assert torch.equal(features, images)
