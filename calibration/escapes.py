"""With labelled defects at hand: how many escape a threshold, what any other would do, and which costs least."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lineward.calibration.metrics import Labels, Scores
from lineward.runtime.binomial import limits
from lineward.runtime.conformal import STATED_CONFIDENCE
from lineward.runtime.errors import CalibrationError, DataError
from lineward.runtime.manifest import Escapes


@dataclass(frozen=True)
class Rate:
    """A share that was counted, and its exact interval (Clopper and Pearson, Biometrika 26, 1934).

    Attributes:
        counted: how many.
        of: out of how many, at least 1.
        lower: lower end of the interval.
        upper: its upper end.
        confidence: of the interval.
    """

    counted: int
    of: int
    lower: float
    upper: float
    confidence: float = STATED_CONFIDENCE

    @property
    def share(self) -> float:
        """The share itself."""
        return self.counted / self.of


def counted_rate(counted: int, of: int) -> Rate:
    """A share with its interval, at a confidence of 95 %."""
    lower, upper = limits(counted, of, STATED_CONFIDENCE)
    return Rate(counted, of, lower, upper)


def escapes_at(scores: Sequence[float], threshold: float, data_sha256: str) -> Escapes:
    """How many defective parts pass a threshold.

    Args:
        scores: image scores of defective parts; one that is not a number is rejected.
        threshold: the score that still passes.
        data_sha256: fingerprint of their images.

    Raises:
        DataError: there are none.
    """
    if not scores:
        raise DataError("the escape rate is unknown: there are no defective parts", do="pass labelled defects")
    escaped = int(np.count_nonzero(np.asarray(scores, dtype=np.float64) <= threshold))
    rate = counted_rate(escaped, len(scores))
    return Escapes(rate.of, rate.counted, rate.lower, rate.upper, rate.confidence, data_sha256)


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold does to the labelled parts.

    Attributes:
        threshold: the score that still passes.
        false_rejects: good parts rejected.
        escapes: defective parts passed.
    """

    threshold: float
    false_rejects: int
    escapes: int


def operating_curve(scores: Scores, labels: Labels) -> list[OperatingPoint]:
    """False rejects against escapes, at every threshold that makes a difference.

    Args:
        scores: float [N], higher is more anomalous; one that is not a number is rejected by every threshold.
        labels: bool [N], True for a defective part.

    Returns:
        Points by rising threshold: false rejects fall, escapes rise. Thresholds are 0 and the scores themselves.

    Raises:
        DataError: there are no good parts or no defective ones.
    """
    if labels.all() or not labels.any():
        raise DataError(
            "false rejects cannot be weighed against escapes: one of good and defective parts is missing",
            do="pass labelled images of both",
        )
    values = scores.astype(np.float64)
    good, bad = np.sort(values[~labels]), np.sort(values[labels])  # NaN last, above every threshold
    thresholds = np.unique(np.concatenate([[0.0], values[np.isfinite(values) & (values >= 0)]]))
    rejected = len(good) - np.searchsorted(good, thresholds, side="right")
    escaped = np.searchsorted(bad, thresholds, side="right")
    return [OperatingPoint(float(t), int(r), int(e)) for t, r, e in zip(thresholds, rejected, escaped, strict=True)]


@dataclass(frozen=True)
class Costs:
    """What a wrong verdict costs, in any one currency.

    Attributes:
        false_reject: of a good part rejected, above 0.
        escape: of a defective part passed, above 0.
        defect_share: of the line's parts that are defective, in (0, 1).
    """

    false_reject: float
    escape: float
    defect_share: float

    def __post_init__(self) -> None:
        for name in ("false_reject", "escape"):
            if not 0 < getattr(self, name) < float("inf"):
                raise CalibrationError(
                    f"a cost of {getattr(self, name)} makes no sense", do="choose a finite number above 0"
                )
        if not 0 < self.defect_share < 1:
            raise CalibrationError(
                f"a share of {self.defect_share} defective parts makes no sense", do="choose one between 0 and 1"
            )

    def of(self, point: OperatingPoint, good: int, defective: int) -> float:
        """The expected cost of a part of the line at a threshold."""
        rejects = (1 - self.defect_share) * point.false_rejects / good
        return self.false_reject * rejects + self.escape * self.defect_share * point.escapes / defective


def least_cost(curve: Sequence[OperatingPoint], labels: Labels, costs: Costs) -> tuple[OperatingPoint, float]:
    """The threshold of the least expected cost a part; of equals the lowest, which lets the fewest defects escape.

    Elkan, "The foundations of cost-sensitive learning", IJCAI 2001.
    """
    good, defective = int(np.count_nonzero(~labels)), int(np.count_nonzero(labels))
    best = min(curve, key=lambda point: (costs.of(point, good, defective), point.threshold))
    return best, costs.of(best, good, defective)
