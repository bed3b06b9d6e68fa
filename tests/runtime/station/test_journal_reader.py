from __future__ import annotations

import math
import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lineward.runtime.errors import JournalError
from lineward.runtime.inspection import Outcome, Reason
from lineward.runtime.station import journal_reader
from lineward.runtime.station.journal import Journal
from lineward.runtime.station.journal_reader import FILE_NAME, Forwarded, JournalReader, JournalRow
from lineward.runtime.station.records import Event, PartRecord
from tests.runtime.station.station_samples import BUNDLE, CALIBRATION, UTC_NS, part

SECOND = 1_000_000_000
REASONS = [Reason.WITHIN_THRESHOLD, Reason.ABOVE_THRESHOLD, Reason.WITHIN_THRESHOLD, Reason.DEADLINE_MISSED]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty parts, a second apart, of the four reasons in turn; each fifth has an image."""
    folder = tmp_path_factory.mktemp("station")
    journal = Journal(folder, "press-3")
    for number in range(1, 41):
        journal.final(part(number, REASONS[number % 4]))
        if number % 5 == 0:
            journal.image(number, f"images/{number}.png", 1000)
    for number in range(3):
        journal.event(Event("tick", f"number {number}", UTC_NS + number))
    journal.image(99, "images/99.png", 1000)
    journal.image_removed(10)
    journal.forward(parts=12, events=2)
    journal.close()
    return folder


@pytest.fixture
def reader(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[JournalReader]:
    monkeypatch.setattr(journal_reader, "_CHUNK", 7)  # so that results come in several pages
    with closing(JournalReader(folder)) as reader:
        yield reader


EVERYTHING = range(1, 41)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({}, EVERYTHING),
        ({"limit": 9}, range(1, 10)),
        ({"limit": 0}, []),
        ({"limit": 7}, range(1, 8)),
        ({"limit": 1000}, EVERYTHING),
        ({"after_sequence": 38}, [39, 40]),
        ({"after_sequence": 5, "limit": 8}, range(6, 14)),
        ({"after_sequence": 40}, []),
        ({"since": UTC_NS + 30 * SECOND}, range(30, 41)),
        ({"until": UTC_NS + 4 * SECOND}, [1, 2, 3]),
        ({"since": UTC_NS + 4 * SECOND, "until": UTC_NS + 6 * SECOND}, [4, 5]),
        ({"outcome": Outcome.REJECTED}, range(1, 41, 4)),
        ({"outcome": Outcome.PASSED, "last": 3}, [36, 38, 40]),
        ({"reason": Reason.DEADLINE_MISSED}, range(3, 41, 4)),
        ({"reason": Reason.CAMERA_LOST}, []),
        ({"reason": Reason.CAMERA_LOST, "last": 3}, []),
        ({"last": 12}, range(29, 41)),
        ({"last": 1000}, EVERYTHING),
    ],
)
def test_parts(reader: JournalReader, asked: dict[str, Any], expected: list[int]) -> None:
    assert [row.id for row in reader.parts(**asked)] == list(expected)


@pytest.mark.parametrize(
    ("record", "differs"),
    [
        (part(1), {}),
        (part(1, Reason.CAMERA_LOST), {}),
        (part(1, told_ms=None), {"told_us": None}),
        (part(1, acknowledged_ns=SECOND + 31_000_999), {"acknowledged_us": 31_000}),
        (part(1, captured_ns=SECOND - 2_000), {"captured_us": -2}),
        (part(1, Reason.SCORE_INVALID, score=math.inf), {"score": math.inf}),
        (part(1, Reason.STATION_KILLED, threshold=math.nan, decided_ns=0), {"threshold": None, "decided_us": None}),
    ],
)
def test_a_row_says_all_that_a_record_does(tmp_path: Path, record: PartRecord, differs: dict[str, Any]) -> None:
    journal = Journal(tmp_path, "press-3")
    journal.final(record)
    journal.close()
    seen = bool(record.captured_ns)
    expected = JournalRow(
        sequence=1,
        id=1,
        source="plc",
        part=101,
        utc_ns=UTC_NS + SECOND,
        job=1,
        bundle=BUNDLE,
        verdict=record.verdict.value,
        reason=record.reason.value,
        outcome=record.outcome.value,
        score=None if math.isnan(record.score) else record.score,
        threshold=0.5,
        captured_us=5000 if seen else None,
        started_us=6000 if seen else None,
        decided_us=16000,
        told_us=20000,
        acknowledged_us=None,
    )
    with closing(JournalReader(tmp_path)) as reader:
        assert list(reader.parts()) == [replace(expected, **differs)]


def test_events(reader: JournalReader) -> None:
    assert [(event.sequence, event.detail) for event in reader.events(after_sequence=1)] == [
        (2, "number 1"),
        (3, "number 2"),
    ]
    assert [event.sequence for event in reader.events(limit=1)] == [1]


def test_images_come_with_their_part(reader: JournalReader) -> None:
    images = list(reader.images())
    assert [(image.id, image.row and image.row.id) for image in images] == [
        *((id, id) for id in (5, 15, 20, 25, 30, 35, 40)),
        (99, None),
    ]
    assert images[0].file == "images/5.png"
    assert [image.id for image in reader.images(since=UTC_NS + 30 * SECOND)] == [30, 35, 40]


def test_the_rest(reader: JournalReader) -> None:
    assert reader.has(range(38, 50)) == {38, 39, 40}
    assert reader.has([]) == set()
    assert reader.greatest_id == 40
    assert reader.forwarded == Forwarded(12, 2)
    assert reader.station == "press-3"


def test_the_summary_reconciles(reader: JournalReader) -> None:
    summary = reader.summary()
    assert summary.parts == 40 == sum(summary.outcomes.values()) == sum(summary.reasons.values())
    assert summary.outcomes == {
        Outcome.PASSED: 20,
        Outcome.REJECTED: 10,
        Outcome.REJECTED_WITHOUT_VERDICT: 10,
    }
    assert (summary.first_id, summary.last_id, summary.skipped, summary.missing) == (1, 40, 0, 0)
    assert (summary.first_utc_ns, summary.last_utc_ns) == (UTC_NS + SECOND, UTC_NS + 40 * SECOND)
    assert (summary.images, summary.image_bytes) == (8, 8000)


def test_a_part_that_is_missing_is_counted_as_such(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "press-3")
    for number in (1, 2, 5):
        journal.final(part(number))
    journal.close()
    with closing(JournalReader(tmp_path)) as reader:
        assert reader.summary().missing == 2


def test_an_empty_journal(tmp_path: Path) -> None:
    Journal(tmp_path, "press-3").close()
    with closing(JournalReader(tmp_path)) as reader:
        assert (list(reader.parts()), list(reader.parts(last=3)), reader.greatest_id) == ([], [], 0)
        summary = reader.summary()
    assert (summary.parts, summary.missing, summary.first_utc_ns) == (0, 0, None)
    assert set(summary.outcomes.values()) == {0}


def test_a_reader_never_writes(reader: JournalReader) -> None:
    with reader._reading() as connection, pytest.raises(sqlite3.OperationalError, match="readonly"):
        connection.execute("DELETE FROM part")


def test_a_reader_that_lingers_does_not_keep_the_station_from_writing(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "press-3")
    for number in range(1, 2001):
        journal.final(part(number))
    assert journal.flush(20)
    with closing(JournalReader(tmp_path)) as reader:
        rows = reader.parts()
        next(rows)
        for number in range(2001, 3001):
            journal.final(part(number))
        assert journal.flush(20)
        assert sum(1 for _ in rows) == 2999
    journal.close()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write to any folder")
def test_a_journal_at_rest_in_a_folder_that_may_not_be_written_to_can_be_read(tmp_path: Path) -> None:
    Journal(tmp_path, "press-3").close()
    tmp_path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with closing(JournalReader(tmp_path)) as reader:
            assert list(reader.parts()) == []
    finally:
        tmp_path.chmod(stat.S_IRWXU)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda _: None, "no journal there"),
        (lambda path: path.write_bytes(b"a text, and none of SQLite's" * 50), "cannot be read"),
        (lambda path: path.write_bytes(b""), "no journal, but another database"),
    ],
)
def test_what_is_no_journal(tmp_path: Path, make: Any, complaint: str) -> None:
    make(tmp_path / FILE_NAME)
    for path in (tmp_path, tmp_path / FILE_NAME):
        with pytest.raises(JournalError, match=complaint):
            JournalReader(path)


def test_damage_is_a_journal_error_and_the_rows_beside_it_are_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path, "press-3")
    for number in range(1, 3001):
        journal.final(part(number))
    journal.close()
    file = tmp_path / FILE_NAME
    data = bytearray(file.read_bytes())
    first = data.index(BUNDLE.encode()) // 4096 * 4096
    data[first : first + 4096] = b"\x99" * 4096
    file.write_bytes(data)
    with closing(JournalReader(tmp_path)) as reader:
        with pytest.raises(JournalError, match="cannot be read"):
            list(reader.parts())
        assert [row.id for row in reader.parts(last=5)] == [2996, 2997, 2998, 2999, 3000]


def test_a_journal_from_before_there_were_calibrations(tmp_path: Path) -> None:
    """It is read as it is; whoever writes it adds the column."""
    with closing(Journal(tmp_path, "press-3")) as journal:
        journal.final(part(1))
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        connection.execute("ALTER TABLE part DROP COLUMN calibration")
    with closing(JournalReader(tmp_path)) as reader:
        assert [row.calibration for row in reader.parts()] == [""]
    with closing(Journal(tmp_path, "press-3")) as journal:
        journal.final(part(2, calibration=CALIBRATION))
        journal.image(2, "images/2.png", 1000)
    with closing(JournalReader(tmp_path)) as reader:
        assert [(row.id, row.calibration) for row in reader.parts()] == [(1, ""), (2, CALIBRATION)]
        (image,) = reader.images()
        assert image.row is not None
        assert image.row.calibration == CALIBRATION
