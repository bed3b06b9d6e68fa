"""Three books of one run compared: the camera's, the PLC's and the journal's, part by part."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lineward.runtime.bench.statistics import percentile
from lineward.runtime.cli.console import print_table
from lineward.runtime.inspection import Outcome, Verdict
from lineward.runtime.station.journal_reader import JournalRow
from lineward.runtime.station.simulation.plc_books import PlcReport, PlcResult

_SHOWN = 20
_SINGLE = 1e-6  # relative; the wire's scores are IEEE 754 singles


@dataclass(frozen=True)
class Mismatch:
    """A part on which two books differ."""

    id: int
    what: str


@dataclass(frozen=True)
class Times:
    """Of many parts, in microseconds; None where there are too few for a percentile, or none at all.

    Attributes:
        parts: how many.
        p50: the median.
        p99: percentile 99.
        greatest: the greatest.
    """

    parts: int
    p50: float | None
    p99: float | None
    greatest: float | None


@dataclass(frozen=True)
class Reconciliation:
    """What the comparison found.

    Attributes:
        exposed: parts that the camera saw; None: nobody counted.
        journal: parts in the journal.
        journal_passed: of which passed.
        plc: parts that the PLC knows of.
        plc_passed: of which passed.
        untold: parts in the journal, all rejected, of which the PLC never heard: its gate rejects those too.
        without_verdict: parts in the journal that were rejected for want of a verdict in time.
        mismatches: parts on which the books differ.
        told: from trigger to the verdict on the wire.
        waiting: of which until the parts before had been inspected, and acknowledged where the PLC does that.
        overhead: the rest without the inspection itself: what the loop around it costs.
        deadline_us: from trigger to verdict.
        late: verdicts told after the deadline, all rejects.
    """

    exposed: int | None
    journal: int
    journal_passed: int
    plc: int
    plc_passed: int
    untold: int
    without_verdict: int
    mismatches: tuple[Mismatch, ...]
    told: Times
    waiting: Times
    overhead: Times
    deadline_us: int
    late: int

    @property
    def reconciles(self) -> bool:
        """Whether the three books say the same."""
        return (
            not self.mismatches
            and self.exposed in (None, self.journal)
            and self.journal == self.plc + self.untold
            and self.journal_passed == self.plc_passed
        )

    @property
    def all_in_time(self) -> bool:
        """Whether there were parts, and each was told a verdict of its own before its deadline."""
        return bool(self.journal) and not (self.untold or self.without_verdict or self.late)


def reconcile(exposed: int | None, report: PlcReport, rows: Iterable[JournalRow], deadline: float) -> Reconciliation:
    """Compare the books of a run.

    Args:
        exposed: parts that the camera saw; None: nobody counted.
        report: the PLC's.
        rows: of the journal, those of this run.
        deadline: the station's, from trigger to verdict, in seconds.
    """
    rows = list(rows)
    deadline_us = round(deadline * 1e6)
    known = {row.id: row for row in rows}
    results = {result.id: result for result in report.results}
    untold = [row for row in rows if row.id not in results and not _passed(row)]
    told = [row.told_us for row in rows if row.told_us is not None]
    shares = list(shares_of_time(rows))
    return Reconciliation(
        exposed=exposed,
        journal=len(rows),
        journal_passed=sum(_passed(row) for row in rows),
        plc=len(report.results),
        plc_passed=report.count("passed"),
        untold=len(untold),
        without_verdict=sum(row.outcome == Outcome.REJECTED_WITHOUT_VERDICT.value for row in rows),
        mismatches=tuple(_mismatches(rows, known, report.results, results, deadline_us)),
        told=_times(told),
        waiting=_times([share.waiting for share in shares]),
        overhead=_times([share.overhead for share in shares]),
        deadline_us=deadline_us,
        late=sum(us > deadline_us for us in told),
    )


def print_reconciliation(reconciliation: Reconciliation) -> bool:
    """Print what was found; returns whether the books reconcile."""
    r = reconciliation
    print_table(
        "",
        ("book", "parts", "passed", "rejected"),
        [
            ("camera", "not counted" if r.exposed is None else str(r.exposed), "", ""),
            ("journal", str(r.journal), str(r.journal_passed), str(r.journal - r.journal_passed)),
            ("PLC", str(r.plc), str(r.plc_passed), str(r.plc - r.plc_passed)),
            ("PLC was never told", str(r.untold), "0", str(r.untold)),
            ("without verdict in time", str(r.without_verdict), "0", str(r.without_verdict)),
        ],
    )
    print_table(
        "",
        ("time", "parts", "p50", "p99", "greatest"),
        [
            _time_row("trigger to verdict told", r.told),
            _time_row("waiting for the parts before", r.waiting),
            _time_row("the loop around the inspection", r.overhead),
            ("deadline", f"{r.late} late, all rejected", "", "", _milliseconds(r.deadline_us)),
        ],
    )
    shown = [(str(mismatch.id), mismatch.what) for mismatch in r.mismatches[:_SHOWN]]
    if len(r.mismatches) > _SHOWN:
        shown.append(("...", f"and {len(r.mismatches) - _SHOWN} more"))
    if shown:
        print_table("", ("part", "the books differ"), shown)
    print("the books reconcile" if r.reconciles else "THE BOOKS DO NOT RECONCILE", flush=True)
    return r.reconciles


def _mismatches(
    rows: Sequence[JournalRow],
    known: dict[int, JournalRow],
    listed: Sequence[PlcResult],
    results: dict[int, PlcResult],
    deadline_us: int,
) -> Iterator[Mismatch]:
    for ids, book in ((Counter(row.id for row in rows), "journal"), (Counter(r.id for r in listed), "PLC's books")):
        yield from (Mismatch(id, f"{count} times in the {book}") for id, count in sorted(ids.items()) if count > 1)
    for id in sorted(known.keys() | results.keys()):
        row, result = known.get(id), results.get(id)
        if row is None:
            yield Mismatch(id, "the PLC knows it, the journal does not")
        elif result is None:
            if _passed(row):
                yield Mismatch(id, "passed in the journal, unknown to the PLC")
        else:
            yield from (Mismatch(id, what) for what in _differences(row, result))
        if row is not None and _passed(row) and row.told_us is not None and row.told_us > deadline_us:
            yield Mismatch(id, f"passed {row.told_us} us after its trigger, past the deadline of {deadline_us} us")


def _differences(row: JournalRow, result: PlcResult) -> Iterator[str]:
    passed = result.fate == "passed"
    if passed and not _passed(row):
        yield f"PASSED BY THE PLC, rejected in the journal ({row.reason})"
    if not passed and _passed(row):
        yield f"{result.fate} at the PLC, passed in the journal"
    if result.fate == "no_result":
        return  # it was told nothing to compare
    if result.part != row.part:
        yield f"part {result.part} at the PLC, {row.part} in the journal"
    if (result.score is None) != (row.score is None) or not math.isclose(
        result.score or 0.0, row.score or 0.0, rel_tol=_SINGLE, abs_tol=_SINGLE
    ):
        yield f"score {result.score} at the PLC, {row.score} in the journal"


def _passed(row: JournalRow) -> bool:
    return row.verdict == Verdict.PASS.value


@dataclass(frozen=True)
class Share:
    """Where a part's time from trigger to verdict told went besides its inspection, in microseconds."""

    waiting: int
    overhead: int


