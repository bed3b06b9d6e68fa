"""The one seam between numbers and hardware."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lineward.runtime.engines.onnxruntime import OnnxRuntimeEngine


class Engine(Protocol):
    """Scores preprocessed images on some hardware."""

    def score(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Patch scores 1 - max cosine, float32 [N, rows, columns], of images, uint8 [N, height, width, 3]."""


__all__ = ["Engine", "OnnxRuntimeEngine"]
