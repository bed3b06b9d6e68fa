"""Whose bundles a machine accepts, through `read_bundle`, and what folders of keys are refused."""

from __future__ import annotations

import io
import json
import logging
import os
import warnings
import zipfile
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineward.runtime.bundle import MANIFEST, SIGNATURE, read_bundle, replace_signatures
from lineward.runtime.errors import BundleError, KeyFileError, SignatureError
from lineward.runtime.manifest import encode_manifest
from lineward.runtime.public_key import encode_public_key
from lineward.runtime.signature import decode_signatures, encode_signatures
from lineward.runtime.trust import AcceptAny, TrustedKeys, open_trust, read_trusted_keys
from tests.signers import NOW, Signer, write, write_keys

ANN, BEN = Signer("ann"), Signer("ben")
TODAY = NOW.date()
DAY = timedelta(days=1)


def trusting(*keys, revoked=()):
    return TrustedKeys(Path("/keys"), keys, frozenset(revoked))


def signed(tiny, *signers, moment=NOW):
    return tuple(signer.sign(tiny.sha256, moment) for signer in signers)


# Keys, signatures, and what is said of a refusal; None: accepted.
CASES = {
    "signed": (lambda t: (trusting(ANN.public), signed(t, ANN)), None),
    "one of two keys": (lambda t: (trusting(ANN.public, BEN.public), signed(t, BEN)), None),
    "both keys": (lambda t: (trusting(ANN.public, BEN.public), signed(t, ANN, BEN)), None),
    "a stranger's beside": (lambda t: (trusting(ANN.public), signed(t, BEN, ANN)), None),
    "a revoked one beside": (
        lambda t: (trusting(ANN.public, BEN.public, revoked=[BEN.public.fingerprint]), signed(t, BEN, ANN)),
        None,
    ),
    "an expired one beside": (
        lambda t: (trusting(ANN.public, BEN.under("ben", expires=TODAY - DAY)), signed(t, BEN, ANN)),
        None,
    ),
    "a broken one beside": (
        lambda t: (trusting(ANN.public, BEN.public), (BEN.sign("0" * 64), *signed(t, ANN))),
        None,
    ),
    "on its last day": (lambda t: (trusting(ANN.under("ann", expires=TODAY)), signed(t, ANN)), None),
    "for this product": (
        lambda t: (trusting(ANN.under("ann", products=("x", t.manifest.product))), signed(t, ANN)),
        None,
    ),
    "a clock within a day": (lambda t: (trusting(ANN.public), signed(t, ANN, moment=NOW + DAY)), None),
    "unsigned": (lambda _: (trusting(ANN.public), ()), "not signed"),
    "a stranger": (lambda t: (trusting(ANN.public), signed(t, BEN)), "the key is not trusted on this machine"),
    "no keys at all": (lambda t: (trusting(), signed(t, ANN)), "the key is not trusted on this machine"),
    "under another's name": (
        lambda t: (trusting(BEN.under("ann")), signed(t, ANN)),
        "the key is not trusted on this machine",
    ),
    "under another's fingerprint": (
        lambda t: (
            trusting(ANN.public, BEN.public),
            (msgspec.structs.replace(BEN.sign(t.sha256), key=ANN.public.fingerprint),),
        ),
        "not that key's for this manifest",
    ),
    "over another manifest": (
        lambda _: (trusting(ANN.public), (ANN.sign("0" * 64),)),
        "not that key's for this manifest",
    ),
    "another time written in": (
        lambda t: (
            trusting(ANN.public),
            (msgspec.structs.replace(ANN.sign(t.sha256), signed="2025-06-14T12:00:00Z"),),
        ),
        "not that key's for this manifest",
    ),
    "revoked": (
        lambda t: (trusting(ANN.public, revoked=[ANN.public.fingerprint]), signed(t, ANN)),
        "the key is revoked",
    ),
    "expired": (
        lambda t: (trusting(ANN.under("ann", expires=TODAY - DAY)), signed(t, ANN, moment=NOW - 9 * DAY)),
        "the key expired after 2025-06-14",
    ),
    "signed after expiry, by a clock that lags": (
        lambda t: (trusting(ANN.under("ann", expires=TODAY)), signed(t, ANN, moment=NOW + DAY)),
        "after the key expired",
    ),
    "still to come": (
        lambda t: (trusting(ANN.public), signed(t, ANN, moment=NOW + DAY + timedelta(seconds=1))),
        "set the clock",
    ),
    "for another product": (
        lambda t: (trusting(ANN.under("ann", products=("bolt",))), signed(t, ANN)),
        "trusted for other products",
    ),
    "for no product": (
        lambda t: (trusting(ANN.under("ann", products=())), signed(t, ANN)),
        "trusted for other products",
    ),
    "all wrong, each in its way": (
        lambda t: (trusting(ANN.under("ann", expires=TODAY - DAY)), signed(t, ANN, BEN)),
        "expired after 2025-06-14\n   " + BEN.public.fingerprint[:16] + ": the key is not trusted",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_counts_and_what_does_not(name, tiny):
    make, refusal = CASES[name]
    trust, signatures = make(tiny)
    counting = [j for j in trust.judge(signatures, tiny.sha256, tiny.manifest.product, NOW) if j.objection is None]
    assert bool(counting) == (refusal is None)
    if refusal is None:
        trust.check(signatures, tiny.sha256, tiny.manifest.product, "part.lineward", NOW)
        return
    with pytest.raises(SignatureError) as caught:
        trust.check(signatures, tiny.sha256, tiny.manifest.product, "part.lineward", NOW)
    assert refusal in caught.value.what
    assert caught.value.what.startswith("part.lineward: ")
    assert "lineward sign" in caught.value.do
    assert ("/keys" in caught.value.do) == bool(signatures)


@given(st.integers(-40, 40), st.integers(-40, 40), st.none() | st.integers(-40, 40), st.booleans())
def test_accepted_only_in_time_and_unrevoked(signed_day, now_day, last_day, revoked):
    sha256 = "0" * 64
    expires = None if last_day is None else TODAY + last_day * DAY
    trust = trusting(ANN.under("ann", expires=expires), revoked=[ANN.public.fingerprint] if revoked else [])
    (judged,) = trust.judge([ANN.sign(sha256, NOW + signed_day * DAY)], sha256, "part", NOW + now_day * DAY)
    in_time = last_day is None or max(signed_day, now_day) <= last_day
    assert (judged.objection is None) == (in_time and not revoked and signed_day <= now_day + 1)


# ---- Bundles -------------------------------------------------------------------------------------------


@pytest.fixture
def station(tmp_path, monkeypatch):
    """A machine that trusts ann."""
    folder = write_keys(tmp_path / "keys", ANN.public)
    monkeypatch.setenv("LINEWARD_KEYS", str(folder))
    return folder


@pytest.fixture
def put(tmp_path):
    def write_bundle(data):
        path = tmp_path / "part.lineward"
        path.write_bytes(data)
        return path

    return write_bundle


def with_members(data, *members):
    """A zip with more members, names repeated if need be."""
    buffer = io.BytesIO(data)
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "a") as archive:
        warnings.simplefilter("ignore")
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content)
    return buffer.getvalue()


