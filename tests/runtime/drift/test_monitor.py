from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from lineward.runtime.drift import (
    FRAMES_BETWEEN_FALSE_ALARMS,
    STATISTICS,
    Direction,
    DriftMonitor,
    Measurement,
    Statistic,
    describe,
)
from lineward.runtime.drift.measurements import Look
from lineward.runtime.manifest import DriftReference

USUAL = Measurement(0.30, 0.20, Look(100.0, 40.0, 5.0, 8.0))
SPREAD = np.array([0.02, 0.01, 1.0, 0.5, 0.3, 0.05])
THRESHOLD = 0.35


def frame(random: np.random.Generator, **shifts: float) -> Measurement:
    """A frame of a steady line, some statistics shifted by so many standard deviations."""
    noise = random.standard_normal(6) * SPREAD
    values = [
        USUAL.of(statistic) + noise[i] + shifts.get(statistic.value, 0) * SPREAD[i]
        for i, statistic in enumerate(STATISTICS)
    ]
    return Measurement(values[0], values[1], Look(*values[2:]))


def reference(random: np.random.Generator, held_out: int = 20, good: int = 200) -> DriftReference:
    frames = [frame(random) for _ in range(good)]
    counts = {Statistic.SCORE: held_out, Statistic.DISTANCE: held_out}
    return DriftReference(*[tuple(sorted(f.of(s) for f in frames[: counts.get(s, good)])) for s in STATISTICS])


def feed(monitor: DriftMonitor, frames, first: int = 1):
    """All alarms of frames, by the rule of the station."""
    alarms = []
    for part, measurement in enumerate(frames, first):
        alarms += monitor.update(part, measurement, measurement.score <= THRESHOLD)
    return alarms


def states(monitor: DriftMonitor):
    return {state.statistic: state for state in monitor.states()}


def test_frames_in_control_raise_no_more_alarms_than_stated():
    """8 stations, 2,000 frames each: within the stated rate, more than one alarm has a chance of 0.013 %."""
    alarms = 0
    for seed in range(8):
        random = np.random.default_rng(seed)
        monitor = DriftMonitor(reference(random), THRESHOLD, seed=seed)
        alarms += len(feed(monitor, (frame(random) for _ in range(2000))))
    assert FRAMES_BETWEEN_FALSE_ALARMS == 1_000_000
    assert alarms <= 1


@pytest.mark.parametrize("statistic", STATISTICS)
@pytest.mark.parametrize(("sign", "direction"), [(1, Direction.ROSE), (-1, Direction.FELL)])
def test_each_statistic_is_found_both_ways(statistic, sign, direction):
    random = np.random.default_rng(11)
    monitor = DriftMonitor(reference(random), 10.0)
    assert not feed(monitor, (frame(random) for _ in range(300)))
    alarms = []
    for part in range(301, 400):
        alarms += monitor.update(part, frame(random, **{statistic.value: 4 * sign}), True)
    assert [(a.statistic, a.direction) for a in alarms] == [(statistic, direction)]
    assert alarms[0].part <= 315
    assert 295 <= alarms[0].since <= 303
    assert alarms[0].mean == pytest.approx(
        USUAL.of(statistic) + 4 * sign * SPREAD[STATISTICS.index(statistic)], rel=0.1
    )


@pytest.mark.parametrize("before", [0, 1000])
def test_slow_darkening_is_found_before_it_is_far(before):
    random = np.random.default_rng(12)
    monitor = DriftMonitor(reference(random), THRESHOLD)
    assert not feed(monitor, (frame(random) for _ in range(before)))
    alarms = feed(monitor, (frame(random, brightness=-0.01 * t) for t in range(300)), before + 1)
    assert [(a.statistic, a.direction) for a in alarms] == [(Statistic.BRIGHTNESS, Direction.FELL)]
    assert alarms[0].part - before < 200


