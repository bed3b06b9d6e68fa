"""What became of a calibration file: which calibration replaced which, when, and by how many images.

Lines of JSON beside the file. An entry is written, through to the disk, before the change that it tells of: no change
is without its entry. After a power cut between the two the last entry may tell of a change that was not made; the
hashes say so.
"""

from __future__ import annotations

import enum
import hashlib
import os
from pathlib import Path

import msgspec

from lineward.runtime.errors import CalibrationError
from lineward.runtime.manifest import Record

_MODE = 0o644


class Change(str, enum.Enum):
    """What was done."""

    CALIBRATED = "calibrated"
    REMOVED = "removed"
    RESTORED = "restored"


class Entry(Record, frozen=True):
    """A change of a calibration file.

    Attributes:
        time: UTC time, ISO 8601.
        change: what was done.
        calibration: SHA-256 (hex) of the file afterwards; empty: there is none, the bundle's own threshold applies.
        replaces: SHA-256 (hex) of the file before; empty: there was none.
        bundle: SHA-256 (hex) that names the bundle it belongs to; empty where there is none afterwards.
        threshold: the image score that passes afterwards; None where there is none.
        images: good images behind it; 0 where there is none.
    """

    time: str
    change: Change
    calibration: str
    replaces: str
    bundle: str
    threshold: float | None
    images: int


def journal_path(path: Path) -> Path:
    """Where the journal of a calibration file lies."""
    return path.with_name(f"{path.name}.journal")


def file_sha256(path: Path) -> str:
    """SHA-256 (hex) of a file; empty where there is none.

    Raises:
        CalibrationError: it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise CalibrationError(f"{path}: cannot be read ({error.strerror})", do="check its permissions") from error


def append(path: Path, entry: Entry) -> None:
    """Write down what is about to be done to a calibration file.

    Raises:
        CalibrationError: the journal cannot be written; then nothing must be done.
    """
    journal = journal_path(path)
    try:
        descriptor = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, _MODE)
        try:
            os.write(descriptor, msgspec.json.encode(entry) + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise CalibrationError(
            f"{path}: cannot be written, since {journal.name} cannot ({error.strerror})",
            do="check the folder and its free space; nothing was changed",
        ) from error


def read_journal(path: Path) -> list[Entry]:
    """What was done to a calibration file, in order.

    Raises:
        CalibrationError: there is no journal, or it was changed by something else than `append`.
    """
    journal = journal_path(path)
    try:
        lines = journal.read_bytes().splitlines()
    except OSError as error:
        raise CalibrationError(
            f"{journal}: cannot be read ({error.strerror})", do="`lineward calibrate` begins one"
        ) from error
    try:
        return [msgspec.json.decode(line, type=Entry) for line in lines]
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CalibrationError(
            f"{journal}: not the journal of a calibration ({error})", do="look at the file: it is lines of JSON"
        ) from error
