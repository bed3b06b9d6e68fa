"""Keys to sign with in tests, made from their names, and folders of what stations hold of them."""

from __future__ import annotations

import hashlib
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from lineward.runtime.public_key import PublicKey, encode_public_key
from lineward.runtime.signature import Signature, format_time, signed_message

NOW = datetime(2025, 6, 15, 12, tzinfo=timezone.utc)


class Signer:
    """A key pair; other arguments are fields of `PublicKey`."""

    def __init__(self, name: str, **fields: Any) -> None:
        self.private = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(name.encode()).digest())
        self.public = PublicKey(name, self.private.public_key().public_bytes_raw(), **fields)

    def sign(self, sha256: str, moment: datetime = NOW) -> Signature:
        return self.sign_text(sha256, format_time(moment))

    def sign_text(self, sha256: str, signed: str) -> Signature:
        return Signature(self.public.fingerprint, signed, self.private.sign(signed_message(sha256, signed)))

    def under(self, name: str, **fields: Any) -> PublicKey:
        """The same public key with other fields."""
        return msgspec.structs.replace(self.public, name=name, **fields)


def write_keys(folder: Path, *keys: PublicKey, revoked: str | None = None) -> Path:
    """A folder of trusted keys, as a station has it."""
    folder.mkdir(mode=0o755)
    for key in keys:
        write(folder / f"{key.name}.pub", encode_public_key(key))
    if revoked is not None:
        write(folder / "revoked", revoked.encode())
    return folder


def write(path: Path, data: bytes, mode: int = 0o644) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path
