from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from lineward.runtime.errors import JournalError
from lineward.runtime.inspection import Reason
from lineward.runtime.station import journal as journal_module
from lineward.runtime.station.flight_record import FlightRecord
from lineward.runtime.station.journal import Journal, prune
from lineward.runtime.station.journal_reader import FILE_NAME, Forwarded, JournalReader
from lineward.runtime.station.records import Event
from tests.runtime.station.stand_ins import damage_journal
from tests.runtime.station.station_samples import BUNDLE, UTC_NS, part

SLOTS = 4096
PATIENCE = 20.0


@contextmanager
def running(folder: Path, slots: int = SLOTS) -> Iterator[tuple[FlightRecord, Journal]]:
    """A station's memory, from start to a good end."""
    flight = FlightRecord(folder / "flight.record", slots=slots)
    journal = Journal(folder, "press-3", flight)
    try:
        yield flight, journal
    finally:
        journal.close()
        flight.close()


def go_through(flight: FlightRecord, journal: Journal, number: int, reason: Reason = Reason.WITHIN_THRESHOLD) -> None:
    record = part(number, reason)
    flight.begin(record.trigger)
    flight.finish(record)
    journal.final(record)


def ids(folder: Path) -> list[int]:
    with closing(JournalReader(folder)) as reader:
        return [row.id for row in reader.parts()]


def event_names(folder: Path) -> list[str]:
    with closing(JournalReader(folder)) as reader:
        return [event.name for event in reader.events()]


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


