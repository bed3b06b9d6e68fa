"""A watched folder as a camera: each image that another program puts there is a part."""

from __future__ import annotations

import os
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from lineward.runtime.errors import CameraError, ImageError
from lineward.runtime.images import SUFFIXES, decode_image
from lineward.runtime.preprocessing import Frame
from lineward.runtime.station.configuration import FolderCamera
from lineward.runtime.station.records import Capture

POLL = 0.02  # seconds
_SETTLED_NS = 40_000_000  # unchanged for two polls: written to its end, as far as can be seen
_DAMAGED_NS = 1_000_000_000  # unchanged for that long and still no image: damaged, not slow


def open_folder(table: FolderCamera) -> Folder:
    """Watch the folder of a station file; see `open_camera`."""
    _check_writable(table.path)
    if table.done is not None:
        try:
            table.done.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CameraError(
                f"{table.done}: cannot be made ({error.strerror})", do="choose another camera.done"
            ) from error
        _check_writable(table.done)
        if table.done.resolve() == table.path.resolve():
            raise CameraError(f"{table.done}: camera.done is the watched folder", do="choose another folder")
    return Folder(table.path, table.done)


@dataclass(frozen=True)
class _Seen:
    """A file as it was at one poll, and since when it has been so."""

    modified_ns: int
    size: int
    since_ns: int
    tried: bool = False


class Folder:
    """A camera that delivers the images of a folder in the order of their modification, and takes them away.

    Images that are there at the start are delivered as well. Files whose name begins with a dot and those without the
    suffix of an image are left alone. An image counts once its size and modification time stood still for 40 ms, as
    those of a file renamed into place do from the beginning; a file that is no image after standing still for 1 s is a
    capture without pixels.

    Args:
        path: the folder.
        done: where taken images are moved to; None: they are deleted.
    """

    def __init__(self, path: Path, done: Path | None = None) -> None:
        self._path = path
        self._done = done
        self._closed = threading.Event()
        self._restarted = True
        self._seen: dict[str, _Seen] = {}
        self._number = 0
        self.name = f"folder {path}"
        self.shape: tuple[int, ...] = ()
        self.dtype = ""

    def start(self) -> None:
        """Count from 0 again; images that wait in the folder stay, and count as seen from now on."""
        self._check_open()
        self._restarted = True

    def fire(self) -> None:
        """A folder cannot be fired.

        Raises:
            CameraError: always.
        """
        raise CameraError(f"{self.name}: cannot be fired", do="leave [trigger] out: each image is its own trigger")

    def capture(self, seconds: float) -> Capture | None:
        """The next image, with the time since when it was seen as it is."""
        end_ns = time.monotonic_ns() + round(seconds * 1e9)
        while True:
            self._check_open()
            if (found := self._take()) is not None:
                return found
            left = (end_ns - time.monotonic_ns()) / 1e9
            if left <= 0:
                return None
            self._closed.wait(min(left, POLL))

    def close(self) -> None:
        """Watch no more."""
        self._closed.set()

    def _take(self) -> Capture | None:
        if self._restarted:
            self._restarted, self._seen, self._number = False, {}, 0
        now = time.monotonic_ns()
        self._look(now)
        for name, seen in sorted(self._seen.items(), key=lambda item: (item[1].modified_ns, item[0])):
            still_ns = now - seen.since_ns
            if still_ns < _SETTLED_NS or (seen.tried and still_ns < _DAMAGED_NS):
                continue
            pixels = self._decode(name)
            if pixels is None and still_ns < _DAMAGED_NS:
                self._seen[name] = _Seen(seen.modified_ns, seen.size, seen.since_ns, tried=True)
                continue
            del self._seen[name]
            if not self._take_away(name):
                continue
            return self._deliver(seen.since_ns, pixels)
        return None

    def _deliver(self, since_ns: int, pixels: Frame | None) -> Capture:
        number = self._number
        self._number += 1
        if pixels is not None and not self.shape:
            self.shape, self.dtype = pixels.shape, str(pixels.dtype)
        return Capture(number, since_ns, pixels)

    def _look(self, now: int) -> None:
        """See which images there are, and which of them stood still since the last look."""
        seen = {}
        try:
            with os.scandir(self._path) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or Path(entry.name).suffix.lower() not in SUFFIXES:
                        continue
                    try:
                        if not entry.is_file():
                            continue
                        stat = entry.stat()
                    except OSError:
                        continue  # taken away by another program
                    before = self._seen.get(entry.name)
                    as_before = before and (before.modified_ns, before.size) == (stat.st_mtime_ns, stat.st_size)
                    seen[entry.name] = before if before and as_before else _Seen(stat.st_mtime_ns, stat.st_size, now)
        except OSError as error:
            raise CameraError(
                f"{self._path}: cannot be watched ({error.strerror})", do="check the folder and its permissions"
            ) from error
        self._seen = seen

    def _decode(self, name: str) -> Frame | None:
        try:
            return decode_image((self._path / name).read_bytes(), name)
        except (OSError, ImageError):
            return None

    def _take_away(self, name: str) -> bool:
        """Move or delete an image; False if another program did it first."""
        path = self._path / name
        try:
            if self._done is None:
                path.unlink()
            else:
                shutil.move(path, _free_name(self._done / name))
        except FileNotFoundError:
            return False
        except OSError as error:
            # Were it delivered, it would be delivered again for ever.
            raise CameraError(
                f"{path}: cannot be taken away ({error.strerror})",
                do="make the folder, and camera.done, writable for the station",
            ) from error
        return True

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise CameraError(f"{self.name}: closed", do="open it again")


def _free_name(path: Path) -> Path:
    """The path, or with a number if there is such a file already: nothing is overwritten."""
    number = 1
    free = path
    while free.exists():
        free = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return free


def _check_writable(folder: Path) -> None:
    if not folder.is_dir():
        raise CameraError(f"{folder}: no such folder", do="make it, or correct the path in the table [camera]")
    if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise CameraError(f"{folder}: images cannot be taken out", do="make it readable and writable for the station")
