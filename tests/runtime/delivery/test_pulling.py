"""What a station pulls, what it goes back from, and that a hostile server gets nothing in."""

from __future__ import annotations

import gc
import os
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("tuf", reason="tuf is not installed (lineward[fleet])")

from tuf.api.metadata import Metadata, MetaFile, TargetFile

from lineward.export.fleet import keys, lists, publishing
from lineward.runtime.delivery.deployment import Target
from lineward.runtime.delivery.pulling import Wish, pull
from lineward.runtime.delivery.release import Release, role_of
from lineward.runtime.delivery.repository import Source, open_repository
from lineward.runtime.delivery.transport import Transport
from lineward.runtime.errors import BundleError, DeliveryError, FleetError, LinewardError, SignatureError
from lineward.runtime.trust import TrustedKeys
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
    Server,
    opened,
    served,
)
from tests.runtime.delivery.offers import Desk, bundle

# The traceback of a refused answer holds its socket, so that whichever of the two is collected first may warn.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")

ROLE = role_of(PRODUCT)
LIMIT = 10**7


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """What a test leaves to be collected warns in no test after it."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def honest(world):
    """The server shows again what it should have shown."""
    shutil.rmtree(world.fleet.folder)
    shutil.copytree(world.fleet.folder.parent / "honest", world.fleet.folder)


def rotated(world):
    """As well, and the online key is replaced: what it signed, however high its version, is forgotten."""
    honest(world)
    publishing.rotate(world.fleet.publisher(*EVERYONE, STRANGER), "online", [STRANGER.public], 1)
    world.fleet.keys = (*EVERYONE, STRANGER)


def onwards(world):
    """The keys of the root sign once more."""
    publishing.refresh(world.fleet.publisher())


class World:
    """A repository with version 5, a server, and a station that has pulled it."""

    def __init__(self, folder: Path, fleet: Fleet, server: Server) -> None:
        self.fleet = fleet
        self.server = server
        self.place = server.url
        self.root = folder / "root.json"
        shutil.copy(fleet.root, self.root)
        self.desk = Desk(folder, TrustedKeys(Path("/keys"), (PACKER.public,)))
        self.state = folder / "fleet"
        self.groups: tuple[str, ...] = ()
        self.limit = LIMIT
        self.transport = Transport()
        self.fails: LinewardError | None = None
        self.comes_out = honest

    def pull(self) -> list[str]:
        target = Target(self.desk.slots, "press-4", self.desk.trust)
        with open_repository(Source(self.place, self.root, self.state, self.limit), self.transport) as repository:
            return pull(repository, target, Wish(PRODUCT, self.groups), self.prove)

    def prove(self, proven) -> None:
        self.desk.proven.append(proven.manifest.version)
        if self.fails is not None:
            raise self.fails

    def resigned(self, role: str, change, *signers, version: int | None = None, file: Path | None = None) -> None:
        """A list of the repository, changed and signed by whoever."""
        metadata = self.fleet.folder / "metadata"
        names = sorted(metadata.glob(f"*.{role}.json"), key=lambda path: int(path.name.split(".")[0]))
        source = file or (metadata / f"{role}.json" if role == "timestamp" else names[-1])
        signed = Metadata.from_file(str(source))
        change(signed.signed)
        signed.signatures.clear()
        for signer in keys.signers(opened(*signers), datetime.now(timezone.utc)).values():
            signed.sign(signer, append=True)
        signed.to_file(str(source if version is None else metadata / f"{version}.{role}.json"))


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    fleet = Fleet(folder / "repository")
    fleet.add(5)
    with served(fleet.folder) as server:
        assert World(folder, fleet, server).pull() == [f"{PRODUCT} 5 deployed"]
    return folder


@pytest.fixture
def world(made, tmp_path):
    folder = shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    fleet = Fleet(folder / "repository", made=True)
    with served(fleet.folder) as server:
        world = World(folder, fleet, server)
        world.desk.proven.append(5)
        yield world


# What is pulled.


def test_what_is_newer_is_taken_once(world):
    assert world.pull() == []
    world.fleet.add(6)
    assert world.pull() == [f"{PRODUCT} 6 deployed, in place of 5"]
    assert world.desk.active == 6
    asked = len(world.server.asked)
    assert world.pull() == []
    assert len(world.server.asked) - asked == 2  # the next root, and whether there is a newer timestamp
    assert world.desk.proven == [5, 6]
    assert list((world.state / "targets").iterdir()) == []


def test_a_staged_rollout(world):
    world.fleet.add(6, "hall-2", percentage=0)
    assert world.pull() == []
    world.fleet.roll_out(6, groups=("hall-1",), percentage=100, hold=True)
    assert world.pull() == []
    world.fleet.roll_out(6, percentage=0, hold=False)
    assert world.pull() == []
    world.groups = ("hall-1", "late")
    assert world.pull() == [f"{PRODUCT} 6 deployed, in place of 5"]


@pytest.mark.parametrize("place", ["stick", "url"])
def test_from_a_stick(world, tmp_path, place):
    world.fleet.add(6)
    stick = tmp_path / "the stick"
    shutil.copytree(world.fleet.folder, stick)
    world.place = str(stick) if place == "stick" else stick.as_uri()
    assert world.pull() == [f"{PRODUCT} 6 deployed, in place of 5"]
    world.place = world.server.url  # it has seen the same lists there
    assert world.pull() == []


def test_what_was_rolled_back_by_hand_stays_so(world):
    world.fleet.add(6)
    world.pull()
    world.desk.slots.go_back("too strict")
    assert world.pull() == []
    assert world.desk.active == 5
    world.fleet.add(7)
    assert world.pull() == [f"{PRODUCT} 7 deployed, in place of 5"]


def test_what_does_not_do_here_is_not_tried_again(world):
    world.fleet.add(6)
    world.fails = BundleError("patch scores differ", do="")
    with pytest.raises(BundleError, match="patch scores differ"):
        world.pull()
    world.fails = None
    assert world.pull() == []
    assert world.desk.proven == [5, 6]
    (refused,) = world.desk.slots.read().refused
    assert (refused.version, refused.why) == (6, "not deployed: patch scores differ")
    assert list((world.state / "targets").iterdir()) == []


# Recalls.


def test_a_recall_goes_back_and_says_why(world):
    for version in (6, 7):
        world.fleet.add(version)
        world.pull()
    world.fleet.recall(6)
    assert world.pull() == []  # it is not active, but not gone back to either
    world.fleet.recall(7, "passes scratches")
    assert world.pull() == [f"{PRODUCT} 7 recalled: passes scratches; back to 5"]
    assert world.desk.active == 5
    last = world.desk.slots.read().history[-1]
    assert (last.change, last.version, last.why) == ("taken back", 5, "recalled: passes scratches")
    assert world.pull() == []
    with pytest.raises(DeliveryError, match="no bundle before"):
        world.desk.slots.go_back("by hand")
    world.fleet.add(8)
    assert world.pull() == [f"{PRODUCT} 8 deployed, in place of 5"]


def test_a_recalled_bundle_that_was_deployed_by_hand_again_is_recalled_again(world):
    world.fleet.add(6)
    world.pull()
    world.fleet.recall(6)
    assert len(world.pull()) == 1
    world.desk.deploy(bundle(6, PACKER))
    assert world.desk.active == 6
    assert len(world.pull()) == 1
    assert world.desk.active == 5


def test_a_damaged_bundle_is_not_gone_back_to(world):
    for version in (6, 7):
        world.fleet.add(version)
        world.pull()
    slots = world.desk.slots
    os.truncate(slots.path(slots.read().before[0]), 1000)
    world.fleet.recall(7)
    assert world.pull() == [f"{PRODUCT} 7 recalled: escapes; back to 5"]


def test_nothing_to_go_back_to(world):
    world.fleet.recall(5)
    with pytest.raises(DeliveryError, match=r"version 5 is bad \(recalled: escapes\), and there is none before it"):
        world.pull()
    assert world.desk.active == 5
    world.fleet.add(6)
    assert world.pull() == [f"{PRODUCT} 6 deployed, in place of 5"]


def test_a_recall_of_what_this_station_never_had(world):
    world.fleet.add(6, percentage=0)
    world.fleet.recall(6)
    assert world.pull() == []


# Attacks. Each is done to a station that has pulled version 5, with version 6 published since.


def stale(world):
    """The server goes on showing what was true once."""
    world.fleet.later(days=-15)
    publishing.refresh(world.fleet.publisher(ONLINE))
    world.comes_out = rotated


def expired(role, *signers):
    def attack(world):
        def change(signed):
            signed.expires = datetime.now(timezone.utc).replace(microsecond=0) - timedelta(days=1)
            signed.version += 1

        if role == "root":
            world.comes_out = onwards
            world.resigned("root", change, *ROOTS, version=2)
            return
        metadata = world.fleet.folder / "metadata"
        now = lists.read_lists(world.fleet.folder)
        version = now.list_of(role).signed.version
        world.resigned(role, change, *signers, version=version + 1)
        relist(world, role, (metadata / f"{version + 1}.{role}.json").read_bytes(), version + 1)

    return attack


def relist(world, role, data, version):
    """Who holds the online key names another list."""
    world.comes_out = rotated

    def in_snapshot(signed):
        signed.version += 1
        signed.meta[f"{role}.json"] = MetaFile.from_data(version, data, ["sha256"])

    before = lists.read_lists(world.fleet.folder).snapshot.signed.version
    point_at(world, before + 1, ONLINE, change=in_snapshot)


def older_copy(world):
    world.pull()
    shutil.rmtree(world.fleet.folder)
    shutil.copytree(world.fleet.folder.parent / "copy", world.fleet.folder)


def older_snapshot(world):
    """The online key is stolen, and used to go back."""
    world.pull()

    def change(signed):
        signed.version += 1
        old = world.fleet.folder / "metadata" / "2.snapshot.json"
        signed.snapshot_meta = MetaFile.from_data(2, old.read_bytes(), ["sha256"])

    world.resigned("timestamp", change, ONLINE)
    world.comes_out = rotated


def older_product_list(world):
    """The same, for the product's list alone."""
    world.pull()
    old = world.fleet.folder / "metadata" / f"2.{ROLE}.json"
    relist(world, ROLE, old.read_bytes(), 2)