def snapshot(folder: Path, to: Path) -> Path:
    """What a station that is killed now leaves behind."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*.lock"))
    return to


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "station"
    folder.mkdir()
    return folder


def test_parts_and_events_are_written_soon(folder: Path) -> None:
    with running(folder) as (flight, journal):
        for number in range(1, 6):
            go_through(flight, journal, number)
        journal.event(Event("camera_lost", "cable \udc80", UTC_NS))  # such text comes with the names of files
        until(lambda: journal.backlog == 0)
        assert ids(folder) == [1, 2, 3, 4, 5]
        assert event_names(folder) == ["camera_lost"]
        assert journal.greatest_id == 5
        assert journal.has([4, 5, 6]) == {4, 5}
        assert not journal.behind


def test_the_next_run_goes_on(folder: Path) -> None:
    for run in range(3):
        with running(folder) as (flight, journal):
            assert flight.first_id == 10 * run + 1
            for number in range(flight.first_id, flight.first_id + 10):
                go_through(flight, journal, number)
    assert ids(folder) == list(range(1, 31))
    assert event_names(folder) == []


def test_a_killed_run_is_journalled_by_the_next(folder: Path, tmp_path: Path) -> None:
    with running(folder) as (flight, journal):
        go_through(flight, journal, 1)
        assert journal.flush(PATIENCE)
        late = part(2, Reason.ABOVE_THRESHOLD)
        flight.begin(late.trigger)
        flight.begin(part(3).trigger)
        flight.finish(late)  # and the journal has not heard of it
        killed = snapshot(folder, tmp_path / "killed")
    with running(killed) as (flight, journal):
        assert flight.first_id > 3
        go_through(flight, journal, flight.first_id)
        assert journal.flush(PATIENCE)
        with closing(JournalReader(killed)) as reader:
            rows = list(reader.parts())
            summary = reader.summary()
    assert [row.id for row in rows] == [1, 2, 3, flight.first_id]
    assert [row.reason for row in rows[:3]] == ["within_threshold", "above_threshold", "station_killed"]
    assert rows[1].score == 0.75
    assert (summary.missing, summary.skipped) == (0, flight.first_id - 4)
    assert event_names(killed) == ["station_killed"]


def test_recovering_twice_changes_nothing(folder: Path, tmp_path: Path) -> None:
    """A station that is killed while it recovers begins again."""
    with running(folder) as (flight, journal):
        go_through(flight, journal, 1)
        flight.begin(part(2).trigger)
        killed = snapshot(folder, tmp_path / "killed")
    unsettled = (killed / "flight.record").read_bytes()
    with running(killed):
        pass
    (killed / "flight.record").write_bytes(unsettled)
    with running(killed):
        pass
    assert ids(killed) == [1, 2]


@pytest.mark.parametrize("lost", ["flight.record", FILE_NAME])
def test_either_memory_alone_keeps_ids_from_being_used_again(folder: Path, lost: str) -> None:
    with running(folder) as (flight, journal):
        for number in range(1, 11):
            go_through(flight, journal, number)
    (folder / lost).unlink()
    with running(folder) as (flight, journal):
        assert flight.first_id == 11
        go_through(flight, journal, 11)
        assert journal.flush(PATIENCE)
        with closing(JournalReader(folder)) as reader:
            assert [row.sequence for row in reader.parts()][-1] == 11


def test_nothing_is_lost_while_another_program_locks_the_journal(folder: Path) -> None:
    with running(folder) as (flight, journal):
        other = sqlite3.connect(folder / FILE_NAME, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        slowest = 0.0
        end = time.monotonic() + 2.0
        number = 0
        while time.monotonic() < end:
            number += 1
            began = time.perf_counter()
            go_through(flight, journal, number)
            slowest = max(slowest, time.perf_counter() - began)
            time.sleep(0.002)
        assert journal.backlog > 0
        other.execute("ROLLBACK")
        other.close()
        assert journal.flush(PATIENCE)
        assert slowest < 1.0  # it did not wait for the lock
    assert ids(folder) == list(range(1, number + 1))


def test_what_waits_too_long_makes_the_journal_be_behind_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_BUSY", 0.1)
    monkeypatch.setattr(journal_module, "BEHIND_AFTER", 0.5)
    with running(folder) as (_, journal), closing(sqlite3.connect(folder / FILE_NAME, isolation_level=None)) as other:
        time.sleep(0.7)
        journal.final(part(2))
        assert not journal.behind  # it was idle
        assert journal.flush(PATIENCE)
        other.execute("BEGIN EXCLUSIVE")
        journal.final(part(1))
        until(lambda: journal.behind and bool(journal.failure))
        time.sleep(0.5)
        assert "locked" in journal.failure
        other.execute("ROLLBACK")
        assert journal.flush(PATIENCE)
        assert not journal.behind
        until(lambda: not journal.failure)
    assert event_names(folder) == ["journal_behind", "journal_back"]


def test_too_much_that_waits_makes_the_journal_be_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "MOST_WAITING", 50)
    with running(folder) as (_, journal), closing(sqlite3.connect(folder / FILE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        for number in range(1, 51):
            journal.final(part(number))
        assert not journal.behind
        journal.final(part(51))
        assert journal.behind
        other.execute("ROLLBACK")
        assert journal.flush(PATIENCE)
    assert ids(folder) == list(range(1, 52))


def test_the_flight_record_holds_more_than_may_wait() -> None:
    from lineward.runtime.station.flight_record import SLOTS

    assert SLOTS > journal_module.MOST_WAITING + 256


def test_a_close_that_cannot_write_leaves_it_to_the_next_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_BUSY", 0.1)
    with closing(sqlite3.connect(folder / FILE_NAME, isolation_level=None)) as other:
        with running(folder) as (flight, journal):
            other.execute("BEGIN EXCLUSIVE")
            go_through(flight, journal, 1)
            journal.close(0.3)
        other.execute("ROLLBACK")
    with running(folder):
        assert ids(folder) == [1]


# Damage.


def zero_the_header(data: bytes) -> bytes:
    return bytes(100) + data[100:]


def scribble(data: bytes) -> bytes:
    noise = random.Random(5)
    pages = range(4096, len(data), 4096)
    return data[:4096] + b"".join(noise.randbytes(4096) for _ in pages)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "header": zero_the_header,
    "pages": scribble,
    "truncated": lambda data: data[: len(data) // 2 - 100],
    "a text": lambda _: b"not a database at all\n" * 100,
}


@pytest.mark.parametrize("small", [True, False], ids=["small", "too large to be looked through"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_journal_damaged_before_the_start_is_moved_aside(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, small: bool
) -> None:
    if not small:
        monkeypatch.setattr(journal_module, "_check_pages", lambda _: None)
    with running(folder) as (flight, journal):
        for number in range(1, 501):
            go_through(flight, journal, number)
        assert journal.flush(PATIENCE)
        with closing(sqlite3.connect(folder / FILE_NAME)) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        killed = snapshot(folder, tmp_path / "killed")
    path = killed / FILE_NAME
    damaged = DAMAGES[damage](path.read_bytes())
    path.write_bytes(damaged)
    with running(killed) as (flight, journal):
        assert flight.first_id > 500
        go_through(flight, journal, flight.first_id)
    assert ids(killed) == [*range(1, 501), flight.first_id]  # the flight record had them all
    (aside,) = (p for p in killed.glob(f"{FILE_NAME}.damaged-*") if p.name[-4:] not in ("-wal", "-shm"))
    assert aside.stat().st_size == len(damaged)
    with closing(JournalReader(killed)) as reader:
        (event,) = (event for event in reader.events() if event.name == "journal_damaged")
    assert str(aside) in event.detail


def test_damage_among_old_rows_is_found_at_the_start(folder: Path) -> None:
    with running(folder) as (flight, journal):
        for number in range(1, 501):
            go_through(flight, journal, number)
    data = bytearray((folder / FILE_NAME).read_bytes())
    page = data.index(BUNDLE.encode()) // 4096 * 4096
    data[page : page + 4096] = bytes(4096)
    (folder / FILE_NAME).write_bytes(data)
    with running(folder):
        assert event_names(folder) == ["journal_damaged"]


def test_a_journal_damaged_while_it_is_written_is_moved_aside(folder: Path) -> None:
    with running(folder) as (flight, journal), closing(JournalReader(folder)) as reader:
        for number in range(1, 101):
            go_through(flight, journal, number)
        journal.forward(60, 0)
        assert journal.flush(PATIENCE)
        (last,) = reader.parts(last=1)
        damage_journal(folder)
        for number in range(101, 201):
            go_through(flight, journal, number)
        until(lambda: journal.backlog == 0)
        rows = list(reader.parts())  # the reader follows to the new file
        assert [row.id for row in rows] == list(range(101, 201))
        assert rows[0].sequence > last.sequence  # so that nobody who reads on misses one
        assert reader.forwarded == Forwarded(60, 0)
    assert event_names(folder) == ["journal_damaged"]


def test_damage_in_the_middle_of_writing_is_found_within_seconds(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read before the damage is in memory, and SQLite goes on with it and a new index of the file."""
    insert = journal_module._insert

    def insert_and_damage(connection: sqlite3.Connection, entry: object) -> None:
        insert(connection, entry)
        if getattr(getattr(entry, "trigger", None), "id", 0) == 20:
            damage_journal(folder)

    monkeypatch.setattr(journal_module, "_insert", insert_and_damage)
    with running(folder) as (flight, journal):
        for number in range(1, 20):
            go_through(flight, journal, number)
        assert journal.flush(PATIENCE)
        go_through(flight, journal, 20)
        until(lambda: list(folder.glob("*.damaged-*")) != [])
        go_through(flight, journal, 21)
    assert ids(folder) in ([21], [20, 21])  # 20 is in the damaged file, where SQLite took it
    assert event_names(folder) == ["journal_damaged"]


