"""A fleet of three running stations, each with its camera and its own `lineward pull`, and a repository on a web
server: a bundle is rolled out in stages and recalled, while parts go by."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import groupby
from pathlib import Path

import pytest

from lineward.runtime.delivery.slots import Slots
from lineward.runtime.images import write_png
from lineward.runtime.station.journal_reader import JournalReader
from tests.fleets import PACKER, PRODUCT, Fleet, Server, served
from tests.runtime.station.processes import StationProcess, check_books, station_process
from tests.runtime.station.stand_ins import until
from tests.signers import write_keys

_PULL = [sys.executable, "-c", "import sys; from lineward.runtime.cli import main; sys.exit(main())", "pull"]
_WITHIN = 90.0
CAMERA = 'kind = "replay"\nimages = ["../images"]\nrate = "10/s"'
TABLES = "acknowledge = false\n[trial]\nparts = 20"


class Press:
    """One station of the fleet, in a folder of its own."""

    def __init__(self, folder: Path, station: StationProcess) -> None:
        self.folder = folder
        self.station = station
        self.slots = Slots(folder / "slots")
        self.log = folder / "pull.log"
        self.pulling: subprocess.Popen[bytes] | None = None

    def pull(self, *words: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen([*_PULL, str(self.folder / "station.toml"), *words], stdout=log, stderr=log)

    def said(self, text: str) -> int:
        return self.log.read_text().count(text)

    def wait_for(self, event: str, count: int = 1) -> None:
        try:
            until(lambda: self.station.event_names().count(event) >= count, f"{count} {event}", _WITHIN)
        except AssertionError:
            pytest.fail(f"no {event} at {self.folder.name}: {self.station.event_names()}, {self.log.read_text()}")

    def wait_for_pulls(self, count: int) -> None:
        before = self.said("stays")
        until(lambda: self.said("stays") >= before + count, f"{count} pulls at {self.folder.name}", _WITHIN)

    @property
    def version(self) -> int:
        """What it inspects with, by its own word."""
        state, bundle = self.slots.read(), self.station.status()["bundle"]
        versions = {slot.sha256: slot.version for slot in (*state.kept, *state.refused)}
        return versions[bundle]


@contextmanager
def press(folder: Path, name: str, server: Server, root: Path, groups: str) -> Iterator[Press]:
    (folder / name).mkdir()
    write_keys(folder / name / "keys", PACKER.public)
    place = f'repository = "{server.url}"\nroot = "{root}"\ngroups = [{groups}]'
    fleet = f'\n[fleet]\n{place}\nproducts = {{ 1 = "{PRODUCT}" }}'
    tables = {"camera": CAMERA, "plc": TABLES + fleet, "more": 'frames = 64\nkeys = "keys"', "name": name}
    with station_process(folder / name, folder / name / "slots", **tables) as station:
        made = Press(folder / name, station)
        made.pulling = made.pull("--every", "500ms")
        try:
            yield made
        finally:
            made.pulling.kill()
            made.pulling.wait()


@pytest.fixture
def fleet(tmp_path):
    made = Fleet(tmp_path / "repository")
    made.add(1)
    return made


@pytest.fixture
def presses(tmp_path, fleet, golden_frames):
    """Three stations at work with version 1; the first is the pilot."""
    (tmp_path / "images").mkdir()
    for number, frame in enumerate((golden_frames[0], 255 - golden_frames[0])):
        write_png(tmp_path / "images" / f"{number}.png", frame)
    with ExitStack() as stack:
        server = stack.enter_context(served(fleet.folder))
        made = [
            stack.enter_context(press(tmp_path, name, server, fleet.root, groups))
            for name, groups in (("press-1", '"pilot"'), ("press-2", ""), ("press-3", '"hall-2"'))
        ]
        for one in made:
            until(lambda one=one: one.slots.read().active is not None, f"a bundle at {one.folder.name}", _WITHIN)
            one.station.start()
        yield made


def test_rolled_out_in_stages_and_recalled_while_parts_go_by(fleet, presses):
    pilot, *others = presses
    fleet.add(2, "pilot", percentage=0)
    pilot.wait_for("bundle_proven")
    for other in others:
        other.wait_for_pulls(2)
        assert other.version == 1

    fleet.roll_out(2, percentage=100)
    for other in others:
        other.wait_for("bundle_proven")
    assert [one.version for one in presses] == [2, 2, 2]

    fleet.recall(2, "scratches pass")
    for one in presses:
        one.wait_for("bundle_changed", 2)
        one.station.more_parts(10)
        assert one.version == 1
        one.wait_for_pulls(1)  # which does not take it again

    for one in presses:
        assert one.pulling is not None
        one.pulling.send_signal(signal.SIGTERM)
        assert one.pulling.wait(30) == 0
        counts = one.station.status()["counts"]
        assert (counts["missed"], counts["frames_lost"]) == (0, 0)
        one.station.stop()
    for one in presses:
        check_journal(one)


def check_journal(one: Press) -> None:
    """Every part was inspected, with the bundle of its trigger; journal and slots agree."""
    rows = one.station.rows()
    assert set(check_books(rows, set(), cut=True)) == {"within_threshold", "above_threshold"}
    assert all(row.started_us is not None and row.score is not None for row in rows)
    state = one.slots.read()
    assert state.active is not None
    (refused,) = state.refused
    assert (refused.version, refused.why) == (2, "recalled: scratches pass")
    assert [bundle for bundle, _ in groupby(row.bundle for row in rows)] == [
        state.active.sha256,
        refused.sha256,
        state.active.sha256,
    ]
    assert [entry.change for entry in state.history] == ["deployed", "deployed", "taken back"]
    with closing(JournalReader(one.station.folder)) as reader:
        changes = [event.detail for event in reader.events() if event.name == "bundle_changed"]
    assert "version 2 deployed" in changes[0]
    assert "version 1 taken back, recalled: scratches pass" in changes[1]
    log = one.log.read_text()
    assert "Traceback" not in log
    assert "WARNING" not in log
