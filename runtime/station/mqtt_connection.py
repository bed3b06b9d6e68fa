"""One connection to an MQTT broker (3.1.1, which every broker speaks). Another one is another object: nothing that was
under way outlives it."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from lineward.runtime.errors import MissingExtraError, StationError, first_line
from lineward.runtime.station.configuration import Mqtt

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessage, MQTTMessageInfo

WINDOW = 100
"""Messages that may await their acknowledgement."""
KEEPALIVE = 15
"""Seconds; a broker that is silent for up to twice as long is lost."""
TRIGGER = "trigger"

_ANSWER_WITHIN = 10.0
_FAREWELL = 1.0


class BrokerError(Exception):
    """The broker is not there, refuses, or went away.

    Args:
        event: the event that it is.
        detail: in words.
    """

    def __init__(self, event: str, detail: str) -> None:
        super().__init__(detail)
        self.event = event
        self.detail = detail


class Connection:
    """Connected and subscribed when made. The broker keeps `<topic>/online`: "online" now, "offline" once it loses us.

    Args:
        table: of the station file.
        client_id: a second client of that name throws the first one out.
        topic: prefix of every topic.
        wake: set whenever something happens.
        hear: is given each message on `<topic>/trigger`, in a thread of the connection; None: not subscribed to.

    Raises:
        BrokerError: the broker is not there, or refuses.
        StationError: a file of the table cannot be read.
    """

    def __init__(
        self,
        table: Mqtt,
        client_id: str,
        topic: str,
        wake: threading.Event,
        hear: Callable[[MQTTMessage], None] | None = None,
    ) -> None:
        self._address = f"{table.host}, port {table.port}"
        self._topic = topic
        self._wake = wake
        self._hear = hear
        self._answered = threading.Event()
        self._ended = threading.Event()
        self._refused = ""
        self._how = "the connection was lost"
        self._client = self._make_client(table, client_id)
        self._connect(table)
        self.publish("online", b"online", retain=True)

    def publish(self, topic: str, payload: bytes, retain: bool = False) -> MQTTMessageInfo:
        """Send a message under a topic below ours; what is returned knows when it was acknowledged.

        Raises:
            BrokerError: the connection is lost.
        """
        sent = self._client.publish(f"{self._topic}/{topic}", payload, qos=1, retain=retain)
        if sent.rc != 0:
            raise BrokerError("broker_lost", self._lost_how())
        return sent

    def check(self) -> None:
        """Find out whether it still stands.

        Raises:
            BrokerError: it does not.
        """
        if self._ended.is_set():
            raise BrokerError("broker_lost", self._lost_how())

    def close(self) -> None:
        """Say farewell if the broker still listens, and disconnect."""
        if not self._ended.is_set():
            with suppress(BrokerError, RuntimeError, ValueError):
                self.publish("online", b"offline", retain=True).wait_for_publish(_FAREWELL)
            self._client.disconnect()
            self._ended.wait(_FAREWELL)
        stream = self._client.socket()
        if isinstance(stream, socket.socket):
            with suppress(OSError):
                stream.shutdown(socket.SHUT_RDWR)  # or paho's thread waits for a broker that hangs
        self._client.loop_stop()

    def _make_client(self, table: Mqtt, client_id: str) -> Client:
        paho = import_paho()
        client: Client = paho.Client(
            paho.CallbackAPIVersion.VERSION2, client_id, clean_session=True, reconnect_on_failure=False
        )
        client.max_inflight_messages_set(2 * WINDOW)  # with health and farewell; the window is ours
        client.username_pw_set(table.username, read_password(table))
        if table.ca_file is not None:
            client.tls_set_context(tls_context(table))
        client.will_set(f"{self._topic}/online", b"offline", qos=1, retain=True)
        client.on_connect = self._on_connect
        client.on_subscribe = self._on_subscribe
        client.on_disconnect = self._on_disconnect
        client.on_publish = self._on_publish
        client.on_message = self._on_message
        return client

    def _connect(self, table: Mqtt) -> None:
        try:
            self._client.connect(table.host, table.port, KEEPALIVE)
        except ssl.SSLError as error:
            raise BrokerError("broker_refused", f"{self._address}: no TLS with it ({first_line(error)})") from error
        except (OSError, ValueError) as error:
            raise BrokerError("broker_unreachable", f"{self._address}: {first_line(error)}") from error
        self._client.loop_start()
        answered = self._answered.wait(_ANSWER_WITHIN)
        if answered and not self._refused and not self._ended.is_set():
            return
        self.close()
        if self._refused:
            raise BrokerError("broker_refused", self._refused)
        raise BrokerError("broker_unreachable", f"{self._address}: it does not answer as an MQTT broker")

    # Called in paho's thread.

    def _on_connect(self, client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._refuse(f"{reason}; check [mqtt] username and password_file")
        elif self._hear is not None:
            # At most once, and nothing is kept for us while we are away: a trigger that comes late must not come.
            client.subscribe(f"{self._topic}/{TRIGGER}", qos=0)
        else:
            self._answered.set()

    def _on_subscribe(self, _client: Client, _data: Any, _mid: int, reasons: Any, _properties: Any) -> None:
        if any(reason.is_failure for reason in reasons):
            self._refuse(f"{self._topic}/{TRIGGER} may not be subscribed to; check the broker's access control")
        self._answered.set()

    def _on_disconnect(self, _client: Client, _data: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        self._how = str(reason)
        self._ended.set()
        self._answered.set()
        self._wake.set()

    def _on_publish(self, _client: Client, _data: Any, _mid: int, _reason: Any, _properties: Any) -> None:
        self._wake.set()

    def _on_message(self, _client: Client, _data: Any, message: MQTTMessage) -> None:
        if self._hear is not None:
            self._hear(message)

    def _refuse(self, why: str) -> None:
        self._refused = f"{self._address}: {why}"
        self._answered.set()

    def _lost_how(self) -> str:
        return f"{self._address}: {self._how}"


def import_paho() -> Any:
    """The module paho.mqtt.client.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        from paho.mqtt import client
    except ImportError as error:
        raise MissingExtraError(
            "MQTT needs paho-mqtt, which is not installed", do="pip install 'lineward[station]'"
        ) from error
    return client


def read_password(table: Mqtt) -> str | None:
    """The password in the table's file, without the end of its line; None without a file.

    Raises:
        StationError: it cannot be read, or there is no username for it.
    """
    if table.password_file is None:
        return None
    if table.username is None:
        raise StationError("[mqtt] has a password_file but no username", do="add username")
    try:
        return table.password_file.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise StationError(
            f"[mqtt] password_file {table.password_file}: cannot be read ({first_line(error)})",
            do="check the path and its permissions: it holds the password and nothing else",
        ) from error


def tls_context(table: Mqtt) -> ssl.SSLContext:
    """TLS that trusts the table's certificates and no others.

    Raises:
        StationError: they cannot be read.
    """
    try:
        context = ssl.create_default_context(cafile=table.ca_file)
    except (OSError, ValueError) as error:
        raise StationError(
            f"[mqtt] ca_file {table.ca_file}: holds no certificate that can be read ({first_line(error)})",
            do="name a file of PEM certificates",
        ) from error
    context.sslsocket_class = _TlsSocket
    return context


class _TlsSocket(ssl.SSLSocket):
    def do_handshake(self, block: bool = False) -> None:
        """Close when it fails, for paho does not."""
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise
