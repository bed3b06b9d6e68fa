from __future__ import annotations

import numpy as np
import pytest

from benchmarks.drift.rivals import cusum, simple_jumper
from benchmarks.drift.streams import NOISES, PLANS, Plan, Pool, blur, build_pool, darken, recolour
from lineward.runtime.drift import STATISTICS, Statistic
from lineward.runtime.inspector import Inspector

SCORE, _, BRIGHTNESS, _, COLOUR, SHARPNESS = range(len(STATISTICS))


@pytest.fixture(scope="module")
def pool(tiny, golden_frames) -> Pool:
    return build_pool(Inspector(tiny), [golden_frames[0], np.roll(golden_frames[0], 4, axis=1)])


def test_the_changes_of_a_frame(golden_frames):
    frame = golden_frames[0]
    for change, nothing in ((darken, 1.0), (blur, 0.0), (recolour, 0.0)):
        np.testing.assert_array_equal(change(frame, nothing), frame)
    assert darken(frame, 0.5).mean() == pytest.approx(frame.mean() / 2, abs=0.5)
    assert blur(frame, 1.0).std() < frame.std()
    shaded = recolour(frame, 1.0).astype(int) - frame
    assert shaded[..., 0].max() > 0 > shaded[..., 2].min()
    assert (shaded == 0).all(axis=2).any()  # what is no part keeps its colour


def test_a_pool_has_every_level(pool):
    assert pool.noises.shape == (2, NOISES, len(STATISTICS))
    assert {plan.kind for plan in PLANS} == set(pool.levels)
    assert all(np.isfinite(levels).all() for levels in pool.levels.values())


@pytest.mark.parametrize(
    ("plan", "column", "sign"), [(PLANS[0], BRIGHTNESS, -1), (PLANS[2], SHARPNESS, -1), (PLANS[3], COLOUR, 1)]
)
def test_a_drift_moves_its_statistic(pool, plan, column, sign):
    frames = pool.drifting(plan, 400, np.random.default_rng(0))
    usual = pool.in_control(400, np.random.default_rng(1))
    assert np.isfinite(frames).all()
    assert (frames[-100:, column].mean() - usual[:, column].mean()) * sign > usual[:, column].std()


def test_a_drift_of_no_part_is_none(pool):
    plan = Plan("none", "gain", lambda t: np.full_like(t, 0.8), share=0.0)
    frames = pool.drifting(plan, 500, np.random.default_rng(0))
    usual = pool.in_control(500, np.random.default_rng(1))
    np.testing.assert_allclose(frames.mean(axis=0), usual.mean(axis=0), atol=4 * usual.std(axis=0).max() / 500**0.5)


def test_the_rivals_find_a_shift_and_nothing_else():
    random = np.random.default_rng(2)
    reference, frames = random.standard_normal((500, 6)), random.standard_normal((400, 6))
    reference[400:, 0] = np.nan
    p_values = random.random((400, 6))
    assert cusum(reference, frames) is None
    assert simple_jumper(p_values) is None
    frames[200:, 2] += 3
    p_values[200:, 2] = 0.98
    assert 200 <= cusum(reference, frames) < 212
    assert 200 <= simple_jumper(p_values) < 250


def test_vectors_are_in_the_order_of_the_statistics(pool):
    assert STATISTICS[SCORE] is Statistic.SCORE
    assert STATISTICS[SHARPNESS] is Statistic.SHARPNESS
    assert pool.levels["gain"][0, 0, BRIGHTNESS] > pool.levels["gain"][0, -1, BRIGHTNESS]