def test_a_journal_that_was_taken_away_is_begun_anew(folder: Path) -> None:
    with running(folder) as (flight, journal):
        go_through(flight, journal, 1)
        assert journal.flush(PATIENCE)
        (folder / FILE_NAME).rename(folder / "elsewhere.sqlite")
        go_through(flight, journal, 2)
        assert journal.flush(PATIENCE)
    assert ids(folder) == [2]
    assert event_names(folder) == ["journal_taken_away"]


@pytest.mark.parametrize(
    ("statements", "complaint"),
    [
        ("CREATE TABLE recipe (name TEXT)", "no journal, but another database"),
        ("CREATE TABLE part (id); CREATE TABLE station (key, value);", "written by another version"),
        (
            "CREATE TABLE part (id); CREATE TABLE station (key, value); INSERT INTO station VALUES ('schema', '99')",
            "schema 99, not 1",
        ),
    ],
)
def test_a_database_that_is_no_journal_of_ours_is_refused_and_kept(
    folder: Path, statements: str, complaint: str
) -> None:
    with closing(sqlite3.connect(folder / FILE_NAME)) as other:
        other.executescript(statements)
    with pytest.raises(JournalError, match=complaint):
        Journal(folder, "press-3")
    with pytest.raises(JournalError, match=complaint):
        JournalReader(folder)
    assert [path.name for path in folder.glob("*.damaged-*")] == []


