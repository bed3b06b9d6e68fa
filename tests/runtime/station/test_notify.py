from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from contextlib import suppress

import pytest

from lineward.runtime.station.notify import Notifier, Watchdog

PERIOD = 0.3


@pytest.fixture(params=["path", "abstract"])
def systemd(request, tmp_path):
    """A datagram socket as systemd's, and the environment that names it."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@lineward-{uuid.uuid4().hex}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as peer:
        peer.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        peer.settimeout(10)
        yield peer, {"NOTIFY_SOCKET": name}


def test_what_is_told(systemd):
    peer, environment = systemd
    notifier = Notifier(environment)
    notifier.ready()
    notifier.status("offline: camera lost\nMAINPID=1")
    notifier.feed_watchdog()
    notifier.stopping()
    heard = [peer.recv(4096).decode() for _ in range(4)]
    assert heard == ["READY=1", "STATUS=offline: camera lost MAINPID=1", "WATCHDOG=1", "STOPPING=1"]


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": ""}, {"WATCHDOG_USEC": "1000"}])
def test_without_systemd_nothing_happens(environment):
    notifier = Notifier(environment)
    notifier.ready()
    watchdog = Watchdog(notifier, lambda: pytest.fail("nobody asks whether it lives"))
    watchdog.start()
    watchdog.stop()
    assert notifier.watchdog_seconds is None


def test_a_systemd_that_went_away_is_no_error(tmp_path):
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")}).ready()


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "2000000"}, 2.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": str(os.getpid())}, 2.0),
        ({"WATCHDOG_USEC": "2000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
    ],
)
def test_whether_there_is_a_watchdog(variables, seconds):
    assert Notifier({"NOTIFY_SOCKET": "/run/notify", **variables}).watchdog_seconds == seconds


def test_the_watchdog_is_fed_only_while_the_station_lives(systemd):
    peer, environment = systemd
    alive = threading.Event()
    alive.set()
    watchdog = Watchdog(Notifier({**environment, "WATCHDOG_USEC": str(int(PERIOD * 1e6))}), alive.is_set)
    watchdog.start()
    try:
        times = []
        for _ in range(4):
            assert peer.recv(4096) == b"WATCHDOG=1"
            times.append(time.monotonic())
        assert times[-1] - times[0] > 3 * PERIOD / 2 * 0.5  # in no hurry

        alive.clear()
        time.sleep(PERIOD)  # what was under way
        peer.settimeout(0.0)
        with suppress(BlockingIOError):
            while True:
                peer.recv(4096)
        peer.settimeout(3 * PERIOD)
        with pytest.raises(TimeoutError):
            peer.recv(4096)

        alive.set()
        peer.settimeout(10)
        assert peer.recv(4096) == b"WATCHDOG=1"
    finally:
        watchdog.stop()
