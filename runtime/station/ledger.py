"""Every triggered part, counted in exactly one place at every moment, and its verdict told in the order of triggers."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from lineward.runtime.inspection import Outcome, Reason, outcome_of
from lineward.runtime.station.records import PartRecord, Trigger


@dataclass(frozen=True)
class Counts:
    """Of parts, since the station started. triggered = passed + rejected + rejected_without_verdict + in_flight.

    Attributes:
        triggered: parts announced.
        passed: told *pass*.
        rejected: told *reject*, by their score.
        rejected_without_verdict: told *reject*, or told nothing in time, for want of a verdict.
        in_flight: triggered and not final yet.
        late: inspections that ended after their part's deadline and were thrown away.
        reasons: final parts by reason.
    """

    triggered: int = 0
    passed: int = 0
    rejected: int = 0
    rejected_without_verdict: int = 0
    in_flight: int = 0
    late: int = 0
    reasons: dict[Reason, int] = field(default_factory=dict)


@dataclass
class _Open:
    trigger: Trigger
    record: PartRecord | None = None


class Ledger:
    """The parts in flight. Not locked: the station's lock guards it.

    Args:
        deadline_ns: from trigger to verdict; a later verdict is a reject.
        tell: tells the line a verdict; called once a part, in the order of triggers.
        clock: `time.monotonic_ns`, or a test's.
    """

    def __init__(
        self, deadline_ns: int, tell: Callable[[PartRecord], None], clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._deadline_ns = deadline_ns
        self._tell = tell
        self._clock = clock
        self._open: dict[int, _Open] = {}
        self._untold: deque[_Open] = deque()
        self._triggered = 0
        self._late = 0
        self._reasons: Counter[Reason] = Counter()

    def open(self, trigger: Trigger) -> None:
        """A part is announced: from now on it is owed a verdict."""
        part = _Open(trigger)
        self._open[trigger.id] = part
        self._untold.append(part)
        self._triggered += 1

    def is_open(self, trigger: Trigger) -> bool:
        """Whether a part still waits for its verdict."""
        return trigger.id in self._open

    def decide(self, record: PartRecord) -> PartRecord | None:
        """Give a part its verdict: a reject if the deadline is over, nothing at all if it has one already.

        Returns:
            The verdict as it stands; None if this one came after the part had been settled.
        """
        part = self._open.pop(record.trigger.id, None)
        if part is None:
            self._late += 1
            return None
        now = self._clock()
        if record.outcome is Outcome.PASSED and now > record.trigger.monotonic_ns + self._deadline_ns:
            self._late += 1
            record = replace(record, reason=Reason.DEADLINE_MISSED)
        part.record = replace(record, decided_ns=now)
        self._tell_in_order()
        return part.record

    def overdue(self) -> list[Trigger]:
        """The parts whose deadline is over and that have no verdict."""
        now = self._clock()
        return [p.trigger for p in self._open.values() if now > p.trigger.monotonic_ns + self._deadline_ns]

    def pending(self) -> list[Trigger]:
        """The parts that have no verdict."""
        return [part.trigger for part in self._open.values()]

    def next_deadline(self) -> int | None:
        """When the first of the open parts is overdue, monotonic nanoseconds."""
        first = min((p.trigger.monotonic_ns for p in self._open.values()), default=None)
        return None if first is None else first + self._deadline_ns

    def final(self, record: PartRecord) -> None:
        """Count a part whose verdict was told, or can no longer be."""
        self._reasons[record.reason] += 1

    def counts(self) -> Counts:
        """Where all parts are."""
        outcomes = Counter[Outcome]()
        for reason, count in self._reasons.items():
            outcomes[outcome_of(reason)] += count
        passed, rejected, without = (outcomes[outcome] for outcome in Outcome)
        in_flight = self._triggered - passed - rejected - without
        return Counts(self._triggered, passed, rejected, without, in_flight, self._late, dict(self._reasons))

    def _tell_in_order(self) -> None:
        while self._untold and (record := self._untold[0].record) is not None:
            self._untold.popleft()
            self._tell(record)
