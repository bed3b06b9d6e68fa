"""systemd's notify protocol (sd_notify(3)): ready, stopping, and a watchdog that only a live station feeds."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Mapping

_SEND_WITHIN = 1.0
_LOOK_AGAIN = 8
"""Part of the watchdog's period after which a station that seemed dead is looked at again."""


class Notifier:
    """Tells systemd how the service is. Where there is no systemd that wants to know, nothing happens.

    Args:
        environment: holds NOTIFY_SOCKET and, with a watchdog, WATCHDOG_USEC and WATCHDOG_PID.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_seconds = _watchdog_seconds(environment) if address else None

    def ready(self) -> None:
        """The service is up."""
        self._send("READY=1")

    def stopping(self) -> None:
        """The service is going down."""
        self._send("STOPPING=1")

    def status(self, text: str) -> None:
        """What `systemctl status` shows."""
        self._send("STATUS=" + " ".join(text.split()))

    def feed_watchdog(self) -> None:
        """The service lives."""
        self._send("WATCHDOG=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as peer:
                peer.settimeout(_SEND_WITHIN)
                peer.sendto(message.encode(), self._address)
        except OSError:
            pass  # the station inspects whether or not anyone listens


class Watchdog:
    """Feeds systemd's watchdog twice in its period, but only while the station lives: one that hangs is restarted.

    Args:
        notifier: whom to feed.
        alive: whether the station lives; takes no time.
    """

    def __init__(self, notifier: Notifier, alive: Callable[[], bool]) -> None:
        self._notifier = notifier
        self._alive = alive
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to feed, if the service has a watchdog."""
        period = self._notifier.watchdog_seconds
        if period is not None:
            self._thread = threading.Thread(target=self._run, args=(period,), name="lineward-watchdog", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Feed no more."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, period: float) -> None:
        pause = 0.0
        while not self._stopping.wait(pause):
            if self._alive():
                self._notifier.feed_watchdog()
                pause = period / 2
            else:
                pause = period / _LOOK_AGAIN


def _watchdog_seconds(environment: Mapping[str, str]) -> float | None:
    microseconds = environment.get("WATCHDOG_USEC", "")
    meant_for = environment.get("WATCHDOG_PID", str(os.getpid()))
    if not microseconds.isdecimal() or int(microseconds) == 0 or meant_for != str(os.getpid()):
        return None
    return int(microseconds) / 1e6
