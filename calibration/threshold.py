"""A threshold from good images alone, with a false-reject rate that it keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lineward.runtime.errors import CalibrationError

METHOD = "split-conformal"


def images_needed(false_reject_rate: float) -> int:
    """Held-out good images that a false-reject rate needs: the smallest n with 1 / (n + 1) <= rate."""
    return max(1, math.ceil(1 / false_reject_rate - 1e-9) - 1)


def check_rate(false_reject_rate: float) -> None:
    """Check that a rate makes sense.

    Raises:
        CalibrationError: it is not between 0 and 1, by a millionth at least.
    """
    if not 1e-6 <= false_reject_rate <= 1 - 1e-6:
        raise CalibrationError(
            f"a false-reject rate of {false_reject_rate} makes no sense", do="choose one between 0 and 1, such as 0.05"
        )


def check_support(false_reject_rate: float, held_out: int) -> None:
    """Check that a number of held-out images can support a rate.

    Raises:
        CalibrationError: the rate makes no sense, or needs more images.
    """
    check_rate(false_reject_rate)
    needed = images_needed(false_reject_rate)
    if held_out < needed:
        raise CalibrationError(
            f"{held_out} held-out good images cannot support a false-reject rate of {false_reject_rate:g}",
            do=f"use at least {needed} held-out good images, or a rate of at least {1 / (held_out + 1):.3g}",
        )


def split_conformal(scores: Sequence[float], false_reject_rate: float) -> float:
    """The image score that the next good image exceeds with at most the given probability.

    With n held-out scores and one more good image, all exchangeable, the new score is above the k-th smallest, with
    k = ceil((n + 1)(1 - rate)), with probability at most rate. Vovk, Gammerman and Shafer, "Algorithmic Learning in a
    Random World", 2005; Papadopoulos et al., 2002.

    Args:
        scores: image scores of good images that had no part in building the bank.
        false_reject_rate: in (0, 1).

    Raises:
        CalibrationError: too few scores for the rate, or one is not finite.
    """
    check_support(false_reject_rate, len(scores))
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    if not np.isfinite(ordered).all():
        raise CalibrationError("a held-out image has no finite score", do="look for damaged images among the good ones")
    rank = math.ceil((len(ordered) + 1) * (1 - false_reject_rate) - 1e-9)
    return float(ordered[rank - 1])
