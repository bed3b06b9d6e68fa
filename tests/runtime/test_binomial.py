from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineward.runtime.binomial import at_most, limits, upper_limit


def exactly(counted: int, trials: int, share: Fraction) -> float:
    return float(sum(math.comb(trials, i) * share**i * (1 - share) ** (trials - i) for i in range(counted + 1)))


@settings(max_examples=150, deadline=None)
@given(trials=st.integers(1, 120), share=st.integers(1, 99), data=st.data())
def test_chances_are_those_of_the_sum(trials: int, share: int, data: st.DataObject):
    counted = data.draw(st.integers(-1, trials))
    assert at_most(counted, trials, share / 100) == pytest.approx(
        exactly(counted, trials, Fraction(share, 100)), abs=1e-12
    )


@pytest.mark.parametrize(
    ("counted", "trials", "lower", "upper"),
    [
        # Clopper and Pearson's interval at 95 %, as scipy.stats.binomtest gives it.
        (0, 20, 0.0, 0.1684334710),
        (3, 20, 0.0320709372, 0.3789268265),
        (19, 20, 0.7512672372, 0.9987349099),
        (20, 20, 0.8315665290, 1.0),
        (10, 5000, 0.0009594813, 0.0036749855),
        (0, 1, 0.0, 0.975),
    ],
)
def test_limits_are_exact(counted: int, trials: int, lower: float, upper: float):
    assert limits(counted, trials, 0.95) == pytest.approx((lower, upper), abs=1e-9)


@pytest.mark.parametrize(("trials", "confidence"), [(1, 0.5), (19, 0.95), (59, 0.95), (300, 0.99)])
def test_nothing_counted_leaves_the_rule_of_three(trials: int, confidence: float):
    assert upper_limit(0, trials, confidence) == pytest.approx(1 - (1 - confidence) ** (1 / trials), abs=1e-12)


@given(trials=st.integers(1, 60), data=st.data())
def test_a_limit_grows_with_what_was_counted_and_with_confidence(trials: int, data: st.DataObject):
    counted = data.draw(st.integers(0, trials - 1))
    limit = upper_limit(counted, trials, 0.9)
    assert counted / trials < limit < upper_limit(counted, trials, 0.99) <= 1
    assert limit <= upper_limit(counted + 1, trials, 0.9)
