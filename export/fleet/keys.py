"""Lineward's own key files as keys of The Update Framework: Ed25519 in both, named by the same fingerprint.

A key that signs lists may sign bundles too: what is signed begins differently, so that neither passes for the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from securesystemslib.signer import CryptoSigner, Key, SSlibKey

from lineward.export.signing import SigningKey
from lineward.runtime.errors import SignatureError
from lineward.runtime.public_key import PublicKey

_NAME = "x-lineward-name"


def as_listed(key: PublicKey) -> SSlibKey:
    """A public key as lists hold it."""
    return SSlibKey(key.fingerprint, "ed25519", "ed25519", {"public": key.key.hex()}, {_NAME: key.name})


def name_of(key: Key) -> str:
    """What a listed key is called, for people."""
    return f"{key.unrecognized_fields.get(_NAME, '?')} ({key.keyid[:12]})"


def signers(keys: Sequence[SigningKey], now: datetime) -> Mapping[str, CryptoSigner]:
    """What signs with each key, by fingerprint.

    Raises:
        SignatureError: a key has expired.
    """
    for key in keys:
        check_in_force(key.public, now)
    return {key.public.fingerprint: CryptoSigner(key.private, as_listed(key.public)) for key in keys}


def check_in_force(key: PublicKey, now: datetime) -> None:
    """Check that a key has not expired.

    Raises:
        SignatureError: it has.
    """
    if key.is_expired(now.date()):
        raise SignatureError(
            f"the key {key.name} expired after {key.expires}",
            do="make a new one, `lineward key new`, and put it in its place: `lineward publish rotate`",
        )
