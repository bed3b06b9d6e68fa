"""A threshold from good images alone, and the false-reject rate that it keeps.

Sort the scores of n good images that had no part in the bank; the threshold is the k-th smallest. The next good image
exceeds it with chance (n + 1 - k) / (n + 1) at most, whatever the distribution of the scores, as long as all n + 1 are
exchangeable: that is the rate on average over calibrations. The rate of one calibration is itself a random number, of
the distribution Beta(n + 1 - k, k) or below where scores tie; so a higher k keeps a rate with a stated confidence.
Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World", 2005; Vovk, "Conditional validity of inductive
conformal predictors", 2012.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lineward.runtime.binomial import cumulative, upper_limit
from lineward.runtime.errors import CalibrationError
from lineward.runtime.manifest import Bound, Threshold

METHOD = "split-conformal"
STATED_CONFIDENCE = 0.95
"""The confidence of what is said beside a promise that is kept on average."""

_CONSTANT = 1e-6
"""Scores nearer together than this differ by rounding alone."""


def images_needed(false_reject_rate: float, confidence: float | None = None) -> int:
    """Held-out good images that a promise needs.

    Args:
        false_reject_rate: the promised share of good parts rejected, at most.
        confidence: with which it is kept; None for on average over calibrations.

    Returns:
        The smallest n with 1 / (n + 1) <= rate; or, with confidence, with (1 - rate)^n <= 1 - confidence.
    """
    if confidence is None:
        return max(1, math.ceil(1 / false_reject_rate - 1e-9) - 1)
    return max(1, math.ceil(math.log1p(-confidence) / math.log1p(-false_reject_rate) - 1e-9))


def check_rate(false_reject_rate: float, confidence: float | None = None) -> None:
    """Check that a promise makes sense.

    Raises:
        CalibrationError: the rate or the confidence is not between 0 and 1, by a millionth at least.
    """
    if not 1e-6 <= false_reject_rate <= 1 - 1e-6:
        raise CalibrationError(
            f"a false-reject rate of {false_reject_rate} makes no sense", do="choose one between 0 and 1, such as 0.05"
        )
    if confidence is not None and not 1e-6 <= confidence <= 1 - 1e-6:
        raise CalibrationError(
            f"a confidence of {confidence} makes no sense", do="choose one between 0 and 1, such as 0.95"
        )


def check_support(false_reject_rate: float, held_out: int, confidence: float | None = None) -> None:
    """Check that a number of held-out images can support a promise.

    Raises:
        CalibrationError: the promise makes no sense, or needs more images.
    """
    check_rate(false_reject_rate, confidence)
    needed = images_needed(false_reject_rate, confidence)
    if held_out < needed:
        least = 1 / (held_out + 1) if confidence is None else 1 - (1 - confidence) ** (1 / max(held_out, 1))
        raise CalibrationError(
            f"{held_out} held-out good images cannot support a false-reject rate of "
            + describe_rate(false_reject_rate, confidence),
            do=f"use at least {needed} held-out good images, or a rate of at least {least:.3g}",
        )


def describe_rate(false_reject_rate: float, confidence: float | None) -> str:
    """A promise in short: "0.05", or "0.05 with 95 % confidence"."""
    return f"{false_reject_rate:g}" + (f" with {percent(confidence)} confidence" if confidence else "")


def percent(share: float) -> str:
    """A share as people write it: "5 %"."""
    return f"{100 * share:.3g} %"


def rank(held_out: int, false_reject_rate: float, confidence: float | None = None) -> int:
    """Which of the sorted scores, counted from 1, is the lowest threshold that keeps a promise.

    On average: k = ceil((n + 1)(1 - rate)). With confidence: the smallest k at which Beta(n + 1 - k, k) is at most the
    rate with that chance: in other words, at which n - k or fewer successes in n trials of chance `rate` are at most as
    likely as 1 - confidence.

    Raises:
        CalibrationError: too few images for the promise, or it makes no sense.
    """
    check_support(false_reject_rate, held_out, confidence)
    if confidence is None:
        return math.ceil((held_out + 1) * (1 - false_reject_rate) - 1e-9)
    chances = cumulative(held_out - 1, held_out, false_reject_rate)
    above = int(np.count_nonzero(chances <= 1 - confidence + 1e-12)) - 1
    return held_out - max(above, 0)


def split_conformal(scores: Sequence[float], false_reject_rate: float, confidence: float | None = None) -> float:
    """The image score that keeps a promise: the k-th smallest, k as `rank` says.

    Args:
        scores: image scores of good images that had no part in building the bank.
        false_reject_rate: in (0, 1).
        confidence: with which the rate is kept; None for on average over calibrations.

    Raises:
        CalibrationError: too few scores for the promise, or one is not finite.
    """
    check_support(false_reject_rate, len(scores), confidence)
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    if not np.isfinite(ordered).all():
        raise CalibrationError("a held-out image has no finite score", do="look for damaged images among the good ones")
    return float(ordered[rank(len(ordered), false_reject_rate, confidence) - 1])


def check_scores(scores: Sequence[float]) -> None:
    """Check that scores could be those of different good parts.

    Raises:
        CalibrationError: one is not finite, or all are the same: a camera that shows the same picture again and again
            is no evidence, and a threshold taken from it would be met by chance.
    """
    if not all(math.isfinite(score) for score in scores):
        raise CalibrationError("a held-out image has no finite score", do="look for damaged images among the good ones")
    if len(scores) > 1 and max(scores) - min(scores) < _CONSTANT:
        raise CalibrationError(
            f"all {len(scores)} held-out good images have the same score, {max(scores):.6f}",
            do="look whether they show different parts: the same picture many times says nothing of the next part",
        )


def calibrate(
    scores: Sequence[float], false_reject_rate: float, confidence: float | None, *, seed: int, data_sha256: str
) -> Threshold:
    """The threshold that keeps a promise, with what is behind it.

    Args:
        scores: image scores of good images that had no part in building the bank.
        false_reject_rate: in (0, 1).
        confidence: with which the rate is kept; None for on average over calibrations.
        seed: of the choice of these images.
        data_sha256: their fingerprint.

    Raises:
        CalibrationError: as `split_conformal` and `check_scores`.
    """
    value = split_conformal(scores, false_reject_rate, confidence)
    check_scores(scores)
    stated = confidence or STATED_CONFIDENCE
    exceeding = len(scores) - rank(len(scores), false_reject_rate, confidence)
    return Threshold(
        # Rounding can bring the score of an image that is all in the bank below 0.
        value=max(0.0, value),
        false_reject_rate=false_reject_rate,
        method=METHOD,
        sample_size=len(scores),
        seed=seed,
        confidence=confidence,
        bound=Bound(upper_limit(exceeding, len(scores), stated), stated),
        data_sha256=data_sha256,
    )
