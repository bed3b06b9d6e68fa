"""Signing bundles: private keys, sealed with a passphrase, and the signatures made with them."""

from __future__ import annotations

import contextlib
import os
import re
from dataclasses import dataclass
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from msgspec import Meta

from lineward.runtime.bundle import decode_bundle, read_bundle_file, replace_signatures, write_bundle
from lineward.runtime.delivery.permit import PERMIT, SignedPermit, make_permit
from lineward.runtime.errors import KeyFileError, SignatureError
from lineward.runtime.guarded_file import read_private
from lineward.runtime.manifest import Record, check_identity
from lineward.runtime.public_key import NAME, PublicKey, encode_public_key
from lineward.runtime.signature import Signature, format_time, signed_message

_LIMIT = 1 << 16
_SCRYPT_COST = 1 << 17


class KeyFile(Record, frozen=True):
    """A `.key` file: the public key, and the private one sealed under a passphrase.

    Attributes:
        public: what stations get; it cannot be changed without breaking the seal.
        sealing: how it is sealed: scrypt (RFC 7914; N 131072, r 8, p 1: a guess costs 128 MiB), ChaCha20-Poly1305
            (RFC 8439). Another way is another name.
        salt: of scrypt.
        nonce: of the cipher.
        sealed: the private key, 32 bytes, and the tag, 16 bytes.
    """

    public: PublicKey
    sealing: Literal["scrypt-131072-8-1/chacha20-poly1305"]
    salt: Annotated[bytes, Meta(min_length=16, max_length=16)]
    nonce: Annotated[bytes, Meta(min_length=12, max_length=12)]
    sealed: Annotated[bytes, Meta(min_length=48, max_length=48)]


@dataclass(frozen=True)
class SigningKey:
    """A private key, opened, with its public half."""

    public: PublicKey
    private: Ed25519PrivateKey


def make_key(
    folder: Path,
    name: str,
    passphrase: bytes,
    *,
    expires: date | None = None,
    products: tuple[str, ...] | None = None,
) -> PublicKey:
    """Make a key and write `NAME.key`, for its owner alone, and `NAME.pub`, for stations.

    Args:
        folder: where to write.
        name: whose key it is.
        passphrase: seals the private key.
        expires: the last day, UTC, on which it signs and its signatures are accepted.
        products: the only products it signs.

    Raises:
        KeyFileError: the name, passphrase or day makes no sense, a file is there already, or cannot be written.
        BundleError: a product's name is empty or too long.
    """
    if not re.fullmatch(NAME, name):
        raise KeyFileError(f"{name!r}: not a key's name", do="choose up to 64 letters, digits, dots, dashes")
    for product in products or ():
        check_identity(product, version=1)
    if not passphrase:
        raise KeyFileError("an empty passphrase protects nothing", do="choose one that nobody guesses")
    if expires is not None and expires < datetime.now(timezone.utc).date():
        raise KeyFileError(f"{name}: would have expired on {expires} already", do="choose a day to come")
    private = Ed25519PrivateKey.generate()
    public = PublicKey(name, private.public_key().public_bytes_raw(), expires, products)
    # First the secret: a public key without one would be of no use, and a station would trust it.
    _write_new(folder / f"{name}.key", _seal(private, public, passphrase), 0o600)
    try:
        _write_new(folder / f"{name}.pub", encode_public_key(public), 0o644)
    except KeyFileError:
        (folder / f"{name}.key").unlink()
        raise
    return public


