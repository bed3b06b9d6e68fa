from __future__ import annotations

import copy
import math
import sys
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineward.runtime.drift.sequential_test import BINS, ChangeTest, RankHistory, bets_on

LIMIT = 6e6
MIDPOINTS = (np.arange(40_000) + 0.5) / 40_000
finite = st.floats(allow_nan=False, allow_infinity=False)


class Halves:
    """Splits every tie in the middle."""

    def random(self) -> float:
        return 0.5


def history(*values: float) -> RankHistory:
    made = RankHistory(0.0, 1.0)
    made._random = Halves()
    for value in values:
        made.add(value)
    return made


@pytest.mark.parametrize(
    ("seen", "value", "p"),
    [
        ([], 0.3, 0.5),
        ([0.1, 0.2, 0.4], 0.3, (2 + 0.5) / 4),
        ([0.1, 0.2, 0.4], 0.9, (3 + 0.5) / 4),
        ([0.1, 0.2, 0.4], 0.0, 0.5 / 4),
        ([0.3, 0.3, 0.4], 0.3, (0 + 0.5 * 3) / 4),
        ([0.1, 0.2], 7.0, 2.5 / 3),  # beyond the range
        ([0.1, 0.2], -7.0, 0.5 / 3),
        ([2.0, 3.0], 9.0, 0.5 * 3 / 3),
    ],
)
def test_p_values(seen, value, p):
    assert history(*seen).p_value(value) == pytest.approx(p)


@settings(max_examples=60, deadline=None)
@given(st.lists(finite, max_size=30), finite)
def test_a_p_value_is_a_share_and_its_history_never_grows(seen, value):
    made = RankHistory(0.0, 2.0)
    for number in seen:
        made.add(number)
        assert made._counts.nbytes == BINS * 8
    assert 0 <= made.p_value(value) <= 1
    assert made._counts.sum() == len(seen)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=40), st.integers(0, 50), st.randoms())
def test_the_order_of_what_was_seen_does_not_matter(seen, value, shuffle):
    turned = list(seen)
    shuffle.shuffle(turned)
    one, other = (history(*(v / 64 for v in values)) for values in (seen, turned))
    assert one.p_value(value / 64) == other.p_value(value / 64)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, BINS - 1), min_size=1, max_size=40), st.integers(0, BINS - 1))
def test_the_unit_does_not_matter(seen, value):
    """Ranks alone count: the same numbers in another unit give the same p-value."""
    one, other = RankHistory(0.0, BINS, seed=3), RankHistory(-1.0, 2.0 * BINS - 1.0, seed=3)
    for number in seen:
        one.add(number + 0.5)
        other.add(2 * (number + 0.5) - 1)
    assert one.p_value(value + 0.5) == other.p_value(2 * (value + 0.5) - 1)


@pytest.mark.parametrize("bins_apart", [True, False])
def test_p_values_of_exchangeable_numbers_are_uniform_and_independent(bins_apart):
    """Whatever their distribution, and from a reference of three on; coarse numbers, many of them equal, too."""
    random = np.random.default_rng(1)
    p, q = [], []
    for seed in range(600):
        numbers = random.exponential(size=9)
        made = RankHistory(0.0, 10.0 if bins_apart else 10.0 * BINS / 4, seed)
        for number in numbers[:3]:
            made.add(number)
        found = []
        for number in numbers[3:]:
            found.append(made.p_value(number))
            made.add(number)
        p += found
        q.append(found[-2:])
    edges = np.histogram(p, bins=10, range=(0, 1))[0]
    assert ((edges - 360) ** 2 / 360).sum() < 27.9  # chi-squared, 9 degrees of freedom, 0.1 %
    assert abs(np.corrcoef(np.array(q).T)[0, 1]) < 0.14


def test_bets_are_densities():
    paid = np.mean([bets_on(p) for p in MIDPOINTS], axis=0)
    assert paid == pytest.approx(np.ones(len(paid)), abs=0.01)


@given(st.floats(0, 1))
def test_bets_are_finite_and_two_sided(p):
    paid, mirrored = bets_on(p), bets_on(1 - p)
    assert np.isfinite(paid).all()
    assert (paid >= 0).all()
    if 0.002 < p < 0.998 and min(abs(p - 0.01), abs(p - 0.99)) > 1e-6:
        assert sorted(paid) == pytest.approx(sorted(mirrored))


def test_one_step_by_hand():
    test = ChangeTest(LIMIT)
    assert test.evidence == 0
    test.update(0.5, 1, 0.0)
    shifts = [math.exp(-(d**2) / 2) for d in (0.25, 0.5, 1, 2)]
    first = [*shifts, *shifts, *[0.95] * 4]
    assert test.evidence == pytest.approx(sum(first) / 12)
    test.update(0.5, 2, 0.0)
    assert test.evidence == pytest.approx(sum((1 + f) * f for f in first) / 12)


@pytest.mark.parametrize(("direction", "is_up"), [(1, True), (-1, False)])
def test_a_shift_is_found_with_its_direction_beginning_and_size(direction, is_up):
    random, normal = np.random.default_rng(4), NormalDist()
    test = ChangeTest(LIMIT)
    for part in range(1, 2000):
        value = random.standard_normal() + (2 * direction if part > 500 else 0)
        if test.update(normal.cdf(value), part, value):
            break
    assert 500 < part < 530
    assert test.is_up is is_up
    assert 490 <= test.since <= 510
    assert test.mean_since == pytest.approx(2 * direction, abs=0.8)


def test_a_few_odd_parts_are_found():
    random, test = np.random.default_rng(5), ChangeTest(LIMIT)
    for part in range(1, 3000):
        p = 0.9999 if random.random() < 0.05 else random.random()
        if test.update(p, part, p):
            break
    assert part < 600
    assert test.is_up


def test_false_alarms_are_as_rare_as_stated():
    """1,000 frames against a limit of 4,000: at most a quarter of the runs alarm."""
    random, alarms = np.random.default_rng(6), 0
    for _ in range(60):
        test = ChangeTest(4000)
        alarms += any(test.update(p, 0, 0.0) for p in random.random(1000))
    assert alarms <= 15
    assert alarms >= 1  # or the test would be blind


@settings(max_examples=5, deadline=None)
@given(st.lists(st.floats(0.001, 0.999), max_size=20))
def test_evidence_less_the_frames_is_a_martingale(before):
    """Whatever came before, the evidence grows by one a frame in the mean over uniform p-values."""
    test = ChangeTest(math.inf)
    for p in before:
        test.update(p, 0, 0.0)
    after = []
    for p in MIDPOINTS[2::5]:
        next_one = copy.copy(test)
        next_one._since, next_one._sums, next_one._frames = (v.copy() for v in (test._since, test._sums, test._frames))
        next_one.update(p, 0, 0.0)
        after.append(next_one.evidence)
    assert np.mean(after) == pytest.approx(test.evidence + 1, rel=0.03)


def test_memory_does_not_grow():
    test = ChangeTest(math.inf)

    def size() -> int:
        return sum(sys.getsizeof(value) for value in vars(test).values())

    test.update(0.4, 1, 1.0)
    before = size()
    for part, p in enumerate(np.random.default_rng(8).random(3000)):
        test.update(p, part, 1.0)
    assert size() == before
