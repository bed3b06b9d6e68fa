from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineward.calibration.cross_conformal import calibrate, deal, proven_rate
from lineward.runtime.errors import CalibrationError


@given(images=st.integers(2, 100), seed=st.integers(0, 5), data=st.data())
def test_every_image_is_dealt_into_one_fold_and_folds_are_even(images: int, seed: int, data: st.DataObject):
    count = data.draw(st.integers(2, images))
    folds = deal(images, count, seed)
    assert sorted(np.concatenate(folds)) == list(range(images))
    sizes = [len(fold) for fold in folds]
    assert (len(sizes), max(sizes) - min(sizes) <= 1) == (count, True)


def test_the_seed_deals():
    assert np.concatenate(deal(40, 5, 0)).tolist() == np.concatenate(deal(40, 5, 0)).tolist()
    assert np.concatenate(deal(40, 5, 0)).tolist() != np.concatenate(deal(40, 5, 1)).tolist()


@pytest.mark.parametrize(("images", "folds"), [(0, 5), (4, 5), (10, 1)])
def test_fewer_images_than_folds_are_refused(images: int, folds: int):
    with pytest.raises(CalibrationError, match=f"{images} good images cannot be dealt"):
        deal(images, folds, 0)


@pytest.mark.parametrize(
    ("images", "folds", "rate", "proven"),
    [
        (50, 50, 0.05, 0.1),  # jackknife+
        (50, 5, 0.05, 0.1 + 2 * 0.95 * 4 / 55),
        (20, 10, 0.1, 0.2 + 0.5 / 11),
        (10_000, 5, 0.05, 0.1 + 2 * 0.95 * 4 / 10_005),
        (5, 5, 0.9, 1.0),
    ],
)
def test_what_is_proven_is_twice_the_rate_and_a_little(images: int, folds: int, rate: float, proven: float):
    assert proven_rate(images, folds, rate) == pytest.approx(proven)


def test_what_is_proven_holds_for_judges_that_learn_badly():
    # The nearest of few images as the judge, all banks voting, each score against those of its own fold.
    rng = np.random.default_rng(0)
    n, k, rate, trials = 20, 5, 0.1, 2000
    folds = [np.arange(first, n, k) for first in range(k)]
    rejected = 0
    for points in rng.normal(size=(trials, n + 1, 2)):
        below = 0
        for fold in folds:
            bank = np.delete(points[:n], fold, axis=0)
            of = lambda p, bank=bank: np.linalg.norm(p[:, None] - bank[None], axis=2).min(1)  # noqa: E731
            below += np.count_nonzero(of(points[fold]) < of(points[n:])[0])
        rejected += below >= (1 - rate) * (n + 1)
    assert rejected / trials <= proven_rate(n, k, rate)


def test_a_calibration_says_what_is_behind_it():
    made = calibrate(np.linspace(0.1, 0.2, 19).tolist(), 0.05, folds=5, seed=3, data_sha256="ab" * 32)
    assert (made.value, made.method, made.folds, made.sample_size) == (0.2, "cross-conformal", 5, 19)
    assert (made.seed, made.data_sha256, made.bound, made.confidence) == (3, "ab" * 32, None, None)


@pytest.mark.parametrize(
    ("scores", "message"),
    [([0.1] * 30, "the same score"), ([0.1] * 29 + [math.nan], "no finite"), ([0.1, 0.2], "2 held-out")],
)
def test_scores_that_are_no_evidence_are_refused(scores: list[float], message: str):
    with pytest.raises(CalibrationError, match=message):
        calibrate(scores, 0.05, folds=5, seed=0, data_sha256="0" * 64)
