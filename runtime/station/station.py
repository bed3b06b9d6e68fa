"""The station: triggers in, verdicts out, every part counted, whatever fails.

Four threads, one lock. *Acquisition* owns the camera and copies each frame into the ring. *Decisions* inspects frames
in order. *Time* rejects the parts whose deadline is over, replaces an engine that hangs, and serves the handshake.
*Loading* prepares another job or a new engine while the others work. The lock guards the ledger and the handshake, and
is held for microseconds; inspecting, copying, reading and writing happen outside it.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from lineward.runtime.errors import CameraError, LinewardError, StationError
from lineward.runtime.inspection import Inspection, Reason
from lineward.runtime.preprocessing import Frame
from lineward.runtime.station.acquisition import Acquisition
from lineward.runtime.station.cameras import Camera
from lineward.runtime.station.configuration import CameraTrigger, Configuration, PlcTrigger
from lineward.runtime.station.decision import Decisions, Part
from lineward.runtime.station.frame_ring import FrameRing
from lineward.runtime.station.jobs import Job
from lineward.runtime.station.ledger import Counts, Ledger
from lineward.runtime.station.plc.handshake import Fault, Handshake, LineState, Offline, Terms
from lineward.runtime.station.real_time import Role
from lineward.runtime.station.records import (
    Capture,
    Event,
    FrameObserver,
    InspectionObserver,
    PartRecord,
    RecordObserver,
    Source,
    Trigger,
)

_TIME_LOOKS_UP_NS = 20_000_000
_SECOND_NS = 1_000_000_000
_FAILURES_IN_A_ROW = 3
_HUNG_THREADS = 3
_RELOAD_AFTER = 1.0
_REJECTED_WHILE = {
    Offline.STARTING: Reason.JOB_CHANGING,
    Offline.JOB_CHANGING: Reason.JOB_CHANGING,
    Offline.ENGINE_HUNG: Reason.ENGINE_FAILED,
    Offline.JOURNAL_BEHIND: Reason.JOURNAL_BEHIND,
}
"""What becomes of a part that comes by itself while the station is offline; else it is inspected."""


class TriggerRecord(Protocol):
    """Remembers triggers before anything happens to them, so that a killed station can account for them."""

    def begin(self, trigger: Trigger) -> None:
        """A part is announced."""

    def finish(self, record: PartRecord) -> None:
        """Nothing of it can change any more."""

    def inspects_with(self, bundle: str, job: int, threshold: float, calibration: str = "") -> None:
        """What parts are inspected with from now on."""


class Station:
    """One camera, one PLC, one active bundle.

    Args:
        configuration: the station file.
        open_camera: opens its camera.
        load: loads a job by its number: see `load_job`.
        flight: remembers triggers.
        first_id: of the first trigger.
        journal_behind: whether the journal cannot keep up.
        guard: called at the start of each thread that a part waits for, to raise its priority.
        settled: called when a job was loaded, off the path to the verdict.
    """

    def __init__(
        self,
        configuration: Configuration,
        open_camera: Callable[[], Camera],
        load: Callable[[int], Job],
        flight: TriggerRecord,
        first_id: int = 1,
        journal_behind: Callable[[], bool] = lambda: False,
        guard: Callable[[Role], object] = lambda _role: None,
        settled: Callable[[], object] = lambda: None,
    ) -> None:
        self._configuration = configuration
        self._load = load
        self._flight = flight
        self._next_id = first_id
        self._journal_behind = journal_behind
        self._guard = guard
        self._settled = settled
        self._deadline_ns = int(configuration.deadline * _SECOND_NS)
        self._fires = not isinstance(configuration.trigger, CameraTrigger)
        self._plc_triggers = isinstance(configuration.trigger, PlcTrigger)

        self._lock = threading.RLock()
        self._time = threading.Condition(self._lock)
        self._terms = _terms(configuration, self._deadline_ns)
        self.handshake = Handshake(self, self._terms, self._lock)
        self._ledger = Ledger(self._deadline_ns, self.handshake.tell)
        within = configuration.frame_within or configuration.deadline
        self._acquisition = Acquisition(self, open_camera, self._fires, int(within * _SECOND_NS))
        self._decisions = self._new_decisions()
        self._records: list[RecordObserver] = []
        self._frames: list[FrameObserver] = []
        self._inspections: list[InspectionObserver] = []

        self._job: Job | None = None
        self._loading = 0  # the load under way: its result counts only while this number stands
        self._load_kind: Offline | None = None
        self._load_began_ns = 0
        self._camera = ""
        self._camera_missed = False
        self._ring: FrameRing | None = None
        self._acquiring: tuple[Trigger, Job | None] | None = None
        self._plc_silent = False
        self._was_behind = False
        self._stopping = False
        self._stopped = False
        self._ended = threading.Event()
        self._hung = 0
        self._time_looked_ns = time.monotonic_ns()
        self._threads: list[threading.Thread] = []
        self.failure: LinewardError | None = None
        self.frames_lost_count = 0

    def observe(
        self,
        records: RecordObserver | None = None,
        frames: FrameObserver | None = None,
        inspections: InspectionObserver | None = None,
    ) -> None:
        """Let someone hear of parts, before the start."""
        if records is not None:
            self._records.append(records)
        if frames is not None:
            self._frames.append(frames)
        if inspections is not None:
            self._inspections.append(inspections)

    # Life.

    def start(self) -> None:
        """Load the first job, then begin.

        Raises:
            LinewardError: the first job cannot be loaded; see `load_job`.
        """
        job = self._load(self._configuration.first_job)
        with self._lock:
            self._activate(job)
            self.event("job_loaded", _describe(job))
        self._settled()
        self._spawn("decisions", self._decisions.run, Role.DECISION)
        self._spawn("acquisition", self._acquisition.run, Role.ACQUISITION)
        self._spawn("time", self._keep_time, Role.TIMING)

    def stop(self) -> None:
        """Take no more triggers, finish the parts in flight, and end. May be called twice."""
        with self._lock:
            already, self._stopped = self._stopped, True
            self._stopping = True
        if already:
            return
        self._acquisition.stop()
        for thread in [t for t in self._threads if t.name == "lineward-acquisition"]:
            thread.join(timeout=1.0)  # then no part comes any more
        patience = (self._deadline_ns + self._terms.acknowledge_within_ns + 5 * _TIME_LOOKS_UP_NS) / 1e9
        until = time.monotonic() + patience
        while self.counts().in_flight and time.monotonic() < until and self.failure is None:
            self._ended.wait(0.005)
        self.handshake.withdraw()
        self._reject_pending()
        self._ended.set()
        self._decisions.stop()
        with self._time:
            self._time.notify_all()
        for thread in self._threads:
            thread.join(timeout=2.0)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the station ended or failed; returns whether it has."""
        return self._ended.wait(seconds)

    @property
    def is_alive(self) -> bool:
        """Whether every thread that a part waits for was seen at work lately."""
        now = time.monotonic_ns()
        patience = self._deadline_ns + int(2 * self._configuration.engine.hung_after * _SECOND_NS) + 5 * _SECOND_NS
        busy = self._decisions.busy_since_ns
        return (
            self.failure is None
            and now - self._time_looked_ns < patience
            and now - self._acquisition.looked_up_ns < patience + 10 * _SECOND_NS  # opening a camera takes its time
            and (busy is None or now - busy < patience)
        )

    # What others see and ask.

    def counts(self) -> Counts:
        """Where all parts are."""
        with self._lock:
            return self._ledger.counts()

    @property
    def job(self) -> Job | None:
        """What parts are inspected with now."""
        return self._job

    @property
    def camera(self) -> str:
        """The camera's name; empty while there is none."""
        return self._camera

    def event(self, name: str, detail: str) -> None:
        """Tell everyone who listens."""
        event = Event(name, detail, time.time_ns())
        with self._lock:
            for observer in self._records:
                observer.event(event)

    def announce(self, source: Source, part: int = 0, monotonic_ns: int | None = None) -> bool:
        """A part came, by an edge or a message: fire the camera, or reject the part if that cannot be done now."""
        with self._lock:
            offline, fires = self._offline(), self._can_fire()
            trigger = self._begin(source, part, monotonic_ns)
            if fires:
                self._fire(trigger)
            else:
                reason = _REJECTED_WHILE.get(offline, Reason.TOO_MANY_PARTS)
                self.settle(self._unseen(trigger, Reason.CAMERA_LOST if offline is Offline.CAMERA_LOST else reason))
            return fires

    # The handshake's side; the lock is held.

    def state(self) -> LineState:
        """See `handshake.Line`."""
        ready = self._plc_triggers and self._can_fire()
        number = self._job.number if self._job else 0
        return LineState(ready, self._acquiring is not None, self._offline(), number, self._ledger.counts())

    def trigger(self, part: int) -> int | None:
        """See `handshake.Line`."""
        if not self._plc_triggers or not self._can_fire():
            return None
        trigger = self._begin(Source.PLC, part, None)
        self._fire(trigger)
        return trigger.id

    def final(self, record: PartRecord) -> None:
        """See `handshake.Line`."""
        self._ledger.final(record)
        self._flight.finish(record)
        for observer in self._records:
            observer.final(record)

    def change_job(self, job: int) -> bool:
        """See `handshake.Line`."""
        if job not in self._configuration.jobs:
            self.event("job_unknown", f"the PLC asks for job {job}; there are {sorted(self._configuration.jobs)}")
            return False
        if self._load_kind is not None:
            self.event("job_refused", f"job {job}: another change is under way")
            self.handshake.job_changed(Fault.JOB_REFUSED)
        elif self._job is not None and job == self._job.number:
            self.handshake.job_changed(None)
        else:
            self._begin_load(job, Offline.JOB_CHANGING)
        return True

    def renew_job(self, job: Job) -> bool:
        """Inspect with another bundle of the active job from the next part on; those triggered keep the old one.

        Returns:
            Whether that is done: not while another load is under way, nor for a job that is not active any more.
        """
        with self._lock:
            if self._load_kind is not None or self._job is None or self._job.number != job.number:
                return False
            self._activate(job)
            return True

    def plc_silent(self, silent: bool) -> None:
        """See `handshake.Line`."""
        self._plc_silent = silent
        self.event("plc_silent" if silent else "plc_back", "the PLC's heartbeat")

    # The camera's side.

    def camera_ready(self, camera: Camera) -> None:
        """See `acquisition.Intake`."""
        with self._lock:
            shape, dtype = camera.shape, camera.dtype
            if not shape:
                self._ring = None  # made when the first frame shows its shape
            elif self._ring is None or self._ring.shape != shape or self._ring.dtype != dtype:
                self._ring = FrameRing(self._configuration.frames, shape, dtype)
            self._camera = camera.name
            self.event("camera_back" if self._camera_missed else "camera_ready", camera.name)
            self._camera_missed = False

    def camera_lost(self, error: CameraError) -> None:
        """See `acquisition.Intake`."""
        with self._lock:
            self._camera = ""
            if not self._camera_missed:
                self._camera_missed = True
                self.handshake.report(Fault.CAMERA)
                self.event("camera_lost", f"{error.what}; {error.do}")

    def exposed(self, capture: Capture) -> None:
        """See `acquisition.Intake`."""
        with self._lock:
            if self._ended.is_set():
                return
            trigger = self._begin(Source.CAMERA, 0, capture.monotonic_ns)
            reason, job = _REJECTED_WHILE.get(self._offline()), self._job
        if reason is not None:
            self.settle(self._unseen(trigger, reason))
        else:
            self._accept(trigger, capture, job)

    def frames_lost(self, count: int, monotonic_ns: int) -> None:
        """See `acquisition.Intake`."""
        with self._lock:
            self.frames_lost_count += count
            for _ in range(count):
                self.settle(self._unseen(self._begin(Source.CAMERA, 0, monotonic_ns), Reason.FRAME_MISSING))
            self.event("frames_lost", f"{count} by {self._camera}")

    def captured(self, trigger: Trigger, capture: Capture) -> None:
        """See `acquisition.Intake`."""
        with self._lock:  # what was active when it was triggered, whatever the PLC said since
            job = self._acquiring[1] if self._acquiring else None
        self._accept(trigger, capture, job)
        self._acquired(trigger)

    def not_captured(self, trigger: Trigger, reason: Reason) -> None:
        """See `acquisition.Intake`."""
        self.settle(self._unseen(trigger, reason))
        self._acquired(trigger)

    # The inspections' side.

    def wanted(self, part: Part) -> bool:
        """See `decision.Bench`."""
        with self._lock:
            return self._ledger.is_open(part.trigger)

    def settle(self, record: PartRecord) -> PartRecord | None:
        """See `decision.Bench`."""
        with self._lock:
            return self._ledger.decide(record)

    def judged(self, record: PartRecord, frame: Frame) -> None:
        """See `decision.Bench`."""
        for observer in self._frames:
            observer.judged(record, frame)

    def inspected(self, part: Part, inspection: Inspection) -> None:
        """See `decision.Bench`."""
        for observer in self._inspections:
            observer.inspected(part.trigger.id, inspection, part.job)

    def engine_failed(self, detail: str, in_a_row: int) -> None:
        """See `decision.Bench`."""
        with self._lock:
            self.handshake.report(Fault.ENGINE)
            self.event("engine_failed", detail)
            if in_a_row >= _FAILURES_IN_A_ROW and self._load_kind is None and self._job is not None:
                self._begin_load(self._job.number, Offline.ENGINE_HUNG)

    # Parts.

    def _reject_pending(self) -> None:
        with self._lock:
            for trigger in self._ledger.pending():
                self.settle(self._unseen(trigger, Reason.STATION_KILLED))

    def _begin(self, source: Source, part: int, monotonic_ns: int | None) -> Trigger:
        now = time.monotonic_ns()
        trigger = Trigger(self._next_id, source, min(monotonic_ns or now, now), time.time_ns(), part)
        self._next_id += 1
        self._flight.begin(trigger)
        self._ledger.open(trigger)
        if self._deadline_ns < 2 * _TIME_LOOKS_UP_NS:
            self._time.notify_all()
        return trigger

    def _can_fire(self) -> bool:
        free = self._ring is None or self._ring.has_room
        return self._fires and self._offline() is Offline.NONE and self._acquiring is None and free

    def _fire(self, trigger: Trigger) -> None:
        self._acquiring = trigger, self._job
        self._acquisition.fire(trigger)

    def _acquired(self, trigger: Trigger) -> None:
        with self._lock:
            if self._acquiring and self._acquiring[0] is trigger:
                self._acquiring = None

    def _accept(self, trigger: Trigger, capture: Capture, job: Job | None) -> None:
        """Hand a captured part to the inspections, or reject it for what is wrong with its frame."""
        pixels = capture.pixels
        if pixels is None:
            self.settle(self._unseen(trigger, Reason.FRAME_INCOMPLETE))
            return
        ring = self._ring = self._ring or FrameRing(self._configuration.frames, pixels.shape, str(pixels.dtype))
        if not ring.fits(pixels):
            self.settle(self._unseen(trigger, Reason.FRAME_UNEXPECTED))
            self.event("frame_unexpected", f"{_describe_frame(pixels)} where {ring.shape} {ring.dtype} was expected")
            return
        frame = ring.take(pixels)
        if frame is None or job is None:
            self.settle(self._unseen(trigger, Reason.TOO_MANY_PARTS))
            return
        self._decisions.put(Part(trigger, job, frame, ring, time.monotonic_ns()))

    def _unseen(self, trigger: Trigger, reason: Reason) -> PartRecord:
        """The record of a part that is rejected without being looked at."""
        job = self._job
        if job is None:
            return PartRecord(trigger, reason, float("nan"), "", 0)
        calibration = job.calibration_sha256
        return PartRecord(trigger, reason, job.threshold, job.bundle.sha256, job.number, calibration=calibration)

    def _offline(self) -> Offline:
        if self._stopping:
            return Offline.STOPPING
        if self._job is None:
            return Offline.STARTING
        if self._load_kind is not None:
            return self._load_kind
        if not self._camera:
            return Offline.CAMERA_LOST
        if self._was_behind:
            return Offline.JOURNAL_BEHIND
        return Offline.PLC_SILENT if self._plc_silent else Offline.NONE

    # Time.

    def _keep_time(self) -> None:
        with self._time:
            while not self._ended.is_set():
                for trigger in self._ledger.overdue():
                    self.settle(self._unseen(trigger, Reason.DEADLINE_MISSED))
                self._watch_engine()
                self._watch_load()
                self._watch_journal()
                now = self._time_looked_ns = time.monotonic_ns()
                times = (self.handshake.tick(), self._ledger.next_deadline(), now + _TIME_LOOKS_UP_NS)
                until = min(t for t in times if t is not None)
                self._time.wait(max(until - now, 50_000) / 1e9)

    def _watch_engine(self) -> None:
        busy = self._decisions.busy_since_ns
        patience = self._deadline_ns + int(self._configuration.engine.hung_after * _SECOND_NS)
        if busy is None or time.monotonic_ns() - busy < patience or self._job is None:
            return
        self._hung += 1
        self.handshake.report(Fault.ENGINE)
        self.event("engine_hung", f"an inspection has not returned for {patience / 1e9:.1f} s; number {self._hung}")
        if self._hung >= _HUNG_THREADS:
            self.fail(StationError("the engine hangs again and again", do="check the device, its driver and power"))
            return
        hung, self._decisions = self._decisions, self._new_decisions()
        self._decisions.take_over(hung)
        self._spawn("decisions", self._decisions.run, Role.DECISION)
        self._begin_load(self._job.number, Offline.ENGINE_HUNG)

    def _watch_load(self) -> None:
        """A change of job that takes too long is refused, and the old one stays."""
        within = int(self._configuration.change_within * _SECOND_NS)
        if self._load_kind is Offline.JOB_CHANGING and time.monotonic_ns() - self._load_began_ns > within:
            self._load_kind = None
            self._loading += 1
            self.event("job_refused", f"not loaded within {self._configuration.change_within:g} s; the old one stays")
            self.handshake.job_changed(Fault.JOB_REFUSED)

    def _watch_journal(self) -> None:
        behind = self._journal_behind()
        if behind and not self._was_behind:
            self.handshake.report(Fault.JOURNAL)
        self._was_behind = behind

    # Loading.

    def _begin_load(self, number: int, kind: Offline) -> None:
        self._loading += 1
        self._load_kind = kind
        self._load_began_ns = time.monotonic_ns()
        token = self._loading
        self._spawn("loading", lambda: self._load_job(number, kind, token))

    def _load_job(self, number: int, kind: Offline, token: int) -> None:
        while not self._ended.is_set():
            try:
                job = self._load(number)
            except Exception as error:  # whatever a bundle or an engine does, the old job stays
                self._load_failed(number, kind, token, error)
                if kind is Offline.JOB_CHANGING or self._ended.wait(_RELOAD_AFTER):
                    return
            else:
                self._settled()
                self._loaded(job, kind, token)
                return

    def _loaded(self, job: Job, kind: Offline, token: int) -> None:
        with self._lock:
            if token != self._loading:
                return  # refused meanwhile
            self._load_kind = None
            self._activate(job)
            took = (time.monotonic_ns() - self._load_began_ns) / 1e9
            if kind is Offline.JOB_CHANGING:
                self.event("job_changed", f"{_describe(job)}, in {took:.2f} s")
                self.handshake.job_changed(None)
            else:
                self.event("engine_renewed", f"{_describe(job)}, in {took:.2f} s")

    def _load_failed(self, number: int, kind: Offline, token: int, error: Exception) -> None:
        why = f"{error.what}; {error.do}" if isinstance(error, LinewardError) else f"{type(error).__name__}: {error}"
        with self._lock:
            if token != self._loading:
                return
            if kind is Offline.JOB_CHANGING:
                self._load_kind = None
                self.event("job_refused", f"job {number}: {why}; the old one stays")
                self.handshake.job_changed(Fault.JOB_REFUSED)
            else:
                self.event("engine_not_renewed", f"{why}; it is tried again")

    def _activate(self, job: Job) -> None:
        self._job = job
        self._flight.inspects_with(job.bundle.sha256, job.number, job.threshold, job.calibration_sha256)

    # Threads.

    def _new_decisions(self) -> Decisions:
        return Decisions(self, self._configuration.engine.keep_warm, lambda: self._job)

    def _spawn(self, name: str, run: Callable[[], None], role: Role | None = None) -> None:
        def body() -> None:
            if role is not None:
                self._guard(role)
            try:
                run()
            except LinewardError as error:
                self.fail(error)
            except Exception as error:  # a thread that dies silently would leave parts without a verdict
                trace = traceback.format_exc(limit=-3).replace("\n", " | ")
                self.fail(
                    StationError(f"the {name} thread failed: {type(error).__name__}: {error}", do="report this"), trace
                )

        thread = threading.Thread(target=body, name=f"lineward-{name}", daemon=True)
        self._threads = [t for t in self._threads if t.is_alive()] + [thread]
        thread.start()

    def fail(self, error: LinewardError, detail: str = "") -> None:
        """End the station for an error: parts in flight are rejected, and whoever started it starts it anew."""
        with self._lock:
            self.failure = self.failure or error
            self._stopping = True
            self._reject_pending()
            with suppress(Exception):
                self.event("station_failed", f"{error.what} {detail}".strip())
        self._ended.set()


def _terms(configuration: Configuration, deadline_ns: int) -> Terms:
    plc = configuration.plc
    if plc is None:
        return Terms(deadline_ns, acknowledge=False)
    heartbeat = plc.heartbeat_within
    return Terms(
        deadline_ns,
        plc.acknowledge,
        int(plc.acknowledge_within * _SECOND_NS),
        plc.waiting_results,
        None if heartbeat is None else int(heartbeat * _SECOND_NS),
    )


def _describe(job: Job) -> str:
    manifest = job.bundle.manifest
    calibrated = f", calibration {job.calibration_sha256[:12]}" if job.calibration else ""
    return f"job {job.number}: {manifest.product} {manifest.version}, bundle {job.bundle.sha256[:12]}{calibrated}"


def _describe_frame(pixels: Frame) -> str:
    return f"a frame of {pixels.shape} {pixels.dtype}"
