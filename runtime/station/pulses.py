"""Pulses at outputs, each when its part is at the gate: so long after its trigger, for so long, or not at all."""

from __future__ import annotations

import atexit
import heapq
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from lineward.runtime.errors import StationError, first_line
from lineward.runtime.station.configuration import GpioOutput
from lineward.runtime.station.real_time import Role, raise_priority
from lineward.runtime.station.records import Event, PartRecord

_NS = 1_000_000_000


class OutputLines(Protocol):
    """The outputs of a station file, by their place in it."""

    def set(self, output: int, active: bool) -> None:
        """Drive one. Raises OSError: it is as it was."""

    def close(self) -> None:
        """Give all of them back. May be called twice."""


@dataclass(frozen=True)
class Change:
    """An output to be driven now."""

    output: int
    active: bool


@dataclass(frozen=True)
class TooLate:
    """A pulse that is not given: it would meet another part."""

    output: int
    part: int
    late_ns: int


@dataclass(frozen=True, order=True)
class _Edge:
    """The beginning or, later, the end of a pulse; in the order they are due, beginnings before ends."""

    time_ns: int
    ends: bool
    output: int
    part: int


class PulsePlan:
    """When which output changes. Knows no clock and no hardware, and is not locked.

    A pulse covers its part's passage through the gate, from `after` to `after + width` behind the trigger, and never
    reaches beyond it: one that begins late ends in time all the same, and one that has lost more than half of its width
    is not given. Where the pulses of two parts overlap or touch, the output stays active until the later end: a gate
    that is to tell such parts apart needs a shorter `width`.

    Args:
        outputs: of the station file.
    """

    def __init__(self, outputs: Sequence[GpioOutput]) -> None:
        self._on = [output.on for output in outputs]
        self._after = [round(output.after * _NS) for output in outputs]
        self._width = [round(output.width * _NS) for output in outputs]
        self._edges: list[_Edge] = []
        self._pulses = [0] * len(outputs)  # that cover this moment, of each output

    def add(self, record: PartRecord) -> None:
        """Plan the pulses of a part."""
        for output, verdict in enumerate(self._on):
            if verdict == record.verdict.value:
                begin = record.trigger.monotonic_ns + self._after[output]
                heapq.heappush(self._edges, _Edge(begin, False, output, record.trigger.id))

    def next_ns(self) -> int | None:
        """When the next edge is due, monotonic; None: none is planned."""
        return self._edges[0].time_ns if self._edges else None

    def due(self, now_ns: int) -> Iterator[Change | TooLate]:
        """What is to be done by now, in order; nothing is due twice."""
        while self._edges and self._edges[0].time_ns <= now_ns:
            edge = heapq.heappop(self._edges)
            if edge.ends:
                yield from self._end(edge)
            else:
                yield from self._begin(edge, now_ns)

    def _begin(self, edge: _Edge, now_ns: int) -> Iterator[Change | TooLate]:
        late, width = now_ns - edge.time_ns, self._width[edge.output]
        if late > width // 2:
            yield TooLate(edge.output, edge.part, late)
            return
        heapq.heappush(self._edges, _Edge(edge.time_ns + width, True, edge.output, edge.part))
        self._pulses[edge.output] += 1
        if self._pulses[edge.output] == 1:
            yield Change(edge.output, True)

    def _end(self, edge: _Edge) -> Iterator[Change]:
        self._pulses[edge.output] -= 1
        if self._pulses[edge.output] == 0:
            yield Change(edge.output, False)


class Pulses:
    """Gives the pulses of final parts, on a thread of its own. A RecordObserver.

    The thread waits in the kernel and never spins, for a spinning thread would hold the interpreter's lock against the
    one that decides; it wakes about 0.1 ms late, which at 1 m/s is 0.1 mm of the line.

    Args:
        outputs: of the station file.
        lines: drives them.
        report: takes the name and the detail of an event: a pulse not given, an output that could not be driven.
        failed: hears that an output does not do as it is told, so that the station takes no more parts: one that stays
            active would pass whatever comes.

    Both are called on the thread, and may take the station's lock.
    """

    def __init__(
        self,
        outputs: Sequence[GpioOutput],
        lines: OutputLines,
        report: Callable[[str, str], None],
        failed: Callable[[StationError], None],
    ) -> None:
        self._names = [f"output {output.line} of {output.chip}" for output in outputs]
        self._plan = PulsePlan(outputs)
        self._lines = lines
        self._report = report
        self._failed = failed
        self._final: queue.SimpleQueue[PartRecord | None] = queue.SimpleQueue()
        self._stopped = False
        self._ended = False  # no part comes any more
        self._thread = threading.Thread(target=self._run, name="lineward-pulses", daemon=True)

    def start(self) -> None:
        """Bring all outputs to rest, and begin."""
        self._rest()
        atexit.register(self.stop)
        self._thread.start()

    def final(self, record: PartRecord) -> None:
        """Plan the pulses of a part. Never waits."""
        self._final.put(record)

    def event(self, event: Event) -> None:
        """Events of the station give no pulse."""

    def stop(self) -> None:
        """Give the pulses of the parts that are final by now, bring all outputs to rest, and give the lines back.

        Takes as long as the last of these parts does to the gate. May be called twice; never with the station's lock
        held, for the thread may wait for it.
        """
        if self._stopped:
            return
        self._stopped = True
        atexit.unregister(self.stop)
        if self._thread.is_alive():
            self._final.put(None)
            self._thread.join()
        self._rest()
        self._lines.close()

    def _run(self) -> None:
        raise_priority(Role.TIMING)
        try:
            while not self._ended or self._plan.next_ns() is not None:
                self._take()
                for due in self._plan.due(time.monotonic_ns()):
                    self._do(due)
        except Exception as error:  # a station whose gate no longer moves must not go on as if it did
            what = f"the thread that gives pulses failed: {type(error).__name__}: {first_line(error)}"
            self._failed(StationError(what, do="report this"))

    def _take(self) -> None:
        """Wait for a part or for the next edge."""
        next_ns = self._plan.next_ns()
        try:
            timeout = None if next_ns is None else max(0.0, (next_ns - time.monotonic_ns()) / _NS)
            record = self._final.get(timeout=timeout)
        except queue.Empty:
            return
        if record is None:
            self._ended = True
        else:
            self._plan.add(record)

    def _do(self, due: Change | TooLate) -> None:
        if isinstance(due, Change):
            self._drive(due.output, due.active)
        else:
            late = f"{due.late_ns / 1e6:.1f} ms late"
            self._report("pulse_too_late", f"part {due.part}: no pulse at {self._names[due.output]}, it was {late}")

    def _rest(self) -> None:
        for output in range(len(self._names)):
            self._drive(output, False)

    def _drive(self, output: int, active: bool) -> None:
        try:
            self._lines.set(output, active)
        except OSError as error:
            wanted = "active" if active else "inactive"
            what = f"{self._names[output]} could not be set {wanted} ({error.strerror or first_line(error)})"
            self._report("output_failed", what)
            self._failed(StationError(what, do="check the chip and what drives it with `gpioinfo`"))
