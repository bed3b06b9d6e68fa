"""How well anomaly scores tell defective from good: per image, per pixel, per ground-truth region.

Every metric here is a function of how many normal and how many anomalous things have each score. Images are
few, so their scores are counted exactly; pixels are many, so theirs are counted in fixed histograms, and the
memory needed is the same for one map as for a thousand.

One rule decides everywhere: pass iff score <= threshold. Whatever fails that test, NaN included, is rejected.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from lineward.runtime.errors import DataError

BINS = 65_536
SCORE_MAX = 2.0
_BINS_PER_UNIT = BINS / SCORE_MAX  # a power of two: scaling a float32 score by it is exact

Scores = NDArray[np.floating[Any]]
Labels = NDArray[np.bool_]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Confusion:
    """Parts counted by what they are and what was decided; "positive" is defective, hence rejected.

    Attributes:
        true_pass: good parts passed.
        false_reject: good parts rejected.
        escape: defective parts passed.
        true_reject: defective parts rejected.

    Each ratio raises DataError where its denominator is zero: an unknown rate is not a rate of zero.
    """

    true_pass: int
    false_reject: int
    escape: int
    true_reject: int

    @property
    def false_reject_rate(self) -> float:
        """Share of the good parts that were rejected."""
        good = self.true_pass + self.false_reject
        return _ratio(self.false_reject, good, "false-reject rate", "there are no good parts")

    @property
    def escape_rate(self) -> float:
        """Share of the defective parts that passed."""
        defective = self.escape + self.true_reject
        return _ratio(self.escape, defective, "escape rate", "there are no defective parts")

    @property
    def precision(self) -> float:
        """Share of the rejected parts that are defective."""
        rejected = self.false_reject + self.true_reject
        return _ratio(self.true_reject, rejected, "precision", "no part was rejected")

    @property
    def recall(self) -> float:
        """Share of the defective parts that were rejected."""
        defective = self.escape + self.true_reject
        return _ratio(self.true_reject, defective, "recall", "there are no defective parts")

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall: 2 TP / (2 TP + FP + FN), van Rijsbergen 1979."""
        weight = 2 * self.true_reject + self.false_reject + self.escape
        return _ratio(2 * self.true_reject, weight, "F1", "no part is defective and none was rejected")


def confusion_at(scores: Scores, labels: Labels, threshold: float) -> Confusion:
    """Decide every part with one threshold and count the outcomes.

    Args:
        scores: float [N], higher is more anomalous; compared as float64, so that a float32 score and the
            threshold are not rounded onto each other.
        labels: bool [N], True for a defective part. One class alone will do.
        threshold: in the unit of the scores.

    Raises:
        DataError: empty, of different lengths, not 1-D, or labels that are not bool.
    """
    scores, labels = _checked(scores, labels)
    passed = scores.astype(np.float64) <= threshold
    return Confusion(
        true_pass=int(np.count_nonzero(passed & ~labels)),
        false_reject=int(np.count_nonzero(~passed & ~labels)),
        escape=int(np.count_nonzero(passed & labels)),
        true_reject=int(np.count_nonzero(~passed & labels)),
    )


def image_auroc(scores: Scores, labels: Labels) -> float:
    """Area under the ROC curve: the chance that a defective part outscores a good one, ties counted half.

    Source: Fawcett 2006, "An introduction to ROC analysis", Pattern Recognition Letters 27.

    Args:
        scores: float [N], higher is more anomalous. NaN ranks with +inf: such a part is always rejected.
        labels: bool [N], True for a defective part.

    Returns:
        The area in [0, 1].

    Raises:
        DataError: as `confusion_at`; also a class without parts, or a score of -inf.
    """
    _, good, defective = _counted(scores, labels)
    return area_up_to(1.0, good, defective)


def f1_max(scores: Scores, labels: Labels) -> tuple[float, float]:
    """Highest F1 that any threshold reaches, and the lowest threshold that reaches it.

    Of equally good thresholds the lowest lets the fewest defects escape. It is a passing part's score, or,
    where rejecting every part is best, the float next below the lowest score.
    `confusion_at(scores, labels, threshold).f1` is exactly the F1 returned.

    Args:
        scores: float [N], higher is more anomalous. NaN ranks with +inf: such a part is always rejected.
        labels: bool [N], True for a defective part.

    Returns:
        (F1 in [0, 1], threshold in the unit of the scores).

    Raises:
        DataError: as `image_auroc`.
    """
    values, good, defective = _counted(scores, labels)
    f1, lowest_rejected = _best_f1(good, defective)
    if lowest_rejected > 0:
        return f1, float(values[lowest_rejected - 1])
    return f1, float(np.nextafter(values[0], values.dtype.type(-np.inf)))


