from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from lineward.calibration.tail import calibrate, fit_tail
from lineward.runtime.errors import CalibrationError
from lineward.runtime.manifest import Threshold

Draw = Callable[[np.random.Generator, int], np.ndarray]
DRAWS: dict[str, Draw] = {
    "normal": lambda rng, n: rng.normal(0.1, 0.02, n),
    "exponential": lambda rng, n: 0.05 + rng.exponential(0.01, n),
    "uniform": lambda rng, n: rng.uniform(0.05, 0.15, n),
    "lognormal": lambda rng, n: 0.05 * rng.lognormal(0, 0.3, n),
}


def tail_of(scores: np.ndarray, rate: float, confidence: float | None = None) -> Threshold:
    return calibrate(scores.tolist(), rate, confidence, seed=0, data_sha256="0" * 64)


@pytest.mark.parametrize(("shape", "scale"), [(-0.3, 0.02), (0.0, 0.01), (0.2, 0.01)])
def test_a_tail_of_known_shape_is_found(shape: float, scale: float):
    uniform = np.random.default_rng(0).uniform(size=50_000)
    scores = 0.1 + (scale / shape * (uniform**-shape - 1) if shape else -scale * np.log(uniform))
    tail, excesses = fit_tail(scores.tolist())
    assert (tail.share, len(excesses)) == (0.2, 10_000)
    assert tail.shape == pytest.approx(shape, abs=0.05)
    # A tail's own tail has the same shape, and a scale that goes with its start.
    assert tail.scale == pytest.approx(scale + shape * (tail.start - 0.1), rel=0.05)
    for rate in (0.01, 0.001):
        assert tail.level(rate) == pytest.approx(np.quantile(scores, 1 - rate), rel=0.03)


@pytest.mark.parametrize("draw", DRAWS)
@pytest.mark.parametrize(("count", "rate"), [(60, 0.005), (150, 0.001)])
def test_the_upper_end_keeps_the_rate_on_average(draw: str, count: int, rate: float):
    rng = np.random.default_rng(0)
    many = np.sort(DRAWS[draw](rng, 1_000_000))
    achieved, by_estimate = [], []
    for _ in range(60):
        try:
            made = tail_of(DRAWS[draw](rng, count), rate)
        except CalibrationError:
            continue  # one in twenty fits badly by chance
        assert made.extrapolation is not None
        achieved.append(1 - np.searchsorted(many, made.value) / len(many))
        by_estimate.append(1 - np.searchsorted(many, made.extrapolation.estimate) / len(many))
    assert len(achieved) > 50
    assert np.mean(achieved) <= rate + 2 * np.std(achieved) / math.sqrt(len(achieved))
    assert np.mean(by_estimate) > rate  # why the estimate itself is not the threshold


def test_it_is_marked_as_extrapolated_with_its_fit():
    made = tail_of(DRAWS["normal"](np.random.default_rng(0), 100), 0.002)
    assert (made.method, made.sample_size, made.bound, made.folds) == ("tail", 100, None, None)
    e = made.extrapolation
    assert e is not None
    assert (e.exceedances, e.confidence) == (20, 0.95)
    assert e.estimate < made.value
    assert 0.05 <= e.p_value <= 1


def test_more_confidence_is_a_higher_threshold_and_the_seed_decides():
    scores = DRAWS["normal"](np.random.default_rng(0), 100)
    values = [tail_of(scores, 0.002, confidence).value for confidence in (0.5, 0.9, None, 0.99)]
    assert values == sorted(values)
    assert tail_of(scores, 0.002) == tail_of(scores, 0.002)


def test_a_tail_that_does_not_fit_is_refused():
    # A second kind of part among the good ones: far away, and all alike.
    rng = np.random.default_rng(0)
    scores = np.concatenate([rng.normal(0.1, 0.01, 188), rng.normal(0.9, 0.001, 12)])
    with pytest.raises(CalibrationError, match="do not fall off as a tail does"):
        tail_of(scores, 0.002)


@pytest.mark.parametrize(
    ("scores", "rate", "message"),
    [
        (np.linspace(0, 1, 59), 0.005, "59 held-out good images are too few"),
        (np.full(100, 0.1), 0.005, "have the same score"),
        (np.append(np.linspace(0, 1, 99), math.nan), 0.005, "no finite score"),
        (np.append(np.linspace(0, 1, 99), math.inf), 0.005, "no finite score"),
        (np.append(np.linspace(0, 0.1, 70), np.full(30, 0.2)), 0.005, "many times the same"),
        (np.linspace(0, 1, 100), 0.3, "no way to a false-reject rate of 0.3"),
        (np.linspace(0, 1, 100), 1e-5, "no way to a false-reject rate of 1e-05"),
        (np.linspace(0, 1, 100), math.nan, "makes no sense"),
        (1 / np.linspace(0.01, 1, 100), 0.001, "scores end at 2"),
    ],
)
def test_what_cannot_be_followed_is_refused(scores: np.ndarray, rate: float, message: str):
    with pytest.raises(CalibrationError, match=message):
        tail_of(scores, rate)
