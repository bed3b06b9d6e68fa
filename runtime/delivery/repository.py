"""A repository of bundles as a station reads it: nothing counts that The Update Framework's client has not verified.

Trust begins with the root metadata that was put on the device. What was seen last is kept, so that a server cannot go
back behind it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    LengthOrHashMismatchError,
    RepositoryError,
    SlowRetrievalError,
    UnsignedMetadataError,
)
from tuf.ngclient.config import UpdaterConfig
from tuf.ngclient.updater import Updater

from lineward.runtime.atomic_write import sync_folder
from lineward.runtime.delivery.lock import held, open_lock
from lineward.runtime.delivery.release import Release, decode_release, role_of
from lineward.runtime.delivery.transport import Transport
from lineward.runtime.errors import FleetError, first_line
from lineward.runtime.guarded_file import read_guarded

METADATA = "metadata"
TARGETS = "targets"

_ROOT_LIMIT = 512_000
_TIMESTAMP_LIMIT = 16_384
_SNAPSHOT_LIMIT = 2_000_000
_TARGETS_LIMIT = 5_000_000
_ROOT_ROTATIONS = 256

_REASONS: tuple[tuple[type[Exception], str, str], ...] = (
    (
        ExpiredMetadataError,
        "its signed lists have expired, so that nobody can tell whether they are the newest",
        "`lineward publish refresh`, and look whether this device's clock is right; a server that shows old lists "
        "again and again looks the same",
    ),
    (
        BadVersionNumberError,
        "shows older lists than this station has seen, or lists that do not belong together",
        "find out who put an old copy there; publish anew, with higher versions",
    ),
    (
        UnsignedMetadataError,
        "its lists are not signed by the keys that this station trusts",
        "is it the repository of the station file's `fleet.root`? A new root must be signed by the keys of the old",
    ),
    (
        LengthOrHashMismatchError,
        "a file there is not the one that its signed lists name",
        "copy the repository again from where it is published; a copy that was cut off looks the same",
    ),
    (
        DownloadLengthMismatchError,
        "sends more bytes than its signed lists allow",
        "find out what answers at this address",
    ),
    (SlowRetrievalError, "is too slow, or holds the answer back", "it is tried again with the next pull"),
    (DownloadHTTPError, "does not have a file", "is it the repository's address? It holds `metadata` and `targets`"),
    (DownloadError, "cannot be reached", "check address, network and server; it is tried again with the next pull"),
    (RepositoryError, "its lists cannot be read", "copy the repository again from where it is published"),
)


@dataclass(frozen=True)
class Source:
    """Where a station's bundles come from, and what it trusts there.

    Attributes:
        place: URL or folder of the repository.
        root: file of the root metadata to begin with; only its owner may write it.
        state: folder for what was seen last, and for bundles on their way.
        limit: the most bytes that a bundle may have.
    """

    place: str
    root: Path
    state: Path
    limit: int


class Repository:
    """A repository at one moment: opened, verified and as it was then. One process at a time uses a state folder.

    Use `open_repository`.
    """

    def __init__(self, source: Source, updater: Updater) -> None:
        self.place = source.place
        self._source = source
        self._updater = updater

    def releases(self, product: str) -> list[Release]:
        """Every bundle of a product, the highest version first.

        Raises:
            FleetError: the repository has none of it, or cannot be relied upon.
        """
        role = role_of(product)
        with _told(self.place):
            self._updater.get_targetinfo(f"{role}/")  # brings the product's list here
            releases = []
            for path in self._named(role):
                target = self._updater.get_targetinfo(path)
                if target is not None:
                    releases.append(decode_release(target.custom, path, product))
        _flush(self._source.state)
        if not releases:
            raise FleetError(
                f"{self.place}: has no bundle of {product!r}",
                do="`lineward publish add`; or is the product's name in [fleet] not the bundles'?",
            )
        return sorted(releases, key=lambda release: release.version, reverse=True)

    def fetch(self, release: Release) -> Path:
        """Bring a bundle here, its length and hash as signed; the caller deletes it.

        Raises:
            FleetError: it is too large, not the one that was signed, or does not come.
        """
        with _told(self.place):
            target = self._updater.get_targetinfo(release.path)
            assert target is not None
            if target.length > self._source.limit:
                raise FleetError(
                    f"{self.place}: {release.path} has {target.length} bytes, more than this station takes",
                    do="raise `limit` in [fleet] of the station file if that is right",
                )
            path = self._updater.find_cached_target(target) or self._updater.download_target(target)
        return Path(path)

    def _named(self, role: str) -> list[str]:
        """Paths of the product's list. They are names to ask for, and prove nothing."""
        path = self._source.state / METADATA / f"{role}.json"
        return sorted(json.loads(path.read_bytes())["signed"]["targets"]) if path.exists() else []