class PixelHistograms:
    """Pixel metrics of any number of anomaly maps, in the memory of three histograms (1.5 MiB).

    Scores are counted in 65,536 bins of equal width over [0, 2], each holding its lower edge. Scores outside
    are clamped, and NaN goes into the top bin: a pixel without a score is flagged at every threshold.

    A region is a set of anomalous pixels connected through any of their 8 neighbours, as in the official
    evaluation code of MVTec AD (`compute_pro` in pro_curve_util.py calls `scipy.ndimage.label` with a full
    3x3 structure). The curve of that code is the mean overlap of all regions. A mean is linear, so a pixel of
    a region of A pixels adds 1/A to one shared histogram, and no region needs a histogram of its own.

    Results do not depend on the order of the maps, other than by rounding in the last digits of `aupro`.

    Attributes:
        regions: number of ground-truth regions seen so far.
    """

    def __init__(self) -> None:
        self.regions = 0
        self._normal = np.zeros(BINS, dtype=np.int64)
        self._anomalous = np.zeros(BINS, dtype=np.int64)
        self._overlap = np.zeros(BINS, dtype=np.float64)

    def update(self, anomaly_map: NDArray[np.float32], mask: Labels) -> None:
        """Count the pixels of one image.

        Args:
            anomaly_map: float32 [H, W], scores in [0, 2], higher is more anomalous.
            mask: bool [H, W], True on the defect; all False for a good image.

        Raises:
            DataError: another shape or dtype; nothing is counted then.
        """
        check_map(anomaly_map, mask)
        bins = binned(anomaly_map)
        anomalous = np.bincount(bins[mask], minlength=BINS)
        self._normal += np.bincount(bins.ravel(), minlength=BINS) - anomalous
        if not mask.any():
            return
        self._anomalous += anomalous
        components, region_of = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        self.regions += components - 1  # component 0 is the background
        region_of_pixel = region_of[mask]
        share = 1.0 / np.bincount(region_of_pixel)[region_of_pixel]
        self._overlap += np.bincount(bins[mask], weights=share, minlength=BINS)

    def auroc(self) -> float:
        """Area under the ROC curve of all pixels, those tied in a bin counted half; as `image_auroc`.

        Raises:
            DataError: there are no normal or no anomalous pixels.
        """
        self._need_both_classes("pixel AUROC")
        return area_up_to(1.0, self._normal, self._anomalous)

    def aupro(self, limit: float = 0.3) -> float:
        """Area under the per-region-overlap curve up to a false-positive rate, divided by that rate.

        The curve runs over all thresholds: mean share of each region that is flagged, against the share of
        all normal pixels that are. It is linear between thresholds, and cut at exactly `limit`.

        Source: Bergmann et al. 2021, "The MVTec Anomaly Detection Dataset", IJCV 129, and the evaluation code
        published with it (`compute_pro` and `trapezoid`).

        Args:
            limit: false-positive rate in (0, 1] at which the curve is cut.

        Returns:
            The normalised area in [0, 1]; chance is limit / 2.

        Raises:
            DataError: there are no normal pixels or no regions, or `limit` is outside (0, 1].
        """
        check_limit(limit)
        self._need_both_classes("AUPRO")
        return area_up_to(limit, self._normal, self._overlap)

    def f1_max(self) -> tuple[float, float]:
        """Highest F1 of all pixels over the bin edges, and the lowest threshold that reaches it.

        The threshold is the float32 next below an edge, so that `anomaly_map > threshold` flags exactly the
        bins from that edge up.

        Returns:
            (F1 in [0, 1], threshold in the unit of the scores).

        Raises:
            DataError: there are no normal or no anomalous pixels.
        """
        self._need_both_classes("pixel F1")
        f1, lowest_flagged = _best_f1(self._normal, self._anomalous)
        edge = np.float32(lowest_flagged / _BINS_PER_UNIT)
        return f1, float(np.nextafter(edge, np.float32(-np.inf)))

    def _need_both_classes(self, metric: str) -> None:
        if not self._normal.any():
            raise DataError(
                f"the {metric} is undefined: no normal pixel was seen",
                do="evaluate images whose masks leave some of the image free, such as good ones",
            )
        if not self._anomalous.any():
            raise DataError(
                f"the {metric} is undefined: no anomalous pixel, hence no region, was seen",
                do="evaluate defective images together with their ground-truth masks",
            )


def check_map(anomaly_map: NDArray[np.float32], mask: Labels) -> None:
    """Refuse a map that is not float32 [H, W], or a mask that is not bool of the same shape.

    Raises:
        DataError: another shape or dtype.
    """
    if anomaly_map.dtype != np.float32 or mask.dtype != np.bool_:
        raise DataError(
            f"an anomaly map of {anomaly_map.dtype} with a mask of {mask.dtype}",
            do="give the map as float32 and the mask as bool (for a mask image: mask > 0)",
        )
    if anomaly_map.ndim != 2 or anomaly_map.shape != mask.shape:
        raise DataError(
            f"an anomaly map of shape {anomaly_map.shape} with a mask of shape {mask.shape}",
            do="give both as [H, W], the map resized to the mask or the mask to the map",
        )


