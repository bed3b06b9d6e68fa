from __future__ import annotations

import pytest

from lineward.runtime.quantities import parse_duration, parse_rate, parse_size


@pytest.mark.parametrize(
    ("text", "rate"), [("5/s", 5), ("300/min", 5), ("5", 5), ("1800/h", 0.5), ("0.5/s", 0.5), (" 2 /s", 2)]
)
def test_rates(text, rate):
    assert parse_rate(text) == rate


@pytest.mark.parametrize("text", ["", "0", "-1", "5/ms", "/s", "nan", "inf", "1e400", "9" * 400])
def test_no_rates(text):
    with pytest.raises(ValueError, match="is no rate"):
        parse_rate(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("12ms", 0.012), ("0.5s", 0.5), ("800us", 0.0008), ("12 ms", 0.012), ("2min", 120), ("1h", 3600)],
)
def test_durations(text, seconds):
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "12", "ms", "0ms", "-1ms", "12 days", "nan s"])
def test_no_durations(text):
    with pytest.raises(ValueError, match="is no time"):
        parse_duration(text)


@pytest.mark.parametrize(("text", "size"), [("500MB", 500 * 10**6), ("20GB", 20 * 10**9), ("1.5 kB", 1500)])
def test_sizes(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "500", "0MB", "-1MB", "5MiB", "0.1B", "nan GB"])
def test_no_sizes(text):
    with pytest.raises(ValueError, match="is no size"):
        parse_size(text)
