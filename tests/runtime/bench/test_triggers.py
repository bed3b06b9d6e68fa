from __future__ import annotations

import pytest

from lineward.runtime.bench.triggers import StageTimes, SystemClock, run_triggers
from lineward.runtime.stages import Stage


@pytest.fixture
def go(clock):
    """Runs triggers whose inspections take given seconds, half of them in the embedding."""

    def go(durations, rate=None, late=0.0, between=0.0):
        clock.late = late
        times = StageTimes(clock)

        def inspect(index):
            for stage in (Stage.EMBEDDING, Stage.SIMILARITY):
                clock.work(durations[index] / 2)
                times(stage)
            clock.work(between)

        samples, interrupted = run_triggers(inspect, times, clock, len(durations), rate)
        assert not interrupted
        return samples

    return go


def latency(sample):
    return sample.queued + sum(sample.stages)


def test_back_to_back_never_waits(go, clock):
    samples = go([0.01, 0.03, 0.02])
    assert [sample.planned for sample in samples] == pytest.approx([0, 0.01, 0.04])
    assert [latency(sample) for sample in samples] == pytest.approx([0.01, 0.03, 0.02])
    assert {sample.queued for sample in samples} == {0}
    assert clock.sleeps == []


def test_stages_are_those_of_each_inspection(go):
    assert [sample.stages for sample in go([0.01, 0.03])] == [(0.005, 0.005), (0.015, 0.015)]


def test_triggers_are_due_at_absolute_times_whatever_the_sleep_does(go):
    """A loop that slept one period after each would be late by the sum of its lateness."""
    samples = go([0.01] * 100, rate=5, late=0.003)
    assert [sample.planned for sample in samples] == pytest.approx([index / 5 for index in range(100)])
    assert samples[-1].start == pytest.approx(99 / 5 + 0.003)


def test_waking_late_is_no_latency(go):
    assert [latency(sample) for sample in go([0.01] * 3, rate=5, late=0.05)] == pytest.approx([0.01] * 3)


@pytest.mark.parametrize(
    ("durations", "rate", "queued"),
    [
        ([0.1, 0.1, 0.1], 5, [0, 0, 0]),
        ([0.2, 0.2, 0.2], 5, [0, 0, 0]),
        ([0.5, 0.1, 0.1, 0.1], 5, [0, 0.3, 0.2, 0.1]),  # one stall, three triggers that suffer
        ([0.3, 0.3, 0.3], 5, [0, 0.1, 0.2]),  # a device that is too slow falls ever further behind
    ],
)
def test_who_waits_for_the_one_before_waits_from_when_it_was_due(go, durations, rate, queued):
    samples = go(durations, rate)
    assert [sample.queued for sample in samples] == pytest.approx(queued, abs=1e-9)
    assert [latency(sample) for sample in samples] == pytest.approx(
        [wait + duration for wait, duration in zip(queued, durations, strict=True)]
    )


def test_time_outside_the_stages_is_never_negative(go):
    assert min(sample.start - sample.planned for sample in go([0.3, 0.1, 0.1, 0.1], 5, between=0.001)) >= 0


@pytest.mark.parametrize("rate", [None, 5])
def test_what_the_loop_itself_takes_is_no_queue(go, clock, rate):
    clock.tick = 1e-6
    assert {sample.queued for sample in go([0.01] * 10, rate)} == {0}


def test_the_times_of_a_stage_that_comes_again_add_up(clock):
    times = StageTimes(clock)
    for _ in range(2):  # inspections of as many batches of tiles
        times.begin()
        for stage, seconds in ((Stage.EMBEDDING, 0.1), (Stage.SIMILARITY, 0.2)) * 3:
            clock.work(seconds)
            times(stage)
        assert times.seconds == pytest.approx({Stage.EMBEDDING: 0.3, Stage.SIMILARITY: 0.6})


@pytest.mark.parametrize("at", [0, 1, 3])
def test_an_interrupt_leaves_what_was_measured(clock, at):
    times = StageTimes(clock)

    def inspect(index):
        if index == at:
            raise KeyboardInterrupt
        clock.work(0.01)
        times(Stage.MAP)

    samples, interrupted = run_triggers(inspect, times, clock, 5)
    assert (len(samples), interrupted) == (at, True)


def test_the_machines_clock_only_grows():
    clock = SystemClock()
    before = clock.now()
    clock.sleep(0)
    assert clock.now() >= before
