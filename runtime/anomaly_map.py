"""From patch scores to the anomaly map and the image score."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from lineward.runtime.manifest import Grid, Score


class MapMaker:
    """Upsamples patch scores bilinearly to the map's size and smooths them by a Gaussian.

    Both steps are linear and separable, so the map of patch scores d is A d B^T with two small matrices made once.

    Args:
        grid: patches of an image.
        score: the map's size and the Gaussian.
    """

    def __init__(self, grid: Grid, score: Score) -> None:
        self._rows = _upsample_and_smooth(grid.rows, score.map_height, score.sigma)
        self._columns = _upsample_and_smooth(grid.columns, score.map_width, score.sigma)

    def anomaly_map(self, patch_scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Anomaly map, float32 [map_height, map_width], of patch scores, float32 [rows, columns]."""
        with np.errstate(all="ignore"):  # what is not finite is rejected; some Arm cores raise flags on right products
            return np.asarray(self._rows @ patch_scores @ self._columns.T, dtype=np.float32)


def image_score(anomaly_map: NDArray[np.float32]) -> float:
    """The greatest value of the map; NaN where the map holds one."""
    return float(np.max(anomaly_map))


def _upsample_and_smooth(patches: int, pixels: int, sigma: float) -> NDArray[np.float32]:
    """The matrix [pixels, patches] whose columns are the upsampled, smoothed unit vectors."""
    unit = np.eye(patches, dtype=np.float64)
    upsampled = cv2.resize(unit, (patches, pixels), interpolation=cv2.INTER_LINEAR)
    # Columns only: along x a kernel of one tap leaves each unit vector to itself.
    smoothed = cv2.GaussianBlur(
        upsampled, (1, _taps(sigma)), sigmaX=1.0, sigmaY=sigma, borderType=cv2.BORDER_REFLECT_101
    )
    return np.ascontiguousarray(smoothed, dtype=np.float32)


def _taps(sigma: float) -> int:
    return 2 * round(4 * sigma) + 1