def shares_of_time(rows: Iterable[JournalRow]) -> Iterator[Share]:
    """Of each part that was inspected and told; two waits at the same time count once."""
    inspected = acknowledged = 0  # when that of the last of the parts before ended, in microseconds by the wall clock
    for row in sorted(rows, key=lambda row: row.id):
        if row.captured_us is not None and row.started_us is not None and row.decided_us is not None:
            triggered = row.utc_ns // 1000
            captured, decided = triggered + row.captured_us, triggered + row.decided_us
            if row.told_us is not None:
                told = triggered + row.told_us
                waiting = _overlap(captured, triggered + row.started_us, inspected)
                waiting += _overlap(decided, told, acknowledged)
                yield Share(waiting, row.told_us - (row.decided_us - row.started_us) - waiting)
            inspected = decided
            acknowledged = triggered + row.acknowledged_us if row.acknowledged_us is not None else acknowledged


def _overlap(begin: int, end: int, busy_until: int) -> int:
    return max(0, min(end, busy_until) - begin)


def _times(microseconds: Sequence[int]) -> Times:
    values = np.array(microseconds, dtype=np.float64)
    greatest = float(values.max()) if len(values) else None
    p50, p99 = (percentile(values, share) for share in (0.5, 0.99))
    return Times(len(values), p50, p99, greatest)


def _time_row(name: str, times: Times) -> tuple[str, ...]:
    return name, str(times.parts), *(_milliseconds(us) for us in (times.p50, times.p99, times.greatest))


def _milliseconds(microseconds: float | None) -> str:
    return "too few" if microseconds is None else f"{microseconds / 1e3:.2f} ms"
