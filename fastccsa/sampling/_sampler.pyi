from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_SIZE: int

def philox4x32(counter: Sequence[int], key: Sequence[int]) -> list[int]: ...
def uniforms(seed: int, stream: int, epoch: int, positions: ArrayLike, count: int) -> NDArray[np.float64]: ...
def permute(size: int, seed: int, epoch: int, begin: int, end: int) -> NDArray[np.int64]: ...

class PairSampler:
    def __init__(
        self,
        group_of: ArrayLike,
        domains: int,
        classes: int,
        primary: int,
        match_probability: float,
        different: bool,
    ) -> None: ...
    def pairs(self, seed: int, epoch: int, begin: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]: ...
    def counts(self) -> NDArray[np.int64]: ...
    @property
    def nbytes(self) -> int: ...
