"""Arrays in files that the system may page out: what many images give may be more than the memory."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lineward.runtime.errors import TrainingError, first_line


def paged(path: Path, dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
    """Zeros in a new file.

    Args:
        path: the file; it can be deleted while the array is in use.
        dtype: of the array.
        shape: of the array.

    Raises:
        TrainingError: the disk has no room. It is reserved at once: later, the kernel would end the process.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    try:
        with path.open("xb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
        return np.memmap(path, dtype, "r+", shape=shape)
    except OSError as error:
        raise TrainingError(
            f"{path.parent}: no room for {size / 2**20:,.0f} MiB ({first_line(error)})",
            do="set TMPDIR to a folder on a disk with room, or take fewer images",
        ) from error
