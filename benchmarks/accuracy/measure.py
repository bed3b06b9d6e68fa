"""From a system's scores to the figures of a table: the same maps and metrics for every system."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.material import Setting
from lineward.calibration.metrics import SCORE_MAX, PixelHistograms, f1_max, image_auroc
from lineward.export.datasets import Sample, read_mask
from lineward.runtime.anomaly_map import MapMaker
from lineward.runtime.images import read_image
from lineward.runtime.manifest import Grid, Score

SMOOTHING = 4 / 256
"""Standard deviation of the Gaussian that smooths every system's map, in sides of the map."""


@dataclass(frozen=True)
class Scores:
    """What a system said of some images; higher is more anomalous, in any unit.

    Attributes:
        images: float [N].
        patches: float32 [N, side, side], at least 0; None for a system that says nothing of places.
    """

    images: NDArray[np.floating]
    patches: NDArray[np.float32] | None


@dataclass(frozen=True)
class Figures:
    """How well a system did; None where it, or the ground truth, says nothing of places."""

    image_auroc: float
    f1_max: float
    pixel_auroc: float | None
    aupro: float | None


def anomaly_maps(patches: NDArray[np.float32], setting: Setting) -> Iterator[NDArray[np.float32]]:
    """Smoothed maps, float32 [size, size], of patch scores, float32 [N, side, side]."""
    grid = Grid(setting.side, setting.side, 1)
    maker = MapMaker(grid, Score(setting.size, setting.size, setting.size * SMOOTHING))
    return (maker.anomaly_map(scores) for scores in patches)


def measure(scores: Scores, samples: tuple[Sample, ...], setting: Setting) -> Figures:
    """Compare scores with the labels, maps at the images' own size.

    Raises:
        DataError: there are not both good and defective images.
    """
    labels = np.array([sample.defective for sample in samples])
    pixels = None if scores.patches is None else _count_pixels(scores.patches, samples, setting)
    return Figures(
        image_auroc=image_auroc(scores.images, labels),
        f1_max=f1_max(scores.images, labels)[0],
        pixel_auroc=pixels.auroc() if pixels and pixels.regions else None,
        aupro=pixels.aupro() if pixels and pixels.regions else None,
    )


def _count_pixels(patches: NDArray[np.float32], samples: tuple[Sample, ...], setting: Setting) -> PixelHistograms:
    pixels = PixelHistograms()
    # The histograms count scores up to SCORE_MAX; smoothing raises none above the greatest.
    scaled = patches * np.float32(SCORE_MAX / max(float(patches.max()), 1e-12))
    for sample, anomaly_map in zip(samples, anomaly_maps(scaled, setting), strict=True):
        if sample.defective and not sample.masks:
            continue
        height, width = read_image(sample.path).shape[:2]
        mask = read_mask(sample, (height, width))
        pixels.update(cv2.resize(anomaly_map, (width, height)).astype(np.float32), mask)
    return pixels
