from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lineward.export.statistics import FeatureStatistics, Whitening
from lineward.runtime.errors import TrainingError

CHANNELS = 6


def features(seed: int, patches: int, offset: float = 0.0) -> NDArray[np.float32]:
    """Correlated features with eigenvalues from 0.1 to 10."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.normal(size=(CHANNELS, CHANNELS)))
    scales = np.geomspace(10, 0.1, CHANNELS) ** 0.5
    return ((rng.normal(size=(patches, CHANNELS)) * scales) @ rotation + offset).astype(np.float32)


def gathered(*images: NDArray[np.float32]) -> FeatureStatistics:
    statistics = FeatureStatistics()
    for image in images:
        statistics.update(image)
    return statistics


def covariance_behind(whitening: Whitening) -> NDArray[np.float64]:
    """Without shrinkage the whitening W has W W^T = C^-1."""
    matrix = whitening.matrix.astype(np.float64)
    return np.linalg.inv(matrix @ matrix.T)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    cuts=st.lists(st.integers(1, 299), max_size=8, unique=True),
    offset=st.sampled_from([0.0, -3.0, 100.0]),
)
def test_one_pass_in_any_pieces_equals_the_whole(seed: int, cuts: list[int], offset: float):
    whole = features(seed, 300, offset)
    whitening = gathered(*np.split(whole, sorted(cuts))).whitening(shrinkage=0)
    mean, covariance = whole.mean(0, dtype=np.float64), np.cov(whole.astype(np.float64).T, bias=True)
    np.testing.assert_allclose(whitening.mean, mean, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(covariance_behind(whitening), covariance, rtol=0, atol=1e-5 * np.abs(covariance).max())


def test_the_order_of_images_hardly_matters():
    images = [features(seed, 50) for seed in range(6)]
    one, other = gathered(*images).whitening(1.0), gathered(*reversed(images)).whitening(1.0)
    np.testing.assert_allclose(one.matrix, other.matrix, atol=1e-5)


def test_without_shrinkage_the_whitened_covariance_is_one():
    whole = features(1, 5000)
    whitened = gathered(whole).whitening(shrinkage=0).apply(whole)
    np.testing.assert_allclose(np.cov(whitened.T, bias=True), np.eye(CHANNELS), atol=1e-4)
    np.testing.assert_allclose(whitened.mean(0), 0, atol=1e-4)


@pytest.mark.parametrize("shrinkage", [0.1, 1.0, 3.0])
def test_shrinkage_is_in_mean_eigenvalues(shrinkage: float):
    whole = features(2, 5000)
    values = np.linalg.eigvalsh(np.cov(whole.astype(np.float64).T, bias=True))[::-1]
    whitened = gathered(whole).whitening(shrinkage).apply(whole)
    expected = values / (values + shrinkage * values.mean())
    given = np.linalg.eigvalsh(np.cov(whitened.T, bias=True))[::-1]
    np.testing.assert_allclose(given, expected, atol=1e-4)


@pytest.mark.parametrize("dimensions", [1, 3, CHANNELS])
def test_fewer_dimensions_are_the_leading_ones(dimensions: int):
    statistics = gathered(features(3, 500))
    kept = statistics.whitening(1.0, dimensions)
    assert kept.matrix.shape == (CHANNELS, dimensions)
    covariance = np.linalg.inv(covariance_behind(statistics.whitening(1.0))).astype(np.float64)
    values, vectors = np.linalg.eigh(covariance)  # of the inverse: the leading ones come first, and are the least here
    leading = (vectors[:, :dimensions] * values[:dimensions]) @ vectors[:, :dimensions].T
    np.testing.assert_allclose(kept.matrix @ kept.matrix.T, leading, atol=1e-5)


def test_all_dimensions_are_kept_by_default():
    assert gathered(features(3, 500)).whitening(1.0).matrix.shape == (CHANNELS, CHANNELS)


@pytest.mark.parametrize("dimensions", [1, 3, CHANNELS])
@pytest.mark.parametrize("seed", range(3))
def test_no_coordinate_depends_on_a_channel_before_it(seed: int, dimensions: int):
    matrix = gathered(features(seed, 500)).whitening(1.0, dimensions).matrix
    np.testing.assert_array_equal(matrix, np.tril(matrix))
    assert (np.diagonal(matrix) > 0).all()  # which leaves no choice of signs


@pytest.mark.parametrize("dimensions", [0, -1, CHANNELS + 1])
def test_dimensions_that_there_are_not_are_refused(dimensions: int):
    with pytest.raises(TrainingError, match=rf"{dimensions} dimensions cannot be kept of {CHANNELS}"):
        gathered(features(0, 50)).whitening(1.0, dimensions)


def test_no_image_is_refused():
    with pytest.raises(TrainingError, match="no image was read"):
        FeatureStatistics().whitening(1.0)


def test_equal_features_are_refused():
    with pytest.raises(TrainingError, match="equal"):
        gathered(np.ones((50, CHANNELS), np.float32), np.ones((50, CHANNELS), np.float32)).whitening(1.0)


def test_a_channel_that_never_varies_is_no_obstacle():
    whole = features(4, 500)
    whole[:, 2] = 7
    assert np.isfinite(gathered(whole).whitening(1.0).matrix).all()


@pytest.mark.parametrize("tau", [0.0, 1.0, 3.0])
def test_the_lift_is_in_median_norms(tau: float):
    images = [features(seed, 16) for seed in range(20)]  # so few patches that each is in the sample
    statistics = gathered(*images)
    whitening = statistics.whitening(1.0)
    norms = np.linalg.norm(whitening.apply(np.concatenate(images)), axis=1)
    lift = statistics.lift(whitening, tau, 0.5)
    assert lift.constant == pytest.approx(tau * np.median(norms), rel=1e-6)
    assert lift.position == pytest.approx(0.5 * np.median(norms), rel=1e-6)


def test_the_lift_of_a_sample_is_near_that_of_all_patches():
    images = [features(seed, 1024) for seed in range(10)]
    statistics = gathered(*images)
    whitening = statistics.whitening(1.0)
    norms = np.linalg.norm(whitening.apply(np.concatenate(images)), axis=1)
    assert statistics.lift(whitening, 1.0, 0.0).constant == pytest.approx(np.median(norms), rel=0.1)


def test_the_sample_behind_the_lift_stops_growing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("lineward.export.statistics.SAMPLE_ROWS", 20)
    images = np.random.default_rng(0).normal(size=(5, 16, 3)).astype(np.float32)
    gathered = FeatureStatistics()
    for image in images:
        gathered.update(image)
    whitening = gathered.whitening(1.0)
    first = images.reshape(-1, 3)[:20]
    expected = np.median(np.linalg.norm(whitening.apply(first), axis=1))
    assert gathered.lift(whitening, 1.0, 0.0).constant == pytest.approx(expected)
