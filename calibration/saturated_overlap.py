"""Saturated per-region overlap (sPRO): how well anomaly maps find the annotated defects of MVTec LOCO AD.

Where a part is missing, the ground truth marks every place it could have lain in. To have found a piece of that as
large as the part, the saturation area, is to have found the defect; what is flagged beyond earns nothing.

Source: Bergmann et al. 2022, "Beyond Dents and Scratches: Logical Constraints in Unsupervised Anomaly Detection and
Localization", IJCV 130, section 5, eq. 3; what the paper leaves open is done as in the evaluation code published with
the data set.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lineward.calibration.metrics import BINS, Labels, area_up_to, binned, check_limit, check_map
from lineward.runtime.errors import DataError


@dataclass(frozen=True, eq=False)
class Region:
    """One annotated defect, in one piece or several; regions of an image may overlap.

    Attributes:
        pixels: bool [H, W], True on the defect.
        saturation: pixels of it that count as all of it, above 0 and at most its area.
    """

    pixels: Labels
    saturation: float


def saturation_area(area: int, threshold: float, *, relative: bool) -> float:
    """How many pixels of a defect count as all of it.

    Args:
        area: pixels of the defect, at least 1.
        threshold: share of the area, in (0, 1], if `relative`; else a number of pixels.
        relative: what `threshold` is.

    Returns:
        A whole number of pixels, rounded down but at least 1, if `relative`; else `threshold`, at most `area`.
    """
    return max(1, int(threshold * area)) if relative else min(threshold, area)


class SaturatedOverlap:
    """sPRO of any number of anomaly maps, in the memory of two histograms (1 MiB), which add up over sets of images.

    A region's overlap with what is flagged is min(flagged pixels / saturation area, 1). As the threshold comes down
    over a bin of scores, the mean overlap of all regions grows by the mean of what each gains there; so each region's
    gains are added to one shared histogram, and no region keeps its own. Bins are those of `PixelHistograms`.

    Normal pixels are those in no region, of good and defective images alike.

    Attributes:
        regions: number of regions seen so far.
    """

    def __init__(self) -> None:
        self.regions = 0
        self._normal = np.zeros(BINS, dtype=np.int64)
        self._gained = np.zeros(BINS, dtype=np.float64)

    def update(self, anomaly_map: NDArray[np.float32], regions: Sequence[Region]) -> None:
        """Count the pixels of one image.

        Args:
            anomaly_map: float32 [H, W], scores in [0, 2], higher is more anomalous; others as in `PixelHistograms`.
            regions: its defects; none for a good image.

        Raises:
            DataError: another shape or dtype, or a region without a pixel or with an impossible saturation area;
                nothing is counted then.
        """
        normal = np.ones(anomaly_map.shape, dtype=np.bool_)
        check_map(anomaly_map, normal)
        for region in regions:
            check_map(anomaly_map, region.pixels)
            _check_saturation(region)
            normal &= ~region.pixels
        bins = binned(anomaly_map)
        self._normal += np.bincount(bins[normal], minlength=BINS)
        for region in regions:
            self._gained += _gained(bins[region.pixels], region.saturation)
        self.regions += len(regions)

    def __add__(self, other: SaturatedOverlap) -> SaturatedOverlap:
        """What one that had seen the images of both would hold."""
        both = SaturatedOverlap()
        both.regions = self.regions + other.regions
        both._normal = self._normal + other._normal
        both._gained = self._gained + other._gained
        return both

    def spro(self, limit: float = 0.05) -> float:
        """Area under the curve of mean overlap over false-positive rate, up to a rate, divided by that rate.

        The curve runs over all thresholds, is linear between them, and is cut at exactly `limit`.

        Args:
            limit: false-positive rate in (0, 1] at which the curve is cut.

        Returns:
            The normalised area in [0, 1].

        Raises:
            DataError: there are no normal pixels or no regions, or `limit` is outside (0, 1].
        """
        check_limit(limit)
        if not self.regions:
            raise DataError(
                "the sPRO is undefined: no annotated defect was seen",
                do="evaluate defective images together with their ground-truth masks",
            )
        if not self._normal.any():
            raise DataError(
                "the sPRO is undefined: no normal pixel was seen",
                do="evaluate images whose masks leave some of the image free, such as good ones",
            )
        return area_up_to(limit, self._normal, self._gained)


def _check_saturation(region: Region) -> None:
    area = int(np.count_nonzero(region.pixels))
    if not 0 < region.saturation <= area:
        raise DataError(
            f"a region of {area} pixels with a saturation area of {region.saturation}",
            do="give a region at least one pixel, and a saturation area above 0 and at most the region's own",
        )


def _gained(bins: NDArray[np.uint16], saturation: float) -> NDArray[np.float64]:
    """What a region's overlap gains as the threshold comes down over each bin, float64 [BINS]; the sum is 1."""
    flagged = np.cumsum(np.bincount(bins, minlength=BINS)[::-1])
    return np.diff(np.minimum(flagged / saturation, 1.0), prepend=0.0)[::-1]
