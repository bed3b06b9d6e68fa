"""A threshold for a false-reject rate below what the sample supports: the tail of the scores, followed further.

Scores above a high one fall off as a generalised Pareto distribution, whatever the scores' own (Pickands 1975; Balkema
and de Haan 1974; Coles, "An Introduction to Statistical Modeling of Extreme Values", 2001, chapter 4). That is a limit,
and following the tail beyond the data is extrapolation: what comes of it is marked as such wherever it is shown, and a
tail that does not fit is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lineward.runtime.conformal import STATED_CONFIDENCE, check_rate, check_scores
from lineward.runtime.errors import CalibrationError
from lineward.runtime.manifest import Extrapolation, Threshold

METHOD = "tail"
IMAGES = 60
"""The fewest held-out images whose tail is followed."""

_SHARE = 0.2
_EXCEEDANCES = 20
_RESAMPLES = 2000
_LEAST_P = 0.05
_FARTHEST = 20.0
"""A rate may be this many times below one in the sample's size; farther out, the model alone speaks."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Tail:
    """A generalised Pareto tail: P(score > start + x) = share (1 + shape x / scale)^(-1/shape).

    Attributes:
        start: the score above which it holds.
        share: of the scores that are above it.
        shape: below 0 the tail ends; 0 is exponential; above 0 it is heavier.
        scale: in score.
    """

    start: float
    share: float
    shape: float
    scale: float

    def level(self, rate: float) -> float:
        """The score that is exceeded at a rate below `share`."""
        excess = _quantile(np.array([rate / self.share]), np.array([self.shape]), np.array([self.scale]))
        return self.start + float(excess[0])


def fit_tail(scores: Sequence[float]) -> tuple[Tail, Values]:
    """Fit a tail to the highest fifth of the scores, or the highest 20.

    Returns:
        The tail, and the excesses over its start, ascending, float64 [exceedances].

    Raises:
        CalibrationError: too few scores, one is not finite, or too many are the same.
    """
    if len(scores) < IMAGES:
        raise CalibrationError(
            f"{len(scores)} held-out good images are too few to follow the tail of their scores",
            do=f"use at least {IMAGES}, or a rate that these support",
        )
    check_scores(scores)
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    count = max(_EXCEEDANCES, math.ceil(_SHARE * len(ordered)))
    start = float(ordered[-count - 1])
    excesses = ordered[-count:] - start
    if len(np.unique(excesses)) < count // 2 or excesses[0] <= 0:
        raise CalibrationError(
            "the highest scores of the held-out images are many times the same, which is no tail to follow",
            do="look for copies of one image among the good ones, or ask for a rate that the sample supports",
        )
    shape, scale = _moments(excesses[np.newaxis])
    return Tail(start, count / len(ordered), float(shape[0]), float(scale[0])), excesses


def calibrate(
    scores: Sequence[float], false_reject_rate: float, confidence: float | None, *, seed: int, data_sha256: str
) -> Threshold:
    """The threshold, extrapolated, with its interval and how well the tail fits.

    The threshold is the upper end of the interval, one-sided. The tail's own estimate rejects two to four times as many
    good parts as asked for, on average over samples; its upper end keeps the rate on average (`tests/calibration`).

    The interval and the goodness of fit come from samples of the fitted tail, fitted in their turn (parametric
    bootstrap: Efron and Tibshirani 1993; for Anderson-Darling with estimated parameters, Choulakian and Stephens 2001).

    Args:
        scores: image scores of good images that had no part in building the bank.
        false_reject_rate: in (0, 1).
        confidence: of the interval, 95 % by default.
        seed: of the choice of these images, and of the resampling.
        data_sha256: their fingerprint.

    Raises:
        CalibrationError: as `fit_tail`; or the promise makes no sense, the tail does not fit, or the rate is so far out
            that nothing can be said.
    """
    check_rate(false_reject_rate, confidence)
    tail, excesses = fit_tail(scores)
    farthest = 1 / (_FARTHEST * len(scores))
    if not farthest <= false_reject_rate < tail.share:
        raise CalibrationError(
            f"a tail of {len(scores)} scores is no way to a false-reject rate of {false_reject_rate:g}",
            do=f"choose a rate from {farthest:.2g} to {tail.share:.2g}, or use more held-out good images",
        )
    levels, p_value = _resample(tail, excesses, len(scores), false_reject_rate, seed)
    if p_value < _LEAST_P:
        raise CalibrationError(
            f"the highest scores do not fall off as a tail does (p = {p_value:.3f})",
            do="look at the worst good images for parts that are not good, or ask for a rate that the sample supports",
        )
    stated = confidence or STATED_CONFIDENCE
    estimate, upper = tail.level(false_reject_rate), float(np.quantile(levels, stated))
    if not 0 <= upper <= 2:  # false for NaN too
        raise CalibrationError(
            f"the tail reaches a score of {upper:.3g}, and scores end at 2",
            do="use more held-out good images, or ask for a rate that the sample supports",
        )
    return Threshold(
        value=upper,
        false_reject_rate=false_reject_rate,
        method=METHOD,
        sample_size=len(scores),
        seed=seed,
        extrapolation=Extrapolation(len(excesses), tail.shape, tail.scale, p_value, estimate, stated),
        data_sha256=data_sha256,
    )


