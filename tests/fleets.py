"""A repository of bundles, published with keys made from their names, and a web server that serves it or lies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tuf", reason="tuf is not installed (lineward[fleet])")

from lineward.export.fleet import publishing
from lineward.export.fleet.publishing import Publisher
from lineward.export.signing import SigningKey
from lineward.runtime.delivery.release import Release
from tests.runtime.delivery.offers import bundle
from tests.signers import Signer

PRODUCT = "tiny part"
PACKER = Signer("packer")
"""Signs bundles; what follows signs lists."""

ROOTS = (Signer("root-1"), Signer("root-2"))
TARGETS, ONLINE, LISTER, STRANGER = Signer("targets"), Signer("online"), Signer("lister"), Signer("stranger")
EVERYONE = (*ROOTS, TARGETS, ONLINE, LISTER)


def opened(*keys: Signer) -> list[SigningKey]:
    return [SigningKey(key.public, key.private) for key in keys]


class Fleet:
    """A repository with one product.

    Attributes:
        folder: what is served.
        now: the publisher's clock.
        keys: what signs.
    """

    def __init__(self, folder: Path, product: str = PRODUCT, made: bool = False) -> None:
        self.folder = folder
        self.product = product
        self.now = datetime.now(timezone.utc)
        self.keys = EVERYONE
        if made:
            return
        roots = [key.public for key in ROOTS]
        publishing.make(self.publisher(), roots, 2, TARGETS.public, ONLINE.public)
        publishing.delegate(self.publisher(), product, [LISTER.public])

    @property
    def root(self) -> Path:
        return self.folder / "metadata" / "1.root.json"

    def publisher(self, *keys: Signer, days: int = 14) -> Publisher:
        return Publisher(self.folder, opened(*(keys or self.keys)), self.now, days)

    def add(
        self,
        version: int,
        *groups: str,
        percentage: int = 100,
        hold: bool = False,
        data: bytes | None = None,
        **fields: Any,
    ) -> Release:
        path = self.folder.parent / f"{version}.lineward"
        path.write_bytes(data or bundle(version, PACKER, **{"product": self.product, **fields}))
        return publishing.add(self.publisher(), path, groups, percentage, hold)

    def roll_out(self, version: int, **changes: Any) -> Release:
        return publishing.roll_out(self.publisher(), self.product, version, **changes)

    def recall(self, version: int, why: str = "escapes") -> Release:
        return publishing.recall(self.publisher(), self.product, version, why)

    def later(self, **time: float) -> None:
        self.now += timedelta(**time)


class _Handler(SimpleHTTPRequestHandler):
    lies: dict[str, Callable[[_Handler], None]]

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        lie = next((lie for end, lie in self.server.lies.items() if self.path.endswith(end)), None)  # type: ignore[attr-defined]
        if lie is None:
            super().do_GET()
        else:
            lie(self)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Server(ThreadingHTTPServer):
    """Serves a folder on loopback; `lies` answer what ends with their name in their own way."""

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))
        self.lies: dict[str, Callable[[Any], None]] = {}
        self.asked: list[str] = []
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is what a lie is for."""


@contextmanager
def served(folder: Path) -> Iterator[Server]:
    """A web server that ends with the test."""
    server = Server(folder)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
