"""The binomial distribution and the exact limits of a share that was counted, on numpy: the device has no scipy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_HALVINGS = 60
"""Of an interval of length 1: past the last bit of a double."""


def at_most(counted: int, trials: int, share: float) -> float:
    """The chance of at most `counted` successes in `trials` trials of chance `share`, from 0 to 1."""
    return float(cumulative(counted, trials, share)[-1]) if counted >= 0 else 0.0


def cumulative(counted: int, trials: int, share: float) -> NDArray[np.float64]:
    """The chances of at most 0, 1, ... `counted` successes, float64 [counted + 1]; `share` in (0, 1)."""
    k = np.arange(1, counted + 1)
    with np.errstate(divide="ignore"):  # more successes than trials have no chance at all
        ratios = np.log(np.maximum(trials - k + 1, 0) / k) + np.log(share) - np.log1p(-share)
    logs = trials * np.log1p(-share) + np.concatenate([[0.0], np.cumsum(ratios)])
    chances: NDArray[np.float64] = np.minimum(np.cumsum(np.exp(logs)), 1.0)
    return chances


def upper_limit(counted: int, trials: int, confidence: float) -> float:
    """The share that, with this confidence, is not exceeded where `counted` of `trials` were successes.

    One-sided and exact: the share p at which at most `counted` successes have the chance 1 - confidence. Clopper and
    Pearson, "The use of confidence or fiducial limits illustrated in the case of the binomial", Biometrika 26, 1934.

    Returns:
        A share in (0, 1]; 1 where all were successes.
    """
    if counted >= trials:
        return 1.0
    low, high = counted / trials, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if middle >= 1.0 or at_most(counted, trials, middle) <= 1 - confidence:
            high = middle
        else:
            low = middle
    return high


def limits(counted: int, trials: int, confidence: float) -> tuple[float, float]:
    """The two-sided exact limits of a share, of which each is exceeded with half of 1 - confidence at most."""
    one_sided = (1 + confidence) / 2
    return 1 - upper_limit(trials - counted, trials, one_sided), upper_limit(counted, trials, one_sided)
