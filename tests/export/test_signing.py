"""Private keys on disk, and bundles signed with them."""

from __future__ import annotations

import base64
import json
import os
import zipfile
from datetime import timedelta
from pathlib import Path

import pytest

from lineward.export import signing
from lineward.export.signing import make_key, open_key, read_key_file, sign_bundle
from lineward.runtime.bundle import SIGNATURE, read_bundle
from lineward.runtime.errors import BundleError, KeyFileError, LinewardError, SignatureError
from lineward.runtime.public_key import read_public_key
from lineward.runtime.trust import AcceptAny, TrustedKeys
from tests.signers import NOW, Signer, write

SECRET = b"a long secret of many words"
DAY = timedelta(days=1)
posix = pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")


@pytest.fixture(autouse=True)
def cheap_passphrases(request, monkeypatch):
    """A guess costs 128 MiB and a good part of a second, which is the point, but not of most tests."""
    if "full_cost" not in request.fixturenames:
        monkeypatch.setattr(signing, "_SCRYPT_COST", 16)


@pytest.fixture
def full_cost():
    """What users get."""


@pytest.fixture
def part(tmp_path, tiny_bytes):
    path = tmp_path / "part.lineward"
    path.write_bytes(tiny_bytes)
    return path


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# ---- Keys ----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("full_cost")
def test_a_key_is_made_and_opened_as_users_do(tmp_path):
    public = make_key(tmp_path, "line-1", SECRET, expires=NOW.date() + 5000 * DAY, products=("tiny", "bolt"))
    assert read_public_key(tmp_path / "line-1.pub") == public
    assert read_key_file(tmp_path / "line-1.key").public == public
    key = open_key(tmp_path / "line-1.key", SECRET)
    assert key.public == public
    assert key.private.public_key().public_bytes_raw() == public.key
    assert f"scrypt-{signing._SCRYPT_COST}-8-1/" in read_key_file(tmp_path / "line-1.key").sealing


def test_two_keys_are_different(tmp_path):
    one, two = (make_key(tmp_path, name, SECRET) for name in ("one", "two"))
    assert one.key != two.key
    files = [read_key_file(tmp_path / f"{name}.key") for name in ("one", "two")]
    assert files[0].salt != files[1].salt
    assert files[0].nonce != files[1].nonce


def test_the_private_key_is_nowhere_in_the_clear(tmp_path):
    make_key(tmp_path, "k", SECRET)
    raw = open_key(tmp_path / "k.key", SECRET).private.private_bytes_raw()
    for path in tmp_path.iterdir():
        data = path.read_bytes()
        for form in (raw, raw.hex().encode(), base64.b64encode(raw), base64.b64encode(raw)[:40]):
            assert form not in data
        assert SECRET not in data


@posix
@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_the_modes_of_a_new_key(umask, tmp_path):
    before = os.umask(umask)
    try:
        make_key(tmp_path, "k", SECRET)
    finally:
        os.umask(before)
    assert (tmp_path / "k.key").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "k.pub").stat().st_mode & 0o777 == 0o644 & ~umask


@pytest.mark.parametrize("there", ["k.key", "k.pub"])
def test_a_key_is_never_replaced(there, tmp_path):
    (tmp_path / there).write_bytes(b"mine")
    with pytest.raises(KeyFileError, match="is there already"):
        make_key(tmp_path, "k", SECRET)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {there: b"mine"}


@pytest.mark.parametrize(
    ("name", "changes", "what"),
    [
        ("", {}, "not a key's name"),
        ("../k", {}, "not a key's name"),
        (".k", {}, "not a key's name"),
        ("a b", {}, "not a key's name"),
        ("k\n", {}, "not a key's name"),
        ("k" * 65, {}, "not a key's name"),
        ("k", {"passphrase": b""}, "an empty passphrase"),
        ("k", {"expires": NOW.date()}, "would have expired"),
        ("k", {"products": ("",)}, "not a product's name"),
        ("k", {"products": ("x" * 129,)}, "not a product's name"),
    ],
)
def test_a_key_that_makes_no_sense_is_not_written(name, changes, what, tmp_path):
    with pytest.raises(LinewardError, match=what):
        make_key(tmp_path, name, **({"passphrase": SECRET} | changes))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(KeyFileError, match="cannot be written"):
        make_key(tmp_path / "missing", "k", SECRET)


@pytest.mark.parametrize("passphrase", [b"", b"a long secret of many word", SECRET + b"\n", SECRET.upper()])
def test_a_wrong_passphrase(passphrase, tmp_path):
    make_key(tmp_path, "k", SECRET)
    with pytest.raises(KeyFileError, match="wrong passphrase"):
        open_key(tmp_path / "k.key", passphrase)


@posix
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o660, 0o644])
def test_a_private_key_that_others_can_reach(mode, tmp_path):
    make_key(tmp_path, "k", SECRET)
    (tmp_path / "k.key").chmod(mode)
    with pytest.raises(KeyFileError, match=f"mode {mode:04o}") as caught:
        open_key(tmp_path / "k.key", SECRET)
    assert "chmod 600" in caught.value.do


