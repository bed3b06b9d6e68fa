"""The flight record: what happened to each part, in mapped memory that outlives the process.

A part is written down before anything else happens to it, and again once nothing of it can change. Neither waits for
the disk: the pages of a mapped file are the kernel's, and a killed process leaves them as they are. Only the ids must
outlive a power cut as well; they are reserved ahead, a block at a time, by the journal's thread.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
import time
import zlib
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from lineward.runtime.errors import StationError
from lineward.runtime.inspection import Reason
from lineward.runtime.station.records import PartRecord, Source, Trigger

SLOTS = 1 << 17  # more parts than the journal lets wait, so that none is lost even when it is killed far behind
BLOCK = 4096  # ids that are reserved at a time

_MAGIC = b"lineward"
_FORMAT = 2
_HEADER = struct.Struct("<8sIIQQ")  # magic, format, slots, reserved, settled
_HEADER_SIZE = 4096
_BEGUN = struct.Struct("<QqqqdH32s32s8s")  # id, utc, monotonic, part, threshold, job, bundle, calibration, source
_FINAL = struct.Struct("<Qdd5qH32s32s24s")  # id, threshold, score, the five times, job, bundle, calibration, reason
_CHECK = struct.Struct("<I")
_FINAL_OFFSET = 128
_SLOT_SIZE = 288
_MOST_READ = 1 << 28  # bytes of a file that may be anything


class _Header(NamedTuple):
    """Ids below `reserved` may have been used, and no others; parts below `settled` need no recovery."""

    reserved: int = 1
    settled: int = 1


class FlightRecord:
    """A ring of parts, held by one process at a time.

    Args:
        path: the file, made with its folder if it is not there. Beside it lies `<name>.lock`.
        slots: parts it holds, of 288 bytes each.

    Attributes:
        damaged: where a damaged or foreign file was moved to; what was legible in it is recovered all the same.
        last_id: greatest id that it knows to have been begun; 0 if none.
        first_id: greater than every id ever begun, also by a run that ended with a power cut.

    Raises:
        StationError: another process holds it, or the file cannot be made.
    """

    def __init__(self, path: Path, slots: int = SLOTS) -> None:
        self._slots = slots
        self._lock = _lock(path)
        self._in_flight = 0
        self.inspects_with("", 0, 0.0)
        try:
            self.damaged, self._header, self._old = _take_over(path, slots)
            self._found = sorted(_begun_slots(self._old, self._header.settled))
            self.last_id = self._found[-1][0] if self._found else self._header.settled - 1
            self.first_id = max(self._header.reserved, self.last_id + 1 + (BLOCK if self.damaged else 0))
            self._next_id = self.first_id
            self._file = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            # Every page now: the first touch of one, in the middle of a part, would wait for the file system.
            self._map = mmap.mmap(self._file, _size(slots), flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
            self.reserve()
        except OSError as error:
            os.close(self._lock)
            raise StationError(
                f"{path}: cannot be opened ({error.strerror})",
                do=f"check the folder, its permissions and its free space: {_size(slots) // 10**6} MB are needed",
            ) from error

    def at_least(self, id: int) -> None:
        """Begin with this id if the file knows no greater one; before the first part.

        Raises:
            OSError: the reservation cannot be written.
        """
        self.first_id = self._next_id = max(self.first_id, id)
        self.reserve()

    def recovered(self) -> Iterator[PartRecord]:
        """What the last run left, by id: parts as it finished them, and as STATION_KILLED those that it did not.

        Nothing after a run that ended well. The journal may have most of them.
        """
        for id, offset in self._found:
            begun = _BEGUN.unpack_from(self._old, offset)
            yield _final(self._old, offset + _FINAL_OFFSET, id, _trigger(begun)) or _killed(begun)

    def inspects_with(self, bundle: str, job: int, threshold: float, calibration: str = "") -> None:
        """What parts are inspected with from now on, for those that are never finished.

        Args:
            bundle: SHA-256 (hex) of the bundle's manifest.
            job: its number.
            threshold: image score that still passes.
            calibration: SHA-256 (hex) of the device's calibration that this is of; empty: the bundle's own.
        """
        self._active = threshold, job, _digest(bundle), _digest(calibration)

    def begin(self, trigger: Trigger) -> None:
        """Write a part down, before anything else happens to it. Ids count up."""
        threshold, job, bundle, calibration = self._active
        self._write(
            self._offset(trigger.id),
            _BEGUN.pack(
                trigger.id,
                trigger.utc_ns,
                trigger.monotonic_ns,
                trigger.part,
                threshold,
                job,
                bundle,
                calibration,
                trigger.source.value.encode(),
            ),
        )
        self._next_id = trigger.id + 1
        self._in_flight += 1

    def finish(self, record: PartRecord) -> None:
        """Write down what became of a part, once nothing of it can change."""
        id, bundle, calibration = record.trigger.id, _digest(record.bundle), _digest(record.calibration)
        self._write(
            self._offset(id) + _FINAL_OFFSET,
            _FINAL.pack(
                id,
                record.threshold,
                record.score,
                record.captured_ns,
                record.started_ns,
                record.decided_ns,
                record.told_ns,
                record.acknowledged_ns,
                record.job,
                bundle,
                calibration,
                record.reason.value.encode(),
            ),
        )
        self._in_flight -= 1
        self._active = record.threshold, record.job, bundle, calibration

    def reserve(self) -> None:
        """Reserve ids ahead if few are left; waits for the disk, so it is for the journal's thread.

        Raises:
            OSError: the reservation cannot be written.
        """
        if self._header.reserved - self._next_id < BLOCK // 2:
            self._write_header(self._header._replace(reserved=self._next_id + BLOCK))

    def settle(self) -> None:
        """Forget what was recovered, and every part so far, for the journal has them; not while one is in flight.

        Raises:
            OSError: it cannot be written.
        """
        self._old, self._found = b"", []
        if not self._in_flight:
            self._write_header(_Header(max(self._header.reserved, self._next_id + BLOCK), self._next_id))

    def close(self) -> None:
        """Give the file back. If all is settled, the next run goes on with the next id."""
        if self._map.closed:
            return
        if self._header.settled == self._next_id:
            with suppress(OSError):  # then a block of ids stays unused, no more
                self._write_header(_Header(self._next_id, self._next_id))
        self._map.close()
        os.close(self._file)
        self._file = -1  # the number may be another file's now, and the journal's thread may be late
        os.close(self._lock)

    def _offset(self, id: int) -> int:
        return _HEADER_SIZE + id % self._slots * _SLOT_SIZE

    def _write(self, offset: int, data: bytes) -> None:
        data += _CHECK.pack(zlib.crc32(data))
        self._map[offset : offset + len(data)] = data

    def _write_header(self, header: _Header) -> None:
        """By system calls: `mmap.flush` would hold the interpreter's lock until the disk has answered."""
        os.pwrite(self._file, _encode(header, self._slots), 0)
        os.fdatasync(self._file)
        self._header = header