def test_random_damage_never_keeps_a_station_from_running(folder: Path, tmp_path: Path) -> None:
    with running(folder) as (flight, journal):
        for number in range(1, 301):
            go_through(flight, journal, number)
        assert journal.flush(PATIENCE)
        killed = snapshot(folder, tmp_path / "killed")
    noise = random.Random(11)
    for number in range(25):
        trial = tmp_path / str(number)
        shutil.copytree(killed, trial)
        for suffix in ("", "-wal", "-shm"):
            file = trial / f"{FILE_NAME}{suffix}"
            data = bytearray(file.read_bytes())
            for _ in range(noise.choice([0, 3, 30])):
                if data:
                    data[noise.randrange(len(data))] = noise.randrange(256)
            file.write_bytes(data)
        with running(trial) as (flight, journal):
            new = flight.first_id
            go_through(flight, journal, new)
            assert journal.flush(PATIENCE)
        assert ids(trial) == [*range(1, 301), new], number


# A full disk.


@contextmanager
def small_disk(at: Path, size: str) -> Iterator[Path]:
    at.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run(
            [mount, "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(at)], capture_output=True
        ).returncode
    ):
        pytest.skip("a small tmpfs cannot be mounted here (needs root)")
    try:
        yield at
    finally:
        subprocess.run(["umount", "-l", str(at)], check=True)


def fill(folder: Path) -> Path:
    filler = folder / "filler"
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
    with suppress(OSError):
        while True:
            os.write(descriptor, bytes(4096))
    os.close(descriptor)
    return filler


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "BEHIND_AFTER", 0.5)
    with small_disk(tmp_path / "disk", "4m") as folder:
        with running(folder) as (flight, journal):
            go_through(flight, journal, 1)
            assert journal.flush(PATIENCE)
            filler = fill(folder)
            for number in range(2, 3001):
                go_through(flight, journal, number)
            until(lambda: journal.behind and journal.backlog == 3000)  # the event that says so waits as well
            assert "full" in journal.failure or "disk I/O" in journal.failure
            filler.unlink()
            assert journal.flush(PATIENCE)
            assert not journal.behind
        assert ids(folder) == list(range(1, 3001))
        assert event_names(folder) == ["journal_behind", "journal_back"]


def test_a_disk_that_is_full_at_the_start_is_an_error_that_says_so(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "2m") as folder, closing(FlightRecord(folder / "flight", slots=SLOTS)) as flight:
        fill(folder)
        with pytest.raises(JournalError, match="cannot be opened for writing"):
            Journal(folder, "press-3", flight)


# SIGKILL.

