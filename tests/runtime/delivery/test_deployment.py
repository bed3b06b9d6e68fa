"""What is deployed, what is refused and why, and that nothing is lost when it is."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lineward.runtime.bundle import decode_bundle
from lineward.runtime.delivery.permit import PERMIT, Permit, SignedPermit, encode_permit
from lineward.runtime.errors import BundleError, DeliveryError, EngineError, SignatureError
from lineward.runtime.signature import Signature, format_time, signed_message
from lineward.runtime.trust import TrustedKeys
from tests.runtime.delivery.offers import Desk, bundle
from tests.signers import NOW, Signer

ANN, BEN = Signer("ann"), Signer("ben")


def trusting(*keys, revoked=()):
    return TrustedKeys(Path("/keys"), keys, frozenset(revoked))


@pytest.fixture
def desk(tmp_path):
    """Version 5, signed by Ann, is active."""
    made = Desk(tmp_path, trusting(ANN.public, BEN.public))
    made.deploy(bundle(5, ANN))
    return made


OTHER = {"created": "2001-01-01T00:00:00Z"}
REFUSED = {
    "unsigned": (bundle(6), SignatureError, "not signed"),
    "by a stranger": (bundle(6, Signer("eve")), SignatureError, "not trusted"),
    "another product": (bundle(6, ANN, product="bolt"), DeliveryError, "is for 'bolt', and these slots are for"),
    "older": (bundle(4, ANN), DeliveryError, "version 4 is older than 5"),
    "older, by another key": (bundle(4, BEN), DeliveryError, "version 4 is older than 5"),
    "the same version again": (bundle(5, ANN, **OTHER), DeliveryError, "another bundle was active here with the same"),
    "truncated": (bundle(6, ANN)[:-1000], BundleError, "not a bundle, or damaged"),
    "another format": (bundle(6, format=2), BundleError, "bundle format 2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(desk, case):
    data, error, complaint = REFUSED[case]
    before = desk.slots.read()
    with pytest.raises(error, match=complaint):
        desk.deploy(data)
    assert desk.slots.read() == before
    assert desk.active == 5
    assert desk.proven == [5]


@pytest.mark.parametrize("data", [bundle(6, ANN), bundle(6, BEN), bundle(6, BEN, ANN), bundle(5, ANN), bundle(5, BEN)])
def test_accepted(desk, data):
    state = desk.deploy(data)
    assert desk.active == decode_bundle(data, "").manifest.version == state.active.version


def test_what_does_not_prove_itself_leaves_the_old_one_and_nothing_else(desk):
    def broken(_bundle):
        raise EngineError("no such device", do="plug it in")

    desk._prove = broken
    before = desk.slots.read()
    with pytest.raises(EngineError):
        desk.deploy(bundle(6, ANN))
    assert desk.slots.read() == before
    assert len(list(desk.slots.folder.glob("*.lineward"))) == 1


@pytest.mark.parametrize("name", ["fsync", "replace"])
def test_the_disk_is_full(desk, monkeypatch, name):
    def full(*_):
        raise OSError(28, "No space left on device")

    data = bundle(6, ANN)
    with monkeypatch.context() as patch:
        patch.setattr(os if name == "fsync" else Path, name, full)
        with pytest.raises(DeliveryError, match=r"No space left.*stays so"):
            desk.deploy(data)
    assert desk.active == 5
    assert desk.deploy(bundle(6, ANN)).active.version == 6


def test_a_version_of_a_revoked_key_is_no_longer_the_newest(desk):
    """Else who stole a key could have signed a version so high that nothing would come after it."""
    desk.deploy(bundle(10**9, BEN))
    with pytest.raises(DeliveryError, match="older than 1000000000"):
        desk.deploy(bundle(6, ANN))
    desk.trust = trusting(ANN.public, BEN.public, revoked=[BEN.public.fingerprint])
    assert desk.deploy(bundle(6, ANN)).active.version == 6
    with pytest.raises(DeliveryError, match="version 5 is older than 6"):
        desk.deploy(bundle(5, ANN))


def test_an_older_one_after_going_back(desk):
    desk.deploy(bundle(6, ANN))
    desk.slots.go_back("")
    with pytest.raises(DeliveryError, match="version 5 is older than 6"):
        desk.deploy(bundle(5, ANN))
    assert desk.deploy(bundle(6, ANN)).active.version == 6


# ---- Permits -------------------------------------------------------------------------------------------

OLD = bundle(3, ANN)


def permit(folder, signer=ANN, kind=PERMIT, tamper=False, **fields):
    old = decode_bundle(OLD, "")
    made = Permit(**{"product": "tiny part", "version": 3, "bundle": old.sha256, "why": "recall", **fields})
    signed = format_time(NOW)
    mark = signer.private.sign(signed_message(made.sha256, signed, kind))
    if tamper:
        made = Permit(made.product, made.version, made.bundle, None, "another reason")
    path = folder / "permit"
    path.write_bytes(encode_permit(SignedPermit(made, Signature(signer.public.fingerprint, signed, mark))))
    return path


@pytest.mark.parametrize("station", [None, "desk"])
def test_a_permit_opens_the_door_to_one_bundle(desk, tmp_path, station):
    state = desk.deploy(OLD, permit(tmp_path, station=station))
    assert state.active.version == 3
    assert state.history[-1].why == "from offered.lineward, permitted: recall"
    assert [entry.version for entry in state.newest] == [5]
    with pytest.raises(DeliveryError, match="version 4 is older than 5"):
        desk.deploy(bundle(4, ANN))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"version": 4}, "permits version 4"),
        ({"bundle": "0" * 64}, "not this"),
        ({"product": "bolt"}, "of 'bolt'"),
        ({"station": "other"}, "is for station 'other', this is 'desk'"),
        ({"signer": Signer("eve")}, "the key is not trusted"),
        ({"kind": "bundle"}, "not that key's for this permit"),
        ({"tamper": True}, "not that key's for this permit"),
    ],
)
def test_a_permit_for_something_else(desk, tmp_path, changes, complaint):
    with pytest.raises((DeliveryError, SignatureError), match=complaint):
        desk.deploy(OLD, permit(tmp_path, **changes))
    assert desk.active == 5


@pytest.mark.parametrize("data", [b"", b"{}", b"[" * 10**5, b"\xff", None])
def test_what_is_no_permit(desk, tmp_path, data):
    if data is not None:
        (tmp_path / "permit").write_bytes(data)
    with pytest.raises(DeliveryError, match=r"not a permit|cannot be read"):
        desk.deploy(OLD, tmp_path / "permit")


def test_a_permit_does_not_stand_in_for_a_signature(desk, tmp_path):
    with pytest.raises(SignatureError, match="not signed"):
        desk.deploy(bundle(3), permit(tmp_path))
