"""Results, events and health to an MQTT broker, and triggers from it (docs/health.md has topics and payloads).

The journal is the store: what the broker has not acknowledged is read from the journal again, after a lost connection,
a dead broker or a restart of the station. So nothing is lost, the order is kept, and a message may come twice.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec

from lineward.runtime.errors import JournalError, StationError, first_line
from lineward.runtime.station.configuration import Mqtt
from lineward.runtime.station.journal import Journal
from lineward.runtime.station.journal_reader import Forwarded, JournalEvent, JournalReader, JournalRow
from lineward.runtime.station.mqtt_connection import (
    TRIGGER,
    WINDOW,
    BrokerError,
    Connection,
    import_paho,
    read_password,
    tls_context,
)
from lineward.runtime.station.status import StatusReport, iso

if TYPE_CHECKING:
    from paho.mqtt.client import MQTTMessage, MQTTMessageInfo

_POLL = 0.1
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_STABLE_AFTER = 10.0
"""Seconds; a connection that is lost sooner is no success, and the pause before the next one grows."""
_LAST_MESSAGES = 1.0
_END_WITHIN = 10.0
_QUOTED = 60

_Row = TypeVar("_Row", JournalRow, JournalEvent)
_Part = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]


class _TriggerMessage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    part: _Part = 0


class MqttPublisher:
    """Forwards a station's journal to a broker, in a thread of its own.

    Args:
        table: of the station file.
        name: of the station.
        journal: what is forwarded, and what remembers how far.
        report: the station's health.
        event: tells those who listen to the station that something happened: its name, and what in words.
        trigger: takes a part, by the sender's number for it; None: triggers are not subscribed to.

    Raises:
        MissingExtraError: paho-mqtt is not installed.
        StationError: the file of the password, or of the certificates, cannot be read.
    """

    def __init__(
        self,
        table: Mqtt,
        name: str,
        journal: Journal,
        report: Callable[[], StatusReport],
        event: Callable[[str, str], None],
        trigger: Callable[[int], bool] | None = None,
    ) -> None:
        import_paho()
        read_password(table)
        if table.ca_file is not None:
            tls_context(table)
        self._table = table
        self._client_id = f"lineward-{name}"
        self._topic = table.topic or f"lineward/{name}"
        self._journal = journal
        self._report = report
        self._event = event
        self._trigger = trigger
        self._complaint = ("", "")
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._until = float("inf")
        self._thread = threading.Thread(target=self._run, name="lineward-mqtt", daemon=True)

    def start(self) -> None:
        """Begin to forward."""
        self._thread.start()

    def close(self) -> None:
        """Forward what the journal was given until now, for a second or two at most, and end."""
        self._journal.flush(_LAST_MESSAGES)
        self._until = time.monotonic() + _LAST_MESSAGES
        self._stopping.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join(_END_WITHIN)

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stopping.is_set():
            began = time.monotonic()
            try:
                self._serve()
            except BrokerError as error:
                self._complain(error.event, error.detail)
            except JournalError as error:  # a damaged one is being replaced
                self._complain("journal_not_forwarded", error.what)
            except StationError as error:
                self._complain("broker_refused", f"{error.what}; {error.do}")
            except Exception as error:  # whatever it is, the station inspects on, and this is tried again
                self._complain("mqtt_failed", f"{type(error).__name__}: {first_line(error)}")
            if time.monotonic() - began > _STABLE_AFTER:
                pause = _FIRST_PAUSE
            self._stopping.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _serve(self) -> None:
        """Forward until stopped, or until the connection is lost."""
        hear = None if self._trigger is None else self._take_trigger
        with closing(Connection(self._table, self._client_id, self._topic, self._wake, hear)) as connection:
            self._complaint = ("", "")
            self._event("broker_connected", f"{self._table.host}, port {self._table.port}")
            with closing(JournalReader(self._journal.path)) as reader:
                forwarding = _Forwarding(reader, self._journal, connection)
                health_due = 0.0
                while True:
                    self._wake.clear()
                    stopping = self._stopping.is_set()
                    connection.check()
                    if time.monotonic() >= health_due:
                        connection.publish("health", msgspec.json.encode(self._report()), retain=True)
                        health_due = time.monotonic() + self._table.health_every
                    forwarding.advance()
                    if stopping and (forwarding.is_done or time.monotonic() > self._until):
                        return
                    self._wake.wait(_POLL)

    def _complain(self, event: str, detail: str) -> None:
        """Tell of each trouble once, not with every try."""
        if (event, detail) != self._complaint:
            self._complaint = event, detail
            self._event(event, detail)

    def _take_trigger(self, message: MQTTMessage) -> None:
        if message.retain or message.dup:
            self._event("trigger_refused", f"a retained or repeated message on {self._topic}/{TRIGGER} may be old")
            return
        try:
            part = part_of(bytes(message.payload))
        except msgspec.MsgspecError as error:
            quoted = repr(message.payload[:_QUOTED])
            self._event("trigger_malformed", f"{quoted} on {self._topic}/{TRIGGER}: {first_line(error)}")
            return
        if self._trigger is not None:
            self._trigger(part)


class _Forwarding:
    """What one connection has forwarded of the journal.

    Attributes:
        is_done: everything that was in the journal when it was last looked at is acknowledged.
    """

    def __init__(self, reader: JournalReader, journal: Journal, connection: Connection) -> None:
        self._reader = reader
        self._journal = journal
        self._connection = connection
        self._sent = reader.forwarded
        self._under_way: deque[tuple[Forwarded, MQTTMessageInfo]] = deque()
        self.is_done = False

    def advance(self) -> None:
        """Take acknowledgements, and send what is journalled as far as the window has room."""
        self._take_acknowledgements()
        room = WINDOW - len(self._under_way)
        if room < WINDOW // 2:
            return
        events = _following(self._reader.events, self._sent.events, room)
        for event in events:
            self._send("event", event_message(event), replace(self._sent, events=event.sequence))
        for part in _following(self._reader.parts, self._sent.parts, room - len(events)):
            self._send("part", part_message(part), replace(self._sent, parts=part.sequence))
        self.is_done = not self._under_way

    def _take_acknowledgements(self) -> None:
        acknowledged = None
        while self._under_way and self._under_way[0][1].is_published():
            acknowledged = self._under_way.popleft()[0]
        if acknowledged is not None:
            self._journal.forward(acknowledged.parts, acknowledged.events)

    def _send(self, topic: str, payload: bytes, then: Forwarded) -> None:
        self._under_way.append((then, self._connection.publish(topic, payload)))
        self._sent = then


def _following(read: Callable[..., Iterator[_Row]], sent: int, room: int) -> list[_Row]:
    """The rows after the last one sent; if that one is not there, the journal is a new one, and all rows are meant."""
    if sent:
        rows = list(read(after_sequence=sent - 1, limit=room + 1))
        if rows and rows[0].sequence == sent:
            return rows[1:]
    return list(read(after_sequence=0, limit=room))


def part_of(payload: bytes) -> int:
    """The part's number in a trigger message: empty, a number, or `{"part": 17}`; 0 if it gives none.

    Raises:
        msgspec.MsgspecError: it is none of these.
    """
    if not payload.strip():
        return 0
    message = msgspec.json.decode(payload, type=_Part | _TriggerMessage)
    return message.part if isinstance(message, _TriggerMessage) else message


def part_message(row: JournalRow) -> bytes:
    """A part as JSON: the journal's columns, with `at` for its time in ISO 8601."""
    fields = asdict(row)
    del fields["sequence"], fields["utc_ns"]
    return msgspec.json.encode({"id": fields.pop("id"), "at": iso(row.utc_ns), **fields})


def event_message(row: JournalEvent) -> bytes:
    """An event as JSON; its id counts up."""
    return msgspec.json.encode({"id": row.sequence, "at": iso(row.utc_ns), "event": row.name, "detail": row.detail})
