import numpy as np
from numpy.typing import NDArray

def decode_region(
    data: NDArray[np.uint8], top: int, left: int, height: int, width: int, scale: int
) -> NDArray[np.uint8] | None: ...
def read_codes(data: NDArray[np.uint8], top: int, left: int, height: int, width: int, scale: int) -> bool: ...
