"""The signed lists of a repository: read as they are in force, changed, signed, and written so that a reader sees the
old state or the new one, whenever the writer is killed.

Every list but `timestamp.json` has its version in its name and is never replaced. `timestamp.json` names all the others
and is written after them; a new root follows it, and until then nobody asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeVar

from securesystemslib.signer import CryptoSigner, Key
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import DelegatedRole, Delegations, Metadata, MetaFile, Root, Signed, Snapshot, Targets, Timestamp

from lineward.export.fleet.keys import name_of
from lineward.runtime.atomic_write import replace_file
from lineward.runtime.delivery.lock import held, open_lock
from lineward.runtime.delivery.repository import METADATA
from lineward.runtime.errors import FleetError, first_line

ROOT, TARGETS, SNAPSHOT, TIMESTAMP = Root.type, Targets.type, Snapshot.type, Timestamp.type

ROOT_DAYS = 365
TARGETS_DAYS = 180
ONLINE_DAYS = 14
"""Days that lists count: the root, what bundles there are, and that these are the newest ones."""

List = Metadata[Root] | Metadata[Targets] | Metadata[Snapshot] | Metadata[Timestamp]
_Kind = TypeVar("_Kind", Root, Targets, Snapshot, Timestamp)
_ROOT_FILE = re.compile(r"(\d+)\.root\.json")


@dataclass
class Lists:
    """The lists of a repository, as they will be.

    Attributes:
        folder: of the repository.
        root: whose keys sign what.
        targets: delegates products to roles.
        products: the bundles of each role.
        snapshot: versions of `targets` and `products`.
        timestamp: version of `snapshot`.
        changed: roles whose list is to be written anew; with any but the root, snapshot and timestamp are.
        former: the root that is in force, where it changes.
    """

    folder: Path
    root: Metadata[Root]
    targets: Metadata[Targets]
    products: dict[str, Metadata[Targets]]
    snapshot: Metadata[Snapshot]
    timestamp: Metadata[Timestamp]
    changed: set[str] = field(default_factory=set)
    former: Metadata[Root] | None = None

    def keys_of(self, role: str) -> list[Key]:
        """The keys that may sign a role's list."""
        delegator = self.root.signed if role in self.root.signed.roles else self.targets.signed
        return [delegator.get_key(keyid) for keyid in delegator.get_delegated_role(role).keyids]

    def threshold_of(self, role: str) -> int:
        """How many of them must."""
        delegator = self.root.signed if role in self.root.signed.roles else self.targets.signed
        return delegator.get_delegated_role(role).threshold

    @property
    def delegated(self) -> Mapping[str, DelegatedRole]:
        """The roles of products."""
        delegations = self.targets.signed.delegations
        return (delegations.roles if delegations else None) or {}

    @property
    def roles(self) -> tuple[str, ...]:
        """Every role that signs a list."""
        return (ROOT, TARGETS, *self.products, SNAPSHOT, TIMESTAMP)

    def list_of(self, role: str) -> List:
        """The list that a role signs."""
        top: dict[str, List] = {
            ROOT: self.root,
            TARGETS: self.targets,
            SNAPSHOT: self.snapshot,
            TIMESTAMP: self.timestamp,
        }
        return top[role] if role in top else self.products[role]


def new_lists(folder: Path, now: datetime) -> Lists:
    """Lists of a repository that is to be made; nobody may sign them yet.

    Raises:
        FleetError: there is one in the folder.
    """
    if any((folder / METADATA).glob("*.root.json")):
        raise FleetError(f"{folder}: holds a repository already", do="name another folder, or go on with this one")
    made = Lists(
        folder,
        Metadata(Root(expires=now)),
        Metadata(Targets(expires=now, delegations=Delegations({}, {}))),
        {},
        Metadata(Snapshot(expires=now, meta={})),
        Metadata(Timestamp(expires=now, snapshot_meta=MetaFile(1))),
        {ROOT, TARGETS},
    )
    for role in made.roles:
        made.list_of(role).signed.version = 0  # the first writing makes it 1
    return made


def read_lists(folder: Path) -> Lists:
    """Read the lists that are in force.

    Raises:
        FleetError: there is no repository, or it is damaged.
    """
    metadata = folder / METADATA
    versions = [int(found[1]) for path in metadata.glob("*.root.json") if (found := _ROOT_FILE.fullmatch(path.name))]
    if not versions:
        raise FleetError(f"{folder}: holds no repository", do="`lineward publish init` makes one")
    root: Metadata[Root] = _read(metadata / f"{max(versions)}.root.json", Root)
    timestamp: Metadata[Timestamp] = _read(metadata / "timestamp.json", Timestamp)
    snapshot: Metadata[Snapshot] = _read(metadata / f"{timestamp.signed.snapshot_meta.version}.snapshot.json", Snapshot)
    listed = {name.removesuffix(".json"): meta.version for name, meta in snapshot.signed.meta.items()}
    read = {role: _read(metadata / f"{version}.{role}.json", Targets) for role, version in listed.items()}
    return Lists(folder, root, read.pop(TARGETS), read, snapshot, timestamp)


