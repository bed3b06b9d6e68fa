"""Parts and snapshots of a station that never ran."""

from __future__ import annotations

import math
from typing import Any

from lineward.runtime.drift import Direction, DriftAlarm, DriftState, Statistic
from lineward.runtime.inspection import Reason
from lineward.runtime.station.ledger import Counts
from lineward.runtime.station.plc.handshake import Offline
from lineward.runtime.station.records import PartRecord, Source, Trigger
from lineward.runtime.station.status import StationStatus

UTC_NS = 1_790_000_000_000_000_000
BUNDLE = "ab" * 32
CALIBRATION = "cd" * 32


def part(number: int = 1, reason: Reason = Reason.WITHIN_THRESHOLD, told_ms: float | None = 20.0, **fields: Any):
    """A final part: captured 5 ms after its trigger, inspected from 6 ms to 16 ms, told after `told_ms`."""
    at = number * 1_000_000_000
    unseen = reason not in (Reason.WITHIN_THRESHOLD, Reason.ABOVE_THRESHOLD)
    score = math.nan if unseen else 0.25 if reason is Reason.WITHIN_THRESHOLD else 0.75
    values = {
        "trigger": Trigger(number, Source.PLC, at, UTC_NS + at, number + 100),
        "reason": reason,
        "threshold": 0.5,
        "bundle": BUNDLE,
        "job": 1,
        "score": score,
        "captured_ns": 0 if unseen else at + 5_000_000,
        "started_ns": 0 if unseen else at + 6_000_000,
        "decided_ns": at + 16_000_000,
        "told_ns": 0 if told_ms is None else at + int(told_ms * 1e6),
    }
    return PartRecord(**{**values, **fields})


def counts(**reasons: int) -> Counts:
    """Counts of final parts by reason, and three in flight."""
    by_reason = {Reason(name): count for name, count in reasons.items()}
    passed, rejected = by_reason.get(Reason.WITHIN_THRESHOLD, 0), by_reason.get(Reason.ABOVE_THRESHOLD, 0)
    total = sum(by_reason.values())
    return Counts(total + 3, passed, rejected, total - passed - rejected, 3, 2, by_reason)


def drift(statistic: Statistic, alarm: bool = False) -> DriftState:
    """A statistic in control, or one that fell at part 812."""
    found = DriftAlarm(statistic, Direction.FELL, 830, 812, 95.5) if alarm else None
    return DriftState(statistic, 7.0 if alarm else 1.5, 6.8, 96.0 if alarm else math.nan, 103.25, 0.75, found)


def status(**fields: Any) -> StationStatus:
    """An online station."""
    values = {
        "name": "press-4",
        "since_utc_ns": UTC_NS,
        "alive": True,
        "offline": Offline.NONE,
        "job": 1,
        "product": "bottle",
        "bundle": BUNDLE,
        "counts": counts(within_threshold=90, above_threshold=7, frame_missing=2, deadline_missed=1),
        "missed": 4,
        "camera": "replay",
        "frames_lost": 5,
        "wire_connected": True,
        "journal_backlog": 6,
        "threshold": 0.5,
        "calibration": CALIBRATION,
    }
    return StationStatus(**{**values, **fields})
