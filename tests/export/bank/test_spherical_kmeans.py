from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lineward.export.bank.spherical_kmeans import _shares, spherical_kmeans, two_level_kmeans

Rows = NDArray[np.float32]
METHODS = [spherical_kmeans, two_level_kmeans]


def unit(rows: NDArray[np.float64]) -> Rows:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def cloud(count: int, dimensions: int = 8, seed: int = 0) -> Rows:
    return unit(np.random.default_rng(seed).normal(size=(count, dimensions)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("points", "count"), [(1, 1), (5, 1), (5, 5), (50, 3), (50, 4), (300, 17), (300, 300), (9000, 64)]
)
def test_the_count_is_exact_and_the_rows_are_of_unit_length(method, points: int, count: int):
    centroids = method(cloud(points), count, np.random.default_rng(0))
    assert centroids.shape == (count, 8)
    assert centroids.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("count", [4, 9, 20])
def test_empty_clusters_start_again_at_a_point(method, count: int):
    points = np.repeat(np.eye(2, 8, dtype=np.float32), 10, axis=0)  # two places for more than two centroids
    centroids = method(points, count, np.random.default_rng(0))
    assert {tuple(row) for row in centroids} == {tuple(point) for point in points}
    assert len(centroids) == count


@pytest.mark.parametrize("method", METHODS)
def test_points_that_cancel_leave_no_centroid_without_direction(method):
    axes = np.eye(4, dtype=np.float32)
    points = np.concatenate([axes, -axes])  # their sum is zero
    centroids = method(points, 1, np.random.default_rng(0))
    np.testing.assert_allclose(np.linalg.norm(centroids, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_seed_fixes_the_result(method):
    points = cloud(2000)
    one, same, other = (method(points, 32, np.random.default_rng(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(3))
def test_well_separated_clusters_are_found(method, seed: int):
    modes = np.eye(6, 12)
    noise = np.random.default_rng(seed).normal(scale=0.03, size=(600, 12))
    points = unit(np.repeat(modes, 100, axis=0) + noise)
    centroids = method(points, 24, np.random.default_rng(seed))
    np.testing.assert_allclose((modes @ centroids.T).max(1), 1, atol=0.01)


def test_one_centroid_is_the_mean_direction():
    points = unit(np.array([[1.0, 0, 0], [0, 1, 0], [0, 1, 0]]))
    expected = np.array([[1, 2, 0]]) / np.sqrt(5)
    np.testing.assert_allclose(spherical_kmeans(points, 1, np.random.default_rng(0)), expected, atol=1e-6)


def test_centroids_explain_points_better_than_a_sample_does():
    points = cloud(4000)
    sample = points[np.random.default_rng(0).choice(4000, 64, replace=False)]
    centroids = two_level_kmeans(points, 64, np.random.default_rng(0))
    assert (points @ centroids.T).max(1).mean() > (points @ sample.T).max(1).mean() + 0.01


@pytest.mark.parametrize(("points", "count"), [(5, 6), (5, 100), (0, 1), (5, 0)])
def test_no_more_centroids_than_points(points: int, count: int):
    with pytest.raises(ValueError, match=f"{count} centroids cannot be found among {points} points"):
        two_level_kmeans(cloud(points), count, np.random.default_rng(0))


@settings(max_examples=200, deadline=None)
@given(sizes=st.lists(st.integers(0, 5000), min_size=1, max_size=40).filter(any), share=st.floats(0, 1))
def test_shares_are_whole_proportional_and_no_larger_than_the_sizes(sizes: list[int], share: float):
    count = max(1, round(share * sum(sizes)))
    shares = _shares(np.array(sizes), count)
    assert shares.sum() == count
    assert (shares >= 0).all()
    assert (shares <= sizes).all()
    assert (np.abs(shares - np.array(sizes) * (count / sum(sizes))) < 1 + 1e-9).all()
