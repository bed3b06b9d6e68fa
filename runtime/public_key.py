"""A public key with what it is trusted for, and its file `NAME.pub`."""

from __future__ import annotations

import hashlib
from datetime import date
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from lineward.runtime.errors import KeyFileError
from lineward.runtime.guarded_file import read_guarded
from lineward.runtime.manifest import LONGEST_PRODUCT, Record

NAME = r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z"
"""What a key may be called: it becomes a file's name and is shown on terminals."""

_LIMIT = 1 << 16


class PublicKey(Record, frozen=True):
    """An Ed25519 public key (RFC 8032), and how far it is trusted.

    Attributes:
        name: whose key it is, for people; the fingerprint is what counts.
        key: the raw public key, 32 bytes.
        expires: the last day, UTC, on which its signatures are made and accepted; None: no end.
        products: the only products it signs; None: every product.
    """

    name: Annotated[str, Meta(pattern=NAME)]
    key: Annotated[bytes, Meta(min_length=32, max_length=32)]
    expires: date | None = None
    products: tuple[Annotated[str, Meta(min_length=1, max_length=LONGEST_PRODUCT)], ...] | None = None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the raw public key, in hexadecimal."""
        return hashlib.sha256(self.key).hexdigest()

    def is_expired(self, day: date) -> bool:
        """Whether a day, UTC, lies after the last one."""
        return self.expires is not None and day > self.expires

    def signs(self, product: str) -> bool:
        """Whether it is trusted for a product."""
        return self.products is None or product in self.products


def encode_public_key(key: PublicKey) -> bytes:
    """Encode as the JSON of a `.pub` file."""
    return msgspec.json.format(msgspec.json.encode(key), indent=2) + b"\n"


def read_public_key(path: Path) -> PublicKey:
    """Read a `.pub` file.

    Raises:
        KeyFileError: it cannot be read, is malformed, or others than its owner may write it.
    """
    data = read_guarded(path, _LIMIT)
    try:
        return msgspec.json.decode(data, type=PublicKey)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise KeyFileError(
            f"{path}: not a public key of `lineward key new` ({error})", do="copy the file again from its owner"
        ) from error
