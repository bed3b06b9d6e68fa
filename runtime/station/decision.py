"""The thread that inspects: part by part, in the order of their frames, with nothing slow beside it."""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lineward.runtime.errors import first_line
from lineward.runtime.inspection import Inspection, Reason
from lineward.runtime.preprocessing import Frame
from lineward.runtime.station.frame_ring import FrameRing
from lineward.runtime.station.jobs import Job
from lineward.runtime.station.records import PartRecord, Trigger


@dataclass(frozen=True, eq=False)
class Part:
    """A part with a frame, on its way to a verdict.

    Attributes:
        trigger: what announced it.
        job: what was active when it was triggered, and is used whatever the PLC says meanwhile.
        frame: in the ring.
        ring: to give the frame back to.
        captured_ns: when the frame was complete, monotonic.
    """

    trigger: Trigger
    job: Job
    frame: Frame
    ring: FrameRing
    captured_ns: int

    def record(self, reason: Reason, score: float = math.nan, started_ns: int = 0) -> PartRecord:
        """The part with a verdict."""
        return PartRecord(
            self.trigger,
            reason,
            self.job.threshold,
            self.job.bundle.sha256,
            self.job.number,
            score,
            self.captured_ns,
            started_ns,
            calibration=self.job.calibration_sha256,
        )


class Bench(Protocol):
    """What the deciding thread asks of the station."""

    def wanted(self, part: Part) -> bool:
        """Whether a part still waits for its verdict."""

    def settle(self, record: PartRecord) -> PartRecord | None:
        """Give a part its verdict; returns the verdict as it stands, None if it came too late."""

    def judged(self, record: PartRecord, frame: Frame) -> None:
        """The frame may be looked at now."""

    def inspected(self, part: Part, inspection: Inspection) -> None:
        """A part was inspected, and its verdict stands."""

    def engine_failed(self, detail: str, in_a_row: int) -> None:
        """An inspection raised."""


class Decisions:
    """Inspects parts until told to stop.

    Args:
        bench: the station.
        keep_warm: seconds of idleness after which an old frame is inspected; None: never.
        warm_job: what to keep warm.
    """

    def __init__(
        self, bench: Bench, keep_warm: float | None = None, warm_job: Callable[[], Job | None] = lambda: None
    ) -> None:
        self._bench = bench
        self._keep_warm = keep_warm
        self._warm_job = warm_job
        self._parts: queue.SimpleQueue[Part | None] = queue.SimpleQueue()
        self._failures = 0
        self.busy_since_ns: int | None = None  # when the inspection under way began, monotonic

    def put(self, part: Part) -> None:
        """Inspect a part after those before it."""
        self._parts.put(part)

    def stop(self) -> None:
        """Inspect no more once the parts before this are done."""
        self._parts.put(None)

    def run(self) -> None:
        """Serve until stopped."""
        while True:
            try:
                part = self._parts.get(timeout=self._keep_warm)
            except queue.Empty:
                self._warm()
                continue
            if part is None:
                return
            self._inspect(part)
            part.ring.give(part.frame)

    def take_over(self, other: Decisions) -> None:
        """Take the parts that wait for another's thread, which hangs."""
        while True:
            try:
                part = other._parts.get_nowait()
            except queue.Empty:
                other.stop()
                return
            self._parts.put(part)

    def _inspect(self, part: Part) -> None:
        if not self._bench.wanted(part):
            return
        self.busy_since_ns = started = time.monotonic_ns()
        try:
            inspection = part.job.inspector.inspect(part.frame)
        except Exception as error:  # an engine may raise anything, and the next part must be served
            self.busy_since_ns = None
            self._failures += 1
            record = part.record(Reason.ENGINE_FAILED, started_ns=started)
            self._bench.settle(record)
            self._bench.engine_failed(f"{type(error).__name__}: {first_line(error)}", self._failures)
        else:
            self.busy_since_ns = None
            self._failures = 0
            record = part.record(inspection.reason, inspection.score, started)
            record = self._bench.settle(record) or part.record(Reason.DEADLINE_MISSED, inspection.score, started)
            self._bench.inspected(part, inspection)
        self._bench.judged(record, part.frame)

    def _warm(self) -> None:
        job = self._warm_job()
        if job is not None:
            self.busy_since_ns = time.monotonic_ns()
            try:
                job.inspector.inspect(job.warm_frame)
            except Exception as error:
                self._failures += 1
                self._bench.engine_failed(f"{type(error).__name__}: {first_line(error)}", self._failures)
            finally:
                self.busy_since_ns = None