def product_list_left_out(world):
    world.pull()

    def change(signed):
        signed.version += 1
        del signed.meta[f"{ROLE}.json"]

    before = lists.read_lists(world.fleet.folder).snapshot.signed.version
    point_at(world, before + 1, ONLINE, change=change)


def mixed(role):
    """An old list under the name of the new one."""

    def attack(world):
        metadata = world.fleet.folder / "metadata"
        newest = lists.read_lists(world.fleet.folder).list_of(role).signed.version
        shutil.copy(metadata / f"{newest - 1}.{role}.json", metadata / f"{newest}.{role}.json")

    return attack


def signed_by(role, *signers):
    def attack(world):
        world.resigned(role, lambda _: None, *signers)
        if role != "timestamp":
            now = lists.read_lists(world.fleet.folder)
            version = now.list_of(role).signed.version
            relist(world, role, (world.fleet.folder / "metadata" / f"{version}.{role}.json").read_bytes(), version)

    return attack


def strangers_snapshot(world):
    now = lists.read_lists(world.fleet.folder)
    point_at(world, now.snapshot.signed.version, STRANGER, TARGETS)


def point_at(world, version, *signers, change=lambda _: None):
    """A changed snapshot, and a timestamp of who holds the online key that names it."""
    world.comes_out = rotated
    world.resigned("snapshot", change, *signers, version=version)
    data = (world.fleet.folder / "metadata" / f"{version}.snapshot.json").read_bytes()

    def in_timestamp(signed):
        signed.version += 1
        signed.snapshot_meta = MetaFile.from_data(version, data, ["sha256"])

    world.resigned("timestamp", in_timestamp, ONLINE)


