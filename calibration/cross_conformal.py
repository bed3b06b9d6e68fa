"""A threshold where images are few: each judges a bank built from the others, and none is lost to calibration.

The images are dealt into folds. For each fold everything that is learned is learned anew from the other folds, and the
fold's own images are scored with it; the threshold is an order statistic of all those scores together.

What is proven (Vovk, "Cross-conformal predictors", Annals of Mathematics and Artificial Intelligence 74, 2015; Barber,
Candes, Ramdas and Tibshirani, "Predictive inference with the jackknife+", Annals of Statistics 49, 2021; Gasparin and
Ramdas, arXiv 2503.01495, 2025): a part judged by all the folds' banks together, each against the scores of its own
fold, is falsely rejected with a chance of at most `proven_rate`, which is a little more than twice the rate asked for.
A bundle holds one bank, learned from all images. Good parts score lower with it, for it has seen more; but that it
keeps the rate is an observation (`benchmarks/results/calibration.md`), not a theorem. Nor is there a statement with
confidence: the scores of different folds are not independent (Bian and Barber, arXiv 2205.03647, 2022).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lineward.runtime.conformal import check_scores, split_conformal
from lineward.runtime.errors import CalibrationError
from lineward.runtime.manifest import Threshold

METHOD = "cross-conformal"
FOLDS = 5


def deal(images: int, folds: int, seed: int) -> list[NDArray[np.intp]]:
    """Deal images into folds at random, as evenly as can be.

    Args:
        images: how many there are.
        folds: how many folds, 2 or more.
        seed: of the dealing.

    Returns:
        The sorted indices of each fold; every image is in exactly one.

    Raises:
        CalibrationError: fewer images than folds.
    """
    if not 2 <= folds <= images:
        raise CalibrationError(
            f"{images} good images cannot be dealt into {folds} folds", do=f"pass at least {max(folds, 2)} good images"
        )
    order = np.random.default_rng(seed).permutation(images)
    return [np.sort(order[first::folds]) for first in range(folds)]


def proven_rate(images: int, folds: int, false_reject_rate: float) -> float:
    """The false-reject rate that cross-conformal calibration is proven to keep, on average: see the module.

    2 rate + min(2 (1 - rate)(K - 1) / (n + K), (1 - K / n) / (K + 1)), of n images in K folds. The first term of the
    minimum is Vovk's, the second Barber's and others'.
    """
    n, k = images, folds
    excess = min(2 * (1 - false_reject_rate) * (k - 1) / (n + k), (1 - k / n) / (k + 1))
    return min(1.0, 2 * false_reject_rate + excess)


def calibrate(
    scores: Sequence[float], false_reject_rate: float, *, folds: int, seed: int, data_sha256: str
) -> Threshold:
    """The threshold, with what is behind it.

    Args:
        scores: of each image, with what was learned from the folds it is not in.
        false_reject_rate: in (0, 1).
        folds: how many there were.
        seed: of the dealing.
        data_sha256: fingerprint of the images.

    Raises:
        CalibrationError: as `split_conformal` and `check_scores`.
    """
    value = split_conformal(scores, false_reject_rate)
    check_scores(scores)
    return Threshold(
        # Rounding can bring the score of an image that is all in the bank below 0.
        value=max(0.0, value),
        false_reject_rate=false_reject_rate,
        method=METHOD,
        sample_size=len(scores),
        seed=seed,
        folds=folds,
        data_sha256=data_sha256,
    )
