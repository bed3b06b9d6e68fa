"""Metrics and status over HTTP: `/metrics` for Prometheus, `/status` for people, `/healthz` for whoever watches."""

from __future__ import annotations

import errno
import http.server
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import msgspec

from lineward.runtime.errors import StationError
from lineward.runtime.station.metrics import Metrics
from lineward.runtime.station.plc.handshake import Offline
from lineward.runtime.station.status import RecentParts, StationStatus, report

_REQUESTS = 8
"""Served at once; a further one is turned away."""
_READ_WITHIN = 5.0
_SERVED_WITHIN = 10.0
_LOOK_UP = 0.1
_WHY = {
    errno.EADDRINUSE: "the port is in use",
    errno.EACCES: "the port is reserved to root",
    errno.EADDRNOTAVAIL: "this device has no such address",
}


class HealthServer:
    """Serves in threads of its own, from its making until `close`.

    Args:
        host: address to listen on.
        port: TCP port; 0: a free one.
        status: a snapshot of the station.
        recent: the last parts.
        metrics: for Prometheus.

    Raises:
        StationError: it cannot listen there.
    """

    def __init__(
        self, host: str, port: int, status: Callable[[], StationStatus], recent: RecentParts, metrics: Metrics
    ) -> None:
        try:
            self._server = _Server(host, port, _Pages(status, recent, metrics))
        except OSError as error:
            why = _WHY.get(error.errno or 0, error.strerror or str(error))
            raise StationError(
                f"[health] cannot listen on {host}, port {port}: {why}",
                do="end what listens there (another station?), or set [health] host and port",
            ) from error
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_LOOK_UP,), name="lineward-health", daemon=True
        )
        self._thread.start()

    @property
    def port(self) -> int:
        """The TCP port it listens on."""
        return int(self._server.server_address[1])

    def close(self) -> None:
        """Listen no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Pages:
    def __init__(self, status: Callable[[], StationStatus], recent: RecentParts, metrics: Metrics) -> None:
        self._status = status
        self._recent = recent
        self._metrics = metrics

    def page(self, path: str, accept: str) -> tuple[HTTPStatus, bytes, str] | None:
        """Status, body and content type of a page; None if there is no such page."""
        path = path.partition("?")[0]
        if path == "/metrics":
            return HTTPStatus.OK, *self._metrics.exposition(accept)
        if path == "/status":
            body = msgspec.json.format(msgspec.json.encode(report(self._status(), self._recent)))
            return HTTPStatus.OK, body, "application/json"
        if path == "/healthz":
            offline = self._status().offline
            online = offline is Offline.NONE
            status = HTTPStatus.OK if online else HTTPStatus.SERVICE_UNAVAILABLE
            return status, b"online\n" if online else f"offline: {offline.name.lower()}\n".encode(), "text/plain"
        return None


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_port = False  # a second station at the same port must be told so

    def __init__(self, host: str, port: int, pages: _Pages) -> None:
        self.pages = pages
        self._free = threading.BoundedSemaphore(_REQUESTS)
        self._begun: dict[socket.socket, float] = {}
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Without HTTPServer's look-up of a name, which may take the resolver's time."""
        socketserver.TCPServer.server_bind(self)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            self._begun[request] = time.monotonic()
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._begun.pop(request, None)
            self._free.release()

    def service_actions(self) -> None:
        """Hang up on who takes too long, or a few such would keep everyone else out."""
        for request, begun in list(self._begun.items()):
            if time.monotonic() - begun > _SERVED_WITHIN:
                with suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # who asked went away: not our error
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    server: _Server
    server_version = "lineward"
    sys_version = ""
    timeout = _READ_WITHIN

    def do_GET(self) -> None:
        found = self.server.pages.page(self.path, self.headers.get("Accept", ""))
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND, explain="there are /metrics, /status and /healthz")
            return
        status, body, content_type = found
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing: a scrape every few seconds is no news."""
