"""A bundle that asks for a minimum area, from the frame to the verdict."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from lineward.runtime.bundle import decode_bundle
from lineward.runtime.errors import BundleError
from lineward.runtime.inspection import Outcome, Reason, Verdict, outcome_of
from lineward.runtime.inspector import Inspector
from lineward.runtime.manifest import MinimumArea
from lineward.runtime.overlay import draw_overlay

SIDE = 64  # of the tiny bundle's map


class Engine:
    """Gives the patch scores that it is told to."""

    def __init__(self, patches):
        self._patches = patches

    def score(self, images):
        return np.repeat(self._patches[np.newaxis], len(images), 0).astype(np.float32)


def judged(tiny, rebundle, patches, area, threshold=0.5):
    score = msgspec.structs.replace(tiny.manifest.score, area=area)
    asked = msgspec.structs.replace(tiny.manifest.threshold, value=threshold)
    bundle = decode_bundle(rebundle(score=score, threshold=asked), "area")
    return Inspector(bundle, Engine(patches)).inspect(np.zeros((SIDE, SIDE, 3), np.uint8))


def faint(level=0.45, patches=4):
    heat = np.full((8, 8), 0.05, np.float32)
    heat[2 : 2 + patches, 2 : 2 + patches] = level
    return heat


@pytest.mark.parametrize(
    ("patches", "area", "reason"),
    [
        (faint(), None, Reason.WITHIN_THRESHOLD),
        (faint(), MinimumArea(400, 0.8), Reason.AREA_ABOVE_THRESHOLD),
        (faint(patches=1), MinimumArea(400, 0.8), Reason.WITHIN_THRESHOLD),  # small
        (faint(0.35), MinimumArea(400, 0.8), Reason.WITHIN_THRESHOLD),  # too faint
        (faint(0.9), MinimumArea(400, 0.8), Reason.ABOVE_THRESHOLD),
        (faint(1.9, 1), MinimumArea(400, 0.8), Reason.ABOVE_THRESHOLD),
        (faint(math.nan), MinimumArea(400, 0.8), Reason.SCORE_INVALID),
        (faint(math.inf), MinimumArea(400, 0.8), Reason.SCORE_INVALID),
        (faint(-math.inf), MinimumArea(400, 0.8), Reason.SCORE_INVALID),
    ],
)
def test_a_large_area_rejects_if_faint(tiny, rebundle, patches, area, reason):
    found = judged(tiny, rebundle, patches, area)
    assert found.reason is reason
    assert found.verdict is (Verdict.PASS if reason is Reason.WITHIN_THRESHOLD else Verdict.REJECT)
    if area is None:
        assert (found.area, math.isnan(found.pixel_threshold)) == (0, True)
    elif reason is Reason.AREA_ABOVE_THRESHOLD:
        assert found.pixel_threshold == pytest.approx(0.4)
        assert found.area == np.count_nonzero(found.anomaly_map > 0.4) >= 400
        assert found.score > found.threshold > found.anomaly_map.max()


def test_it_counts_as_rejected():
    assert outcome_of(Reason.AREA_ABOVE_THRESHOLD) is Outcome.REJECTED


def test_the_contour_runs_around_the_area(tiny, rebundle):
    found = judged(tiny, rebundle, faint(), MinimumArea(400, 0.8))
    drawn = draw_overlay(np.full((SIDE, SIDE), 128, np.uint8), found)
    red = (drawn[:, :, 0] == 255) & (drawn[:, :, 1] == 0)
    assert red.any()
    assert (found.anomaly_map[red] > 0.3).all()


@pytest.mark.parametrize("area", [{"pixels": 0, "level": 0.5}, {"pixels": 5, "level": 1.0}, {"pixels": 5}, 7])
def test_what_makes_no_sense_is_refused(tiny, rebundle, area):
    with pytest.raises(BundleError, match="not valid"):
        decode_bundle(rebundle(score=msgspec.structs.replace(tiny.manifest.score, area=area)), "area")
