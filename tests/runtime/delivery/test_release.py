from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineward.runtime.delivery.release import Release, decode_release, newest_for, role_of, share_of
from lineward.runtime.errors import FleetError

BUNDLE = "ab" * 32
STATIONS = [f"press-{number}" for number in range(2000)]


def release(version=1, **fields):
    return Release("bottle", version, f"{version:064x}", **fields)


@pytest.mark.parametrize(
    ("fields", "groups", "takes"),
    [
        ({}, (), True),
        ({"percentage": 0}, (), False),
        ({"percentage": 0, "groups": ("hall-2",)}, (), False),
        ({"percentage": 0, "groups": ("hall-2",)}, ("hall-1",), False),
        ({"percentage": 0, "groups": ("hall-2",)}, ("hall-1", "hall-2"), True),
        ({"percentage": 100, "groups": ("hall-2",)}, ("hall-1",), True),
        ({"hold": True}, (), False),
        ({"hold": True, "groups": ("hall-2",)}, ("hall-2",), False),
        ({"recalled": "escapes"}, (), False),
    ],
)
def test_who_takes_it(fields, groups, takes):
    assert release(**fields).is_for("press-4", groups) == takes


@pytest.mark.parametrize("percentage", [1, 10, 50, 90])
def test_the_percentage_is_one(percentage):
    share = sum(share_of(station, BUNDLE) < percentage for station in STATIONS) / len(STATIONS)
    assert share == pytest.approx(percentage / 100, abs=0.04)


def test_the_first_stations_of_two_bundles_are_not_the_same():
    first = [{s for s in STATIONS if share_of(s, bundle) < 10} for bundle in (BUNDLE, "cd" * 32)]
    assert len(first[0] & first[1]) < len(first[0]) / 2


@given(st.text(min_size=1, max_size=64), st.integers(0, 100), st.integers(0, 100))
def test_a_rollout_that_grows_keeps_its_stations(station, one, other):
    less, more = sorted((one, other))
    assert release(percentage=more).is_for(station, ()) or not release(percentage=less).is_for(station, ())


def test_shares_are_the_same_on_every_machine():
    assert share_of("press-4", BUNDLE) == pytest.approx(12.959772769439226, abs=1e-9)


@given(st.text(min_size=1, max_size=128))
def test_a_role_is_a_file_name_and_of_one_product(product):
    role = role_of(product)
    assert len(role) <= 53
    assert set(role) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert role != role_of(product + "x")


@pytest.mark.parametrize(
    ("releases", "above", "version"),
    [
        ([release(1), release(3), release(2)], 0, 3),
        ([release(1), release(3), release(2)], 3, None),
        ([release(1), release(3, hold=True), release(2)], 0, 2),
        ([release(1), release(3, recalled="x"), release(2, percentage=0)], 0, 1),
        ([], 0, None),
    ],
)
def test_the_newest_for_a_station(releases, above, version):
    found = newest_for(releases, "press-4", ("hall-2",), above)
    assert (found.version if found else None) == version


GOOD = msgspec.to_builtins(release())


@pytest.mark.parametrize(
    ("custom", "path", "complaint"),
    [
        (None, release().path, "is not understood"),
        ({**GOOD, "region": "north"}, release().path, "is not understood"),
        ({**GOOD, "percentage": 101}, release().path, "is not understood"),
        ({**GOOD, "bundle": "x"}, release().path, "is not understood"),
        ({**GOOD, "groups": ["a b"]}, release().path, "is not understood"),
        ({**GOOD, "product": "cap"}, release().path, "which does not belong there"),
        ({**GOOD, "version": 2}, release().path, "which does not belong there"),
        (GOOD, f"{role_of('bottle')}/..", "which does not belong there"),
    ],
)
def test_what_is_said_of_a_bundle_must_be_understood(custom, path, complaint):
    assert decode_release(GOOD, release().path, "bottle") == release()
    with pytest.raises(FleetError, match=complaint):
        decode_release(custom, path, "bottle")
