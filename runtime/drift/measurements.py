"""The few numbers of an inspected frame in which a drift shows."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lineward.runtime.inspection import Inspection

_CELL = 8  # pixels of the anomaly map between two samples of it: about a patch


class Statistic(str, enum.Enum):
    """A number of an inspected frame."""

    SCORE = "score"
    DISTANCE = "distance"
    BRIGHTNESS = "brightness"
    CONTRAST = "contrast"
    COLOUR = "colour"
    SHARPNESS = "sharpness"


STATISTICS = tuple(Statistic)


@dataclass(frozen=True)
class Look:
    """What a frame looks like, whatever is known of its product.

    Attributes:
        brightness: mean grey level of the preprocessed frame, 0 to 255.
        contrast: standard deviation of its grey levels.
        colour: mean of red less mean of blue, in grey levels; 0 for a gray camera.
        sharpness: log2(1 + variance of its Laplacian): one less is half the energy of edges and noise.
    """

    brightness: float
    contrast: float
    colour: float
    sharpness: float


@dataclass(frozen=True)
class Measurement:
    """The statistics of one frame.

    Attributes:
        score: image score, in [0, 2].
        distance: median of the anomaly map where the image counts, in [0, 2]: how far the typical patch is from the
            bank. A defect, which takes less than half of the part, hardly moves it.
        look: what the frame looks like.
    """

    score: float
    distance: float
    look: Look

    def of(self, statistic: Statistic) -> float:
        """One of the statistics."""
        holder = self if statistic in (Statistic.SCORE, Statistic.DISTANCE) else self.look
        value: float = getattr(holder, statistic.value)
        return value


def measure(inspection: Inspection) -> Measurement | None:
    """The statistics of an inspected frame; None if it has no finite score, or no map or pixels to look at."""
    pixels, anomaly_map = inspection.pixels, inspection.anomaly_map
    if pixels is None or anomaly_map is None or not math.isfinite(inspection.score):
        return None
    samples = anomaly_map[_CELL // 2 :: _CELL, _CELL // 2 :: _CELL]
    counted = samples[samples != 0]  # 0 is what lies outside the region of interest
    distance = float(np.median(counted)) if counted.size else 0.0
    return Measurement(inspection.score, distance, look(pixels))


def look(pixels: NDArray[np.uint8]) -> Look:
    """What a preprocessed frame, uint8 [H, W, 3], RGB, looks like.

    Grey levels and Laplacian are integers, and equal on every machine; only their means are floating-point.
    """
    red, _, blue, _ = cv2.mean(pixels)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    mean, deviation = _spread(grey)
    _, edges = _spread(cv2.Laplacian(grey, cv2.CV_16S))
    return Look(mean, deviation, red - blue, math.log2(1 + edges * edges))


def _spread(image: cv2.typing.MatLike) -> tuple[float, float]:
    mean, deviation = cv2.meanStdDev(image)
    return float(mean[0, 0]), float(deviation[0, 0])
