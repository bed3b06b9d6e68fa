"""Drift: whether camera, light and product still are what they were, told before verdicts go wrong; an observer that
changes no verdict. docs/drift.md explains it to people."""

from lineward.runtime.drift.measurements import STATISTICS, Measurement, Statistic, measure
from lineward.runtime.drift.monitor import (
    FRAMES_BETWEEN_FALSE_ALARMS,
    Direction,
    DriftAlarm,
    DriftMonitor,
    DriftState,
)
from lineward.runtime.drift.words import describe

__all__ = [
    "FRAMES_BETWEEN_FALSE_ALARMS",
    "STATISTICS",
    "Direction",
    "DriftAlarm",
    "DriftMonitor",
    "DriftState",
    "Measurement",
    "Statistic",
    "describe",
    "measure",
]