def read_key_file(path: Path) -> KeyFile:
    """Read a `.key` file; the private key stays sealed.

    Raises:
        KeyFileError: it cannot be read, is malformed, or others than its owner have access to it.
    """
    data = read_private(path, _LIMIT)
    try:
        return msgspec.json.decode(data, type=KeyFile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise KeyFileError(
            f"{path}: not a private key of `lineward key new` ({error})", do="name the NAME.key to sign with"
        ) from error


def open_key(path: Path, passphrase: bytes) -> SigningKey:
    """Read a `.key` file and open it.

    Raises:
        KeyFileError: see `read_key_file`; or the passphrase is wrong, or the file was changed.
    """
    file = read_key_file(path)
    try:
        raw = _cipher(passphrase, file.salt).decrypt(file.nonce, file.sealed, encode_public_key(file.public))
    except InvalidTag as error:
        raise KeyFileError(
            f"{path}: wrong passphrase, or the file was changed", do="try the passphrase again"
        ) from error
    return SigningKey(file.public, Ed25519PrivateKey.from_private_bytes(raw))


def sign_bundle(path: Path, key: SigningKey, now: datetime | None = None) -> Signature:
    """Check a bundle and add a signature to it, in place of an older one of the same key; the switch is atomic.

    Args:
        path: the bundle; every other member stays as it is.
        key: signs it.
        now: the time of signing, with its zone; this machine's clock by default.

    Raises:
        BundleError: the bundle is damaged, or cannot be written.
        SignatureError: no station would accept the signature, or the bundle carries as many as it may.
    """
    now = now or datetime.now(timezone.utc)
    data = read_bundle_file(path)
    bundle = decode_bundle(data, str(path))
    _check_of_use(key.public, bundle.manifest.product, now, path)
    signed = format_time(now)
    mark = key.private.sign(signed_message(bundle.sha256, signed))
    signature = Signature(key.public.fingerprint, signed, mark)
    others = tuple(other for other in bundle.signatures if other.key != signature.key)
    new = replace_signatures(data, (*others, signature), str(path))
    decode_bundle(new, str(path))  # what is written can be read
    write_bundle(path, new)
    return signature


def permit_downgrade(
    path: Path, key: SigningKey, station: str | None, why: str, now: datetime | None = None
) -> SignedPermit:
    """Permit stations to deploy a bundle although a newer one was active.

    Args:
        path: the bundle; it is left as it is.
        key: signs the permit.
        station: the only station that may; None: any.
        why: for the station's history.
        now: the time of signing, with its zone; this machine's clock by default.

    Raises:
        BundleError: the bundle is damaged.
        SignatureError: no station would accept the signature.
        DeliveryError: the station's name or the reason is too long.
    """
    now = now or datetime.now(timezone.utc)
    bundle = decode_bundle(read_bundle_file(path), str(path))
    manifest = bundle.manifest
    _check_of_use(key.public, manifest.product, now, path)
    permit = make_permit(manifest.product, manifest.version, bundle.sha256, station, why)
    signed = format_time(now)
    mark = key.private.sign(signed_message(permit.sha256, signed, PERMIT))
    return SignedPermit(permit, Signature(key.public.fingerprint, signed, mark))


def _check_of_use(key: PublicKey, product: str, now: datetime, path: Path) -> None:
    if key.is_expired(now.astimezone(timezone.utc).date()):
        raise SignatureError(f"the key {key.name} expired after {key.expires}", do="make a new one: `lineward key new`")
    if not key.signs(product):
        raise SignatureError(f"{path}: the key {key.name} is not for {product!r}", do="sign with a key for the product")


def _seal(private: Ed25519PrivateKey, public: PublicKey, passphrase: bytes) -> bytes:
    salt, nonce = os.urandom(16), os.urandom(12)
    sealed = _cipher(passphrase, salt).encrypt(nonce, private.private_bytes_raw(), encode_public_key(public))
    file = KeyFile(public, "scrypt-131072-8-1/chacha20-poly1305", salt, nonce, sealed)
    return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"


def _cipher(passphrase: bytes, salt: bytes) -> ChaCha20Poly1305:
    return ChaCha20Poly1305(Scrypt(salt=salt, length=32, n=_SCRYPT_COST, r=8, p=1).derive(passphrase))


def _write_new(path: Path, data: bytes, mode: int) -> None:
    """Write a file that was not there, with the mode from its first byte on."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise KeyFileError(
            f"{path}: is there already, and keys are never replaced", do="choose another name"
        ) from error
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise _unwritable(path, error) from error


def _unwritable(path: Path, error: OSError) -> KeyFileError:
    return KeyFileError(f"{path}: cannot be written ({error.strerror})", do="check the folder and its free space")