CHILD = """
import os, struct, sys, time
from pathlib import Path
from lineward.runtime.station.flight_record import FlightRecord
from lineward.runtime.station.journal import Journal
from lineward.runtime.inspection import Reason
from tests.runtime.station.station_samples import part

folder = Path(sys.argv[1])
flight = FlightRecord(folder / "flight.record")
journal = Journal(folder, "press-3", flight)
say = lambda what, id: os.write(1, struct.pack("<cq", what, id))
say(b"F", flight.first_id)
waiting = []
id = flight.first_id
while True:
    record = part(id, list(Reason)[id % 13])
    flight.begin(record.trigger)
    say(b"B", id)
    waiting.append(record)
    id += 1
    if len(waiting) > 5:
        record = waiting.pop(id % 5)
        flight.finish(record)
        say(b"E", record.trigger.id)
        journal.final(record)
    if id % 20 == 0:
        time.sleep(0.001)
"""


def test_sigkill_at_any_moment_loses_no_part_and_reuses_no_id(folder: Path) -> None:
    chance = random.Random(3)
    begun: set[int] = set()
    ended: set[int] = set()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for _ in range(5):
        command = [sys.executable, "-c", CHILD, str(folder)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as child:
            assert child.stdout is not None
            said = child.stdout.read(9)
            kill_at = time.monotonic() + chance.uniform(0.05, 0.7)
            while time.monotonic() < kill_at:
                said += child.stdout.read1()
            child.send_signal(signal.SIGKILL)
            said += child.stdout.read()
        messages = list(struct.iter_unpack("<cq", said[: len(said) // 9 * 9]))
        assert messages[0][0] == b"F"
        assert messages[0][1] > max(begun, default=0)
        new = {id for what, id in messages if what == b"B"}
        assert len(new) > 20
        assert not new & begun
        begun |= new
        ended |= {id for what, id in messages if what == b"E"}
    with running(folder, slots=1 << 17), closing(JournalReader(folder)) as reader:
        rows = {row.id: row for row in reader.parts()}
        assert begun <= rows.keys()
        assert len(rows.keys() - begun) <= 5  # begun, and killed before it could say so: one a run
        for id in ended:
            assert rows[id].reason == list(Reason)[id % 13].value
        killed = [id for id in begun - ended if rows[id].reason == "station_killed"]
        assert 5 * 5 <= len(killed) <= 5 * 7
        assert reader.summary().missing == 0
    with closing(sqlite3.connect(folder / FILE_NAME)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# Less.


def test_prune_goes_by_id_and_the_clock_may_have_jumped(folder: Path, tmp_path: Path) -> None:
    day = 86_400 * 10**9
    days = [0, 1, 2, 9, 3, 4, 5, 6]  # the clock was wrong for part 4
    with running(folder) as (flight, journal):
        for number, at in enumerate(days, 1):
            record = part(number)
            trigger = type(record.trigger)(number, record.trigger.source, record.trigger.monotonic_ns, at * day)
            flight.begin(trigger)
            record = part(number, trigger=trigger)
            flight.finish(record)
            journal.final(record)
            file = folder / f"{number}.png"
            file.write_bytes(b"png")
            journal.image(number, file.name, 3)
            journal.event(Event("tick", str(number), at * day))
        assert journal.flush(PATIENCE)
        assert prune(folder / FILE_NAME, 5 * day) == (3, 3)  # parts 5 and 6 are as old, but younger than part 4
        assert ids(folder) == [4, 5, 6, 7, 8]
        assert sorted(path.name for path in folder.glob("*.png")) == ["4.png", "5.png", "6.png", "7.png", "8.png"]
        with closing(JournalReader(folder)) as reader:
            assert [event.detail for event in reader.events()] == ["4", "5", "6", "7", "8"]
            assert reader.summary().missing == 0
        killed = snapshot(folder, tmp_path / "killed")
    with running(killed):
        assert ids(killed) == [4, 5, 6, 7, 8]  # what was pruned is not recovered
    assert prune(killed / FILE_NAME, 100 * day) == (5, 5)
    assert ids(killed) == []
    with running(killed) as (flight, _):
        assert flight.first_id > 8
