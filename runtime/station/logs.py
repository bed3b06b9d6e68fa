"""The station's log on standard error: a line an event, written by a thread of its own, so that nobody waits for it.

JSON where it is kept (journald), text on a terminal. docs/health.md has the fields.
"""

from __future__ import annotations

import queue
import re
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, TextIO

import msgspec

from lineward.runtime.inspection import Outcome
from lineward.runtime.station.records import Event, PartRecord
from lineward.runtime.station.status import finite, iso

_WAITING_LINES = 1000
_COUNTS_EVERY = 1.0
_END_WITHIN = 2.0
_ERROR = re.compile(r"(^|_)(failed|hung|damaged|killed)(_|$)")
_WARNING = re.compile(
    r"(^|_)(lost|refused|silent|unknown|unexpected|unreachable|behind|not|dropped|malformed|full|stopped|skipped|late"
    r"|taken|any|drift|rolled)(_|$)"
)


@dataclass(frozen=True)
class _Line:
    utc_ns: int
    level: str
    event: str
    detail: str
    fields: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> str:
        first = {"time": iso(self.utc_ns), "level": self.level, "event": self.event, "detail": self.detail}
        return msgspec.json.encode({**first, **self.fields}).decode()

    def as_text(self) -> str:
        # What others named (a camera, a message) must not steer the terminal.
        detail = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in self.detail)
        return f"{iso(self.utc_ns)[:23]}Z {self.level:<7} {self.event}: {detail}"


class EventLog:
    """A RecordObserver that logs each event and, once a second while parts flow, how many there were.

    Lines that find no room are dropped, and their number is logged.

    Args:
        stream: where to; standard error by default.
        verbose: log each part.
    """

    def __init__(self, stream: TextIO | None = None, verbose: bool = False) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._text = self._stream.isatty()
        self._verbose = verbose
        self._lines: queue.Queue[_Line | None] = queue.Queue(_WAITING_LINES)
        self._lock = threading.Lock()
        self._parts = Counter[Outcome]()
        self._dropped = 0
        self._thread = threading.Thread(target=self._run, name="lineward-log", daemon=True)
        self._thread.start()

    def final(self, record: PartRecord) -> None:
        """See `RecordObserver`."""
        with self._lock:
            self._parts[record.outcome] += 1
        if self._verbose:
            self._put(_part_line(record))

    def event(self, event: Event) -> None:
        """See `RecordObserver`."""
        self._put(_Line(event.utc_ns, level_of(event.name), event.name, event.detail))

    def close(self) -> None:
        """Write what waits, for two seconds at most."""
        try:
            self._lines.put(None, timeout=_END_WITHIN)
        except queue.Full:
            return  # whoever reads the log does not: the thread ends with the process
        self._thread.join(_END_WITHIN)

    def _put(self, line: _Line) -> None:
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            with self._lock:
                self._dropped += 1

    def _run(self) -> None:
        due = time.monotonic() + _COUNTS_EVERY
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, due - time.monotonic()))
                if line is None:
                    break
                self._write(line)
            except queue.Empty:
                pass
            if time.monotonic() >= due:
                self._summarise()
                due = time.monotonic() + _COUNTS_EVERY
        self._summarise()

    def _summarise(self) -> None:
        with self._lock:
            parts, self._parts = self._parts, Counter()
            dropped, self._dropped = self._dropped, 0
        now = time.time_ns()
        if parts:
            counts = {outcome.value: parts[outcome] for outcome in Outcome}
            detail = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
            self._write(_Line(now, "info", "parts", detail, counts))
        if dropped:
            self._write(
                _Line(now, "warning", "log_lines_dropped", f"{dropped} lines found no room", {"dropped": dropped})
            )

    def _write(self, line: _Line) -> None:
        try:
            self._stream.write((line.as_text() if self._text else line.as_json()) + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # its reader went away; the station goes on
            with self._lock:
                self._dropped += 1


def level_of(event: str) -> str:
    """ "error", "warning" or "info", by the words of an event's name."""
    return "error" if _ERROR.search(event) else "warning" if _WARNING.search(event) else "info"


def _part_line(record: PartRecord) -> _Line:
    trigger = record.trigger
    told_ms = (record.told_ns - trigger.monotonic_ns) / 1e6 if record.told_ns else None
    fields = {
        "id": trigger.id,
        "part": trigger.part,
        "job": record.job,
        "verdict": record.verdict.value,
        "reason": record.reason.value,
        "score": finite(record.score),
        "threshold": finite(record.threshold),
        "told_ms": told_ms,
    }
    told = "never told" if told_ms is None else f"told after {told_ms:.1f} ms"
    score = f"{record.score:.4f} of {record.threshold:.4f}"
    detail = f"part {trigger.id}: {record.verdict.value}, {record.reason.value}, score {score}, {told}"
    return _Line(trigger.utc_ns, "info", "part", detail, fields)
