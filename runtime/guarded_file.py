"""Reading what decides whom to trust: only files that nobody else on the machine could have changed, or seen."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from lineward.runtime.errors import KeyFileError

_WRITABLE = stat.S_IWGRP | stat.S_IWOTH
_ACCESSIBLE = stat.S_IRWXG | stat.S_IRWXO


def read_guarded(path: Path, limit: int) -> bytes:
    """Read a file that only its owner can change, and whose owner is this user or root.

    Args:
        path: the file.
        limit: the most bytes it may have.

    Raises:
        KeyFileError: it cannot be read, is too large, or others can change it.
    """
    return _read(path, limit, _check_unchanged)


def read_private(path: Path, limit: int) -> bytes:
    """Read a file that nobody but its owner can read or change.

    Raises:
        KeyFileError: it cannot be read, is too large, or others have access to it.
    """
    return _read(path, limit, _check_private)


def check_folder(path: Path) -> None:
    """Check that only its owner can change a folder, and that its owner is this user or root.

    Raises:
        KeyFileError: it is no folder, cannot be read, or others can change it.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISDIR(status.st_mode):
        raise KeyFileError(f"{path}: not a folder", do="name the folder that holds the trusted keys")
    _check_unchanged(path, status)


def _read(path: Path, limit: int, check: Callable[[Path, os.stat_result], None]) -> bytes:
    try:
        with path.open("rb") as file:
            # The very file that is read, whatever its path has come to name since.
            check(path, os.fstat(file.fileno()))
            data = file.read(limit + 1)
    except OSError as error:
        raise _unreadable(path, error) from error
    if len(data) > limit:
        raise KeyFileError(f"{path}: more than {limit} bytes", do="name the right file")
    return data


def _check_unchanged(path: Path, status: os.stat_result) -> None:
    if os.name != "posix":
        return
    if status.st_mode & _WRITABLE:
        raise KeyFileError(f"{path}: others than its owner may write it ({_mode(status)})", do=f"chmod go-w {path}")
    if status.st_uid not in (0, os.geteuid()):
        raise KeyFileError(
            f"{path}: belongs to user {status.st_uid}, neither root nor who runs this", do=f"chown root {path}"
        )


def _check_private(path: Path, status: os.stat_result) -> None:
    if os.name == "posix" and status.st_mode & _ACCESSIBLE:
        raise KeyFileError(f"{path}: others than its owner have access to it ({_mode(status)})", do=f"chmod 600 {path}")


def _mode(status: os.stat_result) -> str:
    return f"mode {stat.S_IMODE(status.st_mode):04o}"


def _unreadable(path: Path, error: OSError) -> KeyFileError:
    return KeyFileError(f"{path}: cannot be read ({error.strerror})", do="check the path and its permissions")