@contextmanager
def open_repository(source: Source, transport: Transport | None = None) -> Iterator[Repository]:
    """Open a repository: its lists are brought up to date and verified, from the trusted root on.

    Raises:
        FleetError: it cannot be reached or relied upon, or the state folder cannot be written.
        KeyFileError: the trusted root cannot be read, or others may write it.
    """
    root = read_guarded(source.root, _ROOT_LIMIT)
    with _locked(source.state):
        with _told(source.place):
            updater = _updater(source, root, transport or Transport())
            try:
                updater.refresh()
            finally:
                _flush(source.state)
        yield Repository(source, updater)


def _updater(source: Source, root: bytes, transport: Transport) -> Updater:
    base = address(source.place)
    limits = UpdaterConfig(
        max_root_rotations=_ROOT_ROTATIONS,
        root_max_length=_ROOT_LIMIT,
        timestamp_max_length=_TIMESTAMP_LIMIT,
        snapshot_max_length=_SNAPSHOT_LIMIT,
        targets_max_length=_TARGETS_LIMIT,
    )
    metadata, targets = source.state / METADATA, source.state / TARGETS
    return Updater(
        str(metadata), f"{base}/{METADATA}/", str(targets), f"{base}/{TARGETS}/", transport, limits, bootstrap=root
    )


def address(place: str) -> str:
    """The URL of a repository that is named by URL or folder."""
    url = place if urlsplit(place).scheme in ("http", "https", "file") else Path(place).absolute().as_uri()
    return url.rstrip("/")


@contextmanager
def _told(place: str) -> Iterator[None]:
    """Say in our words what the client found."""
    try:
        yield
    except (RepositoryError, DownloadError) as error:
        what, do = next((what, do) for kind, what, do in _REASONS if isinstance(error, kind))
        raise FleetError(f"{place}: {what} ({first_line(error)})", do=do) from error
    except OSError as error:
        raise FleetError(
            f"{error.filename or 'the state folder'}: cannot be written ({error.strerror})",
            do="check the folder of the station, its permissions and free space",
        ) from error


@contextmanager
def _locked(state: Path) -> Iterator[None]:
    try:
        for folder in (METADATA, TARGETS):
            (state / folder).mkdir(parents=True, exist_ok=True)
        lock = open_lock(state / ".lock")
    except OSError as error:
        raise FleetError(
            f"{state}: cannot be written ({error.strerror})", do="run it as the station's user; check the folder"
        ) from error
    with held(lock, FleetError(f"{state}: another pull is under way", do="wait until it has ended")):
        yield


def _flush(state: Path) -> None:
    """Flush what was seen to the disk: forgotten in a power cut, it would no longer protect against going back."""
    for folder in (state / METADATA, state / METADATA / "root_history"):
        for path in folder.iterdir() if folder.is_dir() else ():
            if path.is_file():
                with path.open("rb") as file:
                    os.fsync(file.fileno())
        if folder.is_dir():
            sync_folder(folder)
