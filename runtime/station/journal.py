"""The journal: every part and every event in an SQLite file, written by a thread of its own.

Whoever reports a part only appends to a queue. What cannot be written yet waits there: while another program locks the
file, while the disk is full, while a damaged file is moved aside. What is in the file when the process is killed stays;
what still waits is in the flight record, from which the next run journals it.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from lineward.runtime.errors import JournalError, first_line
from lineward.runtime.inspection import Reason
from lineward.runtime.station.flight_record import FlightRecord
from lineward.runtime.station.journal_reader import (
    COLUMNS,
    FILE_NAME,
    SCHEMA,
    Forwarded,
    JournalReader,
    check_schema,
    has_calibrations,
    journalled,
)
from lineward.runtime.station.records import Event, PartRecord

MOST_WAITING = 100_000  # rows; with more the journal is behind
BEHIND_AFTER = 10.0  # seconds without writing what waits; then it is behind

_EVERY = 0.04
_BATCH = 5000
_BUSY = 5.0  # seconds that SQLite waits for another program's lock before it is asked again
_CACHE_KIB = 256  # of pages: a journal is written at its end, and a station's memory must not grow with it
_RETRY = 0.25
_CHECK_SECONDS = 2.0
_LOOK_EVERY = 1.0  # seconds; so long may parts go into a file that was damaged under the station's hands
_TABLES = """
CREATE TABLE station (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE part (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id INTEGER NOT NULL UNIQUE,
    source TEXT NOT NULL,
    part INTEGER NOT NULL,
    utc_ns INTEGER NOT NULL,
    job INTEGER NOT NULL,
    bundle TEXT NOT NULL,
    verdict TEXT NOT NULL,
    reason TEXT NOT NULL,
    outcome TEXT NOT NULL,
    score REAL,
    threshold REAL,
    captured_us INTEGER,
    started_us INTEGER,
    decided_us INTEGER,
    told_us INTEGER,
    acknowledged_us INTEGER,
    calibration TEXT NOT NULL DEFAULT ''
);
CREATE TABLE event (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    utc_ns INTEGER NOT NULL,
    name TEXT NOT NULL,
    detail TEXT NOT NULL
);
CREATE TABLE image (id INTEGER PRIMARY KEY, file TEXT NOT NULL, bytes INTEGER NOT NULL);
CREATE TABLE skipped (first INTEGER PRIMARY KEY, last INTEGER NOT NULL);
"""
_ENDS = (  # of all that is written to: the pages that the next rows need
    "SELECT * FROM station",
    "SELECT * FROM part ORDER BY sequence DESC LIMIT 1",
    "SELECT * FROM part ORDER BY id DESC LIMIT 1",
    "SELECT * FROM event ORDER BY sequence DESC LIMIT 1",
    "SELECT * FROM image ORDER BY id DESC LIMIT 1",
    "SELECT * FROM skipped ORDER BY first DESC LIMIT 1",
)
_INSERT_PART = (
    f"INSERT INTO part ({', '.join(COLUMNS[1:])}) VALUES ({', '.join('?' * (len(COLUMNS) - 1))})"
    " ON CONFLICT (id) DO NOTHING"
)


@dataclass(frozen=True)
class _Image:
    id: int
    file: str
    bytes: int


@dataclass(frozen=True)
class _ImageRemoved:
    id: int


@dataclass(frozen=True)
class _Skipped:
    first: int
    last: int


_Entry = PartRecord | Event | _Image | _ImageRemoved | _Skipped | Forwarded


class Journal:
    """A station's journal, open for writing; a `RecordObserver`. One at a time: the flight record sees to that.

    Opening it journals what the flight record has of the last run and the journal lacks, and gives the flight record
    an id to begin with that is greater than all in the journal.

    Args:
        folder: the station's; made if it is not there.
        name: of the station.
        flight: the flight record, freshly opened; None: there is none, and nothing to recover.

    Raises:
        JournalError: it cannot be made or written, or is not a journal that this version knows. A damaged journal is
            moved aside instead.
    """

    def __init__(self, folder: Path, name: str, flight: FlightRecord | None = None) -> None:
        self.path = folder / FILE_NAME
        self._name = name
        self._flight = flight
        self._waiting: deque[_Entry] = deque()
        self._last = Forwarded()  # the greatest sequence numbers given
        self._forwarded = Forwarded()
        self._greatest_id = 0
        self._wrote = time.monotonic()
        self._looked = time.monotonic()
        self._was_behind = False
        self._failure = ""
        self._wake = threading.Event()
        self._closing = False
        self._abandoned = False
        self._idle = threading.Condition()
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._past_damage(self._connected)
            if flight is not None:
                self._past_damage(lambda: self._recover(flight))
        except (sqlite3.Error, OSError) as error:
            self._disconnect()
            raise JournalError(
                f"{self.path}: cannot be opened for writing ({first_line(error)})",
                do="check the folder, its permissions and free space, and that no other program locks the file",
            ) from error
        self._thread = threading.Thread(target=self._run, name="lineward-journal", daemon=True)
        self._thread.start()

    # What may be called from any thread; never waits, never raises.

    def final(self, record: PartRecord) -> None:
        """See `records.RecordObserver`."""
        self._waiting.append(record)

    def event(self, event: Event) -> None:
        """See `records.RecordObserver`."""
        self._waiting.append(event)

    def image(self, id: int, file: str, bytes: int) -> None:
        """The frame of a part was kept, in a file relative to the station's folder."""
        self._waiting.append(_Image(id, file, bytes))

    def image_removed(self, id: int) -> None:
        """The frame of a part is kept no longer."""
        self._waiting.append(_ImageRemoved(id))

    def forward(self, parts: int, events: int) -> None:
        """Everything up to these sequence numbers has been passed on: `JournalReader.forwarded` says it."""
        self._waiting.append(Forwarded(parts, events))

    @property
    def backlog(self) -> int:
        """Entries that wait to be written."""
        return len(self._waiting)

    @property
    def behind(self) -> bool:
        """Whether so much waits, or for so long, that the station must take no more parts."""
        if not self._waiting:
            return False
        return len(self._waiting) > MOST_WAITING or time.monotonic() - self._wrote > BEHIND_AFTER

    @property
    def failure(self) -> str:
        """Why what waits cannot be written, as the last try showed; empty if it can."""
        return self._failure

    @property
    def greatest_id(self) -> int:
        """The greatest id of a part ever journalled; 0 if none."""
        return self._greatest_id

    def has(self, ids: list[int]) -> set[int]:
        """Those of the ids that are written; see `JournalReader.has`."""
        reader = JournalReader(self.path)
        try:
            return reader.has(ids)
        finally:
            reader.close()

    # For whoever may wait.

    def flush(self, timeout: float) -> bool:
        """Wait until what waits now is written, and return whether it is. Seconds."""
        self._wake.set()
        with self._idle:
            return self._idle.wait_for(lambda: not self._waiting, timeout)

    def close(self, timeout: float = 10.0) -> None:
        """Write what waits, settle the flight record and end; what cannot be written in that time stays in the latter.

        Seconds. May be called twice.
        """
        self._closing = True
        self._wake.set()
        self._thread.join(timeout)
        self._abandoned = True
        self._thread.join(_RETRY)

    # The journal's thread.

    def _run(self) -> None:
        while True:
            closing = self._closing
            try:
                self._write_waiting()
                if self._flight is not None:
                    self._flight.reserve()
            except Exception as error:  # whatever it is, what waits goes on waiting, and the station learns of it
                self._take_failure(error)
            self._tell_if_behind()
            if self._abandoned or (closing and not self._waiting):
                break
            self._wake.wait(_RETRY if self._failure else _EVERY)
            self._wake.clear()
        if self._flight is not None and not self._waiting:
            with suppress(OSError):  # then the next run looks through the flight record, and finds all journalled
                self._flight.settle()
        self._disconnect()

    def _write_waiting(self) -> None:
        while self._waiting and not self._abandoned:
            # Only this thread takes entries out: those it looks at stay the first ones until they are written.
            batch = [self._waiting[place] for place in range(min(len(self._waiting), _BATCH))]
            self._write(batch)
            for _ in batch:
                self._waiting.popleft()
            self._wrote = time.monotonic()
        self._wrote = time.monotonic()
        if self._connection is not None and self._wrote - self._looked > _LOOK_EVERY:
            _look_afresh(self._connection)  # if the file was taken away, the next part will show it
            self._looked = self._wrote
        self._failure = ""
        with self._idle:
            self._idle.notify_all()

    def _write(self, entries: Sequence[_Entry]) -> None:
        with _writing(self._connected()) as connection:
            for entry in entries:
                _insert(connection, entry)
            sequences = dict(connection.execute("SELECT name, seq FROM sqlite_sequence"))
        self._last = Forwarded(sequences.get("part", 0), sequences.get("event", 0))
        self._greatest_id = max(self._greatest_id, *(e.trigger.id for e in entries if isinstance(e, PartRecord)), 0)
        self._forwarded = next((e for e in reversed(entries) if isinstance(e, Forwarded)), self._forwarded)

    def _take_failure(self, error: Exception) -> None:
        self._failure = f"{type(error).__name__}: {first_line(error)}"
        try:
            if _is_damage(error):
                self._begin_anew(error)
            elif not _is_passing(error):
                self._disconnect()
        except Exception as next_error:
            self._failure = f"{type(next_error).__name__}: {first_line(next_error)}"

    def _tell_if_behind(self) -> None:
        behind = self.behind
        if behind and not self._was_behind:
            why = self._failure or "it is written too slowly"
            self._note("journal_behind", f"{self.backlog} entries wait: {why}")
        elif self._was_behind and not behind:
            self._note("journal_back", "what waited is written")
        self._was_behind = behind

    def _note(self, name: str, detail: str) -> None:
        self._waiting.append(Event(name, detail, time.time_ns()))

    # The file.

    def _connected(self) -> sqlite3.Connection:
        if self._connection is not None and not self._is_there():
            self._disconnect()
            self._connect()
            self._note("journal_taken_away", f"{self.path} was moved or deleted while it was written; a new one begins")
        return self._connection or self._connect()

    def _is_there(self) -> bool:
        try:
            return self.path.stat().st_ino == self._inode
        except FileNotFoundError:
            return False

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(f"PRAGMA cache_size = {-_CACHE_KIB}")
            if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,):
                self._create(connection)
            check_schema(connection, self.path)
            _check_pages(connection)
            if not has_calibrations(connection):
                connection.execute("ALTER TABLE part ADD COLUMN calibration TEXT NOT NULL DEFAULT ''")
            with _writing(connection):
                connection.execute("INSERT OR REPLACE INTO station VALUES ('name', ?)", (self._name,))
            (greatest,) = connection.execute("SELECT coalesce(max(id), 0) FROM part").fetchone()
        except BaseException:
            connection.close()
            raise
        self._greatest_id = max(self._greatest_id, greatest)
        self._inode = self.path.stat().st_ino
        self._connection = connection
        return connection

    def _create(self, connection: sqlite3.Connection) -> None:
        """Make the tables. Sequence numbers go on where those of a journal before this one may have ended."""
        parts = max(self._greatest_id, self._last.parts)  # ids count up as well, and no faster than parts come
        if self._flight is not None:
            parts = max(parts, self._flight.first_id - 1)
        with _writing(connection):
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.executemany(
                "INSERT INTO sqlite_sequence (name, seq) VALUES (?, ?)", [("part", parts), ("event", self._last.events)]
            )
            connection.execute("INSERT INTO station VALUES ('schema', ?)", (str(SCHEMA),))
            _insert(connection, self._forwarded)

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(sqlite3.Error):
                self._connection.close()
            self._connection = None

    def _begin_anew(self, damage: Exception) -> None:
        """Move the damaged journal aside, with what belongs to it, and begin a new one that says so."""
        aside = self.path.with_name(f"{FILE_NAME}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
        for suffix in ("", "-wal", "-shm"):
            with suppress(FileNotFoundError):
                Path(f"{self.path}{suffix}").rename(f"{aside}{suffix}")
        self._disconnect()
        self._note("journal_damaged", f"{first_line(damage)}; the damaged journal is kept as {aside}")
        self._connect()

    # The last run.

    def _past_damage(self, step: Callable[[], object]) -> None:
        """Take a step, again with a new journal if the old one turns out to be damaged: how much of it was looked at
        beforehand depends on its size.
        """
        try:
            step()
        except sqlite3.DatabaseError as error:
            if not _is_damage(error):
                raise
            self._begin_anew(error)
            step()

    def _recover(self, flight: FlightRecord) -> None:
        """Journal what the last run left in the flight record, and let ids go on."""
        if flight.damaged is not None:
            self._note("flight_record_damaged", f"it is kept as {flight.damaged}; what was legible is recovered")
        lacking = list(self._lacking(flight.recovered()))
        self._write(lacking)
        begun = max(self._greatest_id, flight.last_id)
        flight.at_least(begun + 1)
        if lacking or flight.first_id > begun + 1:
            killed = sum(record.reason is Reason.STATION_KILLED for record in lacking)
            self._note(
                "station_killed",
                f"the last run did not end well: {killed} parts in flight count as rejected,"
                f" {len(lacking) - killed} others are journalled late; ids go on with {flight.first_id}",
            )
        if flight.first_id > begun + 1 and begun:
            self._waiting.append(_Skipped(begun + 1, flight.first_id - 1))
        self._write(list(self._waiting))
        self._waiting.clear()
        flight.settle()

    def _lacking(self, records: Iterator[PartRecord]) -> Iterator[PartRecord]:
        connection = self._connected()
        stored = connection.execute("SELECT value FROM station WHERE key = 'pruned'").fetchone()
        pruned = int(stored[0]) if stored else 0
        while chunk := list(islice(records, 500)):
            known = journalled(connection, [record.trigger.id for record in chunk])
            yield from (r for r in chunk if r.trigger.id not in known and r.trigger.id > pruned)


def prune(path: Path, before: int) -> tuple[int, int]:
    """Delete the oldest parts up to the first that was triggered at `before` or later, their images, and old events.

    In the order of ids, whatever the wall clock said: a part that is younger than one that stays is never deleted.
    The station may run meanwhile. The file does not shrink; its room is used again.

    Args:
        path: the journal.
        before: by the wall clock, UTC, nanoseconds.

    Returns:
        How many parts and how many images were deleted.

    Raises:
        JournalError: it cannot be read or written.
    """
    JournalReader(path).close()
    connection = sqlite3.connect(path, timeout=_BUSY, isolation_level=None)
    try:
        return _prune(connection, path.parent, before)
    except sqlite3.Error as error:
        raise JournalError(
            f"{path}: cannot be pruned ({first_line(error)})", do="try again; what was deleted stays deleted"
        ) from error
    finally:
        connection.close()


def _prune(connection: sqlite3.Connection, folder: Path, before: int) -> tuple[int, int]:
    first_kept = _first_kept(connection, "part", "id", before)
    with _writing(connection):  # before anything is deleted: what is pruned is never recovered from a flight record
        connection.execute("INSERT OR REPLACE INTO station VALUES ('pruned', ?)", (str(first_kept - 1),))
        connection.execute("DELETE FROM skipped WHERE last < ?", (first_kept,))
    images = connection.execute("SELECT id, file FROM image WHERE id < ?", (first_kept,)).fetchall()
    for _, file in images:
        (folder / file).unlink(missing_ok=True)
    _delete(connection, "image", "id", first_kept)
    parts = _delete(connection, "part", "id", first_kept)
    _delete(connection, "event", "sequence", _first_kept(connection, "event", "sequence", before))
    return parts, len(images)


def _first_kept(connection: sqlite3.Connection, table: str, column: str, before: int) -> int:
    first = f"SELECT min({column}) FROM {table} WHERE utc_ns >= ?"
    (kept,) = connection.execute(
        f"SELECT coalesce(({first}), (SELECT max({column}) + 1 FROM {table}), 0)", (before,)
    ).fetchone()
    return int(kept)


def _delete(connection: sqlite3.Connection, table: str, column: str, first_kept: int) -> int:
    """Delete rows in portions, so that the station's journal never waits long."""
    deleted = 0
    while True:
        with _writing(connection):
            count = connection.execute(
                f"DELETE FROM {table} WHERE {column} IN (SELECT {column} FROM {table} WHERE {column} < ? LIMIT ?)",
                (first_kept, _BATCH),
            ).rowcount
        deleted += count
        if count < _BATCH:
            return deleted


@contextmanager
def _writing(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """All that is written within, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


def _insert(connection: sqlite3.Connection, entry: _Entry) -> None:
    if isinstance(entry, PartRecord):
        connection.execute(_INSERT_PART, _values(entry))
    elif isinstance(entry, Event):
        detail = entry.detail.encode(errors="backslashreplace").decode()  # it may quote the name of any file
        connection.execute(
            "INSERT INTO event (utc_ns, name, detail) VALUES (?, ?, ?)", (entry.utc_ns, entry.name, detail)
        )
    elif isinstance(entry, _Image):
        connection.execute("INSERT OR REPLACE INTO image VALUES (?, ?, ?)", (entry.id, entry.file, entry.bytes))
    elif isinstance(entry, _ImageRemoved):
        connection.execute("DELETE FROM image WHERE id = ?", (entry.id,))
    elif isinstance(entry, _Skipped):
        connection.execute("INSERT OR REPLACE INTO skipped VALUES (?, ?)", (entry.first, entry.last))
    else:
        values = [("forwarded_parts", str(entry.parts)), ("forwarded_events", str(entry.events))]
        connection.executemany("INSERT OR REPLACE INTO station VALUES (?, ?)", values)


def _values(r: PartRecord) -> tuple[Any, ...]:
    """The columns of a part but its sequence number. SQLite stores NaN as NULL."""
    t = r.trigger
    times = (r.captured_ns, r.started_ns, r.decided_ns, r.told_ns, r.acknowledged_ns)
    return (
        t.id,
        t.source.value,
        t.part,
        t.utc_ns,
        r.job,
        r.bundle,
        r.verdict.value,
        r.reason.value,
        r.outcome.value,
        r.score,
        r.threshold,
        *((ns - t.monotonic_ns) // 1000 if ns else None for ns in times),
        r.calibration,
    )


def _check_pages(connection: sqlite3.Connection) -> None:
    """Look for damage, as far as that takes no longer than the start of a station may.

    Raises:
        sqlite3.DatabaseError: there is some.
    """
    until = time.monotonic() + _CHECK_SECONDS
    connection.set_progress_handler(lambda: time.monotonic() > until, 10_000)
    try:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError:
        return  # interrupted
    finally:
        connection.set_progress_handler(None, 0)
    if found != "ok":
        raise sqlite3.DatabaseError(found)


def _look_afresh(connection: sqlite3.Connection) -> None:
    """Read from the file what the next rows need: pages in memory would hide for long that the file was damaged.

    Raises:
        sqlite3.DatabaseError: it was.
    """
    connection.execute("PRAGMA shrink_memory")
    for end in _ENDS:
        connection.execute(end).fetchall()


def _is_damage(error: Exception) -> bool:
    """Whether the file is damaged: SQLITE_CORRUPT and SQLITE_NOTADB, and no others, come as this very class."""
    return type(error) is sqlite3.DatabaseError


def _is_passing(error: Exception) -> bool:
    """Whether a connection stays good after it: another program holds the lock, or the disk is full."""
    return isinstance(error, sqlite3.OperationalError) and ("locked" in str(error) or "full" in str(error))
