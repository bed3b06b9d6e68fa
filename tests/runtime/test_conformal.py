from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineward.runtime.binomial import at_most
from lineward.runtime.conformal import (
    calibrate,
    check_rate,
    check_scores,
    check_support,
    images_needed,
    rank,
    split_conformal,
)
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


@pytest.mark.parametrize(
    ("rate", "confidence", "needed"),
    [(0.05, 0.95, 59), (0.01, 0.95, 299), (0.05, 0.99, 90), (0.1, 0.9, 22), (0.5, 0.5, 1)],
)
def test_confidence_takes_more_images(rate: float, confidence: float, needed: int):
    assert images_needed(rate, confidence) == needed
    assert rank(needed, rate, confidence) == needed
    assert (1 - rate) ** needed <= 1 - confidence + 1e-9
    if needed > 1:
        with pytest.raises(CalibrationError, match=f"{needed - 1} held-out good images cannot support") as caught:
            rank(needed - 1, rate, confidence)
        assert f"at least {needed} held-out" in caught.value.do


@settings(max_examples=200, deadline=None)
@given(held_out=st.integers(1, 400), percent=st.integers(1, 60), confidence=st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_the_rank_is_the_lowest_that_keeps_the_rate_with_confidence(held_out: int, percent: int, confidence: float):
    # The chance that Beta(n + 1 - k, k) is above the rate is that of n - k or fewer successes in n trials.
    rate = percent / 100
    if held_out < images_needed(rate, confidence):
        return
    k = rank(held_out, rate, confidence)
    assert at_most(held_out - k, held_out, rate) <= 1 - confidence + 1e-9
    if k > 1:
        assert at_most(held_out - k + 1, held_out, rate) > 1 - confidence - 1e-9


@pytest.mark.parametrize(("held_out", "rate", "confidence"), [(59, 0.05, 0.95), (60, 0.1, 0.9), (200, 0.05, 0.95)])
def test_the_confidence_is_kept(held_out: int, rate: float, confidence: float):
    # Of uniform scores, the rate at a threshold is 1 - threshold.
    scores = np.random.default_rng(0).uniform(size=(trials := 4000, held_out))
    missed = np.mean([1 - split_conformal(row, rate, confidence) > rate for row in scores])
    assert missed <= 1 - confidence + 3 * math.sqrt(confidence * (1 - confidence) / trials)


@pytest.mark.parametrize(("held_out", "rate"), [(19, 0.05), (40, 0.05), (100, 0.1)])
def test_what_is_stated_with_confidence_beside_an_average_is_true(held_out: int, rate: float):
    scores = np.random.default_rng(1).uniform(size=(trials := 1000, held_out))
    made = [calibrate(row, rate, None, seed=0, data_sha256="0" * 64) for row in scores]
    assert len({t.bound for t in made}) == 1
    bound = made[0].bound
    assert bound is not None
    assert bound.rate > rate
    missed = np.mean([1 - t.value > bound.rate for t in made])
    assert missed == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / trials))


def test_a_calibration_says_what_is_behind_it():
    scores = np.linspace(0.1, 0.2, 60).tolist()
    made = calibrate(scores, 0.05, 0.95, seed=7, data_sha256="ab" * 32)
    assert (made.value, made.sample_size, made.seed, made.confidence) == (0.2, 60, 7, 0.95)
    assert (made.method, made.data_sha256, made.folds, made.extrapolation) == ("split-conformal", "ab" * 32, None, None)
    assert made.bound is not None
    assert made.bound.rate <= 0.05


def test_rounding_below_zero_is_zero():
    assert calibrate([-1e-7, -1e-4], 0.5, None, seed=0, data_sha256="0" * 64).value == 0.0


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([0.1] * 30, "all 30 held-out good images have the same score, 0.100000"),
        ([0.1 + i * 1e-8 for i in range(30)], "have the same score"),
        ([0.1, math.nan] * 15, "no finite score"),
        ([0.1, math.inf] * 15, "no finite score"),
        ([0.1, -math.inf] * 15, "no finite score"),
        ([], "0 held-out good images cannot support"),
    ],
)
def test_scores_that_are_no_evidence_are_refused(scores: list[float], message: str):
    with pytest.raises(CalibrationError, match=message):
        calibrate(scores, 0.1, None, seed=0, data_sha256="0" * 64)


def test_one_score_is_not_called_constant():
    check_scores([0.1])


@pytest.mark.parametrize("confidence", [0, 1, -0.1, 1.5, math.nan, math.inf])
def test_a_confidence_that_is_none_is_refused(confidence: float):
    with pytest.raises(CalibrationError, match="a confidence of"):
        check_rate(0.05, confidence)