def _lock(path: Path) -> int:
    """Hold the file beside the path, which is never moved or removed, until it is closed or the process ends."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise StationError(
            f"{path}: cannot be locked ({error.strerror})", do="check the station's folder and its permissions"
        ) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise StationError(
            f"{path.parent}: another process runs a station with this folder",
            do="stop it first, or give each station a folder of its own",
        ) from error
    return descriptor


def _take_over(path: Path, slots: int) -> tuple[Path | None, _Header, bytes]:
    """What the last run left, after a file that cannot be used was moved aside and a new one made."""
    try:
        with path.open("rb") as file:
            old = file.read(_HEADER_SIZE)
            header = _decode(old, slots) if os.fstat(file.fileno()).st_size == _size(slots) else None
            if header is not None and header.reserved == header.settled:
                return None, header, b""  # the last run ended well
            old += file.read(_MOST_READ)
    except FileNotFoundError:
        _make(path, slots)
        return None, _Header(), b""
    if header is not None:
        return None, header, old
    aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}")
    path.rename(aside)
    _make(path, slots)
    return aside, _Header(), old


def _make(path: Path, slots: int) -> None:
    """Make an empty file whose room on the disk is its own: writing to a mapped page must not find the disk full."""
    partial = path.with_name(f".{path.name}.partial")
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        os.posix_fallocate(descriptor, 0, _size(slots))
        os.pwrite(descriptor, _encode(_Header(), slots), 0)
        os.fsync(descriptor)
        partial.rename(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def _size(slots: int) -> int:
    return _HEADER_SIZE + slots * _SLOT_SIZE


def _encode(header: _Header, slots: int) -> bytes:
    data = _HEADER.pack(_MAGIC, _FORMAT, slots, *header)
    return data + _CHECK.pack(zlib.crc32(data))


def _decode(data: bytes, slots: int) -> _Header | None:
    if not _is_whole(data, 0, _HEADER.size):
        return None
    magic, form, found_slots, reserved, settled = _HEADER.unpack_from(data)
    return _Header(reserved, settled) if (magic, form, found_slots) == (_MAGIC, _FORMAT, slots) else None


def _is_whole(data: bytes, offset: int, size: int) -> bool:
    """Whether what was written there was written to its end."""
    end = offset + size
    return len(data) >= end + _CHECK.size and _CHECK.unpack_from(data, end)[0] == zlib.crc32(data[offset:end])


def _begun_slots(old: bytes, settled: int) -> Iterator[tuple[int, int]]:
    """Id and offset of each legible part that is not settled."""
    for offset in range(_HEADER_SIZE, len(old) - _SLOT_SIZE + 1, _SLOT_SIZE):
        id = int.from_bytes(old[offset : offset + 8], "little")
        if id >= settled and _is_whole(old, offset, _BEGUN.size):
            yield id, offset


def _trigger(begun: tuple[Any, ...]) -> Trigger:
    id, utc_ns, monotonic_ns, part, *_, source = begun
    return Trigger(id, Source(_text(source)), monotonic_ns, utc_ns, part)


def _killed(begun: tuple[Any, ...]) -> PartRecord:
    threshold, job, bundle, calibration = begun[4:8]
    killed = Reason.STATION_KILLED
    return PartRecord(_trigger(begun), killed, threshold, _hex(bundle), job, calibration=_hex(calibration))


def _final(old: bytes, offset: int, id: int, trigger: Trigger) -> PartRecord | None:
    """The part as it was finished; None if the slot holds no final record, or that of a part before it."""
    if not _is_whole(old, offset, _FINAL.size):
        return None
    final_id, threshold, score, *times, job, bundle, calibration, reason = _FINAL.unpack_from(old, offset)
    if final_id != id:
        return None
    rest = (*times, _hex(calibration))
    return PartRecord(trigger, Reason(_text(reason)), threshold, _hex(bundle), job, score, *rest)


@lru_cache(maxsize=16)
def _digest(sha256: str) -> bytes:
    return bytes.fromhex(sha256) if len(sha256) == 64 else b""


def _hex(digest: bytes) -> str:
    return digest.hex() if any(digest) else ""


def _text(padded: bytes) -> str:
    return padded.rstrip(b"\0").decode()
