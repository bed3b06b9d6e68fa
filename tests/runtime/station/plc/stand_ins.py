"""What stands in for the station, and for time, in tests of the PLC's side."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable

from lineward.runtime.inspection import Outcome, Reason
from lineward.runtime.station.ledger import Counts
from lineward.runtime.station.plc.handshake import Control, ControlBit, Handshake, LineState, Offline, Terms
from lineward.runtime.station.records import PartRecord, Source, Trigger

MS = 1_000_000
PATIENCE = 20.0


class FakeClock:
    """Time in nanoseconds that passes only where a test says so."""

    def __init__(self) -> None:
        self.now = 1_000_000_000

    def __call__(self) -> int:
        return self.now


class FakeLine:
    """A station that takes every trigger while `ready`, and remembers what it hears."""

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.clock = clock
        self.ready, self.acquiring, self.offline, self.job = True, False, Offline.NONE, 1
        self.jobs = {1, 2}
        self.announced: list[Trigger] = []
        self.finals: list[PartRecord] = []
        self.changes: list[int] = []
        self.silences: list[bool] = []

    def state(self) -> LineState:
        outcomes = Counter(record.outcome for record in self.finals)
        passed, rejected, without = (outcomes[outcome] for outcome in Outcome)
        in_flight = len(self.announced) - len(self.finals)
        counts = Counts(len(self.announced), passed, rejected, without, in_flight)
        return LineState(self.ready, self.acquiring, self.offline, self.job, counts)

    def trigger(self, part: int) -> int | None:
        return self.announce(part).id if self.ready else None

    def announce(self, part: int = 0, source: Source = Source.PLC) -> Trigger:
        trigger = Trigger(len(self.announced) + 1, source, self.clock(), 0, part)
        self.announced.append(trigger)
        return trigger

    def final(self, record: PartRecord) -> None:
        self.finals.append(record)

    def change_job(self, job: int) -> bool:
        self.changes.append(job)
        return job in self.jobs

    def plc_silent(self, silent: bool) -> None:
        self.silences.append(silent)

    @property
    def final_reasons(self) -> dict[int, Reason]:
        return {record.trigger.id: record.reason for record in self.finals}


class Desk:
    """A handshake over a fake line, with a verdict to tell when the test says so."""

    def __init__(self, terms: Terms, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self.line = FakeLine(clock)
        self.lock = threading.RLock()
        self.handshake = Handshake(self.line, terms, self.lock, clock)

    def tell(self, good: bool = True, trigger: Trigger | None = None, score: float = 0.25) -> Trigger:
        """Tell the verdict on a part, a new one if none is given."""
        with self.lock:
            trigger = trigger or self.line.announce(source=Source.CAMERA)
            reason = Reason.WITHIN_THRESHOLD if good else Reason.ABOVE_THRESHOLD
            self.handshake.tell(PartRecord(trigger, reason, 0.5, "", self.line.job, score))
            return trigger


def control(names: str = "", job: int = 0, part: int = 0, heartbeat: int = 0) -> Control:
    """A PLC's words, its bits by name."""
    bits = ControlBit(0)
    for name in names.split():
        bits |= ControlBit[name]
    return Control(bits, job, part, heartbeat)


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def until(true: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait for something to become true, or fail."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.002)
