"""What hostile bundles are made of: two good bundles of one product, and keys that count on the device or do not."""

from __future__ import annotations

import hashlib
import io
import warnings
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timezone
from pathlib import Path

import msgspec
import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lineward.export.signing import SigningKey
from lineward.runtime.bundle import (
    BANK,
    BANK_TENSOR,
    MANIFEST,
    SIGNATURE,
    Bundle,
    decode_bundle,
    encode_bundle,
    encode_tensor,
)
from lineward.runtime.manifest import encode_manifest
from lineward.runtime.public_key import PublicKey
from lineward.runtime.signature import Signature, encode_signatures, format_time, signed_message
from lineward.runtime.trust import TrustedKeys

TINY = Path(__file__).parents[2] / "tests" / "runtime" / "data" / "tiny.lineward"
SIGNED = datetime(2025, 6, 15, 12, tzinfo=timezone.utc)


def make_signer(name: str, expires: date | None = None, products: tuple[str, ...] | None = None) -> SigningKey:
    """A key pair that follows from its name: the same in every process."""
    private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())
    return SigningKey(PublicKey(name, private.public_key().public_bytes_raw(), expires, products), private)


LINE = make_signer("line")
STRANGER = make_signer("stranger")
REVOKED = make_signer("revoked")
EXPIRED = make_signer("expired", expires=date(2025, 6, 30))
ELSEWHERE = make_signer("elsewhere", products=("another product",))

TRUST = TrustedKeys(
    Path("keys"),
    tuple(signer.public for signer in (LINE, REVOKED, EXPIRED, ELSEWHERE)),
    frozenset({REVOKED.public.fingerprint}),
)
"""What the device trusts: of these, only `LINE` counts for the product."""


@dataclass(frozen=True)
class Material:
    """Good bundles, signed by `LINE`.

    Attributes:
        bundle: the one that is attacked.
        members: all of its members, manifest and signatures included, in their order.
        data: its file.
        other: members of the next version, which has another bank.
        folder: where files lie outside every bundle, for graphs that would read them.
    """

    bundle: Bundle
    members: dict[str, bytes]
    data: bytes
    other: dict[str, bytes]
    folder: Path


def make_material(folder: Path) -> Material:
    """The tiny bundle of the tests and its next version, signed."""
    tiny = decode_bundle(TINY.read_bytes(), "tiny.lineward")
    members = sealed({MANIFEST: encode_manifest(tiny.manifest), **tiny.members}, LINE)
    turned = encode_tensor(BANK_TENSOR, np.ascontiguousarray(tiny.bank[::-1]))
    following = msgspec.structs.replace(tiny.manifest, version=tiny.manifest.version + 1)
    other = sealed(members_of(encode_bundle(following, {**tiny.members, BANK: turned})), LINE)
    return Material(tiny, members, stored(members.items()), other, folder)


def sign(manifest: bytes, signer: SigningKey, moment: datetime = SIGNED) -> Signature:
    """A signature over a manifest, whatever the manifest says."""
    digest, signed = hashlib.sha256(manifest).hexdigest(), format_time(moment)
    return Signature(signer.public.fingerprint, signed, signer.private.sign(signed_message(digest, signed)))


def sealed(members: dict[str, bytes], *signers: SigningKey) -> dict[str, bytes]:
    """Members with signatures over their manifest, in place of those they had."""
    signatures = tuple(sign(members[MANIFEST], signer) for signer in signers)
    return {**members, SIGNATURE: encode_signatures(signatures)}


def packed(material: Material, members: dict[str, bytes], *signers: SigningKey) -> bytes:
    """A bundle with other members, honestly hashed and signed."""
    honest = encode_bundle(material.bundle.manifest, {**material.bundle.members, **members})
    return stored(sealed(members_of(honest), *signers).items())


def members_of(data: bytes) -> dict[str, bytes]:
    """The members of a zip, in their order."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def stored(members: Iterable[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip of members, of which names may repeat."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", compression) as archive:
        warnings.simplefilter("ignore")  # zipfile warns of names that repeat
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return buffer.getvalue()
