"""Frames that are kept: those that the station file names, as long as there is room, and never at a part's expense."""

from __future__ import annotations

import heapq
import os
import queue
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from lineward.runtime.errors import first_line
from lineward.runtime.images import encode_png
from lineward.runtime.inspection import Verdict
from lineward.runtime.preprocessing import Frame
from lineward.runtime.station.configuration import Images
from lineward.runtime.station.journal import Journal
from lineward.runtime.station.records import Event, PartRecord

FOLDER = "images"  # in the station's folder
QUEUE = 16  # frames that may wait to be saved

_TELL_EVERY = 60.0


@dataclass(frozen=True, order=True)
class _Kept:
    """An image on the disk; the least id is the oldest, whatever the wall clock said."""

    id: int
    file: str = field(compare=False)
    bytes: int = field(compare=False)


class _NoRoomError(Exception):
    """An image would take room that it must not take."""


def is_wanted(record: PartRecord, images: Images) -> bool:
    """Whether the frame of a part is to be kept."""
    if images.save == "none":
        return False
    if images.save == "all" or record.verdict is Verdict.REJECT:
        return True
    if images.save == "near":
        return abs(record.score - record.threshold) <= images.near * record.threshold
    return images.save == "nth" and record.trigger.id % images.nth == 0


class ImageArchive:
    """Saves frames as PNG, under `images/<day>/<id>-<reason>.png`; a `FrameObserver`.

    Args:
        folder: the station's.
        images: what to keep.
        journal: hears which images there are, and what went wrong.

    Attributes:
        saved: images saved.
    """

    def __init__(self, folder: Path, images: Images, journal: Journal) -> None:
        self._folder = folder
        self._images = images
        self._journal = journal
        self._queue: queue.Queue[tuple[PartRecord, Frame] | None] = queue.Queue(QUEUE)
        self._kept: list[_Kept] = []  # a heap
        self._bytes = 0
        self._stopped = False
        self._abandoned = False
        self._overrun = 0  # frames that found the queue full
        self._unsaved = 0  # frames that could not be written
        self._told_overrun = 0
        self._told_at = -_TELL_EVERY
        self.saved = 0
        self._thread = threading.Thread(target=self._run, name="lineward-images", daemon=True)
        self._thread.start()

    @property
    def skipped(self) -> int:
        """Images that were wanted and not saved: too many at once, or no room."""
        return self._overrun + self._unsaved

    def judged(self, record: PartRecord, frame: Frame) -> None:
        """See `records.FrameObserver`."""
        if not is_wanted(record, self._images):
            return
        if self._queue.full():
            self._overrun += 1
            return
        try:
            self._queue.put_nowait((record, frame.copy()))
        except queue.Full:  # a thread whose engine hung came back, and judged as well
            self._overrun += 1

    def close(self, timeout: float = 5.0) -> None:
        """Save what waits, as far as that is done in so many seconds. May be called twice."""
        until = time.monotonic() + timeout
        with suppress(queue.Full):
            self._queue.put(None, timeout=timeout)
        self._thread.join(max(0.0, until - time.monotonic()))
        self._abandoned = True
        with suppress(queue.Empty):
            while self._queue.get_nowait() is not None:
                self._overrun += 1
        self._tell_overrun()

    # The archive's thread.

    def _run(self) -> None:
        try:
            self._find_kept()
        except OSError as error:
            self._stop(error)
        while not self._abandoned:
            item = self._queue.get()
            if item is None:
                return
            if time.monotonic() - self._told_at >= _TELL_EVERY:
                self._tell_overrun()
            try:
                self._save(*item)
            except Exception as error:  # whatever it is, the next frame is tried
                self._unsaved += 1
                self._stop(error)

    def _save(self, record: PartRecord, frame: Frame) -> None:
        free = _free(self._folder)
        if free - frame.nbytes < self._images.keep_free:
            raise _NoRoomError(f"{free} bytes are free, and {self._images.keep_free} are to be left")
        data = encode_png(frame)
        if len(data) > self._images.budget:
            raise _NoRoomError(f"an image of {len(data)} bytes exceeds the budget of {self._images.budget}")
        self._make_room(len(data))
        id = record.trigger.id
        file = f"{FOLDER}/{_day(record.trigger.utc_ns)}/{id}-{record.reason.value}.png"
        _write(self._folder / file, data)
        self._remember(_Kept(id, file, len(data)))
        self._journal.image(id, file, len(data))
        self.saved += 1
        if self._stopped:
            self._stopped = False
            self._tell("images_back", "images are saved again")

    def _stop(self, error: Exception) -> None:
        if not self._stopped:
            self._stopped = True
            self._tell("images_stopped", f"images are not saved: {first_line(error)}")

    def _tell(self, name: str, detail: str) -> None:
        self._journal.event(Event(name, detail, time.time_ns()))

    def _tell_overrun(self) -> None:
        count = self._overrun - self._told_overrun
        if count:
            self._told_at = time.monotonic()
            self._told_overrun += count
            self._tell("images_skipped", f"{count} images were not saved: more came than could be written")

    # What is on the disk.

    def _find_kept(self) -> None:
        """Look through the folder, not the journal: that may be a new one. What a killed run left half is deleted."""
        for path in (self._folder / FOLDER).glob("*/*"):
            id = path.name.partition("-")[0]
            if path.suffix == ".partial":
                path.unlink()
            elif path.suffix == ".png" and id.isdecimal():
                file = path.relative_to(self._folder).as_posix()
                self._remember(_Kept(int(id), file, path.stat().st_size))
        self._make_room(0)

    def _remember(self, kept: _Kept) -> None:
        heapq.heappush(self._kept, kept)
        self._bytes += kept.bytes

    def _make_room(self, size: int) -> None:
        while self._kept and self._bytes + size > self._images.budget:
            oldest = self._kept[0]
            path = self._folder / oldest.file
            path.unlink(missing_ok=True)
            heapq.heappop(self._kept)
            self._bytes -= oldest.bytes
            self._journal.image_removed(oldest.id)
            with suppress(OSError):  # there are others of that day
                path.parent.rmdir()


def _write(path: Path, data: bytes) -> None:
    """Write whole or not at all, but without waiting for the disk: the last image before a power cut may be lost."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    try:
        partial.write_bytes(data)
        partial.rename(path)
    except OSError:
        with suppress(OSError):
            partial.unlink()
        raise


def _free(folder: Path) -> int:
    """Bytes free where a station's images are, or will be: they may lie on a disk of their own."""
    images = folder / FOLDER
    disk = os.statvfs(images if images.exists() else folder)
    return disk.f_bavail * disk.f_frsize


def _day(utc_ns: int) -> str:
    return datetime.fromtimestamp(utc_ns // 10**9, timezone.utc).strftime("%Y-%m-%d")
