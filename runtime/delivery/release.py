"""A bundle in a repository: what is said of it there, and whether it is for this station."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from lineward.runtime.delivery.slot_state import Sha256
from lineward.runtime.errors import FleetError
from lineward.runtime.manifest import LONGEST_PRODUCT, Record

Group = Annotated[str, Meta(pattern=r"\A[A-Za-z0-9._-]{1,64}\Z")]
Percentage = Annotated[int, Meta(ge=0, le=100)]

_UNSAFE = re.compile("[^a-z0-9]+")


class Release(Record, frozen=True):
    """The `custom` metadata of a target, signed by the role of its product.

    A station takes it if it is in one of the groups, or among the percentage of all.

    Attributes:
        product: of the bundle's manifest.
        version: of the bundle's manifest.
        bundle: SHA-256 of its manifest, `Bundle.sha256`.
        groups: of stations that take it whatever the percentage is.
        percentage: of all stations that take it; see `share_of`.
        hold: no station takes it that has not taken it yet.
        recalled: why stations that have it go back; None: they do not.
    """

    product: Annotated[str, Meta(min_length=1, max_length=LONGEST_PRODUCT)]
    version: Annotated[int, Meta(ge=1)]
    bundle: Sha256
    groups: tuple[Group, ...] = ()
    percentage: Percentage = 100
    hold: bool = False
    recalled: Annotated[str, Meta(min_length=1, max_length=200)] | None = None

    @property
    def path(self) -> str:
        """Its path among the targets."""
        return f"{role_of(self.product)}/{self.version}-{self.bundle[:12]}.lineward"

    def is_for(self, station: str, groups: Iterable[str]) -> bool:
        """Whether a station of that name, in those groups, is to take it."""
        if self.hold or self.recalled is not None:
            return False
        return not set(groups).isdisjoint(self.groups) or share_of(station, self.bundle) < self.percentage


def share_of(station: str, bundle: str) -> float:
    """Where a station stands among all, in [0, 100): a rollout to more than that many percent reaches it.

    A hash of both names: it stays for a bundle, so that a rollout that grows keeps the stations it has, and no station
    is among the first of every bundle.
    """
    digest = hashlib.sha256(f"{bundle}\n{station}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / (1 << 48) * 100


def role_of(product: str) -> str:
    """The name of the role that signs a product's bundles, fit for a file's name: readable, and never another's."""
    words = _UNSAFE.sub("-", product.lower()).strip("-")[:40]
    return f"{words}-{hashlib.sha256(product.encode()).hexdigest()[:12]}"


def decode_release(custom: object, path: str, product: str | None = None) -> Release:
    """Read the `custom` metadata of a target.

    Args:
        custom: as it stands in the list.
        path: of the target.
        product: that it must be of; None: whichever the path is of.

    Raises:
        FleetError: it is not of this form, or is for another product or path than it lies under.
    """
    try:
        release = msgspec.convert(custom, Release)
    except msgspec.ValidationError as error:
        raise FleetError(
            f"{path}: what the repository says of it is not understood ({error})",
            do="publish it with `lineward publish` of this version, or update Lineward here",
        ) from error
    if product not in (None, release.product) or release.path != path:
        raise FleetError(
            f"{path}: is said to be version {release.version} of {release.product!r}, which does not belong there",
            do="find out who signed that for this product; publish it again with `lineward publish add`",
        )
    return release


def newest_for(releases: Sequence[Release], station: str, groups: Iterable[str], above: int) -> Release | None:
    """The highest version that is for a station and higher than `above`; None: there is none."""
    groups = tuple(groups)
    found = [r for r in releases if r.version > above and r.is_for(station, groups)]
    return max(found, key=lambda release: release.version, default=None)
