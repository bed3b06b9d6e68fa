"""The one record that passes from trigger to journal."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_LEAST_SCORE = -0.01  # 0, and room for rounding


class Verdict(str, enum.Enum):
    """What the line is told."""

    PASS = "pass"
    REJECT = "reject"


class Reason(str, enum.Enum):
    """Why a verdict was given. All but those in `JUDGED` mean that the part could not be judged, and is rejected."""

    WITHIN_THRESHOLD = "within_threshold"
    ABOVE_THRESHOLD = "above_threshold"
    SCORE_INVALID = "score_invalid"
    IMAGE_UNREADABLE = "image_unreadable"
    FRAME_MISSING = "frame_missing"
    FRAME_INCOMPLETE = "frame_incomplete"
    FRAME_UNEXPECTED = "frame_unexpected"
    CAMERA_LOST = "camera_lost"
    TOO_MANY_PARTS = "too_many_parts"
    DEADLINE_MISSED = "deadline_missed"
    ENGINE_FAILED = "engine_failed"
    NOT_ACKNOWLEDGED = "not_acknowledged"
    JOB_CHANGING = "job_changing"
    JOURNAL_BEHIND = "journal_behind"
    STATION_KILLED = "station_killed"
    AREA_ABOVE_THRESHOLD = "area_above_threshold"


JUDGED = (Reason.WITHIN_THRESHOLD, Reason.ABOVE_THRESHOLD, Reason.AREA_ABOVE_THRESHOLD)
"""Reasons of parts whose score says all."""


class Outcome(str, enum.Enum):
    """Where a triggered part is counted: each in exactly one."""

    PASSED = "passed"
    REJECTED = "rejected"
    REJECTED_WITHOUT_VERDICT = "rejected_without_verdict"


def outcome_of(reason: Reason) -> Outcome:
    """The count that a reason belongs to."""
    if reason is Reason.WITHIN_THRESHOLD:
        return Outcome.PASSED
    return Outcome.REJECTED if reason in JUDGED else Outcome.REJECTED_WITHOUT_VERDICT


@dataclass(frozen=True)
class Inspection:
    """The result of one image.

    Attributes:
        verdict: pass or reject.
        reason: why.
        score: image score in [0, 2]; NaN when there is none.
        threshold: image score that still passes.
        anomaly_map: float32 [map_height, map_width] of scores in [0, 2]; None when there is none.
        seconds: from frame to verdict.
        pixels: the preprocessed frame that was scored, uint8 [height, width, 3], its tiles one below the other; it may
            be the frame itself, and is lent as that is. None when there is none.
        pixel_threshold: what a large area must be above to reject the part; NaN where the bundle asks for none.
        area: pixels of the largest connected area of the map above it; 0 where there is none.
    """

    verdict: Verdict
    reason: Reason
    score: float
    threshold: float
    anomaly_map: NDArray[np.float32] | None
    seconds: float
    pixels: NDArray[np.uint8] | None = None
    pixel_threshold: float = math.nan
    area: int = 0


def decide(score: float, threshold: float) -> tuple[Verdict, Reason]:
    """Pass a score from 0 to a finite threshold; reject everything else, NaN and impossible scores included."""
    if not (_LEAST_SCORE <= score < math.inf and math.isfinite(threshold)):
        return Verdict.REJECT, Reason.SCORE_INVALID
    if score <= threshold:
        return Verdict.PASS, Reason.WITHIN_THRESHOLD
    return Verdict.REJECT, Reason.ABOVE_THRESHOLD


def rejected_without_score(reason: Reason, threshold: float, seconds: float = 0.0) -> Inspection:
    """The verdict on a part of which nothing is known: reject."""
    return Inspection(Verdict.REJECT, reason, math.nan, threshold, None, seconds)
