"""A model's outputs on each image, kept so that plots need neither the images nor the model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch

from fastccsa.models.tensor_files import read_tensors, write_tensors
from fastccsa.system.errors import InputError
from fastccsa.system.reading import load_json, reported
from fastccsa.system.schema import Filled, Mismatch, build

# Dtype and number of dimensions of each array.
_ARRAYS = {
    "targets": (torch.int64, 1),
    "domains": (torch.int64, 1),
    "rows": (torch.int64, 1),
    "logits": (torch.float32, 2),
    "features": (torch.float16, 2),
}
_Names = Annotated[tuple[str, ...], Filled()]


@dataclass(frozen=True, eq=False)
class Outputs:
    """A model's outputs on n images of a split, C classes, features of width D.

    Attributes:
        targets: true class of each image, int64 [n], a position in ``classes``.
        domains: domain of each image, int64 [n], a position in ``domain_names``.
        rows: row of each image in the manifest (counted from 0, below the header), int64 [n].
        logits: float32 [n, C].
        features: inputs of the layer that computes the logits, float16 [n, D]; clipped to float16's range.
        classes: names of the classes.
        domain_names: keys of the domains.
        split: name of the split.
    """

    targets: npt.NDArray[np.int64]
    domains: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    logits: npt.NDArray[np.float32]
    features: npt.NDArray[np.float16]
    classes: tuple[str, ...]
    domain_names: tuple[str, ...]
    split: str

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def predictions(self) -> npt.NDArray[np.int64]:
        """Class with the highest logit, int64 [n]."""
        return self.logits.argmax(axis=1)

    @property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """Softmax of the logits, float64 [n, C]."""
        shifted = self.logits.astype(np.float64) - self.logits.max(axis=1, keepdims=True)
        exponentials = np.exp(shifted)
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    def take(self, indices: npt.ArrayLike) -> Outputs:
        """Return the outputs of some of the images; ``indices`` are positions [k] or a mask [n]."""
        chosen = np.asarray(indices)
        arrays = {name: getattr(self, name)[chosen] for name in _ARRAYS}
        return Outputs(**arrays, classes=self.classes, domain_names=self.domain_names, split=self.split)

    @staticmethod
    def join(parts: Sequence[Outputs]) -> Outputs:
        """Join the outputs of the parts of a split, in the order of their rows."""
        arrays = {name: np.concatenate([getattr(part, name) for part in parts]) for name in _ARRAYS}
        first = parts[0]
        joined = Outputs(**arrays, classes=first.classes, domain_names=first.domain_names, split=first.split)
        return joined.take(np.argsort(arrays["rows"], kind="stable"))

    def write(self, path: Path) -> None:
        """Write one safetensors file of about 2 D + 4 C bytes per image.

        Raises:
            InputError: the folder cannot be written.
        """
        tensors = {name: torch.from_numpy(np.ascontiguousarray(getattr(self, name))) for name in _ARRAYS}
        about = {
            "classes": json.dumps(self.classes),
            "domain_names": json.dumps(self.domain_names),
            "split": self.split,
        }
        write_tensors(path, tensors, about)

    @staticmethod
    def read(path: Path) -> Outputs:
        """Read what `write` wrote. No code from the file is executed.

        Raises:
            InputError: the file is missing, does not hold outputs, or its arrays do not match each other.
        """
        advice = "remove it to report without it"
        try:
            with reported(path, "holds no test outputs", advice):
                tensors, about = read_tensors(path)
                missing = ({*_ARRAYS} - tensors.keys()) | ({"classes", "domain_names", "split"} - about.keys())
                if missing:
                    raise Mismatch(f"{', '.join(sorted(missing))} is missing")
                arrays: dict[str, Any] = {name: _array(name, tensors[name]) for name in _ARRAYS}
                classes, domain_names = (
                    build(_Names, load_json(about[name]), name) for name in ("classes", "domain_names")
                )
                outputs = Outputs(**arrays, classes=classes, domain_names=domain_names, split=about["split"])
                _check(outputs)
        except FileNotFoundError as error:
            raise InputError(f"{path} holds no test outputs ({error.strerror}); {advice}") from error
        return outputs


def make_outputs(
    targets: np.ndarray,
    domains: np.ndarray,
    rows: np.ndarray,
    logits: np.ndarray,
    features: np.ndarray,
    *,
    classes: Sequence[str],
    domain_names: Sequence[str],
    split: str,
) -> Outputs:
    """Convert a model's outputs to the dtypes of `Outputs`."""
    return Outputs(
        targets=targets.astype(np.int64),
        domains=domains.astype(np.int64),
        rows=rows.astype(np.int64),
        logits=logits.astype(np.float32),
        features=_to_half(features),
        classes=tuple(classes),
        domain_names=tuple(domain_names),
        split=split,
    )


def _to_half(features: np.ndarray) -> npt.NDArray[np.float16]:
    largest = float(np.finfo(np.float16).max)
    return np.clip(features, -largest, largest).astype(np.float16)


def _array(name: str, tensor: torch.Tensor) -> np.ndarray:
    """Return an array of `Outputs`, after checking its dtype and dimensions."""
    dtype, dimensions = _ARRAYS[name]
    if tensor.dtype != dtype or tensor.ndim != dimensions:
        raise Mismatch(f"{name} is {tensor.dtype} {list(tensor.shape)}, not {dtype} of {dimensions} dimensions")
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        raise Mismatch(f"{name} has values that are not finite")
    return tensor.numpy()


def _check(outputs: Outputs) -> None:
    """Check that the arrays match each other.

    Raises:
        InputError: they do not.
    """
    n = len(outputs.targets)
    sound = n > 0 and all(len(getattr(outputs, name)) == n for name in _ARRAYS)
    sound = sound and outputs.logits.shape[1] == len(outputs.classes) and outputs.features.shape[1] > 0
    for indices, count in (
        (outputs.targets, len(outputs.classes)),
        (outputs.domains, len(outputs.domain_names)),
        (outputs.rows, np.inf),
    ):
        sound = sound and indices.min() >= 0 and indices.max() < count
    if not sound:
        raise Mismatch("its arrays do not match each other")
