"""What a station loads of its slots when it starts."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from lineward.runtime.bundle import decode_bundle
from lineward.runtime.calibration_file import FORMAT, Calibration, path_for, write_calibration
from lineward.runtime.errors import BundleError, CalibrationError, DeliveryError, KeyFileError, SignatureError
from lineward.runtime.inspection import Verdict
from lineward.runtime.station.configuration import Engine
from lineward.runtime.station.jobs import active_bundle, load_from_slots, open_job
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


# This device's own threshold.


def own(desk, place, value=0.5):
    """A calibration of the active bundle."""
    bundle = desk.slots.bundle(desk.slots.read().active, desk.trust)
    manifest = bundle.manifest
    threshold = msgspec.structs.replace(manifest.threshold, value=value)
    made = Calibration(FORMAT, manifest.product, manifest.version, bundle.sha256, "2026-01-01T00:00:00Z", 0, threshold)
    write_calibration(path_for(place, bundle.sha256), made)
    return made


def load_own(desk, place):
    return load_from_slots(1, desk.slots, Engine(threads=1), desk.trust, pytest.fail, place)


@pytest.mark.parametrize("folder", [False, True], ids=["a file", "a folder"])
def test_a_calibration_decides(desk, tmp_path, folder):
    place = tmp_path / "own"
    if folder:
        place.mkdir()
    made = own(desk, place, 0.0)
    job = load_own(desk, place)
    assert (job.threshold, job.calibration_sha256) == (0.0, made.sha256)
    assert job.inspector.inspect(job.warm_frame).verdict is Verdict.REJECT
    bare = load_from_slots(1, desk.slots, Engine(threads=1), desk.trust, pytest.fail)
    assert (bare.threshold, bare.calibration_sha256) == (bare.bundle.manifest.threshold.value, "")


def test_one_of_another_bundle_is_refused_and_nothing_falls_back(desk, tmp_path):
    place = tmp_path / "own.json"
    own(desk, place)
    desk.deploy(bundle(4, ANN))
    with pytest.raises(CalibrationError, match=r"own\.json: a calibration of .*, not of this bundle"):
        load_own(desk, place)
    assert desk.slots.read().active.version == 4


def test_one_that_is_not_there_or_that_others_can_change_is_refused(desk, tmp_path):
    place = tmp_path / "own.json"
    with pytest.raises(KeyFileError, match="cannot be read"):
        load_own(desk, place)
    own(desk, place)
    place.chmod(0o666)
    with pytest.raises(KeyFileError, match="others than its owner may write it"):
        load_own(desk, place)


def test_one_that_would_pass_a_known_defect_is_refused(tmp_path, rebundle, tiny):
    good, defect = tiny.manifest.golden
    strict = msgspec.structs.replace(tiny.manifest.threshold, value=(good.image_score + defect.image_score) / 2)
    made = decode_bundle(rebundle(threshold=strict), "strict")
    loose = msgspec.structs.replace(strict, value=1.0)
    write_calibration(tmp_path / "own.json", Calibration(FORMAT, "tiny part", 1, made.sha256, "", 0, loose))
    with pytest.raises(CalibrationError, match=r"would pass golden/defect\.png, a known defect"):
        open_job(1, made, Engine(threads=1), tmp_path / "own.json")
