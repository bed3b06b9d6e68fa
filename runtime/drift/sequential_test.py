"""The test behind a drift alarm: how unusual a number is among all numbers before it, and the evidence of many such.

1. *Conformal p-value* (Vovk, Testing Randomness Online, Statistical Science 36(4), 2021):
   the share of all earlier numbers, the reference's and the station's own, below the new one, ties split at random. As
   long as reference and frames are exchangeable, these p-values are independent and uniform on (0, 1), however few
   images the reference has: the history grows with the frames, so nothing is estimated once and then relied upon.
2. *Bets* against uniformity: densities f on (0, 1), so that E f(p) = 1 while nothing drifts.
3. *Shiryaev-Roberts statistic* of the bets (Roberts 1966; with conformal p-values: Vovk 2021): R = (1 + R) f(p).
   While nothing drifts, R less the number of frames is a martingale. So the mean number of frames to a false alarm
   R >= c is c at least, and the chance of one within n frames is n / c at most (Doob's inequality).
"""

from __future__ import annotations

import random
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

BINS = 8192

_NORMAL = NormalDist()
_LEAST = 1e-12  # p-values from there to 1 less it, for the normal quantile's sake
_SHIFTS = np.array([0.25, 0.5, 1.0, 2.0, -0.25, -0.5, -1.0, -2.0])
"""A bet on a shift of the mean, in standard deviations of normal scores: up, then down."""
_TAILS = np.array([0.01, 0.001])
"""A bet on a few parts of another kind: that so small a share of the usual parts is met more often."""
_STAKE = 0.05
"""What a bet on a tail puts there."""
_BETS = len(_SHIFTS) + 2 * len(_TAILS)
_IS_UP = np.concatenate([_SHIFTS > 0, np.ones(len(_TAILS), bool), np.zeros(len(_TAILS), bool)])


class RankHistory:
    """All numbers seen, in constant memory: how many fell in each of 8,192 equal cells.

    The cells are fixed before any number is seen, so a p-value among them is exact; that it tells no difference smaller
    than a cell costs power alone.

    Args:
        low: least value; what is below counts as it.
        high: greatest value.
        seed: of the random splitting of ties.
    """

    def __init__(self, low: float, high: float, seed: int = 0) -> None:
        self._low = low
        self._scale = BINS / (high - low)
        self._counts = np.zeros(BINS, np.int64)
        self._total = 0
        self._random = random.Random(seed)

    def p_value(self, value: float) -> float:
        """The share of what was seen below a finite value, in [0, 1]."""
        cell = self._cell(value)
        below, equal = int(self._counts[:cell].sum()), int(self._counts[cell])
        return (below + self._random.random() * (equal + 1)) / (self._total + 1)

    def add(self, value: float) -> None:
        """Remember a finite value."""
        self._counts[self._cell(value)] += 1
        self._total += 1

    def _cell(self, value: float) -> int:
        return int(min(max((value - self._low) * self._scale, 0), BINS - 1))


class ChangeTest:
    """Two-sided test that p-values have stopped being uniform.

    Args:
        frames_between_false_alarms: the mean number of p-values to a false alarm, at least.
    """

    def __init__(self, frames_between_false_alarms: float) -> None:
        self.threshold = frames_between_false_alarms
        self._evidence = np.zeros(_BETS)
        self._run = np.zeros(_BETS)  # CUSUM of each bet, whose last start tells when the change began
        self._since = np.zeros(_BETS, np.int64)
        self._sums = np.zeros(_BETS)
        self._frames = np.zeros(_BETS, np.int64)

    def update(self, p: float, part: int, value: float) -> bool:
        """Take one p-value; returns whether the evidence reaches the threshold.

        Args:
            p: in [0, 1].
            part: names the part, for `since`.
            value: what the p-value was made of, for `mean_since`.
        """
        bets = bets_on(p)
        self._evidence = (1 + self._evidence) * bets
        begins = self._run <= 1
        self._since[begins], self._sums[begins], self._frames[begins] = part, 0.0, 0
        self._run = np.maximum(self._run, 1) * bets
        self._sums += value
        self._frames += 1
        return self.evidence >= self.threshold

    @property
    def evidence(self) -> float:
        """The Shiryaev-Roberts statistic: an alarm at the threshold."""
        return float(self._evidence.mean())

    @property
    def is_up(self) -> bool:
        """Whether the evidence is for greater values rather than less."""
        return bool(_IS_UP[self._best])

    @property
    def since(self) -> int:
        """The part at about which the change began."""
        return int(self._since[self._best])

    @property
    def mean_since(self) -> float:
        """Mean of the values since then."""
        return float(self._sums[self._best] / max(self._frames[self._best], 1))

    @property
    def _best(self) -> int:
        return int(np.argmax(self._evidence))


def bets_on(p: float) -> NDArray[np.float64]:
    """What each bet, a density on (0, 1), pays for a p-value: float64 [12], all of them finite."""
    score = _NORMAL.inv_cdf(min(max(p, _LEAST), 1 - _LEAST))
    on_shifts = np.exp(_SHIFTS * score - _SHIFTS**2 / 2)
    on_tails = [1 - _STAKE + _STAKE / _TAILS * (tail < _TAILS) for tail in (1 - p, p)]
    return np.concatenate([on_shifts, *on_tails])
