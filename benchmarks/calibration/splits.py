"""Random splits of scores into calibration and test, and whether the promise held: arithmetic, once scores are there.

Given a bank, splits of the parts that did not build it are independent draws, so the tests here are exact. What a split
is allowed is known too: of m test parts, the number above the k-th smallest of n calibration scores has the
beta-binomial distribution of m, n + 1 - k and k, where scores do not tie, and lies below it where they do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lineward.calibration import tail
from lineward.runtime.binomial import at_most, upper_limit
from lineward.runtime.conformal import STATED_CONFIDENCE, rank, split_conformal
from lineward.runtime.errors import CalibrationError

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Kept:
    """How a promise fared over splits.

    Attributes:
        sample: calibration parts of a split.
        promised: false-reject rate.
        confidence: with which it is promised; None for on average.
        splits: how many.
        achieved: false-reject rate on the test parts, mean over splits.
        error: standard error of that mean.
        expected: what theory expects of it, where scores do not tie: (n + 1 - k) / (n + 1).
        p_achieved: chance of such a mean or a higher one, if the promise is kept (normal approximation).
        bound: rate that is not exceeded with `bound_confidence`.
        bound_confidence: the promise's own, or 95 % beside a promise on average.
        above_on_test: share of splits whose test parts were rejected more often than the bound.
        allowed_on_test: what such few test parts allow, where the bound is true.
        p_on_test: chance of such a share or a higher one, if it is (binomial test).
        above: share of splits whose rate is truly above the bound: calibration parts are drawn from all parts with
            repetition, and the rate is that of all parts.
        allowed: what the confidence allows of those.
        p: chance of such a share or a higher one (binomial test).
    """

    sample: int
    promised: float
    confidence: float | None
    splits: int
    achieved: float
    error: float
    expected: float
    p_achieved: float
    bound: float
    bound_confidence: float
    above_on_test: float
    allowed_on_test: float
    p_on_test: float
    above: float
    allowed: float
    p: float


def keep(
    pools: Sequence[Values], sample: int, rate: float, confidence: float | None, splits: int, rng: np.random.Generator
) -> Kept:
    """Split each pool at random, the same number of times, and see how the promise fares.

    Args:
        pools: for each bank, the scores of the parts that did not build it, float64 [parts].
        sample: calibration parts of a split; all others test.
        rate: promised.
        confidence: with which; None for on average.
        splits: in all, over the pools.
        rng: source of every split.
    """
    each = splits // len(pools)
    stated = confidence or STATED_CONFIDENCE
    exceeding = sample - rank(sample, rate, confidence)
    bound = rate if confidence else upper_limit(exceeding, sample, stated)
    achieved, true, allowed = [], [], []
    for pool in pools:
        for _ in range(each):
            order = rng.permutation(len(pool))
            threshold = split_conformal(pool[order[:sample]].tolist(), rate, confidence)
            achieved.append(float(np.mean(pool[order[sample:]] > threshold)))
            drawn = rng.choice(pool, sample)
            true.append(float(np.mean(pool > split_conformal(drawn.tolist(), rate, confidence))))
        tests = len(pool) - sample
        allowed.append(
            1 - _beta_binomial_at_most(math.floor(bound * tests + 1e-9), tests, exceeding + 1, sample - exceeding)
        )
    above_on_test = sum(a > bound + 1e-9 for a in achieved)
    above = sum(t > bound + 1e-9 for t in true)
    count = len(achieved)
    allowed_on_test = float(np.mean(allowed))
    mean, error = float(np.mean(achieved)), float(np.std(achieved, ddof=1) / math.sqrt(count))
    return Kept(
        sample=sample,
        promised=rate,
        confidence=confidence,
        splits=count,
        achieved=mean,
        error=error,
        expected=(exceeding + 1) / (sample + 1),
        p_achieved=math.erfc((mean - rate) / error / math.sqrt(2)) / 2,
        bound=bound,
        bound_confidence=stated,
        above_on_test=above_on_test / count,
        allowed_on_test=allowed_on_test,
        p_on_test=_as_many(above_on_test, count, allowed_on_test),
        above=above / count,
        allowed=1 - stated,
        p=_as_many(above, count, 1 - stated),
    )


@dataclass(frozen=True)
class Followed:
    """How an extrapolated tail fared over splits; fields as `Kept`.

    Attributes:
        refused: share of splits whose tail was refused, as one that does not fit, or reaches too far.
        by_estimate: what the tail's own estimate would have achieved.
    """

    sample: int
    promised: float
    splits: int
    refused: float
    achieved: float
    error: float
    by_estimate: float


def follow(pools: Sequence[Values], sample: int, rate: float, splits: int, rng: np.random.Generator) -> Followed:
    """As `keep`, for a tail."""
    achieved, by_estimate, refused = [], [], 0
    for pool in pools:
        for _ in range(splits // len(pools)):
            order = rng.permutation(len(pool))
            test = pool[order[sample:]]
            try:
                made = tail.calibrate(pool[order[:sample]].tolist(), rate, None, seed=0, data_sha256="0" * 64)
            except CalibrationError:
                refused += 1
                continue
            if made.extrapolation:
                achieved.append(float(np.mean(test > made.value)))
                by_estimate.append(float(np.mean(test > made.extrapolation.estimate)))
    return Followed(
        sample,
        rate,
        len(achieved) + refused,
        refused / (len(achieved) + refused),
        float(np.mean(achieved)),
        float(np.std(achieved, ddof=1) / math.sqrt(len(achieved))),
        float(np.mean(by_estimate)),
    )


@dataclass(frozen=True)
class Folded:
    """How cross-conformal thresholds fared, each draw of images with banks of its own.

    Attributes:
        sample: images of a draw; they build the bank and the threshold.
        promised: false-reject rate asked for.
        draws: how many.
        achieved: false-reject rate of the bank of all images, on all other parts, mean over draws.
        error: standard error of that mean.
        greatest: rate of the worst draw.
        proven: what cross-conformal calibration is proven to keep, with all banks of the folds judging.
    """

    sample: int
    promised: float
    draws: int
    achieved: float
    error: float
    greatest: float
    proven: float


def _as_many(counted: int, trials: int, share: float) -> float:
    """The chance of at least so many."""
    return 1 - at_most(counted - 1, trials, share)


def _beta_binomial_at_most(counted: int, trials: int, alpha: int, beta: int) -> float:
    """The chance of at most `counted` of `trials`, of the beta-binomial distribution."""

    def log_beta(a: float, b: float) -> float:
        return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)

    def log_choose(k: int) -> float:
        return math.lgamma(trials + 1) - math.lgamma(k + 1) - math.lgamma(trials - k + 1)

    return sum(
        math.exp(log_choose(k) + log_beta(k + alpha, trials - k + beta) - log_beta(alpha, beta))
        for k in range(counted + 1)
    )