def _read(path: Path, kind: type[_Kind]) -> Metadata[_Kind]:
    again = "put the repository's folder back from a copy; the newest, since stations go by the highest versions seen"
    try:
        metadata: Metadata[_Kind] = Metadata.from_bytes(path.read_bytes())
    except OSError as error:
        raise FleetError(f"{path}: cannot be read ({error.strerror})", do=again) from error
    except RepositoryError as error:
        raise FleetError(f"{path}: damaged ({first_line(error)})", do=again) from error
    if not isinstance(metadata.signed, kind):
        raise FleetError(f"{path}: is a list of another kind", do=again)
    return metadata


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """While a repository is changed; nobody else may meanwhile.

    Raises:
        FleetError: somebody does, or the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open_lock(folder / ".lock")
    except OSError as error:
        raise _unwritable(folder, error) from error
    with held(lock, FleetError(f"{folder}: is being published to just now", do="wait until that has ended")):
        yield


def write_lists(
    lists: Lists, signing: Mapping[str, CryptoSigner], bundles: Mapping[str, bytes], now: datetime, days: int
) -> None:
    """Sign what has changed, check that stations accept it, and write it; a new timestamp makes it count.

    Args:
        lists: with `changed` set.
        signing: what signs, by fingerprint of the key.
        bundles: files to write before, by path below the repository's folder.
        now: the time of signing.
        days: how long snapshot and timestamp count.

    Raises:
        FleetError: keys are missing, or the folder cannot be written; then stations still see what they saw before.
    """
    if lists.changed != {ROOT}:
        lists.changed |= {SNAPSHOT, TIMESTAMP}
    lifetimes = {ROOT: ROOT_DAYS, SNAPSHOT: days, TIMESTAMP: days}
    versions = lists.snapshot.signed.meta
    files = dict(bundles)
    # In this order: each list is named by one that comes later.
    for role in (*lists.products, TARGETS, SNAPSHOT, TIMESTAMP, ROOT):
        if role not in lists.changed:
            continue
        metadata = lists.list_of(role)
        data = _sign(lists, role, signing, now + timedelta(days=lifetimes.get(role, TARGETS_DAYS)))
        version = metadata.signed.version
        files[f"{METADATA}/{TIMESTAMP}.json" if role == TIMESTAMP else f"{METADATA}/{version}.{role}.json"] = data
        if role == SNAPSHOT:
            lists.timestamp.signed.snapshot_meta = MetaFile.from_data(version, data, ["sha256"])
        elif role not in (TIMESTAMP, ROOT):
            versions[f"{role}.json"] = MetaFile.from_data(version, data, ["sha256"])
    _check(lists)
    _write(lists.folder, files)


def _sign(lists: Lists, role: str, signing: Mapping[str, CryptoSigner], expires: datetime) -> bytes:
    """With every key of the role, and of the role as it was: who does not know the new root yet accepts it too."""
    metadata = lists.list_of(role)
    signed: Signed = metadata.signed
    signed.version += 1
    signed.expires = expires.replace(microsecond=0)
    metadata.signatures.clear()
    wanted = [key.keyid for key in lists.keys_of(role)]
    if lists.former is not None and role in lists.former.signed.roles:
        wanted += lists.former.signed.roles[role].keyids
    for keyid in dict.fromkeys(wanted):
        if keyid in signing:
            metadata.sign(signing[keyid], append=True)
    return metadata.to_bytes()


def _check(lists: Lists) -> None:
    """What is written is accepted: by the root that will be in force, and a new root by the old one as well."""
    for role in (role for role in lists.roles if role in lists.changed):
        metadata = lists.list_of(role)
        delegators: Sequence[Root | Targets] = [lists.targets.signed if role in lists.products else lists.root.signed]
        if role == ROOT and lists.former is not None:
            delegators = [lists.former.signed, *delegators]
        for delegator in delegators:
            found = delegator.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
            if not found:
                missing = ", ".join(name_of(key) for key in found.unsigned.values())
                raise FleetError(
                    f"{role}: signed by {len(found.signed)} of the {found.threshold} keys that it takes",
                    do=f"name more with --key; there are {missing}",
                )


def _write(folder: Path, files: Mapping[str, bytes]) -> None:
    try:
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            replace_file(folder / name, data)
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> FleetError:
    return FleetError(
        f"{folder}: cannot be written ({error.strerror}); stations see what they saw before",
        do="check the folder, its permissions and free space, and do it again",
    )
