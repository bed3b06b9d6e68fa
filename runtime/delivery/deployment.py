"""Deploying a bundle: everything is proven on this very device before it becomes active, and nothing is lost if not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from lineward.runtime.bundle import Bundle, read_bundle, read_bundle_file
from lineward.runtime.delivery.downgrade import check_not_older
from lineward.runtime.delivery.permit import Permit, check_permit
from lineward.runtime.delivery.slot_state import Slot, SlotState
from lineward.runtime.delivery.slots import Slots, counting_keys, now
from lineward.runtime.errors import BundleError, DeliveryError
from lineward.runtime.trust import Trust

_STAGED = "staged.partial"


@dataclass(frozen=True)
class Target:
    """Where a bundle is deployed to.

    Attributes:
        slots: of the job.
        station: the station's name.
        trust: whose bundles the station accepts.
    """

    slots: Slots
    station: str
    trust: Trust


def deploy(target: Target, path: Path, prove: Callable[[Bundle], None], permit: Path | None = None) -> SlotState:
    """Stage a bundle, prove it, and make it active: one that is active already is only proven again.

    Args:
        target: where to.
        path: the bundle.
        prove: opens the station's engine with the staged bundle and raises if it does not do here.
        permit: a signed permit to go back to an older version.

    Returns:
        The state afterwards.

    Raises:
        BundleError: it is damaged, not trusted, or `prove` said so.
        DeliveryError: it is of another product or too old, `prove` said so, or the slots cannot be written.
        LinewardError: `prove` said so.
    """
    slots, trust = target.slots, target.trust
    bundle = read_bundle(path, trust)
    with slots.deploying():
        why = _check(target, bundle, path, permit)
        slots.change(lambda state: state)  # from now on, a folder with bundles and no state is a damaged one
        slots.clear_away()
        staged = slots.put(_STAGED, read_bundle_file(path))
        try:
            prove(_staged(staged, bundle, trust))
            slot = Slot(bundle.manifest.version, bundle.sha256)
            slots.adopt(staged, slot)
        finally:
            staged.unlink(missing_ok=True)
        keys = counting_keys(bundle, trust)
        return slots.change(lambda state: state.deployed(bundle.manifest.product, slot, keys, now(), why))


def _check(target: Target, bundle: Bundle, path: Path, permit: Path | None) -> str:
    """What can be told without the engine; returns why it may become active."""
    state, product = target.slots.read(), bundle.manifest.product
    if state.product and product != state.product:
        raise DeliveryError(
            f"{path}: is for {product!r}, and these slots are for {state.product!r}",
            do="deploy it to its own job: `--job`; for a new product, name new slots in the station file",
        )
    if permit is None:
        check_not_older(state, bundle, target.trust, str(path))
        return f"from {path.name}"
    found: Permit = check_permit(permit, bundle, target.station, target.trust)
    return f"from {path.name}, permitted: {found.why}" if found.why else f"from {path.name}, permitted"


def _staged(path: Path, bundle: Bundle, trust: Trust) -> Bundle:
    """Read what has reached the slots: that is what will be inspected with."""
    staged = read_bundle(path, trust)
    if staged.sha256 != bundle.sha256:
        raise BundleError(f"{path}: the bundle was changed while it was copied", do="deploy it again")
    return staged