def another_root(world):
    other = publishing.Publisher(world.fleet.folder.parent / "other", opened(STRANGER), world.fleet.now)
    publishing.make(other, [STRANGER.public], 1, STRANGER.public, STRANGER.public)
    world.root.write_bytes((other.folder / "metadata" / "1.root.json").read_bytes())


def strangers_root(world):
    def change(signed):
        signed.version += 1
        for role in signed.roles:
            signed.roles[role].keyids = []
            signed.add_key(keys.as_listed(STRANGER.public), role)
            signed.roles[role].threshold = 1

    world.resigned("root", change, STRANGER, ROOTS[0], version=2)


def skipped_root(world):
    def change(signed):
        signed.version += 2

    world.resigned("root", change, *ROOTS, version=2)


def target_file(world) -> Path:
    (path,) = (world.fleet.folder / "targets" / ROLE).glob("*.6-*")
    return path


def flipped(world):
    path = target_file(world)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(world):
    path = target_file(world)
    os.truncate(path, path.stat().st_size // 2)


def longer(world):
    with target_file(world).open("ab") as file:
        file.write(bytes(1))


def answer(end, *, status=200, headers=(), body=lambda _: None):
    def attack(world):
        def lie(handler):
            with suppress(ConnectionError, TimeoutError):
                handler.send_response(status)
                for name, value in headers:
                    handler.send_header(name, value)
                handler.end_headers()
                body(handler)

        world.server.lies[end] = lie

    return attack


def endless(handler):
    while not handler.server.closing.is_set():
        handler.wfile.write(bytes(1 << 16))


def trickle(handler):
    while not handler.server.closing.wait(0.02):
        handler.wfile.write(b" ")
        handler.wfile.flush()


def endless_header(world):
    def lie(handler):
        with suppress(ConnectionError):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX: ")
            trickle(handler)

    world.server.lies["timestamp.json"] = lie


def silent(world):
    world.server.lies["timestamp.json"] = lambda handler: handler.server.closing.wait(5)


def hangs_up(world):
    world.server.lies["timestamp.json"] = lambda _: None


def half(handler):
    handler.wfile.write(b"{")


def not_http(world):
    world.server.lies["timestamp.json"] = lambda handler: handler.wfile.write(b"SSH-2.0-OpenSSH_9.6\r\n")


def too_large(world):
    world.limit = 100


def nobody_there(world):
    world.place = "http://127.0.0.1:9"


def republish(world, data, **claims):
    """Whoever holds the product's key publishes other bytes as version 6."""
    world.comes_out = rotated
    now = lists.read_lists(world.fleet.folder)
    targets = now.products[ROLE].signed.targets
    release = next(r for r in publishing.releases_of(now, PRODUCT) if r.version == 6)
    claimed = msgspec.structs.replace(release, **claims)
    target = TargetFile.from_data(claimed.path, data, ["sha256"])
    target.unrecognized_fields = {"custom": msgspec.to_builtins(claimed)}
    del targets[release.path]
    targets[claimed.path] = target
    now.changed.add(ROLE)
    files = {f"targets/{target.get_prefixed_paths()[0]}": data}
    moment = datetime.now(timezone.utc)
    lists.write_lists(now, keys.signers(opened(LISTER, ONLINE), moment), files, moment, 14)


def other_product(world):
    republish(world, bundle(6, PACKER, product="bolt"))


def older_as_newer(world):
    republish(world, bundle(4, PACKER))


def unsigned(world):
    republish(world, bundle(6))


def by_a_stranger(world):
    republish(world, bundle(6, STRANGER))


def no_bundle(world):
    republish(world, b"PK\x03\x04 not at all")


def custom_of(custom, path=None):
    def attack(world):
        world.comes_out = rotated
        now = lists.read_lists(world.fleet.folder)
        targets = now.products[ROLE].signed.targets
        target = next(target for target in targets.values() if "/6-" in target.path)
        target.unrecognized_fields = {"custom": custom}
        if path:
            targets[path] = target
            target.path = path
        now.changed.add(ROLE)
        moment = datetime.now(timezone.utc)
        lists.write_lists(now, keys.signers(opened(LISTER, ONLINE), moment), {}, moment, 14)

    return attack


ATTACKS = {
    "freeze: the same lists for ever": (stale, FleetError, "have expired"),
    "freeze: an expired root": (expired("root"), FleetError, "have expired"),
    "freeze: an expired list of products": (expired("targets", TARGETS), FleetError, "have expired"),
    "freeze: an expired list of bundles": (expired(ROLE, LISTER), FleetError, "have expired"),
    "rollback: an older copy of all": (older_copy, FleetError, "older lists than this station has seen"),
    "rollback: an older snapshot, online key stolen": (older_snapshot, FleetError, "older lists than"),
    "rollback: an older list of bundles, online key stolen": (older_product_list, FleetError, "older lists than"),
    "rollback: a list left out, online key stolen": (product_list_left_out, FleetError, "cannot be read"),
    "mix and match: snapshot": (mixed("snapshot"), FleetError, "not the one that its signed lists name"),
    "mix and match: list of bundles": (mixed(ROLE), FleetError, "not the one that its signed lists name"),
    "another repository's root": (another_root, FleetError, "not signed by the keys that this station trusts"),
    "timestamp of a stranger": (signed_by("timestamp", STRANGER), FleetError, "not signed by the keys"),
    "timestamp of nobody": (signed_by("timestamp"), FleetError, "not signed by the keys"),
    "snapshot of others, online key stolen for the timestamp": (strangers_snapshot, FleetError, "not signed by"),
    "list of products by a product's key": (signed_by("targets", LISTER), FleetError, "not signed by the keys"),
    "list of bundles of a stranger, online key stolen": (signed_by(ROLE, STRANGER), FleetError, "not signed by"),
    "new root by one old key of two": (strangers_root, FleetError, "not signed by the keys"),
    "new root with a version left out": (skipped_root, FleetError, "older lists than .* or lists that do not"),
    "a bit of the bundle flipped": (flipped, FleetError, "not the one that its signed lists name"),
    "a bundle cut short": (cut, FleetError, "not the one that its signed lists name"),
    "a bundle made longer": (longer, FleetError, "sends more bytes"),
    "endless timestamp": (answer("timestamp.json", body=endless), FleetError, "sends more bytes"),
    "endless snapshot": (answer("snapshot.json", body=endless), FleetError, "sends more bytes"),
    "endless bundle": (answer(".lineward", body=endless), FleetError, "sends more bytes"),
    "endless next root": (answer("2.root.json", body=endless), FleetError, "sends more bytes"),
    "a byte at a time": (answer("timestamp.json", body=trickle), FleetError, "is too slow"),
    "an answer's head that never ends": (endless_header, FleetError, "is too slow"),
    "no answer": (silent, FleetError, "is too slow"),
    "hangs up": (hangs_up, FleetError, "cannot be reached"),
    "cut off": (answer("timestamp.json", headers=[("Content-Length", "900")], body=half), FleetError, "cut off after"),
    "another protocol": (not_http, FleetError, "cannot be reached"),
    "nobody there": (nobody_there, FleetError, "cannot be reached"),
    "error 500": (answer("timestamp.json", status=500), FleetError, "the server says 500"),
    "sent elsewhere": (
        answer("timestamp.json", status=302, headers=[("Location", "http://127.0.0.1:9/")]),
        FleetError,
        "the server says 302",
    ),
    "the list of bundles is missing": (answer(f"{ROLE}.json", status=404), FleetError, "does not have a file"),
    "the bundle is missing": (answer(".lineward", status=404), FleetError, "does not have a file"),
    "no JSON": (answer("timestamp.json", body=half), FleetError, "cannot be read"),
    "deep JSON": (
        answer("timestamp.json", body=lambda handler: handler.wfile.write(b"[" * 16_000)),
        FleetError,
        "cannot be read",
    ),
    "larger than this station takes": (too_large, FleetError, "more than this station takes"),
    "another product under this name": (other_product, FleetError, "was published as version 6"),
    "an older bundle as a newer version": (older_as_newer, FleetError, "is version 4 .* was published as version 6"),
    "unsigned, in a repository that is right": (unsigned, SignatureError, "not signed"),
    "signed by a stranger, in a repository that is right": (by_a_stranger, SignatureError, "not trusted"),
    "no bundle at all": (no_bundle, BundleError, "not a bundle"),
    "nothing said of it": (custom_of(None), FleetError, "is not understood"),
    "a restriction that is not known": (custom_of({"only_at": "night"}), FleetError, "is not understood"),
    "a path that climbs": (
        custom_of(msgspec.to_builtins(Release(PRODUCT, 6, "ab" * 32)), f"{ROLE}/.."),
        FleetError,
        "does not belong there",
    ),
}


@pytest.mark.parametrize("case", ATTACKS)
def test_attacked(world, tmp_path, case):
    attack, error, complaint = ATTACKS[case]
    shutil.copytree(world.fleet.folder, tmp_path / "copy")
    world.fleet.add(6)
    shutil.copytree(world.fleet.folder, tmp_path / "honest")
    root = world.root.read_bytes()
    attack(world)
    outside = files(tmp_path)
    slots, proven = world.desk.slots.read(), list(world.desk.proven)
    world.transport = Transport(wait=0.3, grace=0.5, least_rate=1e6)
    began = time.monotonic()
    with pytest.raises(error, match=complaint) as raised:
        world.pull()
    assert raised.type is error
    assert raised.value.do
    assert time.monotonic() - began < 20
    assert (world.desk.slots.read(), world.desk.proven) == (slots, proven)
    assert {path for path in files(tmp_path) - outside if not path.is_relative_to(world.state)} == set()
    assert list((world.state / "targets").iterdir()) == []

    # The station comes out of it as it went in.
    world.server.lies.clear()
    world.root.write_bytes(root)
    world.place, world.limit, world.transport = world.server.url, LIMIT, Transport()
    world.fleet.now = datetime.now(timezone.utc)
    world.comes_out(world)
    world.fleet.add(7)
    assert world.pull()[-1].startswith(f"{PRODUCT} 7 deployed")
    assert world.desk.active == 7


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


def test_a_pipe_on_the_stick_keeps_nobody_waiting(world, tmp_path):
    stick = tmp_path / "stick"
    shutil.copytree(world.fleet.folder, stick)
    (stick / "metadata" / "timestamp.json").unlink()
    os.mkfifo(stick / "metadata" / "timestamp.json")
    world.place = str(stick)
    with pytest.raises(FleetError, match="not a file"):
        world.pull()


def test_two_pulls_at_once(world):
    with (
        open_repository(Source(world.place, world.root, world.state, LIMIT)),
        pytest.raises(FleetError, match="another pull is under way"),
    ):
        world.pull()


def test_what_a_power_cut_tore_is_fetched_again(world):
    world.fleet.add(6)
    world.pull()
    files = [path for path in (world.state / "metadata").rglob("*.json") if not path.is_symlink()]
    assert len(files) == 5
    for path in files:
        os.truncate(path, path.stat().st_size // 2)
        assert world.pull() == []
    world.fleet.add(7)
    assert world.pull() == [f"{PRODUCT} 7 deployed, in place of 6"]


def test_a_list_that_names_another_product_gives_none_of_it(world):
    """Whoever lists one product cannot have stations take another one for it."""
    publishing.delegate(world.fleet.publisher(), "bolt", [LISTER.public])
    bolt = world.fleet.folder.parent / "bolt.lineward"
    bolt.write_bytes(bundle(9, PACKER, product="bolt"))
    release = publishing.add(world.fleet.publisher(), bolt, (), 100, False)
    now = lists.read_lists(world.fleet.folder)
    now.products[ROLE].signed.targets[release.path] = now.products[role_of("bolt")].signed.targets[release.path]
    now.changed.add(ROLE)
    moment = datetime.now(timezone.utc)
    lists.write_lists(now, keys.signers(opened(*EVERYONE), moment), {}, moment, 14)
    with pytest.raises(FleetError, match="version 9 of 'bolt', which does not belong there"):
        world.pull()
    assert world.desk.active == 5


def test_a_root_that_others_may_write(world):
    world.root.chmod(0o666)
    with pytest.raises(LinewardError, match="others than its owner may write it"):
        world.pull()


def test_slots_of_another_product(world, tmp_path):
    world.desk = Desk(tmp_path / "other", TrustedKeys(Path("/keys"), (PACKER.public,)))
    (tmp_path / "other").mkdir()
    world.desk.deploy(bundle(1, PACKER, product="bolt"))
    with pytest.raises(DeliveryError, match="is for 'bolt', and \\[fleet\\] names 'tiny part'"):
        world.pull()


def test_a_product_that_nobody_publishes(world):
    target = Target(world.desk.slots, "press-4", world.desk.trust)
    with (
        open_repository(Source(world.place, world.root, world.state, LIMIT)) as repository,
        pytest.raises(FleetError, match="has no bundle of 'bolt'"),
    ):
        pull(repository, target, Wish("bolt", ()), world.prove)


@pytest.mark.parametrize("kept", [True, False])
def test_keys_are_rotated_while_stations_pull(world, kept):
    """All of them in turn; `kept`: the old keys are at hand, so that no station sees a broken repository."""
    new = {"root": STRANGER, "targets": STRANGER, "online": STRANGER}
    for version, (role, key) in enumerate(new.items(), 6):
        at_hand = [*EVERYONE, STRANGER] if kept or role == "root" else [*ROOTS, LISTER, STRANGER, TARGETS, ONLINE]
        publishing.rotate(
            publishing.Publisher(world.fleet.folder, opened(*at_hand), world.fleet.now), role, [key.public], 1
        )
        assert world.pull() == []
        path = world.fleet.folder.parent / f"{version}.lineward"
        path.write_bytes(bundle(version, PACKER))
        everyone = publishing.Publisher(world.fleet.folder, opened(*EVERYONE, STRANGER), world.fleet.now)
        publishing.add(everyone, path, (), 100, False)
        assert len(world.pull()) == 1
    publishing.delegate(everyone, PRODUCT, [STRANGER.public])
    only = publishing.Publisher(world.fleet.folder, opened(STRANGER), world.fleet.now)
    publishing.refresh(only)
    assert world.pull() == []
