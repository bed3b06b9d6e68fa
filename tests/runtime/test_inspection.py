from __future__ import annotations

import dataclasses
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineward.runtime.inspection import Inspection, Reason, Verdict, decide, rejected_without_score

NAN, INF = math.nan, math.inf
PASS = (Verdict.PASS, Reason.WITHIN_THRESHOLD)
ABOVE = (Verdict.REJECT, Reason.ABOVE_THRESHOLD)
INVALID = (Verdict.REJECT, Reason.SCORE_INVALID)


@pytest.mark.parametrize(
    ("score", "threshold", "decision"),
    [
        (0.1, 0.2, PASS),
        (0.2, 0.2, PASS),
        (0.0, 0.0, PASS),
        (math.nextafter(0.2, 0), 0.2, PASS),
        (math.nextafter(0.2, 1), 0.2, ABOVE),
        (0.3, 0.2, ABOVE),
        (2.0, 0.0, ABOVE),
        (NAN, 0.2, INVALID),
        (INF, 0.2, INVALID),
        (-INF, 0.2, INVALID),
        (0.1, NAN, INVALID),
        (0.1, INF, INVALID),
        (0.1, -INF, INVALID),
        (NAN, NAN, INVALID),
        (INF, INF, INVALID),
        (-INF, INF, INVALID),
        (-1e-6, 0.2, PASS),  # rounding
        (-0.011, 0.2, INVALID),
        (-5e7, 0.2, INVALID),
    ],
)
def test_decide(score, threshold, decision):
    assert decide(score, threshold) == decision


@given(st.floats(), st.floats())
def test_only_a_possible_score_at_or_below_a_finite_threshold_passes(score, threshold):
    verdict, reason = decide(score, threshold)
    assert (verdict is Verdict.PASS) == (-0.01 <= score <= threshold < INF)
    assert (reason is Reason.WITHIN_THRESHOLD) == (verdict is Verdict.PASS)


def test_a_part_of_which_nothing_is_known_is_rejected():
    inspection = rejected_without_score(Reason.IMAGE_UNREADABLE, threshold=0.2, seconds=1.5)
    assert inspection.verdict is Verdict.REJECT
    assert inspection.reason is Reason.IMAGE_UNREADABLE
    assert math.isnan(inspection.score)
    assert inspection.anomaly_map is None
    assert (inspection.threshold, inspection.seconds) == (0.2, 1.5)


def test_an_inspection_cannot_be_changed():
    inspection = Inspection(Verdict.REJECT, Reason.ABOVE_THRESHOLD, 1.0, 0.5, None, 0.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        inspection.verdict = Verdict.PASS


def test_verdicts_and_reasons_are_plain_text():
    assert json.dumps([Verdict.PASS, Verdict.REJECT, Reason.SCORE_INVALID]) == '["pass", "reject", "score_invalid"]'
