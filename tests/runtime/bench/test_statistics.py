from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineward.runtime.bench import statistics
from lineward.runtime.bench.statistics import percentile, ratio, summarise

SHARES = [0.5, 0.9, 0.99, 0.999]
latencies = st.lists(st.floats(0, 1e3), min_size=1, max_size=60).map(np.array)


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("count", [500, 501, 999, 1000, 1001, 1234])
def test_percentiles_are_those_of_numpy(share, count):
    values = np.random.RandomState(count).lognormal(size=count)
    assert percentile(values, share) == np.quantile(values, share, method="inverted_cdf")


@pytest.mark.parametrize(("share", "least"), [(0.5, 1), (0.9, 5), (0.99, 50), (0.999, 500)])
def test_a_percentile_needs_a_sample_that_supports_it(share, least):
    assert percentile(np.ones(least), share) == 1
    if least > 1:
        assert percentile(np.ones(least - 1), share) is None


@settings(deadline=None)
@given(latencies)
def test_a_percentile_was_observed_and_they_are_in_order(values):
    found = summarise(values)
    shown = [value for value in (found.p50, found.p90, found.p99, found.p999, found.greatest) if value is not None]
    assert shown == sorted(shown)
    assert set(shown) <= set(values)
    assert np.mean(values <= found.p50) >= 0.5
    assert 0 <= found.jitter <= (found.greatest - values.min()) * (1 + 1e-12)


@pytest.mark.parametrize(
    ("values", "jitter"), [([5.0], 0), ([1.0, 1.0, 1.0], 0), ([1.0, 3.0, 1.0, 3.0], 2), ([1.0, 2.0, 3.0], 1)]
)
def test_jitter_is_the_mean_step_from_one_latency_to_the_next(values, jitter):
    assert summarise(np.array(values)).jitter == jitter


@pytest.mark.parametrize(("share", "least"), [(0.5, 10), (0.99, 500)])
def test_a_ratio_needs_five_values_beyond(share, least):
    ones = np.ones(2000)
    assert ratio(ones[:least], ones, share) is not None
    assert ratio(ones[: least - 1], ones, share) is None
    assert ratio(ones, ones[: least - 1], share) is None


def test_a_ratio_to_nothing_is_none():
    assert ratio(np.ones(10), np.zeros(10), 0.5) is None


@settings(max_examples=10, deadline=None)
@given(st.floats(0.1, 10), st.integers(0, 5))
def test_a_ratio_scales_and_lies_in_its_interval(scale, seed):
    values = np.random.RandomState(seed).lognormal(size=50)
    found = ratio(values * scale, values, 0.5)
    assert found.value == pytest.approx(scale)
    assert found.low <= found.value <= found.high
    assert ratio(values * scale, values, 0.5) == found


def test_the_interval_is_that_of_scipy_where_latencies_are_independent():
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed: no reference for the bootstrap")
    random = np.random.RandomState(0)
    ours, theirs = random.lognormal(0.1, 0.3, 1000), random.lognormal(0, 0.3, 1000)

    def of_medians(a, b, axis=-1):
        return np.median(a, axis=axis) / np.median(b, axis=axis)

    reference = stats.bootstrap((ours, theirs), of_medians, n_resamples=2000, method="percentile", rng=0)
    found = ratio(ours, theirs, 0.5)
    width = reference.confidence_interval.high - reference.confidence_interval.low
    assert found.low == pytest.approx(reference.confidence_interval.low, abs=width / 4)
    assert found.high == pytest.approx(reference.confidence_interval.high, abs=width / 4)


@pytest.mark.parametrize(("memory", "least"), [(0.0, 34), (0.8, 30)])
def test_the_interval_holds_the_true_ratio_nearly_as_often_as_it_says(memory, least, monkeypatch):
    """With slow inspections that come in groups too, where a bootstrap of single values would hold it far less often.

    Of 40 pairs of runs of the same latencies: 95 % are 38.
    """
    monkeypatch.setattr(statistics, "_RESAMPLES", 200)
    random = np.random.RandomState(0)

    def a_run():
        noise, level = random.standard_normal(400), 0.0
        levels = [level := memory * level + value for value in noise]
        return np.exp(0.1 * np.array(levels))

    found = [ratio(a_run(), a_run(), 0.5, seed=index) for index in range(40)]
    held = sum(one.low <= 1 <= one.high for one in found)
    assert held >= least
