"""The handshake between station and PLC, whatever wire carries it.

Modelled on what PLC engineers know from Cognex In-Sight's PROFINET and EtherNet/IP maps: trigger enable, ready and ack,
missed acquisition, results valid and ack, results buffer overrun, job change with ack. A result counts as told only
once the PLC has acknowledged it; a result that is not acknowledged in time is withdrawn and becomes a reject, so that
a PLC which takes *pass* only when it reads RESULTS_VALID down and PASS up after its own acknowledgement never passes a
part that the journal rejects.
"""

from __future__ import annotations

import enum
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

from lineward.runtime.inspection import Reason, Verdict
from lineward.runtime.station.ledger import Counts
from lineward.runtime.station.records import PartRecord


class ControlBit(enum.IntFlag):
    """What the PLC asks."""

    TRIGGER_ENABLE = 1 << 0
    TRIGGER = 1 << 1
    RESULTS_ACK = 1 << 2
    JOB_CHANGE = 1 << 3
    CLEAR_ERROR = 1 << 4


NOTHING = ControlBit(0)


class StatusBit(enum.IntFlag):
    """What the station says."""

    ONLINE = 1 << 0
    TRIGGER_READY = 1 << 1
    TRIGGER_ACK = 1 << 2
    ACQUIRING = 1 << 3
    MISSED_ACQUISITION = 1 << 4
    BUSY = 1 << 5
    INSPECTION_COMPLETED = 1 << 6
    RESULTS_VALID = 1 << 7
    RESULTS_OVERRUN = 1 << 8
    PASS = 1 << 9
    REJECT = 1 << 10
    JOB_CHANGE_ACK = 1 << 11
    JOB_CHANGE_FAILED = 1 << 12
    ERROR = 1 << 13


class Offline(enum.IntEnum):
    """Why the station takes no trigger."""

    NONE = 0
    STARTING = 1
    CAMERA_LOST = 2
    JOB_CHANGING = 3
    ENGINE_HUNG = 4
    JOURNAL_BEHIND = 5
    PLC_SILENT = 6
    STOPPING = 7


class Fault(enum.IntEnum):
    """The last error, until the PLC clears it."""

    NONE = 0
    JOB_UNKNOWN = 1
    JOB_REFUSED = 2
    CAMERA = 3
    ENGINE = 4
    RESULTS_OVERRUN = 5
    NOT_ACKNOWLEDGED = 6
    JOURNAL = 7
    PLC_SILENT = 8


@dataclass(frozen=True)
class Control:
    """The PLC's words, all read at once.

    Attributes:
        bits: what it asks.
        job: the job it wants, read when JOB_CHANGE rises.
        part: its own number of the part, read when TRIGGER rises.
        heartbeat: a number it changes while it lives.
    """

    bits: ControlBit = NOTHING
    job: int = 0
    part: int = 0
    heartbeat: int = 0


@dataclass(frozen=True)
class LineState:
    """What the handshake passes on of the station.

    Attributes:
        ready: a trigger would be taken now.
        acquiring: a frame is being waited for.
        offline: why no trigger is taken at all.
        job: the active job.
        counts: of parts.
    """

    ready: bool
    acquiring: bool
    offline: Offline
    job: int
    counts: Counts


@dataclass(frozen=True)
class Status:
    """The station's words, all valid together.

    Attributes:
        bits: what holds now.
        fault: the last error.
        acquisition_id: id of the last trigger of the PLC that was taken.
        result: the last result told; whether it is still a pass is in `bits`. None before the first.
        missed: triggers of the PLC that were not taken.
        state: of the station.
    """

    bits: StatusBit
    fault: Fault
    acquisition_id: int
    result: PartRecord | None
    missed: int
    state: LineState


class Line(Protocol):
    """What the handshake asks of the station; called with the station's lock held."""

    def state(self) -> LineState:
        """As it is now."""

    def trigger(self, part: int) -> int | None:
        """Take a part and return the id of its trigger, or None if none can be taken now."""

    def final(self, record: PartRecord) -> None:
        """Nothing of this part can change any more."""

    def change_job(self, job: int) -> bool:
        """Begin to change the job, which ends in `job_changed`; False if there is no such job."""

    def plc_silent(self, silent: bool) -> None:
        """The PLC's heartbeat stopped, or is back."""


