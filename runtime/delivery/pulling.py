"""Bringing one job of a station to where the repository wants it: away from what was recalled, and to what is newer.

A recall goes back within the slots, to what was active here before: so it needs no permit, and nothing that was never
proven on this device becomes active by it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lineward.runtime.bundle import Bundle, read_bundle
from lineward.runtime.delivery.deployment import Target, deploy
from lineward.runtime.delivery.downgrade import newest_ever
from lineward.runtime.delivery.release import Release, newest_for
from lineward.runtime.delivery.repository import Repository
from lineward.runtime.delivery.slot_state import Slot
from lineward.runtime.delivery.slots import now
from lineward.runtime.errors import BundleError, DeliveryError, FleetError, LinewardError


@dataclass(frozen=True)
class Wish:
    """What a job asks of a repository.

    Attributes:
        product: the only one that it takes.
        groups: that the station is in.
    """

    product: str
    groups: tuple[str, ...]


def pull(repository: Repository, target: Target, wish: Wish, prove: Callable[[Bundle], None]) -> list[str]:
    """Go back from what was recalled, then deploy the newest bundle that is for this station.

    Only a version that is higher than all that were ever active is taken: so what was rolled back, or taken back in its
    trial, stays so until there is a higher one. A bundle that `prove` refuses is remembered as refused, and is not
    tried again.

    Args:
        repository: where from.
        target: where to.
        wish: of the job.
        prove: see `deploy`.

    Returns:
        What was done, in words; empty: nothing was to be done.

    Raises:
        FleetError: the repository cannot be relied upon.
        DeliveryError: there is nothing to go back to, or see `deploy`.
        LinewardError: see `deploy`.
    """
    releases = repository.releases(wish.product)
    _check_product(target, wish.product)
    release = _newest(target, wish, releases)
    try:
        done = _recall(target, releases)
    except DeliveryError:
        if release is None:
            raise
        done = []  # there is nothing to go back to, but something newer
    if release is None:
        return done
    active = target.slots.read().active
    _deploy(repository, target, release, prove)
    before = f", in place of {active.version}" if active else ""
    return [*done, f"{wish.product} {release.version} deployed{before}"]


def _check_product(target: Target, product: str) -> None:
    state = target.slots.read()
    if state.product and state.product != product:
        raise DeliveryError(
            f"{target.slots.folder}: is for {state.product!r}, and [fleet] names {product!r} for the job",
            do="correct `products` in [fleet]; for a new product, name new slots in the station file",
        )


def _newest(target: Target, wish: Wish, releases: Sequence[Release]) -> Release | None:
    state = target.slots.read()
    newest = newest_ever(state, target.trust)
    release = newest_for(releases, target.station, wish.groups, newest.version if newest else 0)
    refused = {refused.sha256 for refused in state.refused}
    return None if release is None or release.bundle in refused else release


def _recall(target: Target, releases: Sequence[Release]) -> list[str]:
    """First what lies behind the active bundle, so that going back does not end at another recalled one."""
    slots, state = target.slots, target.slots.read()
    reasons = {release.bundle: f"recalled: {release.recalled}" for release in releases if release.recalled is not None}
    for slot in state.before:
        if slot.sha256 in reasons:
            slots.refuse(slot.sha256, reasons[slot.sha256])
    active = state.active
    if active is None or active.sha256 not in reasons:
        return []

    def is_good(slot: Slot) -> bool:
        with suppress(BundleError):
            slots.bundle(slot, target.trust)
            return True
        return False

    state = slots.refuse(active.sha256, reasons[active.sha256], is_good)
    assert state.active is not None
    return [f"{state.product} {active.version} {reasons[active.sha256]}; back to {state.active.version}"]


def _deploy(repository: Repository, target: Target, release: Release, prove: Callable[[Bundle], None]) -> None:
    path = repository.fetch(release)
    refused: list[LinewardError] = []

    def proving(bundle: Bundle) -> None:
        try:
            prove(bundle)
        except LinewardError as error:
            refused.append(error)
            raise

    try:
        _check_is(release, read_bundle(path, target.trust), path)
        deploy(target, path, proving)
    finally:
        path.unlink(missing_ok=True)
        if refused:
            slot, why = Slot(release.version, release.bundle), f"not deployed: {refused[0].what}"
            target.slots.change(lambda state: state.refusing(slot, now(), why))


def _check_is(release: Release, bundle: Bundle, path: Path) -> None:
    manifest = bundle.manifest
    if (manifest.product, manifest.version, bundle.sha256) != (release.product, release.version, release.bundle):
        raise FleetError(
            f"{path.name}: is version {manifest.version} of {manifest.product!r}, and was published as "
            f"version {release.version} of {release.product!r}",
            do="find out who signed that; publish it again with `lineward publish add`",
        )
