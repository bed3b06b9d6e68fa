from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineward.runtime.inspection import Reason
from lineward.runtime.station.ledger import Counts, Ledger
from lineward.runtime.station.records import PartRecord, Source, Trigger

DEADLINE = 100


class Line:
    """A ledger, a clock, and what was told."""

    def __init__(self) -> None:
        self.now = 0
        self.told: list[PartRecord] = []
        self.ledger = Ledger(DEADLINE, self.tell, lambda: self.now)

    def tell(self, record: PartRecord) -> None:
        self.told.append(record)
        self.ledger.final(record)


def trigger(number: int, at: int = 0) -> Trigger:
    return Trigger(number, Source.CAMERA, at, 0)


def record(number: int, reason: Reason, at: int = 0) -> PartRecord:
    return PartRecord(trigger(number, at), reason, 0.5, "", 1)


@pytest.mark.parametrize(
    ("given_", "at", "told"),
    [
        (Reason.WITHIN_THRESHOLD, 99, Reason.WITHIN_THRESHOLD),
        (Reason.WITHIN_THRESHOLD, 100, Reason.WITHIN_THRESHOLD),
        (Reason.WITHIN_THRESHOLD, 101, Reason.DEADLINE_MISSED),
        (Reason.ABOVE_THRESHOLD, 101, Reason.ABOVE_THRESHOLD),
        (Reason.SCORE_INVALID, 101, Reason.SCORE_INVALID),
    ],
)
def test_a_pass_never_comes_after_the_deadline(given_, at, told):
    line = Line()
    line.ledger.open(trigger(1))
    line.now = at
    assert line.ledger.decide(record(1, given_)).reason is told
    assert [r.reason for r in line.told] == [told]


def test_a_part_has_one_verdict():
    line = Line()
    line.ledger.open(trigger(1))
    assert line.ledger.decide(record(1, Reason.DEADLINE_MISSED))
    assert line.ledger.decide(record(1, Reason.WITHIN_THRESHOLD)) is None
    assert line.ledger.counts() == Counts(1, 0, 0, 1, 0, 1, {Reason.DEADLINE_MISSED: 1})


def test_overdue_parts_and_the_next_deadline():
    line = Line()
    assert line.ledger.next_deadline() is None
    for number, at in ((1, 0), (2, 50)):
        line.ledger.open(trigger(number, at))
    assert line.ledger.next_deadline() == 100
    line.now = 101
    assert [t.id for t in line.ledger.overdue()] == [1]
    line.ledger.decide(record(1, Reason.DEADLINE_MISSED))
    assert line.ledger.next_deadline() == 150


@given(st.data())
def test_every_part_is_counted_once_and_told_in_order(data):
    line = Line()
    opened = 0
    decided: set[int] = set()
    for _ in range(data.draw(st.integers(1, 30))):
        if data.draw(st.booleans()) or opened == len(decided):
            opened += 1
            line.ledger.open(trigger(opened, line.now))
        else:
            number = data.draw(st.sampled_from([n for n in range(1, opened + 1) if n not in decided]))
            line.ledger.decide(record(number, data.draw(st.sampled_from(list(Reason)))))
            decided.add(number)
        line.now += data.draw(st.integers(0, 80))
        counts = line.ledger.counts()
        final = counts.passed + counts.rejected + counts.rejected_without_verdict
        assert counts.triggered == opened == final + counts.in_flight
        assert [r.trigger.id for r in line.told] == list(range(1, len(line.told) + 1))
    first_open = min((n for n in range(1, opened + 1) if n not in decided), default=opened + 1)
    assert len(line.told) == first_open - 1
