from __future__ import annotations

from itertools import count

import numpy as np
import pytest

from lineward.export.tuning import timing
from lineward.export.tuning.table import Candidate, Graph, Timing
from lineward.export.tuning.timing import TRIGGERS, WINDOWS, probe, time_in_full
from lineward.runtime.bench import measure
from lineward.runtime.bench.measure import Plan

SLOW, FAST = Candidate(Graph(64), 2), Candidate(Graph(64), 1)


class FakeClock:
    """Time that passes only where a test says so."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


@pytest.fixture
def inspections(tiny, monkeypatch):
    """An engine that takes as long as its candidate and the number of its inspection say; the clock, the bundles."""
    clock, number, taken = FakeClock(), count(), []
    seconds = {"of": lambda candidate, _number: 0.01 * candidate.rows}
    turn = {}

    class Engine:
        def score(self, images):
            value = seconds["of"](turn["candidate"], next(number))
            taken.append((turn["candidate"], value))
            clock.time += value
            return np.zeros((len(images), 8, 8), np.float32)

    def maker(candidate):
        def make():
            turn["candidate"] = candidate
            return tiny

        return make

    monkeypatch.setattr(measure, "open_engine", lambda *_: Engine())
    return clock, {c: maker(c) for c in (SLOW, FAST)}, seconds, taken


def silent(_what: str) -> None:
    pass


def test_the_probe_is_the_median_of_the_least_disturbed_run(inspections):
    clock, bundles, seconds, _ = inspections
    disturbed = 2 * (1 + timing._WARMUP + timing._PROBE)  # the first run of each candidate
    seconds["of"] = lambda candidate, number: 0.01 * candidate.rows * (5 if number < disturbed else 1)
    found = probe(bundles, Plan(), silent, clock)
    assert {c: t.p50 for c, t in found.items()} == {SLOW: pytest.approx(0.02), FAST: pytest.approx(0.01)}


def test_windows_take_turns_and_the_bound_is_the_greatest_p99(inspections):
    clock, bundles, seconds, taken = inspections
    each = 1 + timing._WARMUP + TRIGGERS
    late = 2 * each * 4 + each + 1 + timing._WARMUP  # in the fast one's fifth window, after its warm-up
    seconds["of"] = lambda c, number: 0.01 * c.rows + (0.05 if late <= number < late + 2 else 0)
    probed = {SLOW: Timing(0.02), FAST: Timing(0.01)}
    found = time_in_full(bundles, probed, Plan(), silent, clock)
    assert len(found[FAST].p99) == WINDOWS
    assert found[FAST].bound == pytest.approx(0.06)  # two of a hundred lie beyond p99
    assert sorted(found[FAST].p99)[-2] == pytest.approx(0.01)
    assert found[SLOW].bound == pytest.approx(0.02)
    turns = [c for c, _ in taken[::each]]
    assert turns == [SLOW, FAST] * WINDOWS


def test_what_is_heard_is_how_far_it_is(inspections):
    clock, bundles, _, _ = inspections
    said: list[str] = []
    time_in_full(bundles, dict.fromkeys(bundles, Timing(0.01)), Plan(), said.append, clock)
    assert said[0].startswith(f"window 1 of {WINDOWS}")
    assert len(said) == WINDOWS


def test_ctrl_c_ends_it(inspections):
    clock, bundles, seconds, _ = inspections

    def interrupted(_candidate, number):
        if number == 100:
            raise KeyboardInterrupt
        return 0.01

    seconds["of"] = interrupted
    with pytest.raises(KeyboardInterrupt):
        time_in_full(bundles, dict.fromkeys(bundles, Timing(0.01)), Plan(), silent, clock)
