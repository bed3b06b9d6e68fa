from __future__ import annotations

import math
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineward.runtime.anomaly_map import MapMaker, image_score
from lineward.runtime.manifest import Grid, Score

SHAPES = [
    # rows, columns, map height, map width, sigma
    (32, 32, 256, 256, 4.0),
    (8, 8, 64, 64, 1.0),
    (8, 20, 64, 160, 1.5),
    (20, 8, 160, 64, 1.5),
    (7, 13, 100, 50, 2.3),
    (5, 1, 40, 8, 1.0),
    (1, 1, 8, 8, 0.7),
    (16, 16, 16, 16, 0.5),
    (16, 16, 16, 16, 0.05),
    (16, 24, 8, 8, 1.0),
    (4, 4, 32, 48, 20.0),
]


def scores_of(rows, columns, seed=0):
    return np.random.RandomState(seed).random_sample((rows, columns)).astype(np.float32) * 2


def by_opencv(scores, height, width, sigma):
    """The definition: bilinear upsampling, then a Gaussian over four deviations to each side, reflected at the edge."""
    taps = 2 * round(4 * sigma) + 1
    upsampled = cv2.resize(scores.astype(np.float64), (width, height), interpolation=cv2.INTER_LINEAR)
    return cv2.GaussianBlur(upsampled, (taps, taps), sigmaX=sigma, sigmaY=sigma, borderType=cv2.BORDER_REFLECT_101)


@pytest.mark.parametrize(("rows", "columns", "height", "width", "sigma"), SHAPES)
def test_it_is_upsampling_then_smoothing(rows, columns, height, width, sigma):
    scores = scores_of(rows, columns)
    anomaly_map = MapMaker(Grid(rows, columns, 13), Score(height, width, sigma)).anomaly_map(scores)
    assert anomaly_map.dtype == np.float32
    assert anomaly_map.shape == (height, width)
    np.testing.assert_allclose(anomaly_map, by_opencv(scores, height, width, sigma), atol=1e-5)


@pytest.mark.parametrize(("rows", "columns", "height", "width", "sigma"), SHAPES)
def test_constant_scores_give_a_constant_map(rows, columns, height, width, sigma):
    maps = MapMaker(Grid(rows, columns, 13), Score(height, width, sigma))
    np.testing.assert_allclose(maps.anomaly_map(np.full((rows, columns), 0.75, np.float32)), 0.75, atol=1e-5)


def test_one_hot_patch_shows_where_it_is():
    scores = np.zeros((8, 20), np.float32)
    scores[1, 17] = 1
    anomaly_map = MapMaker(Grid(8, 20, 13), Score(64, 160, 1.0)).anomaly_map(scores)
    row, column = np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)
    assert (row // 8, column // 8) == (1, 17)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    height=st.integers(8, 40),
    width=st.integers(8, 40),
    sigma=st.floats(0.01, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_map_stays_within_the_scores(rows, columns, height, width, sigma, seed):
    scores = scores_of(rows, columns, seed)
    anomaly_map = MapMaker(Grid(rows, columns, 13), Score(height, width, sigma)).anomaly_map(scores)
    assert anomaly_map.min() >= scores.min() - 1e-5
    assert anomaly_map.max() <= scores.max() + 1e-5


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("patch", [(0, 0), (3, 5), (7, 7)])
def test_one_patch_that_is_not_finite_spoils_the_image_score(value, patch):
    scores = scores_of(8, 8)
    scores[patch] = value
    anomaly_map = MapMaker(Grid(8, 8, 13), Score(64, 64, 1.0)).anomaly_map(scores)
    assert not math.isfinite(image_score(anomaly_map))


def test_image_score_is_the_greatest_value():
    anomaly_map = np.array([[0.1, 0.9], [0.3, -2.0]], np.float32)
    assert image_score(anomaly_map) == np.float32(0.9)
    assert isinstance(image_score(anomaly_map), float)


@pytest.mark.parametrize("place", range(4))
def test_image_score_of_a_map_with_nan_is_nan(place):
    anomaly_map = np.array([0.1, 0.9, 0.3, math.inf], np.float32)
    anomaly_map[place] = math.nan
    assert math.isnan(image_score(anomaly_map.reshape(2, 2)))


_BUSY = """
import os
import time
from pathlib import Path
import numpy as np
from lineward.runtime.anomaly_map import MapMaker
from lineward.runtime.manifest import Grid, Score

def ticks():
    stats = (Path("/proc/self/task") / thread / "stat" for thread in os.listdir("/proc/self/task"))
    others = (stat for stat in stats if stat.parent.name != str(os.getpid()))
    return sum(sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13])) for stat in others)

maker = MapMaker(Grid({side}, {side}, 8), Score(8 * {side}, 8 * {side}, 4.0))
patches = np.random.default_rng(0).random(({side}, {side}), dtype=np.float32)
time.sleep(0.5)  # OpenBLAS' threads spin for some 20 ms after their start
before = ticks()
for _ in range(300):
    maker.anomaly_map(patches)
print(len(os.listdir("/proc/self/task")), ticks() - before)
"""


@pytest.mark.parametrize("side", [32, 37, 40])
def test_no_thread_but_the_calling_one_computes(side: int) -> None:
    """OpenBLAS' own threads are waited for at ordinary priority, and serve one image at a time."""
    words = [sys.executable, "-c", _BUSY.replace("{side}", str(side))]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "4"}
    done = subprocess.run(words, capture_output=True, check=True, text=True, timeout=120, env=environment)
    threads, busy = map(int, done.stdout.split())
    if threads == 1:
        pytest.skip("numpy's linear algebra has no threads of its own here")
    assert busy <= 2
