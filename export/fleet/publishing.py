"""What is done to a repository: made, products delegated, bundles added, rolled out and recalled, keys rotated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import msgspec
from tuf.api.metadata import DelegatedRole, Metadata, Root, TargetFile, Targets

from lineward.export.fleet import lists as listed
from lineward.export.fleet.keys import as_listed, check_in_force, signers
from lineward.export.fleet.lists import ROOT, SNAPSHOT, TARGETS, TIMESTAMP, Lists
from lineward.export.signing import SigningKey
from lineward.runtime.bundle import decode_bundle, read_bundle_file
from lineward.runtime.delivery.release import Release, decode_release, role_of
from lineward.runtime.delivery.repository import TARGETS as BUNDLES
from lineward.runtime.errors import FleetError, SignatureError
from lineward.runtime.public_key import PublicKey

ONLINE = "online"
"""Who signs snapshot and timestamp: that the lists are the newest ones."""


@dataclass(frozen=True)
class Publisher:
    """Who publishes, and how.

    Attributes:
        folder: of the repository.
        keys: what signs; each list takes those that are its own.
        now: the time of signing, with its zone.
        days: how long snapshot and timestamp count.
    """

    folder: Path
    keys: Sequence[SigningKey]
    now: datetime
    days: int = listed.ONLINE_DAYS


@dataclass
class _Change:
    """What one command changes.

    Attributes:
        lists: of the repository.
        bundles: new files, by path below its folder.
    """

    lists: Lists
    bundles: dict[str, bytes] = field(default_factory=dict)


def make(
    publisher: Publisher, root: Sequence[PublicKey], threshold: int, targets: PublicKey, online: PublicKey
) -> None:
    """Make a repository without bundles.

    Args:
        publisher: with enough of the private keys.
        root: keys that say whose keys count; stations begin with them.
        threshold: how many of them must sign that.
        targets: says whose key signs which product.
        online: signs that the lists are the newest.

    Raises:
        FleetError: there is one already, keys are missing, or it cannot be written.
        SignatureError: a key has expired.
    """
    with _changing(publisher, lambda folder: listed.new_lists(folder, publisher.now)) as change:
        for role, keys, needed in ((ROOT, root, threshold), (TARGETS, [targets], 1), (ONLINE, [online], 1)):
            _assign(change.lists, role, keys, needed, publisher.now)


def delegate(publisher: Publisher, product: str, keys: Sequence[PublicKey]) -> None:
    """Have a product's bundles listed by one of these keys, and by no other from now on.

    Raises:
        FleetError: keys are missing, or the repository cannot be read or written.
        SignatureError: a key has expired, or is not for the product.
    """
    role = role_of(product)
    for key in keys:
        if not key.signs(product):
            raise SignatureError(f"the key {key.name} is not for {product!r}", do="name a key for the product")
    with _changing(publisher) as change:
        lists, targets = change.lists, change.lists.targets.signed
        delegations = targets.delegations
        assert delegations is not None
        assert delegations.roles is not None
        known = delegations.roles.setdefault(role, DelegatedRole(role, [], 1, True, [f"{role}/*"]))
        for keyid in list(known.keyids):
            targets.revoke_key(keyid, role)
        for key in keys:
            check_in_force(key, publisher.now)
            targets.add_key(as_listed(key), role)
        if role not in lists.products:
            lists.products[role] = Metadata(Targets(expires=publisher.now))
            lists.products[role].signed.version = 0
        lists.changed |= {TARGETS, role}


def add(publisher: Publisher, path: Path, groups: tuple[str, ...], percentage: int, hold: bool) -> Release:
    """Publish a bundle.

    Raises:
        BundleError: it is damaged.
        SignatureError: it is not signed.
        FleetError: its product is not delegated, a version as high was published, or see `delegate`.
    """
    data = read_bundle_file(path)
    bundle = decode_bundle(data, str(path))
    if not bundle.signatures:
        raise SignatureError(
            f"{path}: not signed, and stations with keys would refuse it", do="`lineward sign` signs it"
        )
    manifest = bundle.manifest
    release = _checked(Release(manifest.product, manifest.version, bundle.sha256, groups, percentage, hold))
    with _changing(publisher) as change:
        targets = _targets_of(change.lists, release.product)
        newest = max((known.version for known in releases_of(change.lists, release.product)), default=0)
        if release.version <= newest:
            raise FleetError(
                f"{path}: version {release.version}, and version {newest} of {release.product!r} is published already",
                do="give each bundle that you pack a higher version; to change its rollout: `lineward publish rollout`",
            )
        target = TargetFile.from_data(release.path, data, ["sha256"])
        _describe(target, release)
        targets[release.path] = target
        change.bundles[f"{BUNDLES}/{target.get_prefixed_paths()[0]}"] = data
        change.lists.changed.add(role_of(release.product))
    return release


def roll_out(
    publisher: Publisher,
    product: str,
    version: int,
    groups: tuple[str, ...] | None = None,
    percentage: int | None = None,
    hold: bool | None = None,
) -> Release:
    """Change who takes a bundle; None: as it was.

    Raises:
        FleetError: there is no such bundle, it was recalled, or see `delegate`.
    """

    def change(release: Release) -> Release:
        if release.recalled is not None:
            raise FleetError(
                f"version {version} of {product!r} was recalled: {release.recalled}",
                do="stations do not take it again; pack it anew with a higher version",
            )
        return msgspec.structs.replace(
            release,
            groups=release.groups if groups is None else groups,
            percentage=release.percentage if percentage is None else percentage,
            hold=release.hold if hold is None else hold,
        )

    return _change_release(publisher, product, version, change)


def recall(publisher: Publisher, product: str, version: int, why: str) -> Release:
    """Have every station that inspects with a bundle go back to the one before it.

    Raises:
        FleetError: there is no such bundle, the reason is empty or too long, or see `delegate`.
    """
    return _change_release(publisher, product, version, lambda release: msgspec.structs.replace(release, recalled=why))


def refresh(publisher: Publisher) -> None:
    """Sign again that the lists are the newest, and every list whose keys are at hand, for another term.

    Raises:
        FleetError: see `delegate`.
    """
    with _changing(publisher) as change:
        lists, at_hand = change.lists, {key.public.fingerprint for key in publisher.keys}
        lists.changed.add(SNAPSHOT)
        for role in lists.roles:
            if len(at_hand & {key.keyid for key in lists.keys_of(role)}) >= lists.threshold_of(role):
                lists.changed.add(role)
        if ROOT in lists.changed:
            lists.former = _copy(lists)


def rotate(publisher: Publisher, role: str, keys: Sequence[PublicKey], threshold: int) -> None:
    """Replace the keys of `root`, `targets` or `online`. With the old keys at hand as well as the new, there is no
    moment in which a station refuses the repository.

    Raises:
        FleetError: see `delegate`.
        SignatureError: a key has expired.
    """
    with _changing(publisher) as change:
        change.lists.former = _copy(change.lists)
        _assign(change.lists, role, keys, threshold, publisher.now)


def releases_of(lists: Lists, product: str) -> list[Release]:
    """What is published of a product."""
    return [decode_release(target.custom, path, product) for path, target in _targets_of(lists, product).items()]


def all_releases(lists: Lists) -> list[Release]:
    """What is published, by product and version.

    Raises:
        FleetError: what is said of a bundle is not understood.
    """
    found = [
        decode_release(target.custom, path)
        for metadata in lists.products.values()
        for path, target in metadata.signed.targets.items()
    ]
    return sorted(found, key=lambda release: (release.product, release.version))


@contextmanager
def _changing(publisher: Publisher, read: Callable[[Path], Lists] = listed.read_lists) -> Iterator[_Change]:
    signing = signers(publisher.keys, publisher.now)
    with listed.locked(publisher.folder):
        change = _Change(read(publisher.folder))
        yield change
        listed.write_lists(change.lists, signing, change.bundles, publisher.now, publisher.days)


def _change_release(publisher: Publisher, product: str, version: int, change: Callable[[Release], Release]) -> Release:
    with _changing(publisher) as changing:
        known = {release.version: release for release in releases_of(changing.lists, product)}
        if version not in known:
            raise FleetError(
                f"there is no version {version} of {product!r} in the repository",
                do=f"name one of {sorted(known)}" if known else "`lineward publish add` adds one",
            )
        release = _checked(change(known[version]))
        _describe(_targets_of(changing.lists, product)[release.path], release)
        changing.lists.changed.add(role_of(product))
    return release


def _assign(lists: Lists, role: str, keys: Sequence[PublicKey], threshold: int, now: datetime) -> None:
    if not 1 <= threshold <= len({key.fingerprint for key in keys}):
        raise FleetError(
            f"{role}: {threshold} of {len(keys)} keys can never sign", do="name more keys, or a lower --threshold"
        )
    root = lists.root.signed
    for name in (SNAPSHOT, TIMESTAMP) if role == ONLINE else (role,):
        for keyid in list(root.roles[name].keyids):
            root.revoke_key(keyid, name)
        for key in keys:
            check_in_force(key, now)
            root.add_key(as_listed(key), name)
        root.roles[name].threshold = threshold
        lists.changed |= {ROOT, name}


def _targets_of(lists: Lists, product: str) -> dict[str, TargetFile]:
    metadata = lists.products.get(role_of(product))
    if metadata is None:
        raise FleetError(
            f"nobody may publish {product!r} here", do="`lineward publish delegate` says whose key lists it"
        )
    return metadata.signed.targets


def _describe(target: TargetFile, release: Release) -> None:
    target.unrecognized_fields = {"custom": msgspec.to_builtins(release)}


def _checked(release: Release) -> Release:
    """A release that stations can read.

    Raises:
        FleetError: a group, percentage or reason cannot be.
    """
    try:
        return msgspec.convert(msgspec.to_builtins(release), Release)
    except msgspec.ValidationError as error:
        raise FleetError(
            f"cannot be said of a bundle: {error}",
            do="a group is of letters, digits, '-', '_', '.'; a percentage 0 to 100; a reason of 1 to 200 characters",
        ) from error


def _copy(lists: Lists) -> Metadata[Root]:
    return Metadata.from_bytes(lists.root.to_bytes())