def other(text):
    return base64.b64encode(bytes(byte ^ 1 for byte in base64.b64decode(text))).decode()


TAMPERED = {
    "another name": lambda d: d["public"].update(name="ben"),
    "a later end": lambda d: d["public"].update(expires="2999-01-01"),
    "more products": lambda d: d["public"].update(products=None),
    "another public key": lambda d: d["public"].update(key=other(d["public"]["key"])),
    "another salt": lambda d: d.update(salt=other(d["salt"])),
    "another nonce": lambda d: d.update(nonce=other(d["nonce"])),
    "another secret": lambda d: d.update(sealed=other(d["sealed"])),
    "another sealing": lambda d: d.update(sealing="none"),
    "a short salt": lambda d: d.update(salt="AAAA"),
    "a field more": lambda d: d.update(plain="AAAA"),
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_private_key_that_was_changed(name, tmp_path):
    make_key(tmp_path, "k", SECRET, expires=NOW.date() + 5000 * DAY, products=("bolt",))
    document = json.loads((tmp_path / "k.key").read_bytes())
    TAMPERED[name](document)
    write(tmp_path / "k.key", json.dumps(document).encode(), 0o600)
    with pytest.raises(KeyFileError, match=r"was changed|not a private key"):
        open_key(tmp_path / "k.key", SECRET)


@pytest.mark.parametrize("data", [b"", b"{}", b"-----BEGIN PRIVATE KEY-----\n", b"[" * 60_000, b" " * (1 << 17)])
def test_what_is_no_private_key(data, tmp_path):
    path = write(tmp_path / "k.key", data, 0o600)
    with pytest.raises(KeyFileError, match=r"not a private key|more than 65536 bytes"):
        open_key(path, SECRET)


# ---- Bundles -------------------------------------------------------------------------------------------


@pytest.fixture
def keys(tmp_path):
    made = {name: make_key(tmp_path, name, SECRET) for name in ("ann", "ben")}
    return {name: open_key(tmp_path / f"{name}.key", SECRET) for name in made}


def trusts(*keys):
    return TrustedKeys(Path("/keys"), tuple(key.public for key in keys))


def test_a_signed_bundle_is_accepted_and_otherwise_the_same(part, keys, tiny):
    before = members(part)
    signature = sign_bundle(part, keys["ann"])
    bundle = read_bundle(part, trusts(keys["ann"]))
    assert bundle.signatures == (signature,)
    assert bundle.sha256 == tiny.sha256
    after = members(part)
    after.pop(SIGNATURE)
    assert after == before
    with pytest.raises(SignatureError):
        read_bundle(part, trusts(keys["ben"]))


def test_a_second_key_adds_and_the_same_key_replaces(part, keys):
    sign_bundle(part, keys["ann"], NOW)
    ben = sign_bundle(part, keys["ben"], NOW)
    again = sign_bundle(part, keys["ann"], NOW + DAY)
    assert again.signed == "2025-06-16T12:00:00Z"
    assert read_bundle(part, AcceptAny()).signatures == (ben, again)
    for key in keys.values():
        read_bundle(part, trusts(key))


def test_signing_at_the_same_time_again_changes_nothing(part, keys):
    sign_bundle(part, keys["ann"], NOW)
    before = part.read_bytes()
    sign_bundle(part, keys["ann"], NOW)
    assert part.read_bytes() == before


def signing_key(signer):
    return signing.SigningKey(signer.public, signer.private)


REFUSED = {
    "a bank changed": (lambda data: data.replace(b"F32", b"F64", 1), {}, "damaged"),
    "cut": (lambda data: data[:-1], {}, "not a bundle, or damaged"),
    "an expired key": (lambda data: data, {"expires": NOW.date() - DAY}, "expired"),
    "a key for another product": (lambda data: data, {"products": ("bolt",)}, "is not for"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_signed_stays_as_it_was(name, part):
    damage, fields, what = REFUSED[name]
    part.write_bytes(damage(part.read_bytes()))
    before = part.read_bytes()
    with pytest.raises(BundleError, match=what):
        sign_bundle(part, signing_key(Signer("ann", **fields)), NOW)
    assert part.read_bytes() == before
    assert [path.name for path in part.parent.iterdir()] == ["part.lineward"]


def test_more_signatures_than_a_bundle_may_carry(part):
    for number in range(16):
        sign_bundle(part, signing_key(Signer(str(number))), NOW)
    before = part.read_bytes()
    with pytest.raises(SignatureError):
        sign_bundle(part, signing_key(Signer("one too many")), NOW)
    assert part.read_bytes() == before


def test_a_power_cut_leaves_the_unsigned_bundle(part, keys, monkeypatch):
    before = part.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(BundleError, match="No space left"):
        sign_bundle(part, keys["ann"])
    assert part.read_bytes() == before
