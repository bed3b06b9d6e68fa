from __future__ import annotations

import argparse
import http.server
import socket
import threading
from contextlib import closing, contextmanager

import pytest

from lineward.runtime.cli import status as command
from lineward.runtime.drift import Statistic
from lineward.runtime.errors import StationError
from lineward.runtime.inspection import Reason
from lineward.runtime.station.device_health import DeviceHealth
from lineward.runtime.station.health_server import HealthServer
from lineward.runtime.station.journal import Journal
from lineward.runtime.station.plc.handshake import Offline
from lineward.runtime.station.records import Event
from lineward.runtime.station.status import RecentParts
from tests.runtime.station.station_samples import UTC_NS, drift, part, status

pytest.importorskip("prometheus_client")
from lineward.runtime.station.metrics import Metrics

ONLINE, OFFLINE, NOT_RUNNING = 0, 1, 2


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture
def station_file(tmp_path, port):
    path = tmp_path / "press-4.toml"
    path.write_text(
        f"""
        name = "press-4"
        folder = "station"
        deadline = "100ms"
        camera = {{ kind = "replay", images = ["parts"], rate = "5/s" }}
        jobs = {{ 1 = "bottle.lineward" }}
        health = {{ port = {port} }}
        """
    )
    return path


@pytest.fixture
def lineward_status(station_file, capsys):
    def run():
        parser = argparse.ArgumentParser()
        command.add_arguments(parser)
        code = command.run(parser.parse_args([str(station_file)]))
        return code, *capsys.readouterr()

    return run


@contextmanager
def running(port, recent=None, **fields):
    def snapshot():
        return status(**fields)

    with closing(HealthServer("127.0.0.1", port, snapshot, recent or RecentParts(), Metrics(snapshot, DeviceHealth()))):
        yield


@pytest.mark.parametrize(
    ("states", "says"),
    [
        ((), None),
        ((drift(Statistic.COLOUR),), "none seen"),
        (
            (drift(Statistic.BRIGHTNESS, alarm=True), drift(Statistic.COLOUR)),
            "brightness fell at about part 812: 95.5, where 103.2 ± 0.75 was usual; look at: the lamp",
        ),
    ],
)
def test_drift_is_said(lineward_status, port, states, says):
    with running(port, drift=states):
        code, out, _ = lineward_status()
    assert code == ONLINE  # a drift changes nothing
    lines = [line for line in out.splitlines() if line.strip().startswith("drift")]
    assert len(lines) == (says is not None)
    assert not says or says in " ".join(out.split())


def test_a_station_that_is_online(lineward_status, port):
    recent = RecentParts()
    for number in range(1, 101):
        recent.final(part(number, Reason.ABOVE_THRESHOLD, told_ms=float(number)))
    with running(port, recent):
        code, out, err = lineward_status()
    assert (code, err) == (ONLINE, "")
    for text in (
        "press-4",
        "online",
        "since",
        "1: bottle, bundle abababababab",
        "103 triggered, 3 in flight",
        "frame missing",
        "connected",
        "replay",
        "100 at 2026-09-21T14:15:00.000+00:00: reject, above threshold, score 0.7500 of 0.5000",
        "p50 50.0 ms, p99 99.0 ms, max 100.0 ms (last 100 parts)",
        "6 records wait",
    ):
        assert text in out


@pytest.mark.parametrize("offline", [reason for reason in Offline if reason is not Offline.NONE])
def test_a_station_that_is_offline_says_why_and_what_to_do(lineward_status, port, offline):
    with running(port, offline=offline, job=0, product="", bundle="", camera="", wire_connected=None):
        code, out, err = lineward_status()
    assert code == OFFLINE
    assert f"offline: {offline.name.lower().replace('_', ' ')}" in out
    what, do = command._MEANING[offline.name.lower()]
    assert f"press-4 is offline: {what}\n  -> {do}" in err


def test_a_station_that_never_ran(lineward_status):
    code, out, err = lineward_status()
    assert (code, out) == (NOT_RUNNING, "")
    assert "press-4 is not running" in err
    assert "no journal there" in err


@pytest.mark.parametrize(
    ("parts", "events", "says"),
    [
        (0, 0, "its journal is empty"),
        (2, 0, "last part 2026-09-21T14:13:22.000+00:00: pass, within threshold"),
        (0, 2, "last event 2026-09-21T14:13:21.000+00:00: camera_lost, number 1"),
    ],
)
def test_a_station_that_ended_says_when_it_last_spoke(lineward_status, tmp_path, parts, events, says):
    folder = tmp_path / "station"
    folder.mkdir()
    with closing(Journal(folder, "press-4")) as journal:
        for number in range(1, parts + 1):
            journal.final(part(number))
        for number in range(events):
            journal.event(Event("camera_lost", f"number {number}", UTC_NS + number * 10**9))
    code, _, err = lineward_status()
    assert code == NOT_RUNNING
    assert says in err


def test_another_station_at_the_port_is_said(lineward_status, port):
    with running(port, name="press-5"), pytest.raises(StationError, match="answers as station 'press-5'"):
        lineward_status()


class Stranger(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>")

    def log_message(self, *_: object) -> None:
        pass


def test_what_is_no_station_is_said(lineward_status, port):
    server = http.server.HTTPServer(("127.0.0.1", port), Stranger)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with pytest.raises(StationError, match="no station of this version"):
            lineward_status()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.mark.parametrize("answers", [False, True])
def test_what_hangs_is_said(lineward_status, port, monkeypatch, answers):
    monkeypatch.setattr(command, "_ANSWER_WITHIN", 0.2)
    with socket.create_server(("127.0.0.1", port)) as server:
        if answers:

            def answer():
                with server.accept()[0] as peer:
                    peer.sendall(b"HTTP/1.0 200 OK\r\n\r\n{")
                    peer.settimeout(5)
                    while peer.recv(4096):
                        pass

            threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(StationError, match=r"gives no answer within 0.2 s"):
            lineward_status()


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("0.0.0.0", "http://127.0.0.1:9464/status"),
        ("::", "http://[::1]:9464/status"),
        ("192.0.2.7", "http://192.0.2.7:9464/status"),
    ],
)
def test_where_it_asks(host, url):
    assert command._url(command.Health(host=host)) == url
