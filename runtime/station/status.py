"""How a station is at one moment: what it tells of itself, and what others are told."""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Literal

import msgspec
import numpy as np

from lineward.runtime.bench.statistics import percentile
from lineward.runtime.drift import DriftState, describe
from lineward.runtime.station.ledger import Counts
from lineward.runtime.station.plc.handshake import Offline
from lineward.runtime.station.records import Event, PartRecord

_RECENT = 1000
_TRIGGER_TO_TOLD, _TRIGGER_TO_CAPTURED, _INSPECTION = LATENCIES = (
    "trigger_to_told",
    "trigger_to_captured",
    "inspection",
)


@dataclass(frozen=True)
class StationStatus:
    """A snapshot of a station, all of it of one moment.

    Attributes:
        name: of the station.
        since_utc_ns: when it was started, by the wall clock.
        alive: every thread that a part waits for was seen at work lately.
        offline: why it takes no trigger; NONE: it is online.
        job: the active job, 0 before the first.
        product: of the active bundle.
        bundle: SHA-256 (hex) of its manifest.
        counts: of parts.
        missed: triggers of the PLC that were not taken.
        camera: its name; empty while there is none.
        frames_lost: parts that went by without a frame, as the camera's numbers tell.
        wire_connected: whether the PLC is connected; None where there is no PLC.
        journal_backlog: records that wait to be written.
        drift: how each statistic of the frames is; empty where drift is not watched.
        threshold: image score that still passes; NaN before the first job.
        calibration: SHA-256 (hex) of the device's calibration that the threshold is of; empty: the bundle's own.
    """

    name: str
    since_utc_ns: int
    alive: bool
    offline: Offline
    job: int
    product: str
    bundle: str
    counts: Counts
    missed: int = 0
    camera: str = ""
    frames_lost: int = 0
    wire_connected: bool | None = None
    journal_backlog: int = 0
    drift: tuple[DriftState, ...] = ()
    threshold: float = math.nan
    calibration: str = ""


class PartCounts(msgspec.Struct, frozen=True):
    """See `ledger.Counts`; `missed` and `frames_lost` are those of `StationStatus`."""

    triggered: int
    passed: int
    rejected: int
    rejected_without_verdict: int
    in_flight: int
    late: int
    missed: int
    frames_lost: int
    reasons: dict[str, int]


class LastPart(msgspec.Struct, frozen=True):
    """The last part that became final.

    Attributes:
        id: of its trigger.
        part: the PLC's number for it, 0 if it gave none.
        at: when it was triggered, ISO 8601, UTC.
        verdict: "pass" or "reject".
        reason: why.
        score: image score; None when there is none.
        threshold: image score that still passes; None when there was no bundle.
        told_ms: milliseconds from trigger to the verdict on the wire; None if it never was.
    """

    id: int
    part: int
    at: str
    verdict: str
    reason: str
    score: float | None
    threshold: float | None
    told_ms: float | None


class Spread(msgspec.Struct, frozen=True):
    """Latencies of the last 1,000 parts that have one, in milliseconds; None where there are too few of them.

    Attributes:
        parts: how many.
        p50: the median.
        p99: percentile 99.
        max: the greatest.
    """

    parts: int
    p50: float | None
    p99: float | None
    max: float | None


class Drift(msgspec.Struct, frozen=True):
    """How one statistic of the frames is; numbers that there are not yet are None.

    Attributes:
        recent: mean of about the last 50 frames.
        usual: mean of the bundle's reference.
        evidence: log10 of the evidence that it drifted; as it stood at the alarm, once there was one.
        limit: the evidence that is an alarm, log10.
        alarm: what left its range, which way, since when and how far, in words; empty as long as nothing did.
    """

    recent: float | None
    usual: float | None
    evidence: float
    limit: float
    alarm: str


class StatusReport(msgspec.Struct, frozen=True):
    """What `/status` and the topic `health` tell, as JSON.

    Attributes:
        name: of the station.
        version: of Lineward.
        since: when the station was started, ISO 8601, UTC.
        at: when this was true.
        state: whether it takes triggers.
        offline_reason: why not, such as "camera_lost"; empty when online.
        alive: every thread that a part waits for was seen at work lately.
        job: the active job, 0 before the first.
        product: of the active bundle.
        bundle: SHA-256 (hex) of its manifest.
        counts: of parts, since the start.
        last_part: None before the first.
        latencies_ms: by what was measured: "trigger_to_told", "trigger_to_captured", "inspection".
        journal_backlog: records that wait to be written.
        camera: its name; empty while there is none.
        wire_connected: whether the PLC is connected; None where there is no PLC.
        drift: by statistic (docs/drift.md); empty where drift is not watched.
        threshold: image score that still passes; None before the first job.
        calibration: SHA-256 (hex) of the device's calibration that the threshold is of; empty: the bundle's own.
    """

    name: str
    version: str
    since: str
    at: str
    state: Literal["online", "offline"]
    offline_reason: str
    alive: bool
    job: int
    product: str
    bundle: str
    counts: PartCounts
    last_part: LastPart | None
    latencies_ms: dict[str, Spread]
    journal_backlog: int
    camera: str
    wire_connected: bool | None
    drift: dict[str, Drift]
    threshold: float | None = None
    calibration: str = ""


