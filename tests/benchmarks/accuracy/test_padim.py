from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.accuracy.measure import anomaly_maps
from benchmarks.accuracy.systems import padim
from benchmarks.accuracy.systems.padim import PaDiM, mahalanobis
from tests.benchmarks.accuracy.test_patchcore import SETTING, Features, Recorder, features, material

ALL = np.arange(6)


def plain_mahalanobis(train: Features, test: Features, kept: NDArray[np.intp]) -> NDArray[np.float64]:
    """Position by position and image by image, with the inverse of the covariance."""
    distances = np.empty(test.shape[:2])
    for position in range(test.shape[1]):
        good = train[:, position, kept].astype(float)
        inverse = np.linalg.inv(np.cov(good, rowvar=False, ddof=1) + 0.01 * np.eye(len(kept)))
        for image, patches in enumerate(test):
            delta = patches[position, kept] - good.mean(0)
            distances[image, position] = math.sqrt(delta @ inverse @ delta)
    return distances


@pytest.mark.parametrize("images", [2, 5, 40], ids=lambda n: f"{n} images")
@pytest.mark.parametrize("kept", [ALL, ALL[::-2]], ids=["all", "some"])
@pytest.mark.parametrize("block", [1, 5, 32])
def test_distances_equal_those_written_out(
    monkeypatch: pytest.MonkeyPatch, images: int, kept: NDArray[np.intp], block: int
):
    monkeypatch.setattr(padim, "_BLOCK", block)
    train, test = features(images) + np.float32(5), features(3, seed=1)
    distances = mahalanobis(train, test, kept)
    assert distances.dtype == np.float32
    np.testing.assert_allclose(distances, plain_mahalanobis(train, test, kept), rtol=1e-5)


def test_the_mean_is_at_no_distance():
    train = features(20)
    np.testing.assert_allclose(mahalanobis(train, train.mean(0, keepdims=True), ALL), 0, atol=1e-5)


def test_each_position_is_compared_with_its_own_past():
    train, test = features(20) + np.arange(16, dtype=np.float32)[:, np.newaxis], features(3, seed=1)
    order = np.random.default_rng(0).permutation(16)
    here = mahalanobis(train, test, ALL)
    np.testing.assert_allclose(mahalanobis(train[:, order], test[:, order], ALL), here[:, order], rtol=1e-6)
    assert not np.allclose(mahalanobis(train, test[:, order], ALL), here[:, order], rtol=0.1)


def test_an_image_scores_the_greatest_of_its_smoothed_map():
    scores = PaDiM(4)(material(features(10), features(3, seed=1)), 0, Recorder())
    assert scores.patches.shape == (3, 4, 4)
    assert scores.patches.dtype == np.float32
    assert scores.images.tolist() == [m.max() for m in anomaly_maps(scores.patches, SETTING)]
    assert (scores.images < scores.patches.max((1, 2))).all()


@pytest.mark.parametrize("channels", [1, 4, 6])
@pytest.mark.parametrize("seed", [0, 1])
def test_as_many_channels_as_asked_for_count(channels: int, seed: int):
    train, test = features(10), features(2, seed=1)
    before = PaDiM(channels)(material(train, test), seed, Recorder()).patches
    felt = 0
    for channel in range(6):
        changed = test.copy()
        changed[..., channel] += 3
        felt += not np.array_equal(PaDiM(channels)(material(train, changed), seed, Recorder()).patches, before)
    assert felt == channels


def test_the_seed_chooses_the_channels():
    given = material(features(10), features(2, seed=1))
    one, same, other = (PaDiM(3)(given, seed, Recorder()).patches for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.allclose(one, other)


def test_more_channels_than_there_are_are_refused():
    with pytest.raises(ValueError, match="larger sample"):
        PaDiM(7)(material(features(2), features(1)), 0, Recorder())


def test_progress_counts_positions(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(padim, "_BLOCK", 6)
    recorder = Recorder()
    PaDiM(2)(material(features(2), features(3)), 0, recorder)
    assert recorder.told == {"score position by position": [6, 12, 16]}
