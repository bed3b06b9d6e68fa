"""From patch scores to the anomaly map and the image score."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from lineward.runtime.blob import level_of
from lineward.runtime.manifest import Grid, MinimumArea, Score


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


def image_score(anomaly_map: NDArray[np.float32], area: MinimumArea | None = None) -> float:
    """The greatest value of the map, or what a large area makes of a fainter one; NaN where the map holds one.

    With a minimum area the score is max(greatest value, v / level), v being the greatest value at which the map holds a
    connected area of that many pixels. So it is above a threshold t exactly if a pixel is above t, or such an area is
    above level * t: one number, and what is promised of its threshold is promised of both reasons together.

    Args:
        anomaly_map: float32 [map_height, map_width].
        area: the minimum area; None: the greatest value alone.
    """
    greatest = float(np.max(anomaly_map))
    if area is None or not 0 < greatest < math.inf or not math.isfinite(float(np.min(anomaly_map))):
        return greatest
    value = level_of(anomaly_map, area.pixels, area.level * greatest)
    return max(greatest, value / area.level)


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
