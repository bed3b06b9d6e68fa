"""Other tests on the same streams: a CUSUM against the reference alone, and a plain conformal test martingale."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.drift.streams import Vectors

_SLACK = 0.5  # of the CUSUM, in standard deviations
_LIMIT = 14.4
"""Of the CUSUM: with a known normal distribution, six two-sided ones alarm once in a million frames (Siegmund's
approximation of the run length)."""
_CLIP = 3.0
_JUMP = 0.01
_EVER = 0.01  # chance of a false alarm of the plain martingale, ever


def cusum(reference: Vectors, frames: Vectors) -> int | None:
    """The first frame at which a two-sided CUSUM of any statistic alarms, counted from 0.

    Args:
        reference: float64 [n, statistics], which mean and standard deviation are taken of; NaN for no value.
        frames: float64 [m, statistics].
    """
    scale = np.maximum(np.nanstd(reference, axis=0, ddof=1), 1e-12)
    scores = np.clip((frames - np.nanmean(reference, axis=0)) / scale, -_CLIP, _CLIP)
    up = down = np.zeros(frames.shape[1])
    for number, score in enumerate(scores):
        up, down = np.maximum(0, up + score - _SLACK), np.maximum(0, down - score - _SLACK)
        if max(up.max(), down.max()) >= _LIMIT:
            return number
    return None


def simple_jumper(p_values: Vectors) -> int | None:
    """The first frame at which a Simple Jumper martingale (Vovk et al., "Retrain or not retrain", COPA 2021) of any
    statistic reaches statistics / 0.01: by Ville's inequality it ever does so in a share of 0.01 of stations at most.

    Args:
        p_values: float64 [m, statistics].
    """
    moods = np.array([[-1.0], [0.0], [1.0]])
    limit = math.log(p_values.shape[1] / _EVER)
    capital, total = np.full((3, p_values.shape[1]), 1 / 3), np.zeros(p_values.shape[1])
    for number, p in enumerate(p_values):
        capital = (1 - _JUMP) * capital + _JUMP / 3 * capital.sum(axis=0)
        capital = capital * (1 + moods * (p - 0.5))
        sums = capital.sum(axis=0)
        total, capital = total + np.log(sums), capital / sums
        if total.max() >= limit:
            return number
    return None
