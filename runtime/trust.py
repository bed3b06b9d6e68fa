"""Whose bundles a machine accepts: the folder of trusted public keys, or anyone's where there is none.

The folder holds `NAME.pub` files and, where needed, the file `revoked`: one fingerprint a line, `#` begins a remark.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from lineward.runtime.errors import KeyFileError, SignatureError
from lineward.runtime.guarded_file import check_folder, read_guarded
from lineward.runtime.public_key import PublicKey, read_public_key
from lineward.runtime.signature import BUNDLE, Signature

KEYS_VARIABLE = "LINEWARD_KEYS"
KEYS_FOLDER = Path("/etc/lineward/keys")
REVOKED = "revoked"

_REVOKED_LIMIT = 1 << 20
_CLOCK_TOLERANCE = timedelta(days=1)


@dataclass(frozen=True)
class AcceptAny:
    """No keys: every whole bundle is accepted, whoever made it."""


@dataclass(frozen=True)
class Judgement:
    """What a machine makes of one signature.

    Attributes:
        signature: the signature.
        key: the trusted key that it names; None where no such key is trusted.
        objection: why it does not count; None where it does.
    """

    signature: Signature
    key: PublicKey | None
    objection: str | None


@dataclass(frozen=True)
class TrustedKeys:
    """The keys of which one must have signed a bundle.

    Attributes:
        folder: where they were read, for messages.
        keys: the public keys.
        revoked: fingerprints of keys that count no more, whatever else is said of them.
    """

    folder: Path
    keys: tuple[PublicKey, ...]
    revoked: frozenset[str] = frozenset()

    def judge(
        self,
        signatures: Sequence[Signature],
        sha256: str,
        product: str,
        now: datetime | None = None,
        kind: str = BUNDLE,
    ) -> list[Judgement]:
        """Judge each signature of a bundle.

        Args:
            signatures: `Bundle.signatures`.
            sha256: `Bundle.sha256`.
            product: the product that the manifest names.
            now: the time of judging, with its zone; this machine's clock by default.
            kind: what was signed, if not a bundle.
        """
        now = now or datetime.now(timezone.utc)
        keys = {key.fingerprint: key for key in self.keys}
        found = [(signature, keys.get(signature.key)) for signature in signatures]
        return [Judgement(s, key, self._objection(s, key, sha256, product, now, kind)) for s, key in found]

    def check(
        self,
        signatures: Sequence[Signature],
        bundle_sha256: str,
        product: str,
        where: str,
        now: datetime | None = None,
    ) -> None:
        """Check that at least one signature counts; see `judge`. `where` names the bundle in errors.

        Raises:
            SignatureError: none counts; it says why not, for each.
        """
        sign = "sign it with a key that this machine trusts: `lineward sign`"
        if not signatures:
            raise SignatureError(f"{where}: not signed, and this machine accepts signed bundles only", do=sign)
        judgements = self.judge(signatures, bundle_sha256, product, now)
        if all(judgement.objection is not None for judgement in judgements):
            reasons = "".join(f"\n   {_named(j)}: {j.objection}" for j in judgements)
            raise SignatureError(
                f"{where}: no signature on it counts on this machine{reasons}",
                do=f"{sign}; the trusted keys are in {self.folder}",
            )

    def _objection(
        self, signature: Signature, key: PublicKey | None, sha256: str, product: str, now: datetime, kind: str
    ) -> str | None:
        if signature.key in self.revoked:
            return "the key is revoked"
        if key is None:
            return "the key is not trusted on this machine"
        if not signature.is_by(key.key, sha256, kind):
            what = "manifest" if kind == BUNDLE else kind
            return f"the signature is not that key's for this {what}: one of them was changed"
        if key.is_expired(now.astimezone(timezone.utc).date()):
            return f"the key expired after {key.expires}"
        if key.is_expired(signature.time.date()):
            return f"signed at {signature.signed}, after the key expired ({key.expires})"
        # A clock that lags behind a signature cannot tell whether a key has expired.
        if signature.time > now + _CLOCK_TOLERANCE:
            return f"signed at {signature.signed}, which is still to come by this machine's clock: set the clock"
        if not key.signs(product):
            return f"the key is trusted for other products, not for {product!r}"
        return None


Trust = AcceptAny | TrustedKeys


def open_trust(folder: Path | None = None) -> Trust:
    """The keys this machine trusts: of the folder, else of `LINEWARD_KEYS`, else of /etc/lineward/keys.

    A folder that is named, or is there, must hold a key; only where there is none at all is any bundle accepted.

    Raises:
        KeyFileError: the folder is missing, empty, unreadable, open to others, or holds a malformed file.
    """
    folder = folder or _configured_folder()
    return read_trusted_keys(folder) if folder else AcceptAny()


def read_trusted_keys(folder: Path) -> TrustedKeys:
    """Read a folder of trusted keys.

    Raises:
        KeyFileError: it is missing, empty, unreadable, open to others, or holds a malformed or unknown file.
    """
    check_folder(folder)
    try:
        files = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise KeyFileError(
            f"{folder}: cannot be read ({error.strerror})", do="check its permissions: until then no bundle is accepted"
        ) from error
    _check_names(files)
    keys = tuple(read_public_key(path) for path in files if path.suffix == ".pub")
    if not keys:
        raise KeyFileError(
            f"{folder}: holds no public key, so that no bundle is accepted", do="put the signer's NAME.pub there"
        )
    if len({key.key for key in keys}) != len(keys):
        raise KeyFileError(f"{folder}: two files hold the same key", do="keep the one that says what you want of it")
    revoked = folder / REVOKED
    return TrustedKeys(folder, keys, _read_revoked(revoked) if revoked in files else frozenset())


def _configured_folder() -> Path | None:
    named = os.environ.get(KEYS_VARIABLE)
    if named == "":
        raise KeyFileError(f"{KEYS_VARIABLE} is set, but empty", do="name a folder with it, or unset it")
    if named is not None:
        return Path(named)
    try:
        KEYS_FOLDER.lstat()
    except FileNotFoundError:
        return None
    except OSError:
        pass  # it may be there: reading it says what is wrong
    return KEYS_FOLDER


def _check_names(files: Sequence[Path]) -> None:
    """A key or a list of revoked keys under a wrong name must not be passed over in silence."""
    for path in files:
        if path.name != REVOKED and path.suffix not in (".pub", ".key"):
            raise KeyFileError(
                f"{path}: does not belong in a folder of keys", do=f"it holds NAME.pub files and {REVOKED!r} alone"
            )


def _read_revoked(path: Path) -> frozenset[str]:
    lines = read_guarded(path, _REVOKED_LIMIT).decode("utf-8", "replace").splitlines()
    words = [(number, line.partition("#")[0].strip()) for number, line in enumerate(lines, 1)]
    for number, word in words:
        if word and not re.fullmatch("[0-9a-f]{64}", word):
            raise KeyFileError(
                f"{path}, line {number}: not a fingerprint", do="write one a line, as `lineward key show` prints it"
            )
    return frozenset(word for _, word in words if word)


def _named(judgement: Judgement) -> str:
    fingerprint = judgement.signature.key[:16]
    return f"{judgement.key.name} ({fingerprint})" if judgement.key else fingerprint
