"""Projection of features to two dimensions, with a cache."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from fastccsa.system.errors import InputError
from fastccsa.system.files import write_atomically
from fastccsa.system.reading import read_bytes

CACHE_FOLDER = ".report-cache"  # in the folder of the runs
FEWEST = 5  # fewest images that are projected
_COMPONENTS = 50  # principal components as t-SNE's input, as its authors recommend
_PERPLEXITY = 30
_POINT_BYTES = 16  # two numbers; the file holds nothing else, so that it needs no parser
_METHOD = "tsne-1"  # part of the key of the cache; must change with the method

Points = npt.NDArray[np.float64]


def project(features: npt.NDArray[np.float16], cache: Path | None = None) -> Points:
    """Project features [n, D], n at least `FEWEST`, to [n, 2] by t-SNE; equal features give equal points.

    Args:
        features: the features.
        cache: folder in which the points are cached; not used if it cannot be written.
    """
    key = hashlib.sha256(f"{_METHOD} {features.shape}".encode() + features.tobytes()).hexdigest()
    file = cache / f"{key}.points" if cache else None
    if file is not None and (points := _load(file, len(features))) is not None:
        return points
    points = _tsne(features.astype(np.float64))
    if file is not None:
        _save(file, points)
    return points


def _tsne(features: npt.NDArray[np.float64]) -> Points:
    n = len(features)
    components = PCA(min(_COMPONENTS, n, features.shape[1]), random_state=0).fit_transform(features)
    tsne = TSNE(perplexity=min(_PERPLEXITY, (n - 1) / 3), init="pca", random_state=0)
    points: Points = tsne.fit_transform(components).astype(np.float64)
    return points


def _load(file: Path, count: int) -> Points | None:
    try:
        content = read_bytes(file)
    except OSError:
        return None
    if len(content) != count * _POINT_BYTES:
        return None
    points = np.frombuffer(content, np.float64).reshape(count, 2)
    return points if np.isfinite(points).all() else None


def _save(file: Path, points: Points) -> None:
    try:
        with write_atomically(file, follow_links=False) as temporary:
            temporary.write_bytes(np.ascontiguousarray(points).tobytes())
    except (OSError, InputError):
        return  # the folder of runs is read-only, or a folder has the file's name: the report works without the cache