def test_a_station_takes_signed_bundles_alone_without_being_told(station, put, tiny, tiny_bytes):
    with pytest.raises(SignatureError, match="not signed"):
        read_bundle(put(tiny_bytes))
    path = put(replace_signatures(tiny_bytes, signed(tiny, ANN), "tiny"))
    assert read_bundle(path).signatures == signed(tiny, ANN)
    write(station / "revoked", ANN.public.fingerprint.encode())
    with pytest.raises(SignatureError, match="the key is revoked"):
        read_bundle(path)


def test_a_machine_without_keys_takes_any_and_says_so_each_time(put, tiny_bytes, caplog):
    path = put(tiny_bytes)
    for _ in range(2):
        caplog.clear()
        read_bundle(path)
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert "no trusted keys" in record.getMessage()
    caplog.clear()
    read_bundle(path, AcceptAny())  # somebody has said so
    assert not caplog.records


def test_any_bit_of_a_signature_counts(tiny):
    data = encode_signatures(signed(tiny, ANN))
    trust = trusting(ANN.public)
    for at in range(len(data)):
        for bit in range(8):
            changed = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            with pytest.raises(SignatureError):
                trust.check(decode_signatures(changed, "b"), tiny.sha256, tiny.manifest.product, "b", NOW)


@pytest.mark.usefixtures("station")
def test_any_byte_of_the_manifest_counts(put, tiny, tiny_bytes):
    good = replace_signatures(tiny_bytes, signed(tiny, ANN), "tiny")
    manifest = encode_manifest(tiny.manifest)
    start = good.index(manifest)
    for at in range(start, start + len(manifest), 7):
        with pytest.raises(BundleError):
            read_bundle(put(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]))


