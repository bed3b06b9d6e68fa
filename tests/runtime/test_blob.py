from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from lineward.runtime.anomaly_map import image_score
from lineward.runtime.blob import largest_blob, level_of
from lineward.runtime.conformal import split_conformal
from lineward.runtime.manifest import MinimumArea


def test_counts_the_largest_of_several_and_joins_corners():
    heat = np.zeros((8, 8), np.float32)
    heat[0, 0] = heat[1, 1] = heat[2, 2] = 0.5  # by their corners
    heat[5:7, 4:6] = 0.25
    assert [largest_blob(heat, level) for level in (0.0, 0.25, 0.49, 0.5)] == [4, 3, 3, 0]
    assert [level_of(heat, n, 0.0) for n in (1, 3, 4, 5)] == [0.5, 0.5, 0.25, -math.inf]
    assert level_of(heat, 64, -1.0) == 0.0
    assert level_of(heat, 65, -1.0) == -math.inf


MAPS = arrays(np.float32, (6, 7), elements=st.sampled_from([np.float32(v / 16) for v in range(17)]))


@given(MAPS, st.integers(1, 42), st.integers(0, 16))
def test_level_and_area_are_one_statement(heat, pixels, sixteenths):
    level = sixteenths / 16
    assert (level_of(heat, pixels, -1.0) > level) == (largest_blob(heat, level) >= pixels)


@given(MAPS, st.integers(1, 42), st.sampled_from([0.25, 0.5, 0.75]), st.integers(1, 64))
def test_the_score_is_above_a_threshold_for_a_pixel_or_for_an_area(heat, pixels, level, steps):
    """Exactly: with shares and thresholds whose products are exact, so is the comparison."""
    threshold = steps / 64
    above = image_score(heat, MinimumArea(pixels, level)) > threshold
    if level == 0.75:  # a quotient that is rounded: a value just at the level may fall either way
        near = np.isclose(heat / level, threshold).any()
        assert near or above == (heat.max() > threshold or largest_blob(heat, level * threshold) >= pixels)
    else:
        assert above == (heat.max() > threshold or largest_blob(heat, level * threshold) >= pixels)


@given(MAPS, MAPS, st.integers(1, 42))
def test_more_anomaly_never_scores_lower(heat, more, pixels):
    area = MinimumArea(pixels, 0.5)
    assert image_score(np.maximum(heat, more), area) >= image_score(heat, area) >= image_score(heat)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_is_no_score(value):
    heat = np.full((6, 7), 0.5, np.float32)
    heat[2, 3] = value
    assert image_score(heat, MinimumArea(3, 0.5)) == pytest.approx(value, nan_ok=True)


def test_one_promise_covers_both_reasons():
    """500 splits of rendered maps: the share rejected for either reason is what one order statistic promises."""
    rng = np.random.default_rng(0)
    area, rate, sample, tests = MinimumArea(20, 0.6), 0.1, 29, 29
    achieved, by_area = [], 0
    for _ in range(500):
        maps = _maps(rng, sample + tests)
        scores = [image_score(heat, area) for heat in maps]
        threshold = split_conformal(scores[:sample], rate)
        rejected = [
            (heat.max() > threshold, largest_blob(heat, area.level * threshold) >= area.pixels)
            for heat in maps[sample:]
        ]
        achieved.append(np.mean([pixel or blob for pixel, blob in rejected]))
        by_area += sum(blob and not pixel for pixel, blob in rejected)
    error = np.std(achieved) / math.sqrt(len(achieved))
    assert abs(np.mean(achieved) - rate) < 3 * error  # (n + 1 - k) / (n + 1) = 3 / 30, scores do not tie
    assert by_area > 100  # else the second reason was not put to the test


def _maps(rng: np.random.Generator, count: int) -> np.ndarray:
    """Noise with a bump of its own height and width in each."""
    rows, columns = np.mgrid[:16, :16]
    widths, heights = rng.uniform(0.5, 4, (2, count, 1, 1))
    bumps = 0.1 * heights * np.exp(-((rows - 8) ** 2 + (columns - 8) ** 2) / (2 * widths**2))
    return (bumps + rng.uniform(0, 0.02, (count, 16, 16))).astype(np.float32)
