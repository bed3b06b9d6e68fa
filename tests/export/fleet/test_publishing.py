"""A repository is published, and killed while it is: stations see the old state or the new one."""

from __future__ import annotations

import os
import shutil
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("tuf", reason="tuf is not installed (lineward[fleet])")

from lineward.export.fleet import lists, publishing
from lineward.export.fleet.publishing import Publisher
from lineward.runtime.delivery.release import Release, role_of
from lineward.runtime.delivery.repository import Source, open_repository
from lineward.runtime.errors import FleetError, SignatureError
from tests.fleets import (
    EVERYONE,
    LISTER,
    ONLINE,
    PACKER,
    PRODUCT,
    ROOTS,
    STRANGER,
    TARGETS,
    Fleet,
    opened,
)
from tests.runtime.delivery.offers import bundle
from tests.signers import Signer


@pytest.fixture
def fleet(tmp_path):
    made = Fleet(tmp_path / "repository")
    made.add(5)
    return made


def seen(fleet: Fleet, state: Path, root: Path | None = None, product: str = PRODUCT) -> list[Release]:
    """What a station sees, from the folder as it is."""
    with open_repository(Source(str(fleet.folder), root or fleet.root, state, 10**7)) as repository:
        releases = repository.releases(product)
        for release in releases:
            assert repository.fetch(release).read_bytes()[:2] == b"PK"
    return releases


def test_what_is_published_is_what_stations_see(fleet, tmp_path):
    six = fleet.add(6, "hall-2", percentage=0, hold=True)
    assert (six.version, six.groups, six.percentage, six.hold, six.recalled) == (6, ("hall-2",), 0, True, None)
    assert [r.version for r in seen(fleet, tmp_path / "state")] == [6, 5]
    changed = fleet.roll_out(6, percentage=30, hold=False)
    assert changed == msgspec.structs.replace(six, percentage=30, hold=False)
    recalled = fleet.recall(5, "scratches pass")
    assert recalled.recalled == "scratches pass"
    assert seen(fleet, tmp_path / "state") == [changed, recalled]
    assert publishing.all_releases(lists.read_lists(fleet.folder)) == [recalled, changed]


def test_products_are_apart(fleet, tmp_path):
    bolts = Signer("bolts")
    publishing.delegate(fleet.publisher(TARGETS, ONLINE, bolts), "bolt", [bolts.public])
    path = tmp_path / "bolt.lineward"
    path.write_bytes(bundle(1, PACKER, product="bolt"))
    with pytest.raises(FleetError, match="signed by 0 of the 1 keys"):
        publishing.add(fleet.publisher(ONLINE, LISTER), path, (), 100, False)
    publishing.add(fleet.publisher(ONLINE, bolts), path, (), 100, False)
    assert [r.version for r in seen(fleet, tmp_path / "state", product="bolt")] == [1]
    assert [r.version for r in seen(fleet, tmp_path / "state")] == [5]