def resealed(data, member, change):
    """A bundle with one member's bytes changed, and the zip's checksums made good."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members[member] = change(members[member])
    return with_members(b"", *members.items())


HOSTILE = {
    "manifest changed after signing": (
        lambda _, good: resealed(good, MANIFEST, lambda m: m.replace(b'"version": 1', b'"version": 2')),
        "not that key's for this manifest",
    ),
    "a space more in the manifest": (
        lambda _, good: resealed(good, MANIFEST, lambda m: m + b" "),
        "not that key's for this manifest",
    ),
    "a graph changed after signing": (
        lambda _, good: resealed(good, "embedding.onnx", lambda m: m[:-1] + b"\x55"),
        "embedding.onnx is not what was packed",
    ),
    "signatures twice": (
        lambda t, good: with_members(good, (SIGNATURE, encode_signatures(signed(t, ANN)))),
        "two members have the same name",
    ),
    "signatures under another name": (
        lambda _, good: resealed(good.replace(b"manifest.sig", b"manifest.gis"), MANIFEST, lambda m: m),
        "not signed",
    ),
    "a huge member": (
        lambda _, good: resealed(good, SIGNATURE, lambda m: m + b" " * (1 << 20)),
        "manifest.sig is larger than 16384 bytes",
    ),
    "an empty member": (lambda _, good: resealed(good, SIGNATURE, lambda _: b""), "manifest.sig is not valid"),
    "a cut member": (lambda _, good: resealed(good, SIGNATURE, lambda m: m[:100]), "manifest.sig is not valid"),
    "a cut file": (lambda _, good: good[:-1], "not a bundle, or damaged"),
}


@pytest.mark.usefixtures("station")
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_bundle_is_refused(name, put, tiny, tiny_bytes):
    make, what = HOSTILE[name]
    good = replace_signatures(tiny_bytes, signed(tiny, ANN), "tiny")
    read_bundle(put(good))
    bad = make(tiny, good)
    assert bad != good
    with pytest.raises(BundleError) as caught:
        read_bundle(put(bad))
    assert what in caught.value.what


@pytest.mark.usefixtures("station")
def test_nothing_of_an_unsigned_bundle_is_parsed(put, rebundle):
    with pytest.raises(SignatureError):
        read_bundle(put(rebundle({"bank.safetensors": b"not even a bank"})))


def test_malformed_signatures_are_refused_without_keys_too(put, tiny_bytes):
    with pytest.raises(SignatureError, match=r"manifest\.sig is not valid"):
        read_bundle(put(with_members(tiny_bytes, (SIGNATURE, b"0" * 64))), AcceptAny())


# ---- Folders -------------------------------------------------------------------------------------------


def test_a_folder_is_read(tmp_path):
    remark = f"# lost in May\n\n{BEN.public.fingerprint}  # on a train\n"
    folder = write_keys(tmp_path / "keys", ANN.public, BEN.public, revoked=remark)
    write(folder / "ann.key", b"the workstation's own", 0o600)
    write(folder / ".ann.pub.swp", b"an editor's")
    assert read_trusted_keys(folder) == TrustedKeys(
        folder, (ANN.public, BEN.public), frozenset({BEN.public.fingerprint})
    )


def test_where_keys_are_looked_for(tmp_path, monkeypatch):
    assert open_trust() == AcceptAny()
    machine, variable, named = (write_keys(tmp_path / name, Signer(name).public) for name in ("etc", "env", "named"))
    monkeypatch.setattr("lineward.runtime.trust.KEYS_FOLDER", machine)
    assert open_trust() == read_trusted_keys(machine)
    monkeypatch.setenv("LINEWARD_KEYS", str(variable))
    assert open_trust() == read_trusted_keys(variable)
    assert open_trust(named) == read_trusted_keys(named)


def changed_key(**changes):
    fields = json.loads(encode_public_key(ANN.public)) | changes
    return json.dumps({name: value for name, value in fields.items() if value != "left out"}).encode()


BAD_FOLDERS = {
    "empty": (lambda f: (f / "ann.pub").unlink(), "holds no public key"),
    "only a list of revoked": (lambda f: (f / "ann.pub").rename(f / "revoked"), "holds no public key"),
    "no key in a key's file": (lambda f: write(f / "ben.pub", b""), "not a public key"),
    "a cut key": (lambda f: write(f / "ben.pub", changed_key()[:-9]), "not a public key"),
    "a deep key": (lambda f: write(f / "ben.pub", b"[" * 60_000), "not a public key"),
    "a key too short": (lambda f: write(f / "ben.pub", changed_key(key="AAAA")), "not a public key"),
    "a name for a terminal": (lambda f: write(f / "ben.pub", changed_key(name="\x1b[2J")), "not a public key"),
    "a day that is none": (lambda f: write(f / "ben.pub", changed_key(expires="2026-02-30")), "not a public key"),
    "a field misspelt": (lambda f: write(f / "ben.pub", changed_key(expire="2026-02-03")), "not a public key"),
    "no name": (lambda f: write(f / "ben.pub", changed_key(name="left out")), "not a public key"),
    "a huge key": (lambda f: write(f / "ben.pub", b" " * (1 << 17)), "more than 65536 bytes"),
    "one key twice": (
        lambda f: write(f / "ben.pub", encode_public_key(ANN.under("ben", expires=TODAY))),
        "the same key",
    ),
    "revoked under another name": (lambda f: write(f / "revoked.txt", b""), "does not belong"),
    "a key under another name": (lambda f: write(f / "ben.pub.old", b""), "does not belong"),
    "a folder inside": (lambda f: (f / "ben.pub").mkdir(), "cannot be read"),
    "a link to nowhere": (lambda f: (f / "ben.pub").symlink_to("nowhere"), "cannot be read"),
    "a revoked name": (lambda f: write(f / "revoked", b"ann\n"), "line 1: not a fingerprint"),
    "half a fingerprint": (lambda f: write(f / "revoked", b"\n" + b"0" * 63), "line 2: not a fingerprint"),
    "revoked in another encoding": (lambda f: write(f / "revoked", "0".encode("utf-16")), "not a fingerprint"),
    "revoked is a folder": (lambda f: (f / "revoked").mkdir(), "cannot be read"),
    "a key others may write": (lambda f: (f / "ann.pub").chmod(0o664), "ann.pub: others than its owner may write it"),
    "a key all may write": (lambda f: (f / "ann.pub").chmod(0o646), "(mode 0646)"),
    "revoked all may write": (lambda f: write(f / "revoked", b"", 0o666), "revoked: others than its owner"),
    "a folder the group may write": (lambda f: f.chmod(0o775), "keys: others than its owner may write it"),
    "a folder all may write": (lambda f: f.chmod(0o1777), "(mode 1777)"),
}


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
@pytest.mark.parametrize("name", BAD_FOLDERS)
def test_a_folder_that_cannot_be_relied_upon_accepts_nothing(name, station, put, tiny, tiny_bytes):
    make, what = BAD_FOLDERS[name]
    path = put(replace_signatures(tiny_bytes, signed(tiny, ANN), "tiny"))
    read_bundle(path)
    make(station)
    with pytest.raises(KeyFileError) as caught:
        read_bundle(path)
    assert what in caught.value.what
    assert str(station) in caught.value.what
    assert caught.value.do


@pytest.mark.skipif(os.name != "posix", reason="owners are POSIX's")
def test_keys_of_another_user_are_refused(station, monkeypatch):
    mine = station.stat().st_uid
    if mine == 0:
        os.chown(station / "ann.pub", 12345, -1)
        with pytest.raises(KeyFileError, match=r"ann\.pub: belongs to user 12345"):
            open_trust()
        os.chown(station / "ann.pub", 0, -1)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    if mine == 0:
        open_trust()  # root's are anyone's
    else:
        with pytest.raises(KeyFileError, match=f"keys: belongs to user {mine}"):
            open_trust()


@pytest.mark.parametrize(
    ("named", "what"),
    [("missing", "cannot be read"), ("file", "not a folder"), ("loop", "cannot be read"), ("", "empty")],
)
@pytest.mark.parametrize("by", ["variable", "machine"])
def test_keys_that_should_be_there_and_are_not(named, what, by, tmp_path, monkeypatch):
    """None of these is a machine without keys, but for one whose /etc/lineward/keys is really not there."""
    write(tmp_path / "file", b"")
    (tmp_path / "loop").symlink_to("loop")
    if by == "variable":
        monkeypatch.setenv("LINEWARD_KEYS", named and str(tmp_path / named))
    else:
        monkeypatch.setattr("lineward.runtime.trust.KEYS_FOLDER", tmp_path / named)
        if named == "missing":
            assert open_trust() == AcceptAny()
            return
        what = "does not belong" if named == "" else what
    with pytest.raises(KeyFileError, match=what):
        open_trust()


def test_a_machine_folder_behind_a_file_is_not_a_missing_one(tmp_path, monkeypatch):
    write(tmp_path / "lineward", b"")
    monkeypatch.setattr("lineward.runtime.trust.KEYS_FOLDER", tmp_path / "lineward" / "keys")
    with pytest.raises(KeyFileError, match="cannot be read"):
        open_trust()


def test_days_are_counted_in_utc(tiny):
    """At 1 o'clock in Berlin it is still the day before."""
    key = ANN.under("ann", expires=date(2025, 6, 14))
    berlin = timezone(timedelta(hours=2))
    moment = datetime(2025, 6, 15, 1, tzinfo=berlin)
    (judged,) = trusting(key).judge([ANN.sign(tiny.sha256, moment)], tiny.sha256, "part", moment)
    assert judged.objection is None