def test_an_alarm_comes_once_and_stays():
    random = np.random.default_rng(13)
    monitor = DriftMonitor(reference(random), THRESHOLD)
    assert len(feed(monitor, (frame(random, contrast=-4) for _ in range(300)))) == 1
    told = states(monitor)[Statistic.CONTRAST]
    assert not feed(monitor, (frame(random) for _ in range(300)))
    after = states(monitor)[Statistic.CONTRAST]
    assert after.alarm == told.alarm is not None
    assert after.evidence == told.evidence >= after.limit
    assert after.recent == pytest.approx(40, abs=0.5)  # it is still looked at


def test_scores_of_rejected_parts_do_not_count():
    random = np.random.default_rng(14)
    monitor = DriftMonitor(reference(random), THRESHOLD)
    for part in range(500):
        measurement = frame(random)
        bad = part % 5 == 0
        monitor.update(part, replace(measurement, score=1.0) if bad else measurement, not bad)
    assert states(monitor)[Statistic.SCORE].alarm is None
    assert states(monitor)[Statistic.SCORE].recent < THRESHOLD


def test_a_line_where_every_part_is_rejected_still_says_why():
    random = np.random.default_rng(15)
    monitor = DriftMonitor(reference(random), THRESHOLD)
    alarms = [a for part in range(50) for a in monitor.update(part, frame(random, brightness=-8), False)]
    assert [a.statistic for a in alarms] == [Statistic.BRIGHTNESS]


def test_reference_scores_that_would_not_pass_are_left_out():
    values = (0.1, 0.2, 0.3)
    monitor = DriftMonitor(DriftReference(*[values] * 6), threshold=0.3)
    assert states(monitor)[Statistic.SCORE].usual == pytest.approx(0.15)
    assert states(monitor)[Statistic.DISTANCE].usual == pytest.approx(0.2)


def test_the_alarms_of_all_statistics_share_the_stated_rate():
    monitor = DriftMonitor(DriftReference(*[(0.1,)] * 6), THRESHOLD)
    assert [state.limit for state in monitor.states()] == pytest.approx([math.log10(6_000_000)] * 6)


@pytest.mark.parametrize(("values", "deviation"), [((), math.nan), ((0.1,), math.nan), ((0.1, 0.3), 0.1414)])
def test_small_references(values, deviation):
    random = np.random.default_rng(16)
    monitor = DriftMonitor(DriftReference(*[values] * 6), THRESHOLD)
    assert states(monitor)[Statistic.DISTANCE].deviation == pytest.approx(deviation, abs=1e-4, nan_ok=True)
    assert math.isnan(states(monitor)[Statistic.DISTANCE].recent)
    if not values:  # nothing to compare with but the station's own frames: a change of those is found all the same
        assert not feed(monitor, (frame(random) for _ in range(200)))
        assert feed(monitor, (frame(random, colour=5) for _ in range(30)), 201)


def test_a_frozen_camera_raises_no_alarm():
    """All frames equal, and equal to the reference: all ties, split at random."""
    monitor = DriftMonitor(DriftReference(*[(USUAL.of(s),) * 20 for s in STATISTICS]), THRESHOLD)
    assert not feed(monitor, [USUAL] * 3000)


def test_the_same_frames_and_seed_give_the_same_states():
    random = np.random.default_rng(17)
    compared, frames = reference(random), [frame(random) for _ in range(200)]
    one, other = DriftMonitor(compared, THRESHOLD, seed=1), DriftMonitor(compared, THRESHOLD, seed=1)
    feed(one, frames)
    feed(other, frames)
    assert one.states() == other.states()


def test_an_alarm_in_words():
    random = np.random.default_rng(18)
    monitor = DriftMonitor(reference(random), THRESHOLD)
    (alarm,) = feed(monitor, (frame(random, sharpness=-5) for _ in range(100)))
    said = describe(alarm, states(monitor)[Statistic.SHARPNESS])
    assert said.startswith("sharpness fell at about part 1: 7.7")
    assert "was usual; look at: focus" in said
    nothing_usual = replace(states(monitor)[Statistic.SHARPNESS], deviation=math.nan)
    assert "usual" not in describe(alarm, nothing_usual)
