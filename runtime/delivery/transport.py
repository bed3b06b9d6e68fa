"""How files of a repository come here: over HTTP, or from a folder such as a USB stick. Nothing is trusted here.

A server may be hostile or ill. Whoever reads counts the bytes; here it is seen to that they come in time.
"""

from __future__ import annotations

import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from pathlib import Path
from urllib.parse import SplitResult, urlsplit
from urllib.request import url2pathname

from tuf.api.exceptions import DownloadError, DownloadHTTPError, SlowRetrievalError
from tuf.ngclient.fetcher import FetcherInterface

from lineward.runtime.errors import first_line

_CHUNK = 1 << 16
_NOT_FOUND = 404


class Transport(FetcherInterface):
    """Fetches `http:`, `https:` and `file:` URLs. Redirections are not followed: the address is the station file's.

    Args:
        wait: the longest silence of a server, in seconds.
        grace: the longest time to the first byte, in seconds, and what a file may take besides its bytes' time.
        least_rate: bytes a second that a server must keep, on average.
    """

    def __init__(self, wait: float = 10.0, grace: float = 30.0, least_rate: float = 10_000.0) -> None:
        self._wait = wait
        self._grace = grace
        self._least_rate = least_rate

    def _fetch(self, url: str) -> Iterator[bytes]:
        parts = urlsplit(url)
        return _read_file(url, Path(url2pathname(parts.path))) if parts.scheme == "file" else self._get(url, parts)

    def _get(self, url: str, parts: SplitResult) -> Iterator[bytes]:
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        began, received = time.monotonic(), 0
        try:
            with (
                closing(kind(parts.hostname or "", parts.port, timeout=self._wait)) as connection,
                closing(self._answer(connection, parts.path)) as response,
            ):
                if response.status != 200:
                    raise DownloadHTTPError(f"{url}: the server says {response.status}", response.status)
                length = response.length
                while length is None or received < length:
                    chunk = response.read1(_CHUNK)
                    if not chunk:
                        break
                    received += len(chunk)
                    yield chunk
                    if time.monotonic() - began > self._grace + received / self._least_rate:
                        raise SlowRetrievalError(f"{url}: {received} bytes in {time.monotonic() - began:.0f} s")
                if length is not None and received < length:
                    raise DownloadError(f"{url}: cut off after {received} of {length} bytes")
        except TimeoutError as error:
            raise SlowRetrievalError(f"{url}: no answer within {self._wait:g} s") from error
        except (OSError, HTTPException, ValueError) as error:
            raise DownloadError(f"{url}: {first_line(error)}") from error

    def _answer(self, connection: HTTPConnection, path: str) -> HTTPResponse:
        connection.connect()
        with _hung_up_after(connection.sock, self._grace) as late:
            connection.request("GET", path, headers={"User-Agent": "lineward", "Connection": "close"})
            response = connection.getresponse()
        if late.is_set():  # what came until then may look whole
            response.close()
            raise SlowRetrievalError(f"no whole answer within {self._grace:g} s")
        return response


@contextmanager
def _hung_up_after(sock: socket.socket, seconds: float) -> Iterator[threading.Event]:
    """Hang up unless it ends in time: each byte of an endless header comes within any wait for a byte.

    The value is set once that was done.
    """
    late = threading.Event()

    def hang_up() -> None:
        late.set()
        with suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(seconds, hang_up)
    timer.daemon = True
    timer.start()
    try:
        yield late
    except (OSError, HTTPException) as error:
        if late.is_set():
            raise SlowRetrievalError(f"no whole answer within {seconds:g} s") from error
        raise
    finally:
        timer.cancel()


def _read_file(url: str, path: Path) -> Iterator[bytes]:
    try:
        # A pipe or a device in place of a file must not keep us waiting.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise DownloadError(f"{url}: not a file")
            while chunk := file.read(_CHUNK):
                yield chunk
    except (FileNotFoundError, NotADirectoryError) as error:
        raise DownloadHTTPError(f"{url}: is not there", _NOT_FOUND) from error
    except OSError as error:
        raise DownloadError(f"{url}: cannot be read ({error.strerror})") from error
