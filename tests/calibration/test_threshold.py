from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineward.calibration.threshold import check_rate, check_support, images_needed, split_conformal
from lineward.runtime.errors import CalibrationError


@pytest.mark.parametrize(
    ("count", "rate", "rank"),
    [
        # The k-th smallest of n scores, k = ceil((n + 1)(1 - rate)).
        (1, "0.5", 1),
        (3, "0.25", 3),
        (3, "0.5", 2),
        (4, "0.2", 4),
        (4, "0.5", 3),
        (9, "0.1", 9),
        (9, "0.2", 8),
        (9, "0.7", 3),  # where 10 * (1 - 0.7) is a little above 3
        (19, "0.05", 19),
        (19, "0.85", 3),
        (24, "0.44", 14),
        (20, "0.05", 20),
        (38, "0.05", 38),
        (39, "0.05", 38),
        (99, "0.01", 99),
        (99, "0.05", 95),
        (99, "0.1", 90),
        (100, "0.1", 91),
        (999, "0.001", 999),
        (999, "0.3", 700),
        (5, "0.999999", 1),
    ],
)
def test_the_threshold_is_this_very_score(count: int, rate: str, rank: int):
    assert rank == math.ceil((count + 1) * (1 - Fraction(rate)))
    scores = np.random.default_rng(0).permutation(np.arange(1, count + 1) / 7)
    assert split_conformal(scores.tolist(), float(rate)) == rank / 7


@settings(max_examples=300, deadline=None)
@given(count=st.integers(1, 400), percent=st.integers(1, 999))
def test_the_rank_is_exact_though_rates_are_not(count: int, percent: int):
    rate = Fraction(percent, 1000)
    rank = math.ceil((count + 1) * (1 - rate))
    if rank > count:
        with pytest.raises(CalibrationError):
            split_conformal(range(1, count + 1), float(rate))
    else:
        assert split_conformal(range(1, count + 1), float(rate)) == rank


@settings(max_examples=300, deadline=None)
@given(numerator=st.integers(1, 999), denominator=st.sampled_from([100, 1000, 997, 10_000]))
def test_the_images_needed_are_the_fewest_that_do(numerator: int, denominator: int):
    rate = Fraction(min(numerator, denominator - 1), denominator)
    needed = images_needed(float(rate))
    assert Fraction(1, needed + 1) <= rate
    assert needed == 1 or Fraction(1, needed) > rate


@pytest.mark.parametrize(
    ("rate", "needed"), [(0.5, 1), (0.2, 4), (0.1, 9), (0.05, 19), (0.01, 99), (0.3, 3), (0.001, 999)]
)
def test_a_sample_that_is_too_small_is_told_the_size_it_needs(rate: float, needed: int):
    check_support(rate, needed)
    split_conformal([0.1] * needed, rate)
    for held_out in {0, needed // 2, needed - 1}:
        with pytest.raises(CalibrationError, match=f"^{held_out} held-out good images cannot support") as caught:
            check_support(rate, held_out)
        assert f"at least {needed} held-out good images" in caught.value.do
        with pytest.raises(CalibrationError, match=f"at least {needed} held-out good images"):
            split_conformal([0.1] * held_out, rate)


@pytest.mark.parametrize("held_out", [1, 4, 18])
def test_a_sample_that_is_too_small_is_told_the_rate_it_does_support(held_out: int):
    with pytest.raises(CalibrationError) as caught:
        check_support(0.01, held_out)
    offered = float(caught.value.do.rsplit(" ", 1)[1])
    assert offered == pytest.approx(1 / (held_out + 1), rel=0.005)


@pytest.mark.parametrize("rate", [0, 1, -0.1, 1.5, math.nan, math.inf, -math.inf, 1e-320, 1 - 1e-12])
def test_a_rate_that_is_none_is_refused(rate: float):
    for refuse in (
        lambda: check_rate(rate),
        lambda: check_support(rate, 100),
        lambda: split_conformal([0.1] * 100, rate),
    ):
        with pytest.raises(CalibrationError, match="makes no sense"):
            refuse()


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 10, 19])
def test_a_score_that_is_not_finite_is_refused(wrong: float, place: int):
    scores = [0.1] * 20
    scores[place] = wrong
    with pytest.raises(CalibrationError, match="no finite score"):
        split_conformal(scores, 0.1)


@given(scores=st.lists(st.floats(0, 2), min_size=9, max_size=60), rate=st.sampled_from([0.1, 0.15, 0.3]))
def test_order_does_not_matter_and_the_threshold_is_one_of_the_scores(scores: list[float], rate: float):
    threshold = split_conformal(scores, rate)
    assert threshold in scores
    assert split_conformal(scores[::-1], rate) == threshold


@given(scores=st.lists(st.floats(0, 2), min_size=99, max_size=120))
def test_a_stricter_promise_never_lowers_the_threshold(scores: list[float]):
    thresholds = [split_conformal(scores, rate) for rate in (0.01, 0.05, 0.1, 0.5)]
    assert thresholds == sorted(thresholds, reverse=True)


@pytest.mark.parametrize("draw", ["normal", "exponential", "coarse"])
@pytest.mark.parametrize(("held_out", "rate"), [(4, 0.2), (19, 0.05), (30, 0.1), (99, 0.05)])
def test_the_promise_is_kept_on_average(draw: str, held_out: int, rate: float):
    rng = np.random.default_rng(0)
    shape = (trials := 4000), held_out + 1
    scores = {
        "normal": rng.normal(1, 0.1, shape),
        "exponential": rng.exponential(size=shape),
        "coarse": rng.integers(0, 20, shape).astype(float),  # full of ties
    }[draw]
    rejected = np.mean([row[-1] > split_conformal(row[:-1], rate) for row in scores])
    sigma = math.sqrt(rate * (1 - rate) / trials)
    assert rejected <= rate + 3 * sigma
    if draw != "coarse":  # without ties the rate is used up but for 1 / (n + 1)
        assert rejected >= rate - 1 / (held_out + 1) - 3 * sigma
