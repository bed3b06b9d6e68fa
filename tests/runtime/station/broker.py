"""A real broker, mosquitto, and someone who listens to it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest

pytest.importorskip("paho.mqtt.client", reason="paho-mqtt is not installed (lineward[station])")

import paho.mqtt.client as paho

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin")
PATIENCE = 30.0
needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")


def until(condition, what="it"):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE:g} s"
        time.sleep(0.01)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


class Broker:
    """A mosquitto that remembers its subscribers over a restart."""

    def __init__(self, folder, *lines: str) -> None:
        self.port = free_port()
        self._file = folder / "mosquitto.conf"
        self._log = folder / "mosquitto.log"
        self._database = folder / "mosquitto.db"
        user = ["user root"] if os.geteuid() == 0 else []
        # Without limits, what it acknowledged is on its way to the subscriber and not in its own memory when it dies.
        limits = ["max_queued_messages 0", "max_inflight_messages 0"]
        kept = ["persistence true", f"persistence_location {folder}/", *limits]
        anonymous = [] if any("allow_anonymous" in line for line in lines) else ["allow_anonymous true"]
        listener = [f"listener {self.port} 127.0.0.1"]
        self._file.write_text("\n".join([*user, *kept, *listener, *anonymous, *lines]) + "\n")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen([MOSQUITTO, "-c", str(self._file)], stdout=log, stderr=log)
        until(self._listens, "mosquitto's start")

    def save(self) -> None:
        """Make it remember its subscribers even if it is killed."""
        self._database.unlink(missing_ok=True)
        self.send(signal.SIGUSR1)
        until(self._database.exists, "mosquitto's database")

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(PATIENCE)
            self._process = None

    def _listens(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        with socket.socket() as client:
            return client.connect_ex(("127.0.0.1", self.port)) == 0


class Subscriber:
    """Everything that is published below lineward/#, in order.

    It never acknowledges: when a broker is killed, an acknowledgement that it has not read resets the connection, and
    with it goes what the broker had sent before.
    """

    def __init__(self, port: int, name: str = "subscriber", **credentials: str) -> None:
        self.messages: list[paho.MQTTMessage] = []
        self._subscribed = threading.Event()
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2, name, clean_session=False, manual_ack=True)
        self._client.reconnect_delay_set(1, 1)
        self._client.on_connect = lambda client, *_: client.subscribe("lineward/#", qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = lambda _client, _data, message: self.messages.append(message)
        if credentials:
            self._client.username_pw_set(**credentials)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(PATIENCE)

    def publish(self, topic: str, payload: bytes | str, retain: bool = False, qos: int = 1) -> None:
        self._client.publish(topic, payload, qos=qos, retain=retain).wait_for_publish(PATIENCE)

    def of(self, topic: str) -> list[bytes]:
        return [bytes(message.payload) for message in list(self.messages) if message.topic == topic]

    def ids(self, topic: str = "lineward/press-4/part") -> list[int]:
        return [json.loads(payload)["id"] for payload in self.of(topic)]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()
