"""A permit to go back to an older version: a small file, signed by a key that stations trust for the product."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from lineward.runtime.bundle import Bundle
from lineward.runtime.delivery.slot_state import Sha256
from lineward.runtime.errors import DeliveryError, SignatureError
from lineward.runtime.manifest import LONGEST_PRODUCT, Record
from lineward.runtime.signature import Signature
from lineward.runtime.trust import Trust, TrustedKeys

PERMIT = "permit"
"""What is signed, in the first line of the signed message."""

_LIMIT = 1 << 16


class Permit(Record, frozen=True):
    """What may become active although a newer version was.

    Attributes:
        product: of the bundle.
        version: of the bundle.
        bundle: SHA-256 of its manifest; this one and no other.
        station: the only station that may; None: any.
        why: in words, for the history.
    """

    product: Annotated[str, Meta(min_length=1, max_length=LONGEST_PRODUCT)]
    version: int
    bundle: Sha256
    station: Annotated[str, Meta(max_length=64)] | None = None
    why: Annotated[str, Meta(max_length=200)] = ""

    @property
    def sha256(self) -> str:
        """SHA-256 of its one encoding, which is what is signed."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()


class SignedPermit(Record, frozen=True):
    """The file: a permit and its signature."""

    permit: Permit
    signature: Signature


def make_permit(product: str, version: int, bundle: str, station: str | None, why: str) -> Permit:
    """Make a permit that can be read again.

    Raises:
        DeliveryError: the station's name or the reason is too long.
    """
    permit = Permit(product, version, bundle, station, why)
    try:
        return msgspec.convert(msgspec.to_builtins(permit), Permit)
    except msgspec.ValidationError as error:
        raise DeliveryError(f"not a permit: {error}", do="choose shorter words") from error


def encode_permit(signed: SignedPermit) -> bytes:
    """Encode as the JSON of a permit's file."""
    return msgspec.json.format(msgspec.json.encode(signed), indent=2) + b"\n"


def check_permit(path: Path, bundle: Bundle, station: str, trust: Trust) -> Permit:
    """Read a permit and check that it is for this bundle and station, and by a key that this machine trusts.

    Raises:
        DeliveryError: it cannot be read, is malformed, or for something else.
        SignatureError: its signature does not count here.
    """
    signed = _read(path)
    permit = signed.permit
    if (permit.product, permit.version, permit.bundle) != (
        bundle.manifest.product,
        bundle.manifest.version,
        bundle.sha256,
    ):
        raise DeliveryError(
            f"{path}: permits version {permit.version} of {permit.product!r}, bundle {permit.bundle[:12]}, not this",
            do="have a permit signed for this bundle: `lineward sign --permit-downgrade`",
        )
    if permit.station not in (None, station):
        raise DeliveryError(
            f"{path}: is for station {permit.station!r}, this is {station!r}", do="have a permit signed for it"
        )
    if isinstance(trust, TrustedKeys):
        (judged,) = trust.judge([signed.signature], permit.sha256, permit.product, kind=PERMIT)
        if judged.objection is not None:
            raise SignatureError(
                f"{path}: its signature does not count on this machine: {judged.objection}",
                do="have it signed by a key that this machine trusts",
            )
    return permit


def _read(path: Path) -> SignedPermit:
    ask = "name the file that `lineward sign --permit-downgrade` wrote"
    try:
        with path.open("rb") as file:
            data = file.read(_LIMIT)
        signed = msgspec.json.decode(data, type=SignedPermit)
        _ = signed.signature.time
    except OSError as error:
        raise DeliveryError(f"{path}: cannot be read ({error.strerror})", do=ask) from error
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise DeliveryError(f"{path}: not a permit ({error})", do=ask) from error
    return signed
