from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.accuracy.systems.improved_patchcore import ImprovedPatchCore, unit
from lineward.export.bank.spherical_kmeans import two_level_kmeans
from tests.benchmarks.accuracy.test_patchcore import Features, Recorder, features, material


def cosine(one: Features, other: Features) -> float:
    one, other = one.astype(float), other.astype(float)
    return float(np.dot(one, other)) / math.sqrt(np.dot(one, one) * np.dot(other, other))


@pytest.mark.parametrize("rows", [1, 4, 40])
def test_scores_equal_those_written_out(rows: int):
    train, test = features(4), features(3, seed=1) * 2
    points = np.array([row / np.sqrt((row * row).sum()) for row in train.reshape(-1, 6)])
    bank = two_level_kmeans(points, rows, np.random.default_rng(0))
    expected = np.array([[1 - max(cosine(patch, row) for row in bank) for patch in image] for image in test])
    scores = ImprovedPatchCore(rows)(material(train, test), 0, Recorder())
    assert scores.patches.shape == (3, 4, 4)
    assert scores.patches.dtype == np.float32
    np.testing.assert_allclose(scores.patches.reshape(3, 16), expected, atol=1e-5)
    np.testing.assert_allclose(scores.images, expected.max(1), atol=1e-5)


def test_only_directions_count():
    train, test = features(4), features(3, seed=1)
    factors = 2.0 ** np.random.default_rng(2).integers(-5, 5, size=(4, 16, 1)).astype(np.float32)  # which round nothing
    one = ImprovedPatchCore(8)(material(train, test), 0, Recorder())
    other = ImprovedPatchCore(8)(material(train * factors, test * factors[:3]), 0, Recorder())
    np.testing.assert_array_equal(one.patches, other.patches)


def test_no_score_is_negative_though_a_cosine_rounds_above_one():
    train = np.broadcast_to(features(1)[:, :1], (4, 16, 6)) * np.random.default_rng(0).uniform(1, 2, (4, 16, 1))
    scores = ImprovedPatchCore(4)(material(train.astype(np.float32), train.astype(np.float32)), 0, Recorder())
    assert scores.patches.min() >= 0
    np.testing.assert_allclose(scores.patches, 0, atol=1e-6)


def test_an_opposite_direction_scores_two_and_none_at_all_scores_one():
    train = np.ones((2, 16, 6), np.float32)
    test = np.concatenate([train[:1], -train[:1], 0 * train[:1]])
    assert ImprovedPatchCore(2)(material(train, test), 0, Recorder()).images == pytest.approx([0, 2, 1], abs=1e-6)


def test_rows_of_unit_length():
    rows = np.array([[3, 4], [0, 0], [1e-6, 0]], np.float32)
    np.testing.assert_allclose(unit(rows), [[0.6, 0.8], [0, 0], [1, 0]], rtol=1e-6)
    assert unit(rows).dtype == np.float32


def test_more_rows_than_patches_are_refused():
    with pytest.raises(ValueError, match="33 centroids of 32"):
        ImprovedPatchCore(33)(material(features(2), features(1)), 0, Recorder())


def test_a_seed_fixes_the_scores():
    given = material(features(4), features(3, seed=1))
    one, same, other = (ImprovedPatchCore(8)(given, seed, Recorder()).patches for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_progress_counts_rows_and_images():
    recorder = Recorder()
    ImprovedPatchCore(5)(material(features(2), features(3)), 0, recorder)
    assert recorder.told == {"choose the bank": [5], "score test images": [1, 2, 3]}
