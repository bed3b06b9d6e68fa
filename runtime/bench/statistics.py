"""Percentiles of latencies, their jitter, and how sure a ratio of two percentiles is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Latencies = NDArray[np.float64]

_RESAMPLES = 2000
_BEYOND_TO_SHOW = 0.5
_BEYOND_TO_COMPARE = 5


@dataclass(frozen=True)
class Summary:
    """Latencies in short, in their unit; None where there are too few for a percentile.

    Attributes:
        p50: the median.
        p90: percentile 90.
        p99: percentile 99.
        p999: percentile 99.9.
        greatest: the greatest.
        jitter: mean absolute difference between one latency and the next, the delay variation of RFC 3393; 0 for one.
    """

    p50: float | None
    p90: float | None
    p99: float | None
    p999: float | None
    greatest: float
    jitter: float


@dataclass(frozen=True)
class Ratio:
    """A ratio of two percentiles, with its confidence interval.

    Attributes:
        value: the ratio of the two samples.
        low: lower end of the interval.
        high: its upper end.
    """

    value: float
    low: float
    high: float


def summarise(values: Latencies) -> Summary:
    """Summarise latencies [triggers], at least one, in the order they were measured."""
    p50, p90, p99, p999 = (percentile(values, share) for share in (0.5, 0.9, 0.99, 0.999))
    jitter = float(np.abs(np.diff(values)).mean()) if len(values) > 1 else 0.0
    return Summary(p50, p90, p99, p999, float(values.max()), jitter)


def percentile(values: Latencies, share: float) -> float | None:
    """The least observed value that at least `share` of all do not exceed; None where the sample is too small.

    Nothing is interpolated: it is the order statistic of rank ceil(n share), definition 1 of Hyndman and Fan, "Sample
    Quantiles in Statistical Packages" (1996). Too small is a sample of which less than half a value is expected
    beyond the percentile: p99 takes 50 values, p99.9 takes 500 (of 500 to 999 values it is the greatest).
    """
    if _beyond(len(values), share) < _BEYOND_TO_SHOW:
        return None
    return _order_statistic(values, share)


def ratio(ours: Latencies, theirs: Latencies, share: float, confidence: float = 0.95, seed: int = 0) -> Ratio | None:
    """Ratio of a percentile of `ours` to that of `theirs`, with a confidence interval.

    By the circular block bootstrap (Politis and Romano, 1992), since a slow inspection seldom comes alone, with
    blocks of n^(1/3) values (Hall, Horowitz and Jing, 1995); the interval is the percentile interval (Efron and
    Tibshirani, "An Introduction to the Bootstrap", 1993, section 13.3). It holds what varies within the two runs, and
    not what varies between runs.

    Args:
        ours: latencies in the order they were measured.
        theirs: the same of the other run, independent of it.
        share: the percentile, as a share of 1.
        confidence: of the interval.
        seed: of the resampling.

    Returns:
        None where fewer than five values lie beyond the percentile in a sample: p99 takes 500 values.
    """
    if min(_beyond(len(ours), share), _beyond(len(theirs), share)) < _BEYOND_TO_COMPARE:
        return None
    below = _order_statistic(theirs, share)
    if below <= 0:
        return None
    random = np.random.default_rng(seed)
    upper, lower = (_resampled(values, share, random) for values in (ours, theirs))
    tail = (1 - confidence) / 2
    low, high = np.quantile(upper / np.maximum(lower, np.finfo(float).tiny), [tail, 1 - tail])
    return Ratio(_order_statistic(ours, share) / below, float(low), float(high))


def _beyond(count: int, share: float) -> float:
    return round(count * (1 - share), 9)


def _order_statistic(values: Latencies, share: float) -> float:
    rank = math.ceil(round(len(values) * share, 9)) - 1
    return float(np.partition(values, rank)[rank])


def _resampled(values: Latencies, share: float, random: np.random.Generator) -> Latencies:
    """The percentile of each resample."""
    count = len(values)
    length = math.ceil(count ** (1 / 3))
    steps = np.arange(length)
    found = np.empty(_RESAMPLES)
    for index in range(_RESAMPLES):
        starts = random.integers(0, count, -(-count // length))
        found[index] = _order_statistic(values[((starts[:, np.newaxis] + steps) % count).ravel()[:count]], share)
    return found
