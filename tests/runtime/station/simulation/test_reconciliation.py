"""The books of camera, PLC and journal, and every way in which they can differ."""

import math
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from lineward.runtime.errors import StationError
from lineward.runtime.inspection import Reason, outcome_of
from lineward.runtime.station.journal_reader import JournalRow
from lineward.runtime.station.simulation.plc_books import (
    Books,
    Fate,
    PlcReport,
    PlcResult,
    encode_report,
    read_report,
)
from lineward.runtime.station.simulation.reconciliation import (
    Mismatch,
    Times,
    print_reconciliation,
    reconcile,
    shares_of_time,
)

_DEADLINE = 0.1


def row(id: int, reason: Reason = Reason.WITHIN_THRESHOLD, told_us: int | None = 30_000, part: int = 0) -> JournalRow:
    passed = reason is Reason.WITHIN_THRESHOLD
    return JournalRow(
        *(id, id, "camera", part, id * 10**9, 1, "ab"),
        *("pass" if passed else "reject", reason.value, outcome_of(reason).value, 0.25, 0.5),
        *(5_000, 6_000, 26_000, told_us, None),
    )


def result(id: int, fate: Fate = "passed", part: int = 0, score: float | None = 0.25) -> PlcResult:
    return PlcResult(id, part, fate, None, score)


def report(*results: PlcResult) -> PlcReport:
    return PlcReport(results, 0, 0, 0, 1, 100, 110.0, 150.0, 1000.0)


ABOVE = Reason.ABOVE_THRESHOLD
NEVER_TOLD = Reason.NOT_ACKNOWLEDGED


def test_books_that_say_the_same() -> None:
    rows = [row(7), row(8, ABOVE), row(9, NEVER_TOLD), row(10, Reason.STATION_KILLED, told_us=None)]
    found = reconcile(4, report(result(7), result(8, "rejected"), result(9, "rejected")), rows, _DEADLINE)
    assert found.reconciles
    assert found.mismatches == ()
    assert (found.journal, found.journal_passed, found.plc, found.plc_passed, found.untold) == (4, 1, 3, 1, 1)
    assert found.without_verdict == 2
    assert not found.all_in_time
    assert found.told == Times(3, 30_000, None, 30_000)
    assert found.waiting.greatest == 0
    assert found.overhead == Times(3, 10_000, None, 10_000)


@pytest.mark.parametrize(
    ("before", "waiting", "overhead"),
    [
        ({"decided_us": 10_000}, 0, 10_000),
        ({"decided_us": 105_200}, 200, 9_800),
        ({"decided_us": 200_000}, 1_000, 9_000),
        ({"acknowledged_us": 126_000}, 0, 10_000),
        ({"acknowledged_us": 128_500}, 2_500, 7_500),
        ({"decided_us": 105_200, "acknowledged_us": 500_000}, 4_200, 5_800),
    ],
)
def test_waiting_for_the_part_before_is_no_overhead(before: dict[str, int], waiting: int, overhead: int) -> None:
    """The second part comes 100 ms after the first, waits 1 ms for its inspection, is told 4 ms after its verdict."""
    rows = [replace(row(2), utc_ns=1_100_000_000), replace(row(1), **before)]
    found = reconcile(None, report(result(1), result(2)), rows, 1.0)
    assert found.waiting.greatest == waiting
    assert list(shares_of_time(rows))[1].overhead == overhead


@pytest.mark.parametrize(
    ("rows", "results", "mismatches"),
    [
        ([row(1, ABOVE)], [result(1)], [Mismatch(1, "PASSED BY THE PLC, rejected in the journal (above_threshold)")]),
        ([row(1)], [result(1, "rejected")], [Mismatch(1, "rejected at the PLC, passed in the journal")]),
        ([row(1)], [result(1, "no_result")], [Mismatch(1, "no_result at the PLC, passed in the journal")]),
        ([row(1)], [], [Mismatch(1, "passed in the journal, unknown to the PLC")]),
        ([], [result(1)], [Mismatch(1, "the PLC knows it, the journal does not")]),
        ([], [result(1, "no_result")], [Mismatch(1, "the PLC knows it, the journal does not")]),
        ([row(1, part=3)], [result(1, part=4)], [Mismatch(1, "part 4 at the PLC, 3 in the journal")]),
        ([row(1)], [result(1, score=0.26)], [Mismatch(1, "score 0.26 at the PLC, 0.25 in the journal")]),
        ([row(1)], [result(1, score=None)], [Mismatch(1, "score None at the PLC, 0.25 in the journal")]),
        ([row(1), row(1)], [result(1)], [Mismatch(1, "2 times in the journal")]),
        ([row(1)], [result(1), result(1)], [Mismatch(1, "2 times in the PLC's books")]),
        (
            [row(1, told_us=100_001)],
            [result(1)],
            [Mismatch(1, "passed 100001 us after its trigger, past the deadline of 100000 us")],
        ),
    ],
)
def test_each_difference_is_found(rows: list[JournalRow], results: list[PlcResult], mismatches: list[Mismatch]) -> None:
    more = range(100, 110)
    rows = rows + [row(id) for id in more]
    results = [*results, *(result(id) for id in more)]
    found = reconcile(None, report(*results), rows, _DEADLINE)
    assert list(found.mismatches) == mismatches
    assert not found.reconciles