REFUSED = {
    "not signed": (lambda f: f.add(6, data=bundle(6)), SignatureError, "not signed"),
    "as old as the newest": (lambda f: f.add(5), FleetError, "version 5, and version 5 of 'tiny part' is published"),
    "older": (lambda f: f.add(4), FleetError, "version 4, and version 5"),
    "another product": (
        lambda f: f.add(6, data=bundle(6, PACKER, product="bolt")),
        FleetError,
        "nobody may publish 'bolt' here",
    ),
    "no group": (lambda f: f.add(6, "hall 2"), FleetError, "cannot be said of a bundle"),
    "no percentage": (lambda f: f.roll_out(5, percentage=101), FleetError, "cannot be said of a bundle"),
    "no reason": (lambda f: f.recall(5, ""), FleetError, "cannot be said of a bundle"),
    "no such version": (lambda f: f.recall(4), FleetError, r"no version 4 of 'tiny part'.*\n.*\[5\]"),
    "no such product": (lambda f: publishing.recall(f.publisher(), "bolt", 1, "x"), FleetError, "nobody may publish"),
    "a key too few": (
        lambda f: publishing.rotate(f.publisher(ROOTS[0], ONLINE), "root", [ROOTS[0].public], 1),
        FleetError,
        r"root: signed by 1 of the 2 keys that it takes\n.*root-2",
    ),
    "no key": (lambda f: publishing.refresh(f.publisher(STRANGER)), FleetError, "snapshot: signed by 0 of the 1"),
    "more than there are": (
        lambda f: publishing.rotate(f.publisher(), "targets", [TARGETS.public], 2),
        FleetError,
        "2 of 1 keys can never sign",
    ),
    "a key for other products": (
        lambda f: publishing.delegate(f.publisher(), PRODUCT, [Signer("x", products=("bolt",)).public]),
        SignatureError,
        "is not for 'tiny part'",
    ),
    "an expired key": (
        lambda f: publishing.delegate(
            f.publisher(), PRODUCT, [Signer("x", expires=f.now.date() - timedelta(1)).public]
        ),
        SignatureError,
        "expired after",
    ),
    "signing with an expired key": (
        lambda f: publishing.refresh(f.publisher(Signer("online", expires=f.now.date() - timedelta(1)))),
        SignatureError,
        "expired after",
    ),
    "a second repository": (lambda f: Fleet(f.folder), FleetError, "holds a repository already"),
    "no repository": (lambda f: lists.read_lists(f.folder.parent), FleetError, "holds no repository"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_and_nothing_changed(fleet, case):
    act, error, complaint = REFUSED[case]
    before = contents(fleet.folder)
    with pytest.raises(error, match=complaint) as raised:
        act(fleet)
    assert raised.value.do
    assert contents(fleet.folder) == before


def test_after_a_recall_there_is_no_rollout(fleet):
    fleet.recall(5, "scratches pass")
    with pytest.raises(FleetError, match="was recalled: scratches pass"):
        fleet.roll_out(5, percentage=50)


def test_two_at_once(fleet):
    with lists.locked(fleet.folder), pytest.raises(FleetError, match="is being published to just now"):
        fleet.add(6)


@pytest.mark.parametrize("name", ["timestamp.json", "2.root.json", "1.root.json"])
def test_a_damaged_repository_is_told(fleet, name):
    (fleet.folder / "metadata" / name).write_bytes(b"{")
    with pytest.raises(FleetError, match=f"{name}: damaged"):
        lists.read_lists(fleet.folder)


class Killed(BaseException):
    """As if the process was killed just then."""


CHANGES = {
    "add": lambda f: f.add(6),
    "roll out": lambda f: f.roll_out(5, percentage=1),
    "recall": lambda f: f.recall(5),
    "refresh all": lambda f: publishing.refresh(f.publisher()),
    "delegate": lambda f: publishing.delegate(f.publisher(*EVERYONE, STRANGER), PRODUCT, [STRANGER.public]),
    "delegate another": lambda f: publishing.delegate(f.publisher(*EVERYONE, STRANGER), "bolt", [STRANGER.public]),
    "rotate root": lambda f: publishing.rotate(f.publisher(*EVERYONE, STRANGER), "root", [STRANGER.public], 1),
    "rotate targets": lambda f: publishing.rotate(f.publisher(*EVERYONE, STRANGER), "targets", [STRANGER.public], 1),
    "rotate online": lambda f: publishing.rotate(f.publisher(*EVERYONE, STRANGER), "online", [STRANGER.public], 1),
}


@pytest.mark.parametrize("case", CHANGES)
def test_killed_at_every_file(fleet, tmp_path, monkeypatch, case):
    """Whenever it is killed, a station that has seen the old state, and one that has seen nothing, see the old state or
    the new; and the same command again does it."""
    first = tmp_path / "first"
    shutil.copytree(fleet.folder, first)
    old = seen(fleet, tmp_path / "old")
    CHANGES[case](fleet)
    new = seen(fleet, tmp_path / "new")
    states = []
    for number in range(99):
        shutil.rmtree(fleet.folder)
        shutil.copytree(first, fleet.folder)
        shutil.rmtree(tmp_path / "known", ignore_errors=True)
        shutil.copytree(tmp_path / "old", tmp_path / "known")
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", _killing(number))
            patch.setattr(Path, "replace", _killing(number))
            try:
                CHANGES[case](fleet)
            except Killed:
                killed = True
            else:
                killed = False
        states.append(seen(fleet, tmp_path / "known"))
        assert states[-1] in (old, new)
        assert seen(fleet, tmp_path / f"fresh {number}") == states[-1]
        if not killed:
            break
        if states[-1] == old != new:
            CHANGES[case](fleet)
            assert seen(fleet, tmp_path / "known") == new
    else:
        pytest.fail("it never came to its end")
    assert (states[0], states[-1]) == (old, new)
    assert len(states) > 1


def _killing(number):
    count = iter(range(number, -1, -1))
    rename = os.rename

    def replace(source, destination):
        if next(count) == 0:
            raise Killed
        rename(source, destination)
        return Path(destination)

    return replace


def test_what_another_version_said_of_a_bundle_is_not_guessed(fleet):
    now = lists.read_lists(fleet.folder)
    (target,) = now.products[role_of(PRODUCT)].signed.targets.values()
    target.unrecognized_fields = {"custom": {"only_at": "night"}}
    with pytest.raises(FleetError, match="is not understood"):
        publishing.all_releases(now)


def test_a_full_disk_is_told(fleet, monkeypatch, tmp_path):
    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(FleetError, match=r"No space left on device.*; stations see what they saw before"):
            fleet.add(6)
    assert [r.version for r in seen(fleet, tmp_path / "state")] == [5]


def test_lists_are_renewed_by_whose_keys_are_at_hand(fleet):
    before = lists.read_lists(fleet.folder)
    fleet.later(days=100)
    publishing.refresh(fleet.publisher(ONLINE, days=3))
    after = lists.read_lists(fleet.folder)
    for role in after.roles:
        renewed = after.list_of(role).signed.expires > before.list_of(role).signed.expires
        assert renewed == (role in ("snapshot", "timestamp"))
    assert after.timestamp.signed.expires == fleet.now.replace(microsecond=0) + timedelta(days=3)
    publishing.refresh(fleet.publisher())
    for role in after.roles:
        assert lists.read_lists(fleet.folder).list_of(role).signed.expires > before.list_of(role).signed.expires


def test_a_lost_key_is_replaced_without_it(fleet, tmp_path):
    """Without the old online key a station may see a broken repository for a moment, never afterwards."""
    seen(fleet, tmp_path / "state")
    without = Publisher(fleet.folder, opened(*ROOTS, STRANGER), fleet.now)
    publishing.rotate(without, "online", [STRANGER.public], 1)
    assert [r.version for r in seen(fleet, tmp_path / "state")] == [5]


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*.json")}
