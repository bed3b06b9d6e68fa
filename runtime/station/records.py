"""What passes through a station: a trigger, the capture it caused, and the record of the part. All times in
nanoseconds; `time.monotonic_ns` wherever one is subtracted from another, for the wall clock may jump."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from lineward.runtime.inspection import Inspection, Outcome, Reason, Verdict, outcome_of
from lineward.runtime.preprocessing import Frame

if TYPE_CHECKING:
    from lineward.runtime.station.jobs import Job


class Source(str, enum.Enum):
    """What a trigger came from."""

    CAMERA = "camera"
    PLC = "plc"
    GPIO = "gpio"
    MESSAGE = "message"


@dataclass(frozen=True)
class Trigger:
    """One part, announced.

    Attributes:
        id: counts up by one a trigger; never used again, over restarts either.
        source: what it came from.
        monotonic_ns: when.
        utc_ns: when, by the wall clock (`time.time_ns`): for people, never for timing.
        part: the PLC's own number for the part, 0 if it gives none.
    """

    id: int
    source: Source
    monotonic_ns: int
    utc_ns: int
    part: int = 0


@dataclass(frozen=True)
class Capture:
    """What a camera delivered for one exposure.

    Attributes:
        number: exposures since the camera was started, from 0; a gap means that frames were lost.
        monotonic_ns: when it was exposed or, where the camera does not tell, when it began to arrive.
        pixels: uint8 or uint16, [H, W] or [H, W, 3] RGB, valid until the next call to the camera; None if incomplete.
    """

    number: int
    monotonic_ns: int
    pixels: Frame | None


@dataclass(frozen=True)
class PartRecord:
    """Everything about one triggered part, once nothing of it can change.

    Attributes:
        trigger: what announced it.
        reason: why it was passed or rejected.
        score: image score in [0, 2]; NaN when there is none.
        threshold: image score that still passes.
        bundle: SHA-256 (hex) of the manifest of the bundle it was inspected with.
        job: the job that was active.
        captured_ns: when its frame was complete, monotonic; 0 if never.
        started_ns: when its inspection began, monotonic; 0 if never.
        decided_ns: when the verdict stood, monotonic.
        told_ns: when the verdict was on the wire, monotonic; 0 if never.
        acknowledged_ns: when the PLC acknowledged it, monotonic; 0 if never or not asked for.
        calibration: SHA-256 (hex) of the device's calibration that the threshold is of; empty: the bundle's own.
    """

    trigger: Trigger
    reason: Reason
    threshold: float
    bundle: str
    job: int
    score: float = math.nan
    captured_ns: int = 0
    started_ns: int = 0
    decided_ns: int = 0
    told_ns: int = 0
    acknowledged_ns: int = 0
    calibration: str = ""

    @property
    def verdict(self) -> Verdict:
        """What the line was told."""
        return Verdict.PASS if self.reason is Reason.WITHIN_THRESHOLD else Verdict.REJECT

    @property
    def outcome(self) -> Outcome:
        """Where it is counted."""
        return outcome_of(self.reason)


@dataclass(frozen=True)
class Event:
    """Something that happened to the station, not to a part: a camera lost, a job changed.

    Attributes:
        name: a few fixed lower-case words joined by underscores, such as "camera_lost".
        detail: in words, with what and where.
        utc_ns: when, by the wall clock.
    """

    name: str
    detail: str
    utc_ns: int


class RecordObserver(Protocol):
    """Hears of final parts and of events, with the station's lock held: never raises, never waits."""

    def final(self, record: PartRecord) -> None:
        """Nothing of this part can change any more."""

    def event(self, event: Event) -> None:
        """Something happened to the station."""


class FrameObserver(Protocol):
    """Sees the frames of inspected parts, between two parts: never raises, and takes a copy's time at most."""

    def judged(self, record: PartRecord, frame: Frame) -> None:
        """An inspection ended; its verdict may still come too late. The frame is lent until this returns."""


class InspectionObserver(Protocol):
    """Sees inspections once the verdict stands, between two parts: never raises, and takes a fraction of a
    millisecond."""

    def inspected(self, part: int, inspection: Inspection, job: Job) -> None:
        """A part, by its trigger's id, was inspected; its pixels and map are lent until this returns."""
