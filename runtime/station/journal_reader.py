"""Reading a journal, while its station runs or when it does not: never writes, never keeps the station from writing."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any

from lineward.runtime.errors import JournalError, first_line
from lineward.runtime.inspection import Outcome, Reason

FILE_NAME = "journal.sqlite"
SCHEMA = 1
_CHUNK = 1000  # rows a query: a long query would keep the station from reusing its write-ahead log


@dataclass(frozen=True)
class JournalRow:
    """A part, as the journal has it. Times are in microseconds from the trigger; None: never.

    Attributes:
        sequence: counts up in the order in which parts became final.
        id: of its trigger.
        source: what the trigger came from, a value of `Source`.
        part: the PLC's own number for the part, 0 if it gave none.
        utc_ns: when it was triggered, by the wall clock.
        job: the job that was active.
        bundle: SHA-256 (hex) of the manifest of the bundle it was inspected with.
        verdict: what the line was told, a value of `Verdict`.
        reason: why, a value of `Reason`.
        outcome: where it is counted, a value of `Outcome`.
        score: image score; None when there is none.
        threshold: image score that still passes.
        captured_us: when its frame was complete.
        started_us: when its inspection began.
        decided_us: when the verdict stood.
        told_us: when the verdict was on the wire.
        acknowledged_us: when the PLC acknowledged it.
        calibration: SHA-256 (hex) of the device's calibration that the threshold is of; empty: the bundle's own.
    """

    sequence: int
    id: int
    source: str
    part: int
    utc_ns: int
    job: int
    bundle: str
    verdict: str
    reason: str
    outcome: str
    score: float | None
    threshold: float | None
    captured_us: int | None
    started_us: int | None
    decided_us: int | None
    told_us: int | None
    acknowledged_us: int | None
    calibration: str = ""


COLUMNS = tuple(field.name for field in fields(JournalRow))


@dataclass(frozen=True)
class JournalEvent:
    """Something that happened to the station; see `records.Event`."""

    sequence: int
    utc_ns: int
    name: str
    detail: str


@dataclass(frozen=True)
class SavedImage:
    """A frame that was kept.

    Attributes:
        id: of the part's trigger.
        file: relative to the station's folder.
        bytes: its size.
        row: the part; None while it is not final.
    """

    id: int
    file: str
    bytes: int
    row: JournalRow | None


@dataclass(frozen=True)
class Forwarded:
    """Up to which sequence numbers the journal has been passed on to others.

    Attributes:
        parts: of the last part.
        events: of the last event.
    """

    parts: int = 0
    events: int = 0


@dataclass(frozen=True)
class Summary:
    """What a journal holds, reconciled: ids = parts + skipped + missing, and parts is the sum of the outcomes.

    Attributes:
        parts: rows.
        outcomes: rows by outcome; every outcome is there.
        reasons: rows by reason, the most frequent first.
        first_utc_ns, last_utc_ns: wall-clock time of the first and the last id; None in an empty journal.
        first_id, last_id: least and greatest id; 0 in an empty journal.
        skipped: ids between these that were never given to a part, as after each unclean end.
        missing: ids between these that are not accounted for: parts in flight now, or lost with the power.
        images: frames kept.
        image_bytes: their size.
    """

    parts: int
    outcomes: dict[Outcome, int]
    reasons: dict[Reason, int]
    first_utc_ns: int | None
    last_utc_ns: int | None
    first_id: int
    last_id: int
    skipped: int
    missing: int
    images: int
    image_bytes: int


class JournalReader:
    """A journal, read only. For one thread at a time.

    Args:
        path: the journal, or the station's folder.

    Raises (every method too):
        JournalError: it is not there, is damaged, or is no journal that this version knows.
    """

    def __init__(self, path: Path) -> None:
        self.path = path / FILE_NAME if path.is_dir() else path
        self._connection: sqlite3.Connection | None = None
        self._inode = 0
        with self._reading():
            pass

    def parts(
        self,
        since: int | None = None,
        until: int | None = None,
        outcome: Outcome | None = None,
        reason: Reason | None = None,
        limit: int | None = None,
        after_sequence: int | None = None,
        last: int | None = None,
    ) -> Iterator[JournalRow]:
        """The parts in the order in which they became final.

        Args:
            since: triggered at or after this time (UTC, nanoseconds).
            until: triggered before this time (UTC, nanoseconds).
            outcome: counted there.
            reason: with that reason.
            limit: this many at most, from the first on.
            after_sequence: with a greater sequence number.
            last: only the last so many of them.
        """
        conditions, values = _where(
            ("utc_ns >= ?", since),
            ("utc_ns < ?", until),
            ("outcome = ?", outcome and outcome.value),
            ("reason = ?", reason and reason.value),
        )
        after = after_sequence or 0
        if last is not None:
            newest = f"SELECT sequence FROM part WHERE {conditions} ORDER BY sequence DESC LIMIT ?"
            first = self._value(f"SELECT min(sequence) FROM ({newest})", *values, last)
            if first is None:
                return
            after = max(after, first - 1)
        columns = ", ".join(self._columns())
        query = f"SELECT {columns} FROM part WHERE {conditions} AND sequence > ? ORDER BY sequence LIMIT ?"
        for row in self._pages(query, values, after, limit):
            yield JournalRow(*row)

    def events(self, after_sequence: int | None = None, limit: int | None = None) -> Iterator[JournalEvent]:
        """The events in order; see `parts`."""
        query = "SELECT sequence, utc_ns, name, detail FROM event WHERE sequence > ? ORDER BY sequence LIMIT ?"
        for row in self._pages(query, (), after_sequence or 0, limit):
            yield JournalEvent(*row)

    def images(self, since: int | None = None, until: int | None = None) -> Iterator[SavedImage]:
        """The frames that were kept, by id of their part; see `parts`. With a time, those of final parts only."""
        conditions, values = _where(("part.utc_ns >= ?", since), ("part.utc_ns < ?", until))
        columns = ", ".join(self._columns())
        query = (
            f"SELECT image.id, image.file, image.bytes, {columns} FROM image LEFT JOIN part ON part.id = image.id"
            f" WHERE {conditions} AND image.id > ? ORDER BY image.id LIMIT ?"
        )
        for id, file, size, *row in self._pages(query, values, 0, None):
            yield SavedImage(id, file, size, None if row[0] is None else JournalRow(*row))

    def has(self, ids: Iterable[int]) -> set[int]:
        """Those of the ids that are journalled."""
        with self._reading() as connection:
            return journalled(connection, ids)

    @property
    def greatest_id(self) -> int:
        """The greatest id journalled; 0 if none."""
        return int(self._value("SELECT max(id) FROM part") or 0)

    @property
    def forwarded(self) -> Forwarded:
        """What has been passed on; see `Journal.forward`."""
        stored = dict(self._rows("SELECT key, value FROM station WHERE key LIKE 'forwarded_%'"))
        return Forwarded(int(stored.get("forwarded_parts", 0)), int(stored.get("forwarded_events", 0)))

    @property
    def station(self) -> str:
        """The station's name."""
        return str(self._value("SELECT value FROM station WHERE key = 'name'") or "")

    def summary(self) -> Summary:
        """What it holds."""
        with self._reading() as connection, _transaction(connection):
            reasons = {
                Reason(reason): count
                for reason, count in connection.execute(
                    "SELECT reason, count(*) FROM part GROUP BY reason ORDER BY 2 DESC"
                )
            }
            counted = dict(connection.execute("SELECT outcome, count(*) FROM part GROUP BY outcome"))
            first, last = connection.execute("SELECT coalesce(min(id), 0), coalesce(max(id), 0) FROM part").fetchone()
            times = dict(connection.execute("SELECT id, utc_ns FROM part WHERE id IN (?, ?)", (first, last)))
            (skipped,) = connection.execute(
                "SELECT coalesce(sum(min(last, ?) - max(first, ?) + 1), 0) FROM skipped WHERE first <= ? AND last >= ?",
                (last, first, last, first),
            ).fetchone()
            images, size = connection.execute("SELECT count(*), coalesce(sum(bytes), 0) FROM image").fetchone()
        outcomes = {outcome: counted.get(outcome.value, 0) for outcome in Outcome}
        parts = sum(reasons.values())
        missing = last - first + 1 - parts - skipped if parts else 0
        return Summary(
            parts, outcomes, reasons, times.get(first), times.get(last), first, last, skipped, missing, images, size
        )

    def close(self) -> None:
        """Give the file back."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _pages(self, query: str, values: Sequence[Any], after: int, limit: int | None) -> Iterator[tuple[Any, ...]]:
        """The rows of a query that ends in "more than ?, in order, at most ?", in many short queries."""
        left = limit
        while left is None or left > 0:
            rows = self._rows(query, *values, after, _CHUNK if left is None else min(left, _CHUNK))
            yield from rows
            if len(rows) < _CHUNK:
                return
            after = rows[-1][0]
            left = None if left is None else left - len(rows)

    def _value(self, query: str, *values: Any) -> Any:
        rows = self._rows(query, *values)
        return rows[0][0] if rows else None

    def _rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self._reading() as connection:
            return connection.execute(query, values).fetchall()

    def _columns(self) -> list[str]:
        """What to select for a `JournalRow`, of a journal from before there were calibrations too."""
        with self._reading() as connection:
            known = has_calibrations(connection)
        return [f"part.{name}" if known or name != "calibration" else "''" for name in COLUMNS]

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            yield self._connected()
        except sqlite3.Error as error:
            self.close()
            raise JournalError(
                f"{self.path}: cannot be read ({first_line(error)})",
                do="the station, at its next start, moves a damaged journal aside and begins a new one",
            ) from error

    def _connected(self) -> sqlite3.Connection:
        """The connection, opened anew when the station has moved a damaged journal aside."""
        try:
            inode = self.path.stat().st_ino
        except OSError as error:
            raise JournalError(
                f"{self.path}: no journal there ({error.strerror})", do="name the station file or its folder"
            ) from error
        if self._connection is None or inode != self._inode:
            self.close()
            self._connection, self._inode = self._open(), inode
        return self._connection

    def _open(self) -> sqlite3.Connection:
        # A closed journal in a folder that may not be written to can only be opened as one that nobody writes to.
        at_rest = not self.path.with_name(f"{self.path.name}-wal").exists() and not os.access(self.path.parent, os.W_OK)
        uri = f"{self.path.absolute().as_uri()}?mode=ro" + ("&immutable=1" if at_rest else "")
        connection = sqlite3.connect(uri, uri=True, timeout=5.0, isolation_level=None, check_same_thread=False)
        try:
            check_schema(connection, self.path)
        except BaseException:
            connection.close()
            raise
        return connection


def check_schema(connection: sqlite3.Connection, path: Path) -> None:
    """Refuse a database that is no journal, or a later version's.

    Raises:
        JournalError: it is.
        sqlite3.Error: it cannot be read.
    """
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "station" not in tables or "part" not in tables:
        raise JournalError(f"{path}: no journal, but another database", do="move it out of the station's folder")
    (schema,) = connection.execute("SELECT value FROM station WHERE key = 'schema'").fetchone() or ("0",)
    if schema != str(SCHEMA):
        raise JournalError(
            f"{path}: written by another version (schema {schema}, not {SCHEMA})",
            do="use the version of Lineward that wrote it, or move it out of the station's folder",
        )


def has_calibrations(connection: sqlite3.Connection) -> bool:
    """Whether parts have the column `calibration`, which the first journals had not."""
    return any(name == "calibration" for _, name, *_ in connection.execute("PRAGMA table_info(part)"))


def journalled(connection: sqlite3.Connection, ids: Iterable[int]) -> set[int]:
    """Those of the ids that are in the table of parts."""
    left = iter(ids)
    found: set[int] = set()
    while chunk := list(islice(left, 500)):
        marks = ", ".join("?" * len(chunk))
        found.update(id for (id,) in connection.execute(f"SELECT id FROM part WHERE id IN ({marks})", chunk))
    return found


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All queries within see the same state."""
    connection.execute("BEGIN")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")


def _where(*conditions: tuple[str, Any]) -> tuple[str, list[Any]]:
    given = [(text, value) for text, value in conditions if value is not None]
    return " AND ".join(["1", *(text for text, _ in given)]), [value for _, value in given]
