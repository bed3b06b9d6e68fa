"""A device's own calibration: a threshold found on its own good parts, kept outside the signed bundle and bound to it.

It is not signed, and it decides verdicts: so it is used only where it is named, and read only if nobody but its owner
could have changed it. Without it the bundle's own threshold applies.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from lineward.runtime.atomic_write import replace_file
from lineward.runtime.bundle import Bundle
from lineward.runtime.errors import CalibrationError
from lineward.runtime.guarded_file import read_guarded
from lineward.runtime.manifest import Record, Sha256, Threshold

FORMAT = 1
"""The format of calibration files this runtime reads and writes."""

SUFFIX = ".calibration.json"

_LIMIT = 1 << 16
_MODE = 0o644


class Calibration(Record, frozen=True):
    """The whole of a calibration file.

    Attributes:
        format: version of the file's format.
        product: what is inspected.
        bundle_version: of the bundle it belongs to.
        bundle_sha256: names that bundle; it holds for no other.
        created: UTC time, ISO 8601.
        copies: images left out because another showed the same pixels.
        threshold: the device's own, with its promise and evidence.
    """

    format: int
    product: str
    bundle_version: int
    bundle_sha256: Sha256
    created: str
    copies: Annotated[int, Meta(ge=0)]
    threshold: Threshold

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the file as `write_calibration` writes it; it names the calibration."""
        return hashlib.sha256(_encode(self)).hexdigest()


def default_path(bundle: Path) -> Path:
    """Where a bundle's calibration file lies if nothing else is said: beside it."""
    return bundle.with_suffix(SUFFIX)


def path_for(place: Path, bundle_sha256: str) -> Path:
    """The file of a bundle at a place: the place itself or, in a folder, the one that is named after the bundle."""
    return place / f"{bundle_sha256[:16]}{SUFFIX}" if place.is_dir() else place


def former_path(path: Path) -> Path:
    """Where the file lies that was replaced or removed last."""
    return path.with_name(f"{path.name}.former")


def read_calibration(path: Path, bundle: Bundle) -> Calibration:
    """Read a calibration file and check that it belongs to a bundle.

    Raises:
        CalibrationError: it is malformed, of another format, or of another bundle.
        KeyFileError: it cannot be read, or others than its owner could have changed it.
    """
    data = read_guarded(path, _LIMIT)
    again = "calibrate again: `lineward calibrate`"
    try:
        head = msgspec.json.decode(data)
        if isinstance(head, dict) and head.get("format") != FORMAT:
            raise CalibrationError(
                f"{path}: calibration format {head.get('format')!r} is not known here (only {FORMAT})", do=again
            )
        calibration = msgspec.json.decode(data, type=Calibration)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CalibrationError(f"{path}: not a calibration file ({error})", do=again) from error
    try:
        check_bound(calibration, bundle)
    except CalibrationError as error:
        raise CalibrationError(f"{path}: {error.what}", do=error.do) from error
    return calibration


def check_bound(calibration: Calibration, bundle: Bundle) -> None:
    """Check that a calibration belongs to a bundle.

    Raises:
        CalibrationError: it belongs to another, were it an older version of the same product.
    """
    if calibration.bundle_sha256 != bundle.sha256:
        raise CalibrationError(
            f"a calibration of {calibration.product}, version {calibration.bundle_version} "
            f"(sha256 {calibration.bundle_sha256[:12]}), not of this bundle (sha256 {bundle.sha256[:12]})",
            do="calibrate again with this bundle, or name no calibration, to use the bundle's own threshold",
        )


def write_calibration(path: Path, calibration: Calibration) -> None:
    """Write a calibration file, and keep the one it replaces beside it.

    Raises:
        CalibrationError: the folder is missing, full or not writable; the old file is as it was.
    """
    data = _encode(calibration)
    try:
        if path.exists():
            _write(former_path(path), path.read_bytes())
        _write(path, data)
    except OSError as error:
        raise CalibrationError(
            f"{path}: cannot be written ({error.strerror})", do="check the folder and its free space"
        ) from error


def remove_calibration(path: Path) -> Path:
    """Take a calibration file out of use.

    Returns:
        Where it lies now.

    Raises:
        CalibrationError: there is none, or the folder is not writable.
    """
    former = former_path(path)
    try:
        path.replace(former)
    except OSError as error:
        raise CalibrationError(
            f"{path}: cannot be removed ({error.strerror})", do="check the path and the folder's permissions"
        ) from error
    return former


def restore_calibration(path: Path, bundle: Bundle) -> Calibration:
    """Bring back the calibration that was replaced or removed last; the one that it replaces becomes the former one.

    Raises:
        CalibrationError: there is none, it is malformed or of another bundle, or the folder is not writable.
        KeyFileError: it cannot be read, or others than its owner could have changed it.
    """
    calibration = read_former(path, bundle)
    write_calibration(path, calibration)
    return calibration


def read_former(path: Path, bundle: Bundle) -> Calibration:
    """The calibration that was replaced or removed last.

    Raises:
        CalibrationError: there is none, or it is malformed or of another bundle.
        KeyFileError: it cannot be read, or others than its owner could have changed it.
    """
    former = former_path(path)
    if not former.exists():
        raise CalibrationError(f"{former}: there is no former calibration", do="calibrate: `lineward calibrate`")
    return read_calibration(former, bundle)


def _encode(calibration: Calibration) -> bytes:
    return msgspec.json.format(msgspec.json.encode(calibration, order="deterministic"), indent=2) + b"\n"


def _write(path: Path, data: bytes) -> None:
    replace_file(path, data)
    path.chmod(_MODE)  # whatever the umask: a file that others can write is not read