def _resample(tail: Tail, excesses: Values, size: int, rate: float, seed: int) -> tuple[Values, float]:
    """Levels of tails fitted to samples of the tail, float64 [resamples], and the p-value of the fit."""
    rng = np.random.default_rng(seed)
    count = len(excesses)
    samples = np.sort(_quantile(rng.uniform(size=(_RESAMPLES, count)), *_columns(tail)), axis=1)
    shape, scale = _moments(samples)
    statistic = _anderson_darling(excesses[np.newaxis], *_columns(tail))
    statistics = _anderson_darling(samples, shape[:, np.newaxis], scale[:, np.newaxis])
    # How many scores lie above the start is chance as well.
    shares = np.maximum(rng.binomial(size, tail.share, _RESAMPLES), 1) / size
    levels = tail.start + _quantile(np.minimum(rate / shares, 1.0), shape, scale)
    return levels, float((1 + np.count_nonzero(statistics >= statistic)) / (1 + _RESAMPLES))


def _columns(tail: Tail) -> tuple[Values, Values]:
    return np.array([[tail.shape]]), np.array([[tail.scale]])


def _moments(excesses: Values) -> tuple[Values, Values]:
    """Shapes and scales by probability-weighted moments, which serve small samples better than maximum likelihood.

    Hosking and Wallis, "Parameter and quantile estimation for the generalized Pareto distribution", Technometrics 29,
    1987.

    Args:
        excesses: ascending, float64 [samples, n].
    """
    n = excesses.shape[1]
    mean = excesses.mean(1)
    weighted = (excesses * (np.arange(n) / (n - 1))).mean(1)
    ratio = mean / (2 * weighted - mean)  # of the first two L-moments
    return 2 - ratio, mean * (ratio - 1)


def _quantile(exceeded: Values, shape: Values, scale: Values) -> Values:
    """The excess that is exceeded with a chance, by shape and scale."""
    flat = np.abs(shape) < 1e-9
    safe = np.where(flat, 1.0, shape)
    return np.where(flat, -scale * np.log(exceeded), scale / safe * (exceeded**-safe - 1))


def _anderson_darling(excesses: Values, shape: Values, scale: Values) -> Values:
    """The Anderson-Darling distance of samples, float64 [samples, n] ascending, from their tails."""
    n = excesses.shape[1]
    flat = np.abs(shape) < 1e-9
    safe = np.where(flat, 1.0, shape)
    inner = np.maximum(1 + safe * excesses / scale, 1e-12)  # 0 or below: beyond the end of the tail
    above = np.clip(np.where(flat, np.exp(-excesses / scale), inner ** (-1 / safe)), 1e-12, 1 - 1e-12)
    weights = 2 * np.arange(1, n + 1) - 1
    distance: Values = -n - (weights * (np.log1p(-above) + np.log(above[:, ::-1]))).mean(1)
    return distance