@dataclass(frozen=True)
class Terms:
    """How patient the handshake is; see `configuration.Plc`. Times in nanoseconds."""

    deadline_ns: int
    acknowledge: bool = True
    acknowledge_within_ns: int = 1_000_000_000
    waiting_results: int = 4
    heartbeat_within_ns: int | None = None


class Handshake:
    """The state of the conversation. Every method takes the station's lock.

    Args:
        line: the station.
        terms: how patient it is.
        lock: the station's one lock, which guards everything that happens to parts.
        clock: `time.monotonic_ns`, or a test's.
    """

    def __init__(
        self, line: Line, terms: Terms, lock: threading.RLock, clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._line = line
        self._terms = terms
        self._lock = lock
        self._clock = clock
        self._control = Control()
        self._bits = StatusBit(0)
        self._fault = Fault.NONE
        self._acquisition_id = 0
        self._missed = 0
        self._shown: PartRecord | None = None
        self._pending = False  # the shown result awaits its acknowledgement
        self._waiting: deque[PartRecord] = deque()
        self._job_asked = False  # a change of job awaits its answer
        self._withdrawn = False
        self._heard_ns = clock()
        self._silent = False

    # What the PLC says and reads.

    def control(self, control: Control) -> None:
        """Take the PLC's words, as read: what changed since the last time is acted upon."""
        with self._lock:
            rising = control.bits & ~self._control.bits
            falling = self._control.bits & ~control.bits
            if control.heartbeat != self._control.heartbeat:
                self._hear()
            self._control = control
            if rising & ControlBit.CLEAR_ERROR:
                self._fault = Fault.NONE
                self._bits &= ~(StatusBit.RESULTS_OVERRUN | StatusBit.MISSED_ACQUISITION)
            if rising & ControlBit.RESULTS_ACK and self._pending:
                self._finish(acknowledged=self._clock() < self._withdrawal_ns())
            if falling & ControlBit.RESULTS_ACK:
                self._show_next()
            self._trigger(rising, falling)
            self._change_job(rising, falling)

    def status(self) -> Status:
        """The station's words now."""
        with self._lock:
            state = self._line.state()
            bits = self._bits
            if state.offline is Offline.NONE:
                bits |= StatusBit.ONLINE
            if state.ready and self._control.bits & ControlBit.TRIGGER_ENABLE:
                bits |= StatusBit.TRIGGER_READY
            if state.acquiring:
                bits |= StatusBit.ACQUIRING
            if state.counts.in_flight:
                bits |= StatusBit.BUSY
            if self._fault is not Fault.NONE:
                bits |= StatusBit.ERROR
            return Status(bits, self._fault, self._acquisition_id, self._shown, self._missed, state)

    # What the station says.

    def tell(self, record: PartRecord) -> None:
        """Tell the verdict on a part, in the order of triggers: now, or once the results before are acknowledged."""
        with self._lock:
            if not self._terms.acknowledge or (not self._waiting and self._wire_is_free()):
                self._show(record)
            elif self._withdrawn:
                self._line.final(_never_told(record))
            elif len(self._waiting) < self._terms.waiting_results:
                self._waiting.append(record)
            else:
                self._bits |= StatusBit.RESULTS_OVERRUN
                self._fault = Fault.RESULTS_OVERRUN
                self._line.final(_never_told(record))

    def job_changed(self, fault: Fault | None) -> None:
        """The change of the job has ended: well, or with what went wrong."""
        with self._lock:
            if fault is not None:
                self._fault = fault
            if self._job_asked:  # the PLC may have given up meanwhile, and must not find this answer at its next change
                self._job_asked = False
                self._bits |= StatusBit.JOB_CHANGE_ACK if fault is None else StatusBit.JOB_CHANGE_FAILED

    def report(self, fault: Fault) -> None:
        """Show an error until the PLC clears it."""
        with self._lock:
            self._fault = fault

    def tick(self) -> int | None:
        """Do what time alone demands, and return when to come again (monotonic), or None: when something happens."""
        with self._lock:
            now = self._clock()
            if self._pending and now >= self._withdrawal_ns():
                self._finish(acknowledged=False)
            while self._waiting and now >= self._given_up_ns(self._waiting[0]):
                self._fault = Fault.NOT_ACKNOWLEDGED
                self._line.final(_never_told(self._waiting.popleft()))
            self._show_next()
            within = self._terms.heartbeat_within_ns
            if within is not None and not self._silent and now >= self._heard_ns + within:
                self._silent = True
                self._fault = Fault.PLC_SILENT
                self._line.plc_silent(True)
            return self._next_tick()

    def withdraw(self) -> None:
        """The station stops: what was not acknowledged never will be, and nothing more is told."""
        with self._lock:
            self._withdrawn = True
            if self._pending:
                self._finish(acknowledged=False)
            while self._waiting:
                self._line.final(_never_told(self._waiting.popleft()))

    def _trigger(self, rising: ControlBit, falling: ControlBit) -> None:
        if falling & ControlBit.TRIGGER:
            self._bits &= ~StatusBit.TRIGGER_ACK
        if not rising & ControlBit.TRIGGER:
            return
        enabled = self._control.bits & ControlBit.TRIGGER_ENABLE
        taken = self._line.trigger(self._control.part) if enabled else None
        if taken is None:
            self._missed += 1
            self._bits |= StatusBit.MISSED_ACQUISITION
        else:
            self._acquisition_id = taken
            self._bits = (self._bits | StatusBit.TRIGGER_ACK) & ~StatusBit.MISSED_ACQUISITION

    def _change_job(self, rising: ControlBit, falling: ControlBit) -> None:
        if falling & ControlBit.JOB_CHANGE:
            self._job_asked = False
            self._bits &= ~(StatusBit.JOB_CHANGE_ACK | StatusBit.JOB_CHANGE_FAILED)
        if rising & ControlBit.JOB_CHANGE:
            self._job_asked = True
            if not self._line.change_job(self._control.job):
                self.job_changed(Fault.JOB_UNKNOWN)

    def _hear(self) -> None:
        self._heard_ns = self._clock()
        if self._silent:
            self._silent = False
            self._line.plc_silent(False)

    def _wire_is_free(self) -> bool:
        """A result may be shown when the last one is acknowledged and the PLC has taken its acknowledgement back."""
        return not (self._withdrawn or self._pending or self._control.bits & ControlBit.RESULTS_ACK)

    def _show_next(self) -> None:
        if self._waiting and self._wire_is_free():
            self._show(self._waiting.popleft())

    def _show(self, record: PartRecord) -> None:
        now = self._clock()
        if record.verdict is Verdict.PASS and now > record.trigger.monotonic_ns + self._terms.deadline_ns:
            record = replace(record, reason=Reason.DEADLINE_MISSED)  # the part has moved on: no pass for it any more
        record = replace(record, told_ns=now)
        self._shown = record
        shown = StatusBit.PASS if record.verdict is Verdict.PASS else StatusBit.REJECT
        self._bits &= ~(StatusBit.PASS | StatusBit.REJECT)
        self._bits = (self._bits | StatusBit.RESULTS_VALID | shown) ^ StatusBit.INSPECTION_COMPLETED
        self._pending = self._terms.acknowledge
        if not self._pending:
            self._line.final(record)

    def _finish(self, acknowledged: bool) -> None:
        """The shown result is acknowledged, or withdrawn: then it is a reject, and stays readable as one."""
        record = self._shown
        assert record is not None  # only a shown result is pending
        self._pending = False
        self._bits &= ~StatusBit.RESULTS_VALID
        if acknowledged:
            record = replace(record, acknowledged_ns=self._clock())
        else:
            record = replace(record, reason=Reason.NOT_ACKNOWLEDGED)
            self._bits = (self._bits & ~StatusBit.PASS) | StatusBit.REJECT
            self._fault = Fault.NOT_ACKNOWLEDGED
        self._shown = record
        self._line.final(record)

    def _withdrawal_ns(self) -> int:
        assert self._shown is not None  # only a shown result is pending
        return self._shown.told_ns + self._terms.acknowledge_within_ns

    def _given_up_ns(self, record: PartRecord) -> int:
        """A waiting result has the deadline and the time to acknowledge it, counted from its trigger."""
        return record.trigger.monotonic_ns + self._terms.deadline_ns + self._terms.acknowledge_within_ns

    def _next_tick(self) -> int | None:
        times = [self._given_up_ns(record) for record in self._waiting]
        if self._pending:
            times.append(self._withdrawal_ns())
        if self._terms.heartbeat_within_ns is not None and not self._silent:
            times.append(self._heard_ns + self._terms.heartbeat_within_ns)
        return min(times, default=None)


def _never_told(record: PartRecord) -> PartRecord:
    return replace(record, reason=Reason.NOT_ACKNOWLEDGED)
