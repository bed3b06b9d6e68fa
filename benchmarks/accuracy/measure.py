"""From a system's scores to the figures of a table: the same maps and metrics for every system."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy.material import Setting
from lineward.calibration.metrics import SCORE_MAX, f1_max, image_auroc
from lineward.export.datasets import Sample
from lineward.export.evaluation import ByKind, MapComparison, figures_by_kind
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
    """How well a system did; None where it, or the ground truth, says nothing of places.

    Attributes:
        image_auroc: see `lineward.calibration.metrics`, as for the next three.
        f1_max: of the image scores.
        pixel_auroc: of all images but defective ones without masks.
        aupro: of the same, up to a false-positive rate of 0.3.
        by_kind: logical and structural anomalies apart, and their mean; None but for MVTec LOCO AD.
    """

    image_auroc: float
    f1_max: float
    pixel_auroc: float | None
    aupro: float | None
    by_kind: ByKind | None = None


def anomaly_maps(patches: NDArray[np.float32], setting: Setting) -> Iterator[NDArray[np.float32]]:
    """Smoothed maps, float32 [size, size], of patch scores, float32 [N, side, side]."""
    grid = Grid(setting.side, setting.side, 1)
    maker = MapMaker(grid, Score(setting.size, setting.size, setting.size * SMOOTHING))
    return (maker.anomaly_map(scores) for scores in patches)


def measure(scores: Scores, samples: tuple[Sample, ...], setting: Setting) -> Figures:
    """Compare scores with the labels, maps at the images' own size.

    Raises:
        DataError: there are not both good and defective images, or a mask is not what the data set says of it.
        ImageError: an image or mask cannot be read.
    """
    labels = np.array([sample.defective for sample in samples])
    maps = _compare_maps(scores.patches, samples, setting)
    pixels = maps.pixels
    return Figures(
        image_auroc=image_auroc(scores.images, labels),
        f1_max=f1_max(scores.images, labels)[0],
        pixel_auroc=pixels.auroc() if pixels.regions else None,
        aupro=pixels.aupro() if pixels.regions else None,
        by_kind=figures_by_kind(scores.images, samples, maps),
    )


def _compare_maps(patches: NDArray[np.float32] | None, samples: tuple[Sample, ...], setting: Setting) -> MapComparison:
    maps = MapComparison()
    if patches is None:
        return maps
    # The histograms count scores up to SCORE_MAX; smoothing raises none above the greatest.
    scaled = patches * np.float32(SCORE_MAX / max(float(patches.max()), 1e-12))
    for sample, anomaly_map in zip(samples, anomaly_maps(scaled, setting), strict=True):
        maps.update(sample, anomaly_map, read_image(sample.path).shape[:2])
    return maps
