"""From patch scores to the anomaly map and the image score."""

from __future__ import annotations

import math
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from lineward.runtime.blob import level_of
from lineward.runtime.manifest import MinimumArea, Score
from lineward.runtime.region import Region, patches_within

_OF_ONE_THREAD = 2**18
"""Multiply-adds of a product up to which OpenBLAS wakes no other thread."""
_LEAST_ROWS = 8
"""Of a block; maps so wide that these are too many are rare, and large enough to be worth threads."""


class Patches(Protocol):
    """How many patches there are."""

    @property
    def rows(self) -> int:
        """From top to bottom."""

    @property
    def columns(self) -> int:
        """From left to right."""


class MapMaker:
    """Upsamples patch scores bilinearly to the map's size and smooths them by a Gaussian.

    Both steps are linear and separable, so the map of patch scores d is A d B^T with two small matrices made once.

    With a region, only patches that count are smoothed, and those alone: the map is A (m d) B^T / A m B^T, with m = 1
    for such a patch and 0 for others (normalised convolution; Knutsson and Westin, CVPR 1993). So nothing flows in over
    the region's edge, and nothing is lost there.

    Args:
        grid: patches of an image.
        score: the map's size and the Gaussian.
        region: which pixels of the map count; it is 0 elsewhere. None: all.
    """

    def __init__(self, grid: Patches, score: Score, region: Region | None = None) -> None:
        self._rows = _upsample_and_smooth(grid.rows, score.map_height, score.sigma)
        self._columns = _upsample_and_smooth(grid.columns, score.map_width, score.sigma)
        self._masks: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
        if region is not None:
            counted = patches_within(region, grid.rows, grid.columns).astype(np.float32)
            with np.errstate(divide="ignore"):  # where nothing reaches a pixel that counts, the part is rejected
                self._masks = counted, np.where(region, 1 / self._spread(counted), np.float32(0))

    def anomaly_map(self, patch_scores: NDArray[np.float32]) -> NDArray[np.float32]:
        """Anomaly map, float32 [map_height, map_width], of patch scores, float32 [rows, columns]."""
        with np.errstate(all="ignore"):  # what is not finite is rejected; some Arm cores raise flags on right products
            if self._masks is None:
                return self._spread(patch_scores)
            counted, share = self._masks
            # A product, not a choice: an engine that gives NaN is not to be relied upon, wherever that is.
            return self._spread(patch_scores * counted) * share

    def _spread(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        return _product(self._rows, _product(patches, self._columns.T))


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


def _product(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """The product a b, block by block of rows, so that OpenBLAS wakes no threads of its own for it.

    Those would be waited for at ordinary priority, whatever the station's own has; and images on other cores would wait
    for them, since OpenBLAS computes one product at a time.
    """
    blocks = min(-(-len(a) * b.size // _OF_ONE_THREAD), max(1, len(a) // _LEAST_ROWS))
    return np.concatenate([rows @ b for rows in np.array_split(a, blocks)])


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
