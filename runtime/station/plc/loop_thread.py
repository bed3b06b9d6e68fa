"""A server on an asyncio loop, in a thread of its own, before the inspections: a trigger must not wait for one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager

from lineward.runtime.errors import StationError
from lineward.runtime.station.real_time import Role, raise_priority


class LoopThread:
    """Opens a server, looks after it again and again, and closes it.

    Args:
        name: of the thread.
        server: opens the server as it is entered, and closes it as it is left.
        tend: what is to be done again and again.
        every: seconds between two times.
    """

    def __init__(
        self,
        name: str,
        server: Callable[[], AbstractAsyncContextManager[None]],
        tend: Callable[[], Awaitable[None]],
        every: float,
    ) -> None:
        self._server = server
        self._tend = tend
        self._every = every
        self._opened: Future[None] = Future()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"lineward-{name}", daemon=True)

    def start(self) -> None:
        """Return once the server is open, or raise what it raised."""
        self._thread.start()
        self._opened.result()

    def close(self) -> None:
        """Close the server and wait for the thread to end."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        raise_priority(Role.WIRE)
        try:
            asyncio.run(self._serve())
        except Exception as error:
            if self._opened.done():
                raise
            self._opened.set_exception(error)

    async def _serve(self) -> None:
        async with self._server():
            self._opened.set_result(None)
            while not self._closing.is_set():
                await self._tend()
                await asyncio.sleep(self._every)


async def check_address(host: str, port: int) -> None:
    """Check that a server can listen there.

    Raises:
        StationError: it cannot, and why.
    """
    try:
        probe = await asyncio.get_running_loop().create_server(asyncio.Protocol, host, port)
    except OSError as error:
        raise StationError(
            f"[plc]: cannot listen on {host}:{port} ({error.strerror or error})",
            do="free the port or set another; below 1024 the station needs the right CAP_NET_BIND_SERVICE",
        ) from error
    probe.close()
    await probe.wait_closed()
