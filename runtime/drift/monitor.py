"""Watches a job's frames for drift: one test for each statistic, in constant memory."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lineward.runtime.drift.measurements import STATISTICS, Measurement, Statistic
from lineward.runtime.drift.sequential_test import ChangeTest, RankHistory
from lineward.runtime.manifest import DriftReference

FRAMES_BETWEEN_FALSE_ALARMS = 1_000_000
"""Inspected frames from the start to the first false alarm of any statistic, in the mean, at least; so within n frames
there is one with a chance of n / 1,000,000 at most."""

_RECENT = 50  # frames that the recent mean looks back on
RANGES = {
    Statistic.SCORE: (0.0, 2.0),
    Statistic.DISTANCE: (0.0, 2.0),
    Statistic.BRIGHTNESS: (0.0, 256.0),
    Statistic.CONTRAST: (0.0, 128.0),
    Statistic.COLOUR: (-256.0, 256.0),
    Statistic.SHARPNESS: (0.0, 20.0),
}
"""Least and greatest value of each statistic."""


class Direction(str, enum.Enum):
    """Which way a statistic went."""

    ROSE = "rose"
    FELL = "fell"


@dataclass(frozen=True)
class DriftAlarm:
    """A statistic that left its range.

    Attributes:
        statistic: which.
        direction: which way.
        part: that raised the alarm, as its trigger's id.
        since: at about which part it began.
        mean: of the statistic, from there to the alarm.
    """

    statistic: Statistic
    direction: Direction
    part: int
    since: int
    mean: float


@dataclass(frozen=True)
class DriftState:
    """How one statistic is.

    Attributes:
        statistic: which.
        evidence: log10 of the evidence for a drift; as it stood at the alarm, once there was one.
        limit: the evidence that is an alarm, log10.
        recent: mean of about the last 50 frames; NaN before the first.
        usual: mean of the reference; NaN where that is empty.
        deviation: standard deviation of the reference; NaN below two values.
        alarm: None as long as there was none.
    """

    statistic: Statistic
    evidence: float
    limit: float
    recent: float
    usual: float
    deviation: float
    alarm: DriftAlarm | None


class DriftMonitor:
    """Says when a statistic left its range; once, until a new monitor takes its place.

    Image scores count of the parts that passed, against the reference's that are below the threshold: a bad part's
    score says nothing of the camera, and given the threshold, an order statistic, both are draws of one distribution.
    All other statistics count of every inspected frame: a defect hardly moves them, and they speak even when every part
    is rejected.

    Args:
        reference: the bundle's.
        threshold: the image score that still passes.
        frames_between_false_alarms: of any statistic, in the mean, at least.
        seed: of the random splitting of ties.
    """

    def __init__(
        self,
        reference: DriftReference,
        threshold: float,
        frames_between_false_alarms: float = FRAMES_BETWEEN_FALSE_ALARMS,
        seed: int = 0,
    ) -> None:
        each = frames_between_false_alarms * len(STATISTICS)  # their alarms add up (Bonferroni)
        self._watches = {}
        for number, statistic in enumerate(STATISTICS):
            values = getattr(reference, statistic.value)
            if statistic is Statistic.SCORE:
                values = [value for value in values if value < threshold]
            self._watches[statistic] = _Watch(statistic, values, each, seed + number)

    def update(self, part: int, measurement: Measurement, passed: bool) -> list[DriftAlarm]:
        """Take one inspected frame; returns the alarms that it raises.

        Args:
            part: its trigger's id.
            measurement: of the frame; finite.
            passed: its score is within the threshold.
        """
        alarms = []
        for statistic, watch in self._watches.items():
            if passed or statistic is not Statistic.SCORE:
                alarm = watch.update(part, measurement.of(statistic))
                if alarm is not None:
                    alarms.append(alarm)
        return alarms

    def states(self) -> tuple[DriftState, ...]:
        """How each statistic is; may be asked by any thread."""
        return tuple(watch.state() for watch in self._watches.values())


class _Watch:
    def __init__(self, statistic: Statistic, values: Sequence[float], frames: float, seed: int) -> None:
        self._statistic = statistic
        self._history = RankHistory(*RANGES[statistic], seed)
        for value in values:
            self._history.add(value)
        self._test = ChangeTest(frames)
        self._usual = float(np.mean(values)) if values else math.nan
        self._deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
        self._recent = math.nan
        self._seen = 0
        self._alarm: DriftAlarm | None = None

    def update(self, part: int, value: float) -> DriftAlarm | None:
        self._seen += 1
        before = value if math.isnan(self._recent) else self._recent
        self._recent = before + (value - before) / min(self._seen, _RECENT)
        if self._alarm is not None:
            return None
        alarm = self._test.update(self._history.p_value(value), part, value)
        self._history.add(value)
        if alarm:
            direction = Direction.ROSE if self._test.is_up else Direction.FELL
            self._alarm = DriftAlarm(self._statistic, direction, part, self._test.since, self._test.mean_since)
        return self._alarm

    def state(self) -> DriftState:
        return DriftState(
            self._statistic,
            math.log10(max(self._test.evidence, 1.0)),
            math.log10(self._test.threshold),
            self._recent,
            self._usual,
            self._deviation,
            self._alarm,
        )
