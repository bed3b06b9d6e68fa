"""The limits of a trial."""

from __future__ import annotations

import random

import pytest

from lineward.runtime.inspection import Reason, outcome_of
from lineward.runtime.station.configuration import Trial
from lineward.runtime.station.journal_reader import JournalRow
from lineward.runtime.station.trial import Figures, limit_left, rejected_before

NEW, OLD = "n" * 64, "o" * 64
DEADLINE = 0.1
TRIAL = Trial(parts=200)


def row(reason: Reason, took_us: int = 1000, bundle: str = NEW) -> JournalRow:
    outcome = outcome_of(reason).value
    verdict = "pass" if reason is Reason.WITHIN_THRESHOLD else "reject"
    return JournalRow(
        1, 1, "plc", 0, 0, 1, bundle, verdict, reason.value, outcome, 0.1, 0.5, 5, 10, 10 + took_us, None, None
    )


def figures(*rows: tuple[int, JournalRow]) -> Figures:
    made = Figures(TRIAL.latency * DEADLINE * 1e6)
    for count, part in rows:
        for _ in range(count):
            made.add(part)
    return made


PASSED, REJECTED = row(Reason.WITHIN_THRESHOLD), row(Reason.ABOVE_THRESHOLD)
LATE, SLOW = row(Reason.DEADLINE_MISSED), row(Reason.WITHIN_THRESHOLD, 80_001)


@pytest.mark.parametrize(
    ("rows", "before", "why"),
    [
        ([(200, PASSED)], 0.0, None),
        ([(4, LATE), (100, PASSED)], 0.0, None),
        ([(5, LATE)], 0.0, "5 of 5 parts without a verdict in time, allowed are 2.0% of 200"),
        ([(5, row(Reason.ENGINE_FAILED))], 0.0, "without a verdict"),
        ([(5, row(Reason.SCORE_INVALID))], 0.0, "without a verdict"),
        ([(5, row(Reason.TOO_MANY_PARTS))], 0.0, "without a verdict"),
        ([(2, SLOW), (198, row(Reason.WITHIN_THRESHOLD, 80_000))], 0.0, None),
        ([(3, SLOW)], 0.0, r"3 of 3 inspections took longer than 80.0 ms, 80% of the deadline of 100 ms"),
        ([(20, REJECTED)], 0.0, None),
        ([(21, REJECTED)], 0.0, "21 of 21 parts rejected; the bundle before rejected 0.0%, allowed are 10.0% more"),
        ([(60, REJECTED)], 0.2, None),
        ([(61, REJECTED)], 0.2, "61 of 61 parts rejected"),
        ([(200, REJECTED)], None, None),
        ([(200, REJECTED)], 0.9, None),
    ],
)
def test_limits(rows, before, why):
    found = limit_left(figures(*rows), TRIAL, DEADLINE, before)
    assert (found is None) if why is None else (why in found)


@pytest.mark.parametrize(
    "reason",
    [
        Reason.CAMERA_LOST,
        Reason.FRAME_MISSING,
        Reason.FRAME_INCOMPLETE,
        Reason.NOT_ACKNOWLEDGED,
        Reason.JOURNAL_BEHIND,
        Reason.JOB_CHANGING,
        Reason.STATION_KILLED,
    ],
)
def test_a_fault_that_is_not_the_bundles_does_not_count(reason):
    made = figures((500, row(reason)))
    assert made.parts == 0
    assert limit_left(made, TRIAL, DEADLINE, 0.0) is None


def test_looking_often_finds_what_looking_once_finds():
    rng = random.Random(1)
    for _ in range(200):
        rows = rng.choices([PASSED, REJECTED, LATE, SLOW], [100, rng.randrange(30), rng.random() * 4, 1], k=200)
        made = figures()
        often = False
        for part in rows:
            made.add(part)
            often |= limit_left(made, TRIAL, DEADLINE, 0.02) is not None
        assert often == (limit_left(made, TRIAL, DEADLINE, 0.02) is not None)


def test_what_the_bundle_before_rejected():
    old = [row(Reason.ABOVE_THRESHOLD, bundle=OLD)] * 10 + [row(Reason.WITHIN_THRESHOLD, bundle=OLD)] * 40
    lost = [row(Reason.CAMERA_LOST, bundle=OLD)] * 100
    assert rejected_before([*old, *lost, *[REJECTED] * 100], OLD) == 0.2
    assert rejected_before(old[1:], OLD) is None
    assert rejected_before([], OLD) is None