class RecentParts:
    """A RecordObserver that remembers the last part, and the latencies of the last 1,000, in constant memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last: PartRecord | None = None
        self._nanoseconds: dict[str, deque[int]] = {name: deque(maxlen=_RECENT) for name in LATENCIES}

    def final(self, record: PartRecord) -> None:
        """See `RecordObserver`."""
        with self._lock:
            self._last = record
            for name, nanoseconds in latencies_ns(record).items():
                self._nanoseconds[name].append(nanoseconds)

    def event(self, event: Event) -> None:
        """See `RecordObserver`."""

    @property
    def last(self) -> PartRecord | None:
        """The last part that became final."""
        return self._last

    def latencies(self) -> dict[str, Spread]:
        """How the latencies spread, by what was measured."""
        with self._lock:
            samples = {name: np.array(values, np.float64) / 1e6 for name, values in self._nanoseconds.items()}
        return {
            name: Spread(len(ms), percentile(ms, 0.5), percentile(ms, 0.99), float(ms.max()) if len(ms) else None)
            for name, ms in samples.items()
        }


def latencies_ns(record: PartRecord) -> dict[str, int]:
    """The latencies that a part has, in nanoseconds, by what was measured."""
    triggered = record.trigger.monotonic_ns
    found = {}
    if record.told_ns:
        found[_TRIGGER_TO_TOLD] = record.told_ns - triggered
    if record.captured_ns:
        found[_TRIGGER_TO_CAPTURED] = record.captured_ns - triggered
    if record.started_ns:
        found[_INSPECTION] = record.decided_ns - record.started_ns
    return found


def report(status: StationStatus, recent: RecentParts) -> StatusReport:
    """What others are told of a station."""
    counts = status.counts
    online = status.offline is Offline.NONE
    return StatusReport(
        name=status.name,
        version=lineward_version(),
        since=iso(status.since_utc_ns),
        at=datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        state="online" if online else "offline",
        offline_reason="" if online else status.offline.name.lower(),
        alive=status.alive,
        job=status.job,
        product=status.product,
        bundle=status.bundle,
        counts=PartCounts(
            counts.triggered,
            counts.passed,
            counts.rejected,
            counts.rejected_without_verdict,
            counts.in_flight,
            counts.late,
            status.missed,
            status.frames_lost,
            {reason.value: count for reason, count in counts.reasons.items()},
        ),
        last_part=_last_part(recent.last),
        latencies_ms=recent.latencies(),
        journal_backlog=status.journal_backlog,
        camera=status.camera,
        wire_connected=status.wire_connected,
        drift={state.statistic.value: _drift(state) for state in status.drift},
        threshold=finite(status.threshold),
        calibration=status.calibration,
    )


def iso(utc_ns: int) -> str:
    """A time of the wall clock (`time.time_ns`) in ISO 8601, UTC."""
    return datetime.fromtimestamp(utc_ns / 1e9, timezone.utc).isoformat(timespec="milliseconds")


def lineward_version() -> str:
    """Version of Lineward; "unknown" where it is not installed."""
    try:
        return version("lineward")
    except PackageNotFoundError:
        return "unknown"


def _last_part(record: PartRecord | None) -> LastPart | None:
    if record is None:
        return None
    return LastPart(
        record.trigger.id,
        record.trigger.part,
        iso(record.trigger.utc_ns),
        record.verdict.value,
        record.reason.value,
        finite(record.score),
        finite(record.threshold),
        (record.told_ns - record.trigger.monotonic_ns) / 1e6 if record.told_ns else None,
    )


def _drift(state: DriftState) -> Drift:
    alarm = "" if state.alarm is None else describe(state.alarm, state)
    return Drift(finite(state.recent), finite(state.usual), state.evidence, state.limit, alarm)


def finite(value: float) -> float | None:
    """A number that JSON has, or None."""
    return value if np.isfinite(value) else None
