from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from benchmarks.calibration import splits
from benchmarks.calibration.splits import follow, keep


@pytest.mark.parametrize(
    ("counted", "trials", "alpha", "beta"), [(0, 10, 1, 19), (3, 69, 1, 59), (9, 9, 4, 5), (40, 200, 6, 45)]
)
def test_the_beta_binomial_is_scipys(counted: int, trials: int, alpha: int, beta: int):
    expected = stats.betabinom(trials, alpha, beta).cdf(counted)
    assert splits._beta_binomial_at_most(counted, trials, alpha, beta) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("counted", "trials", "share"), [(0, 500, 0.05), (25, 500, 0.05), (40, 500, 0.05)])
def test_the_binomial_test_is_scipys(counted: int, trials: int, share: float):
    expected = stats.binomtest(counted, trials, share, alternative="greater").pvalue
    assert splits._as_many(counted, trials, share) == pytest.approx(expected, abs=1e-9)


def pools(parts: int, count: int = 4) -> list[np.ndarray]:
    return [np.random.default_rng(seed).uniform(size=parts) for seed in range(count)]


@pytest.mark.parametrize(("sample", "rate", "confidence"), [(19, 0.05, None), (60, 0.05, 0.95), (50, 0.1, None)])
def test_a_promise_that_is_kept_is_found_kept(sample: int, rate: float, confidence: float | None):
    kept = keep(pools(300), sample, rate, confidence, 400, np.random.default_rng(0))
    assert kept.splits == 400
    assert min(kept.p, kept.p_on_test, kept.p_achieved) > 0.001
    assert kept.achieved == pytest.approx(kept.expected, abs=5 * kept.error)


def test_a_promise_that_is_broken_is_found_broken(monkeypatch: pytest.MonkeyPatch):
    # A threshold a few ranks too low.
    honest = splits.split_conformal
    monkeypatch.setattr(splits, "split_conformal", lambda scores, rate, _: honest(scores, 2.5 * rate))
    kept = keep(pools(300), 60, 0.05, 0.95, 400, np.random.default_rng(0))
    assert max(kept.p, kept.p_on_test, kept.p_achieved) < 1e-6


def test_a_tail_is_followed():
    followed = follow(pools(400), 60, 0.005, 80, np.random.default_rng(0))
    assert followed.splits == 80
    assert followed.achieved < followed.by_estimate