def check_limit(limit: float) -> None:
    """Refuse a false-positive rate at which no curve can be cut.

    Raises:
        DataError: `limit` is outside (0, 1].
    """
    if not 0.0 < limit <= 1.0:
        raise DataError(
            f"a curve up to a limit of {limit}",
            do="give a false-positive rate in (0, 1]; the usual ones are 0.3 for AUPRO and 0.05 for sPRO",
        )


def binned(anomaly_map: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Bin of every pixel of a map, uint16 [H, W]: BINS of equal width over [0, SCORE_MAX]; NaN is in the top one."""
    # Of a number and NaN, fmin takes the number: NaN becomes the maximum.
    clamped = np.fmax(np.fmin(anomaly_map, np.float32(SCORE_MAX)), np.float32(0.0))
    scaled = clamped * np.float32(_BINS_PER_UNIT)
    return np.minimum(scaled, np.float32(BINS - 1)).astype(np.uint16)


def _checked(scores: Scores, labels: Labels) -> tuple[Scores, Labels]:
    scores, labels = np.asarray(scores), np.asarray(labels)
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise DataError(
            f"scores of shape {scores.shape} with labels of shape {labels.shape}",
            do="give one score and one label for each image, both as 1-D arrays",
        )
    if scores.size == 0:
        raise DataError("no scores were given", do="evaluate at least one image")
    if not np.issubdtype(scores.dtype, np.floating) or labels.dtype != np.bool_:
        raise DataError(
            f"scores of {scores.dtype} with labels of {labels.dtype}",
            do="give scores as floats and labels as bool (True for a defective part)",
        )
    return scores, labels


def _counted(scores: Scores, labels: Labels) -> tuple[Scores, Counts, Counts]:
    """Distinct scores, ascending, and how many good and how many defective parts have each."""
    scores, labels = _checked(scores, labels)
    for name, members in (("good", ~labels), ("defective", labels)):
        if not members.any():
            raise DataError(
                f"no {name} part among the {labels.size} evaluated: ranking needs both classes",
                do=f"add {name} images to the set, or check how its labels were read",
            )
    if np.isneginf(scores).any():
        raise DataError(
            "a score of minus infinity, which no threshold could reject",
            do="look for what produced it; a part that cannot be scored should have NaN",
        )
    # Rejected at every threshold is what +inf means, and NaN is.
    ranked = np.where(np.isnan(scores), scores.dtype.type(np.inf), scores)
    values, index = np.unique(ranked, return_inverse=True)
    good = np.bincount(index[~labels], minlength=values.size)
    defective = np.bincount(index[labels], minlength=values.size)
    return values, good, defective


def area_up_to(limit: float, normal: Counts, anomalous: Counts | NDArray[np.float64]) -> float:
    """Area under a curve up to a false-positive rate, divided by that rate, from weights per score.

    Lowering the threshold over one score moves the curve right by the share of `normal` that has it and up
    by the share of `anomalous`.

    Args:
        limit: false-positive rate in (0, 1].
        normal: [S], weight of each score, ascending, among what is normal; with a positive sum.
        anomalous: the same among what is anomalous.

    Returns:
        The area in [0, 1].
    """
    x = np.concatenate(([0.0], np.cumsum(normal[::-1])))
    y = np.concatenate(([0.0], np.cumsum(anomalous[::-1])))
    x, y = x / x[-1], y / y[-1]
    cut = int(np.searchsorted(x, limit, side="right"))
    y_at_limit = np.interp(limit, x[cut - 1 : cut + 1], y[cut - 1 : cut + 1])
    x, y = np.append(x[:cut], limit), np.append(y[:cut], y_at_limit)
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1])) / 2 / limit)


def _best_f1(normal: Counts, anomalous: Counts) -> tuple[float, int]:
    """Highest F1 = 2 TP / (2 TP + FP + FN), and the lowest index from which flagging upwards reaches it."""
    true = np.cumsum(anomalous[::-1])[::-1]
    false = np.cumsum(normal[::-1])[::-1]
    f1 = 2 * true / (true + false + anomalous.sum())
    best = int(np.argmax(f1))
    return float(f1[best]), best


def _ratio(part: int, whole: int, name: str, because: str) -> float:
    if whole == 0:
        raise DataError(
            f"the {name} is undefined: {because}",
            do="evaluate a set that has such parts, or another threshold",
        )
    return part / whole
