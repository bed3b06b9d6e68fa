"""Which good images build the bank, and which judge it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lineward.calibration import cross_conformal, tail
from lineward.runtime import conformal
from lineward.runtime.conformal import check_rate, check_support, describe_rate, images_needed
from lineward.runtime.distinct import Fingerprinted, distinct_images
from lineward.runtime.errors import CalibrationError, DataError

AUTO = "auto"
METHODS = {
    AUTO: "split, or cross where images are few",
    "split": "some images are held out from the bank, and judge it",
    "cross": "all images build the bank, and each judges one built without it",
    "tail": "for rates below what the images support: follows the tail of the held-out scores, an extrapolation",
}

_ENOUGH = 4
"""Times the held-out images that a rate needs: with fewer, holding them out would cost the bank too much."""
_TAIL_SHARE = 3


@dataclass(frozen=True)
class Plan:
    """Who builds the bank and who judges it.

    Attributes:
        method: as the manifest names it.
        bank: images for the bank.
        held_out: images for the threshold; with folds, the same ones.
        folds: indices of the images of each fold; none but for cross-conformal calibration.
    """

    method: str
    bank: list[Fingerprinted]
    held_out: list[Fingerprinted]
    folds: list[NDArray[np.intp]]


@dataclass(frozen=True)
class Promise:
    """What the threshold is to keep, and how.

    Attributes:
        false_reject_rate: share of good parts rejected, at most.
        confidence: with which it is kept; None for on average over calibrations.
        method: one of `METHODS`.
        seed: of the choice of images.
    """

    false_reject_rate: float
    confidence: float | None
    method: str
    seed: int


def plan_calibration(images: Sequence[Path], held_out: Sequence[Path], promise: Promise) -> Plan:
    """Decide who builds the bank and who judges it.

    Args:
        images: good images.
        held_out: good images set apart already; none to choose some of the others.
        promise: what the threshold is to keep.

    Raises:
        CalibrationError: too few different images for the promise, it makes no sense, or no such method.
        DataError: an image is given twice, across the bank and the held-out ones.
        ImageError: an image cannot be read.
    """
    _check(promise)
    if held_out:
        return _set_apart(distinct_images(images), distinct_images(held_out), promise)
    return plan_distinct(distinct_images(images), promise)


def plan_distinct(distinct: list[Fingerprinted], promise: Promise) -> Plan:
    """As `plan_calibration`, of images that are known to be different ones, in the order of their hashes."""
    _check(promise)
    method = _choose(len(distinct), promise) if promise.method == AUTO else promise.method
    if method == "cross":
        check_support(promise.false_reject_rate, len(distinct))
        folds = cross_conformal.deal(len(distinct), cross_conformal.FOLDS, promise.seed)
        return Plan(cross_conformal.METHOD, distinct, distinct, folds)
    count = _count_for_tail(len(distinct)) if method == "tail" else _count_to_hold_out(len(distinct), promise)
    chosen = set(np.random.default_rng(promise.seed).choice(len(distinct), count, replace=False).tolist())
    bank = [item for i, item in enumerate(distinct) if i not in chosen]
    name = tail.METHOD if method == "tail" else conformal.METHOD
    return Plan(name, bank, [distinct[i] for i in sorted(chosen)], [])


def images_to_hold_out(false_reject_rate: float) -> int:
    """Good images from which on some are held out for a rate that is kept on average, rather than judged in folds."""
    return _ENOUGH * images_needed(false_reject_rate)


def _check(promise: Promise) -> None:
    check_rate(promise.false_reject_rate, promise.confidence)
    if promise.method not in METHODS:
        raise CalibrationError(f"{promise.method}: no such way to set a threshold", do=f"choose {', '.join(METHODS)}")
    if promise.method == "cross" and promise.confidence is not None:
        raise CalibrationError(
            "cross-conformal calibration keeps no rate with a stated confidence",
            do="leave the confidence out, or hold images out (split)",
        )


def _choose(images: int, promise: Promise) -> str:
    """Split, unless that would take too many of the images, and they can be judged in folds."""
    if promise.confidence is not None:
        return "split"
    needed = images_needed(promise.false_reject_rate)
    few = max(needed, cross_conformal.FOLDS) <= images < images_to_hold_out(promise.false_reject_rate)
    return "cross" if few else "split"


def _set_apart(bank: list[Fingerprinted], apart: list[Fingerprinted], promise: Promise) -> Plan:
    shared = {digest for _, digest in bank} & {digest for _, digest in apart}
    if shared:
        twins = [str(path) for path, digest in apart if digest in shared]
        raise DataError(f"{twins[0]}: is both a training and a held-out image", do="hold out other images")
    if promise.method == "cross":
        raise CalibrationError(
            "the data set has held-out images of its own, and cross-conformal calibration would not use them",
            do="leave the method out, or train from the folder of good images",
        )
    if promise.method == "tail":
        return Plan(tail.METHOD, bank, apart, [])
    check_support(promise.false_reject_rate, len(apart), promise.confidence)
    return Plan(conformal.METHOD, bank, apart, [])


def _count_to_hold_out(images: int, promise: Promise) -> int:
    """A tenth, or as many as the promise needs, leaving at least one image for the bank."""
    needed = images_needed(promise.false_reject_rate, promise.confidence)
    if images <= needed:
        raise CalibrationError(
            f"{images} different good images cannot support a false-reject rate of "
            f"{describe_rate(promise.false_reject_rate, promise.confidence)}: "
            f"{needed} must be held out for the threshold, and the bank needs others",
            do=f"pass at least {needed + 1} good images, better {_ENOUGH * needed}, or a higher --false-reject-rate",
        )
    return max(images // 10, needed)


def _count_for_tail(images: int) -> int:
    count = max(tail.IMAGES, images // _TAIL_SHARE)
    if images <= count:
        raise CalibrationError(
            f"{images} different good images are too few to follow the tail of their scores",
            do=f"pass at least {tail.IMAGES + 1}, better {_TAIL_SHARE * tail.IMAGES}",
        )
    return count
