from __future__ import annotations

import http.client
import json
import socket
import time
from contextlib import closing, contextmanager, suppress

import pytest

from lineward.runtime.errors import StationError
from lineward.runtime.inspection import Reason
from lineward.runtime.station import health_server
from lineward.runtime.station.device_health import DeviceHealth
from lineward.runtime.station.plc.handshake import Offline
from lineward.runtime.station.status import RecentParts
from tests.runtime.station.station_samples import part, status

pytest.importorskip("prometheus_client")
from lineward.runtime.station.metrics import Metrics


@contextmanager
def served(snapshot=status, recent=None, host="127.0.0.1", port=0):
    server = health_server.HealthServer(
        host, port, snapshot, recent or RecentParts(), Metrics(snapshot, DeviceHealth())
    )
    with closing(server):
        yield server.port


def get(port: int, path: str, method: str = "GET") -> tuple[int, str, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=10)) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type", ""), answer.read()


def test_status_says_how_the_station_is():
    recent = RecentParts()
    for number in range(1, 101):
        recent.final(part(number, told_ms=float(number)))
    recent.final(part(101, Reason.FRAME_MISSING, None))
    with served(recent=recent) as port:
        code, content_type, body = get(port, "/status")
    found = json.loads(body)
    assert (code, content_type) == (200, "application/json")
    assert found["name"] == "press-4"
    assert (found["state"], found["offline_reason"], found["alive"]) == ("online", "", True)
    assert found["since"] == "2026-09-21T14:13:20.000+00:00"
    assert (found["job"], found["product"], found["bundle"]) == (1, "bottle", "ab" * 32)
    assert found["counts"]["triggered"] == 103
    assert found["counts"]["reasons"]["frame_missing"] == 2
    assert (found["counts"]["missed"], found["counts"]["frames_lost"], found["counts"]["late"]) == (4, 5, 2)
    assert found["latencies_ms"]["trigger_to_told"] == {"parts": 100, "p50": 50.0, "p99": 99.0, "max": 100.0}
    assert found["latencies_ms"]["inspection"]["max"] == 10.0
    assert (found["camera"], found["wire_connected"], found["journal_backlog"]) == ("replay", True, 6)
    last = found["last_part"]
    assert (last["id"], last["part"], last["verdict"], last["reason"]) == (101, 201, "reject", "frame_missing")
    assert (last["score"], last["told_ms"]) == (None, None)  # NaN is no JSON


def test_status_before_the_first_part():
    with served(lambda: status(offline=Offline.STARTING, job=0, product="", bundle="", camera="")) as port:
        found = json.loads(get(port, "/status")[2])
    assert found["last_part"] is None
    assert found["latencies_ms"]["trigger_to_told"] == {"parts": 0, "p50": None, "p99": None, "max": None}


def test_latencies_are_of_the_last_thousand_parts():
    recent = RecentParts()
    for number in range(1, 2501):
        recent.final(part(number, told_ms=float(number)))
    assert recent.latencies()["trigger_to_told"].parts == 1000
    assert recent.latencies()["trigger_to_told"].p50 == 2000.0


@pytest.mark.parametrize("offline", list(Offline))
def test_healthz(offline):
    with served(lambda: status(offline=offline)) as port:
        code, _, body = get(port, "/healthz")
    assert code == (200 if offline is Offline.NONE else 503)
    assert offline is Offline.NONE or offline.name.lower() in body.decode()


def test_metrics_are_served():
    with served() as port:
        code, content_type, body = get(port, "/metrics")
    assert code == 200
    assert content_type.startswith("text/plain")
    assert b"lineward_triggers_total 103.0" in body


@pytest.mark.parametrize(
    ("path", "method", "code"), [("/", "GET", 404), ("/status/x", "GET", 404), ("/status", "POST", 501)]
)
def test_nothing_else_is_served(path, method, code, capfd):
    with served() as port:
        assert get(port, path, method)[0] == code
    assert capfd.readouterr() == ("", "")


def test_a_query_is_ignored():
    with served() as port:
        assert get(port, "/status?now")[0] == 200


def test_a_port_in_use_is_said():
    with (
        served() as port,
        pytest.raises(StationError, match=f"port {port}: the port is in use") as error,
        served(port=port),
    ):
        pass
    assert "[health]" in error.value.do


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
def test_an_address_that_is_not_ours_is_said(host):
    with pytest.raises(StationError, match=host), served(host=host):
        pass


def test_the_port_is_free_after_the_end():
    with served() as port:
        get(port, "/healthz")
    with served(port=port):
        assert get(port, "/healthz")[0] == 200


def test_clients_that_hang_are_few_and_do_not_stay(monkeypatch):
    """Each thread waits for a request that never ends; more than eight are turned away, and all are hung up on."""
    monkeypatch.setattr(health_server, "_SERVED_WITHIN", 1000.0)
    monkeypatch.setattr(health_server._Handler, "timeout", 1000.0)
    with served() as port:
        clients = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(12)]
        try:
            for client in clients[:8]:
                client.sendall(b"GET /sta")
            assert all(_is_closed(client) for client in clients[8:])
            for client in clients[:8]:
                client.settimeout(0.0)
                with pytest.raises(BlockingIOError):
                    client.recv(1)
                client.settimeout(10)
            monkeypatch.setattr(health_server, "_SERVED_WITHIN", 0.1)
            assert all(_is_closed(client) for client in clients[:8])
            assert _serves_again(port)
        finally:
            for client in clients:
                client.close()


def _is_closed(client: socket.socket) -> bool:
    try:
        return client.recv(1) == b""
    except ConnectionError:
        return True


def _serves_again(port: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with suppress(OSError, http.client.HTTPException):
            return get(port, "/healthz")[0] == 200
    return False
