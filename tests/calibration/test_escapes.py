from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineward.calibration.escapes import Costs, OperatingPoint, counted_rate, escapes_at, least_cost, operating_curve
from lineward.calibration.metrics import confusion_at
from lineward.runtime.errors import CalibrationError, DataError

SCORES = np.array([0.1, 0.2, 0.3, 0.25, 0.4, 0.5, math.nan])
LABELS = np.array([False, False, False, True, True, True, True])


@pytest.mark.parametrize(
    ("threshold", "escaped", "interval"),
    [
        (0.1, 0, (0, 0.602365)),
        (0.25, 1, (0.006309, 0.805880)),
        (0.5, 3, (0.194120, 0.993691)),
        (math.nan, 0, (0, 0.602365)),
    ],
)
def test_escapes_have_an_exact_interval(threshold: float, escaped: int, interval: tuple[float, float]):
    found = escapes_at(SCORES[LABELS].tolist(), threshold, "0" * 64)
    assert (found.defects, found.escaped, found.confidence) == (4, escaped, 0.95)
    assert (found.lower, found.upper) == pytest.approx(interval, abs=1e-6)


def test_no_defects_are_no_escape_rate_of_zero():
    with pytest.raises(DataError, match="the escape rate is unknown"):
        escapes_at([], 0.1, "0" * 64)


def test_a_counted_rate_is_within_its_interval():
    rate = counted_rate(3, 20)
    assert rate.lower < rate.share == 0.15 < rate.upper


def test_the_curve_weighs_false_rejects_against_escapes():
    assert operating_curve(SCORES, LABELS) == [
        OperatingPoint(0.0, 3, 0),
        OperatingPoint(0.1, 2, 0),
        OperatingPoint(0.2, 1, 0),
        OperatingPoint(0.25, 1, 1),
        OperatingPoint(0.3, 0, 1),
        OperatingPoint(0.4, 0, 2),
        OperatingPoint(0.5, 0, 3),
    ]


@given(
    parts=st.lists(
        st.tuples(st.one_of(st.floats(-0.001, 2), st.just(math.nan)), st.booleans()), min_size=2, max_size=40
    ).filter(lambda parts: len({label for _, label in parts}) == 2)
)
def test_every_point_is_what_the_threshold_does(parts: list[tuple[float, bool]]):
    scores, labels = np.array([s for s, _ in parts]), np.array([label for _, label in parts])
    curve = operating_curve(scores, labels)
    for point in curve:
        confusion = confusion_at(scores, labels, point.threshold)
        assert (point.false_rejects, point.escapes) == (confusion.false_reject, confusion.escape)
    assert [p.threshold for p in curve] == sorted(p.threshold for p in curve)
    assert [p.false_rejects for p in curve] == sorted((p.false_rejects for p in curve), reverse=True)
    assert [p.escapes for p in curve] == sorted(p.escapes for p in curve)


@pytest.mark.parametrize("labels", [[True, True], [False, False]])
def test_a_curve_needs_both(labels: list[bool]):
    with pytest.raises(DataError, match="cannot be weighed"):
        operating_curve(np.array([0.1, 0.2]), np.array(labels))


@pytest.mark.parametrize(
    ("costs", "threshold", "cost"),
    [
        (Costs(1, 1000, 0.5), 0.2, 0.5 / 3),  # escapes are dear: rather reject a good part
        (Costs(1000, 1, 0.5), 0.3, 0.5 / 4),  # false rejects are dear: rather let one escape
        (Costs(1, 1, 1e-6), 0.3, 1e-6 / 4),  # almost no part is defective
        (Costs(1, 1, 0.5), 0.3, 0.5 / 4),
        (Costs(3, 4, 0.5), 0.2, 0.5),  # as dear as 0.3: the lower one lets fewer escape
    ],
)
def test_the_cheapest_threshold_goes_with_the_costs(costs: Costs, threshold: float, cost: float):
    best, least = least_cost(operating_curve(SCORES, LABELS), LABELS, costs)
    assert best.threshold == threshold
    assert least == pytest.approx(cost)


@pytest.mark.parametrize(
    "costs",
    [
        (0, 1, 0.1),
        (1, 0, 0.1),
        (-1, 1, 0.1),
        (math.nan, 1, 0.1),
        (1, math.inf, 0.1),
        (1, 1, 0),
        (1, 1, 1),
        (1, 1, math.nan),
    ],
)
def test_costs_that_make_no_sense_are_refused(costs: tuple[float, float, float]):
    with pytest.raises(CalibrationError, match="makes no sense"):
        Costs(*costs)
