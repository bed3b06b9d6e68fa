"""One process at a time in a folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lineward.runtime.errors import LinewardError

ALONE = fcntl.LOCK_EX | fcntl.LOCK_NB
"""Hold it alone, or be refused at once."""


def open_lock(path: Path) -> int:
    """The descriptor of a lock's file, which is made if it is not there; for `held`.

    Raises:
        OSError: it can be neither opened nor made.
    """
    return os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)


@contextmanager
def held(lock: int, busy: LinewardError, how: int = ALONE) -> Iterator[None]:
    """Hold a lock for the length of the block, and close its descriptor then; a killed process holds none.

    Args:
        lock: of `open_lock`.
        busy: is raised where another process holds it.
        how: see `fcntl.flock`.
    """
    try:
        try:
            fcntl.flock(lock, how)
        except BlockingIOError as error:
            raise busy from error
        yield
    finally:
        os.close(lock)