@pytest.mark.parametrize(
    ("a_row", "a_result"),
    [
        (row(1, ABOVE), result(1, "no_result")),
        (row(1, ABOVE, told_us=200_000), result(1, "rejected")),
        (replace(row(1, ABOVE), score=None), result(1, "rejected", score=None)),
        (replace(row(1), score=0.1), result(1, score=0.10000000149011612)),
        (row(1, told_us=100_000), result(1)),
    ],
    ids=["rejected unheard", "late reject", "no score", "a single's rounding", "just in time"],
)
def test_what_is_no_difference(a_row: JournalRow, a_result: PlcResult) -> None:
    assert reconcile(1, report(a_result), [a_row], _DEADLINE).reconciles


@pytest.mark.parametrize(("exposed", "reconciles"), [(None, True), (2, True), (1, False), (3, False)])
def test_the_camera_counts_too(exposed: int | None, reconciles: bool) -> None:
    found = reconcile(exposed, report(result(1), result(2)), [row(1), row(2)], _DEADLINE)
    assert found.reconciles is reconciles
    assert found.all_in_time


@pytest.mark.parametrize(
    "rows",
    [[], [row(1), row(2, Reason.DEADLINE_MISSED)], [row(1), row(2, ABOVE, told_us=100_001)], [row(1), row(3, ABOVE)]],
    ids=["no part", "without verdict", "told late", "untold"],
)
def test_not_all_in_time(rows: list[JournalRow]) -> None:
    results = [result(1), result(2, "rejected")][: len(rows)]
    assert not reconcile(len(rows), report(*results), rows, _DEADLINE).all_in_time


def test_percentiles_of_many() -> None:
    rows = [row(id, told_us=20_000 + id) for id in range(1, 1001)]
    found = reconcile(1000, report(*(result(r.id) for r in rows)), rows, _DEADLINE)
    assert found.told == Times(1000, 20_500, 20_990, 21_000)
    assert found.overhead == Times(1000, 500, 990, 1_000)


def test_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    results = [result(id) for id in range(1, 60)]
    assert not print_reconciliation(reconcile(59, report(*results), [row(id, ABOVE) for id in range(1, 60)], _DEADLINE))
    printed = capsys.readouterr().out
    assert "PASSED BY THE PLC" in printed
    assert "and 39 more" in printed
    assert printed.endswith("THE BOOKS DO NOT RECONCILE\n")
    assert print_reconciliation(reconcile(None, report(result(1)), [row(1)], _DEADLINE))
    printed = capsys.readouterr().out
    assert "not counted" in printed
    assert printed.endswith("the books reconcile\n")


def test_a_fate_is_sealed_once() -> None:
    books = Books()
    books.seal(PlcResult(1, 0, "no_result"))
    books.seal(PlcResult(1, 0, "passed"))
    assert books.results[1].fate == "no_result"
    assert books.after_reject == 1


def test_a_report_is_read_as_it_was_written(tmp_path: Path) -> None:
    written = report(result(1), PlcResult(2, 9, "rejected", Reason.ENGINE_FAILED, None, 10, 20))
    file = tmp_path / "plc.json"
    file.write_bytes(encode_report(written))
    assert read_report(file) == written
    assert math.isclose(msgspec.json.decode(file.read_bytes())["scan_us_p50"], 110.0)


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"results": 1}'])
def test_a_report_that_is_none(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "plc.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StationError, match=r"plc\.json"):
        read_report(file)
