"""Signatures of a bundle: the member `manifest.sig`, what is signed, and whether a signature is a key's."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from msgspec import Meta

from lineward.runtime.errors import SignatureError
from lineward.runtime.manifest import Record

SIGNATURES_LIMIT = 1 << 14
"""The most bytes that `manifest.sig` may have."""

BUNDLE = "bundle"
"""What is signed, in the first line of the signed message."""

Fingerprint = Annotated[str, Meta(pattern=r"\A[0-9a-f]{64}\Z")]
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_AGAIN = "take the bundle again from where it was made, or sign it again with `lineward sign`"


class Signature(Record, frozen=True):
    """One signature of a bundle.

    Attributes:
        key: fingerprint of the public key that it is said to be by.
        signed: UTC time of signing, ISO 8601, as the signer's clock told it; it is signed too.
        signature: Ed25519 (RFC 8032), 64 bytes.
    """

    key: Fingerprint
    signed: Annotated[str, Meta(pattern=r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")]
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]

    @property
    def time(self) -> datetime:
        """The time of signing, in UTC.

        Raises:
            ValueError: there is no such day or hour; `decode_signatures` has refused it.
        """
        return datetime.strptime(self.signed, _TIME).replace(tzinfo=timezone.utc)

    def is_by(self, key: bytes, sha256: str, kind: str = BUNDLE) -> bool:
        """Whether a public key's owner signed something with this.

        Args:
            key: the raw public key, 32 bytes.
            sha256: of a bundle `Bundle.sha256`, which covers the manifest and, through it, every member.
            kind: what was signed.
        """
        try:
            Ed25519PublicKey.from_public_bytes(key).verify(self.signature, signed_message(sha256, self.signed, kind))
        except (InvalidSignature, ValueError):
            return False
        return True


Signatures = Annotated[tuple[Signature, ...], Meta(min_length=1, max_length=16)]


def signed_message(sha256: str, signed: str, kind: str = BUNDLE) -> bytes:
    """The bytes that a signature is made over; the first line keeps them apart from all else a key may sign."""
    return f"lineward {kind} 1\n{signed}\n{sha256}\n".encode()


def format_time(moment: datetime) -> str:
    """A moment as `Signature.signed`, whole seconds of UTC."""
    return moment.astimezone(timezone.utc).strftime(_TIME)


def encode_signatures(signatures: tuple[Signature, ...]) -> bytes:
    """Encode as the one JSON that `decode_signatures` takes."""
    return msgspec.json.encode(signatures) + b"\n"


def decode_signatures(data: bytes, where: str) -> tuple[Signature, ...]:
    """Decode `manifest.sig`; `where` names the bundle in errors. No signature is checked here.

    Raises:
        SignatureError: it is malformed, in another form than `encode_signatures` gives, or names a key twice.
    """
    try:
        signatures: tuple[Signature, ...] = msgspec.json.decode(data, type=Signatures)
        for signature in signatures:
            _ = signature.time
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise SignatureError(f"{where}: manifest.sig is not valid: {error}", do=_AGAIN) from error
    # One form alone: then no two readers can understand the same bytes in two ways.
    if encode_signatures(signatures) != data:
        raise SignatureError(f"{where}: manifest.sig is not written as `lineward sign` writes it", do=_AGAIN)
    if len({signature.key for signature in signatures}) != len(signatures):
        raise SignatureError(f"{where}: manifest.sig holds two signatures of one key", do=_AGAIN)
    return signatures
