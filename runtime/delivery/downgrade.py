"""No downgrade: which versions are too old to become active."""

from __future__ import annotations

from lineward.runtime.bundle import Bundle
from lineward.runtime.delivery.slot_state import Newest, SlotState
from lineward.runtime.errors import DeliveryError
from lineward.runtime.trust import Trust, TrustedKeys


def newest_ever(state: SlotState, trust: Trust) -> Newest | None:
    """The highest version ever active with a key that is trusted now; None if there was none.

    Whatever a key that was revoked or taken away since had made active does not count: who stole a key could have
    signed a version so high that nothing would come after it. Without trusted keys all counts.
    """
    newest = state.newest
    if isinstance(trust, TrustedKeys):
        trusted = {key.fingerprint for key in trust.keys} - trust.revoked
        newest = tuple(entry for entry in newest if entry.key in trusted)
    return max(newest, key=lambda entry: entry.version, default=None)


def check_not_older(state: SlotState, bundle: Bundle, trust: Trust, where: str) -> None:
    """Check that a bundle is newer than all that was ever active, or the very newest itself.

    Raises:
        DeliveryError: it is older, or another bundle was active with its version.
    """
    newest, version = newest_ever(state, trust), bundle.manifest.version
    if newest is None or version > newest.version:
        return
    if version < newest.version:
        raise DeliveryError(
            f"{where}: version {version} is older than {newest.version}, which was active here",
            do="pack it anew with a higher version, or have its signer permit it: `lineward sign --permit-downgrade`; "
            "to go back to what was active before: `lineward rollback`",
        )
    if bundle.sha256 != newest.sha256:
        raise DeliveryError(
            f"{where}: another bundle was active here with the same version, {version}",
            do="give each bundle that you pack a higher version",
        )
