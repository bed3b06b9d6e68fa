"""Connected areas of an anomaly map: how large above a level, and up to which level one stays large.

The two are one statement: a blob of `pixels` or more lies above a level exactly if `level_of(map, pixels)` is above it.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

_NEIGHBOURS = 8


def largest_blob(anomaly_map: NDArray[np.float32], level: float) -> int:
    """Pixels of the largest connected area (8 neighbours) above a level; 0 where nothing is."""
    return _largest(anomaly_map > np.float64(level))


def level_of(anomaly_map: NDArray[np.float32], pixels: int, above: float) -> float:
    """The greatest value of the map at which the pixels of that value or more hold a connected area of a size.

    Args:
        anomaly_map: float32 [height, width], finite.
        pixels: of that area, at least 1.
        above: only values above this are looked for.

    Returns:
        The value; -inf if there is none above `above`.
    """
    if pixels > anomaly_map.size:
        return -np.inf
    # With fewer pixels than that at or above it, no value can be the one.
    most = np.partition(anomaly_map, anomaly_map.size - pixels, axis=None)[anomaly_map.size - pixels]
    values = np.unique(anomaly_map[(anomaly_map > np.float64(above)) & (anomaly_map <= most)])
    low, high = -1, len(values) - 1  # values up to `low` hold one, those above `high` do not
    while low < high:
        middle = (low + high + 1) // 2
        if _largest(anomaly_map >= values[middle]) >= pixels:
            low = middle
        else:
            high = middle - 1
    return float(values[low]) if low >= 0 else -np.inf


def _largest(mask: NDArray[np.bool_]) -> int:
    stats = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=_NEIGHBOURS)[2]
    return int(stats[1:, cv2.CC_STAT_AREA].max(initial=0))
