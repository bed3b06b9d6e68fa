"""What a station loads of its slots when it starts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lineward.runtime.errors import BundleError, DeliveryError, SignatureError
from lineward.runtime.station.configuration import Engine
from lineward.runtime.station.jobs import active_bundle, load_from_slots
from lineward.runtime.trust import TrustedKeys
from tests.runtime.delivery.offers import Desk, bundle
from tests.signers import Signer

ANN, BEN = Signer("ann"), Signer("ben")


@pytest.fixture
def desk(tmp_path):
    """Versions 1 to 3 are there, 3 is active."""
    made = Desk(tmp_path, TrustedKeys(Path("/keys"), (ANN.public, BEN.public)))
    for number, signer in ((1, ANN), (2, BEN), (3, ANN)):
        made.deploy(bundle(number, signer))
    return made


def load(desk):
    """The version that is loaded, and what is told."""
    told: list[str] = []
    job = load_from_slots(1, desk.slots, Engine(threads=1), desk.trust, told.append)
    return job.bundle.manifest.version, told


def damage(desk, *places):
    kept = desk.slots.read().kept
    for place in places:
        os.truncate(desk.slots.path(kept[place]), 1000)


def test_what_is_active(desk):
    assert load(desk) == (3, [])
    assert active_bundle(1, desk.slots.folder) == desk.slots.path(desk.slots.read().active)


@pytest.mark.parametrize(("damaged", "version"), [((0,), 2), ((0, 1), 1), ((1,), 3)])
def test_the_latest_that_is_whole(desk, damaged, version):
    damage(desk, *damaged)
    loaded, told = load(desk)
    assert loaded == version == desk.active
    assert len(told) == (len(damaged) if version < 3 else 0)
    assert load(desk) == (version, [])  # and so it stays


def test_none_is_whole(desk):
    damage(desk, 0, 1, 2)
    before = desk.slots.read()
    with pytest.raises(BundleError, match=r"3-.*damaged"):
        load(desk)
    assert desk.slots.read() == before


def test_a_key_that_does_not_count_is_no_reason_to_go_back(desk):
    desk.trust = TrustedKeys(Path("/keys"), (BEN.public,))
    with pytest.raises(SignatureError, match="not trusted"):
        load(desk)
    assert desk.slots.read().active.version == 3


def test_nor_is_one_gone_back_to_whose_key_does_not_count(desk):
    damage(desk, 0)
    desk.trust = TrustedKeys(Path("/keys"), (ANN.public,))
    assert load(desk)[0] == 1


def test_an_older_one_put_in_its_place_is_passed_over(desk):
    """A replay, with a good signature, past `deploy`."""
    path = desk.slots.path(desk.slots.read().active)
    path.write_bytes(bundle(1, ANN))
    loaded, (told,) = load(desk)
    assert loaded == 2
    assert "not the bundle that was deployed" in told


def test_nothing_is_active(tmp_path):
    desk = Desk(tmp_path)
    with pytest.raises(DeliveryError, match="no bundle is active for job 1"):
        load(desk)
    with pytest.raises(DeliveryError, match="no bundle is active for job 7"):
        active_bundle(7, desk.slots.folder)
