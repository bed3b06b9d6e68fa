"""What a running station makes of what was deployed; stand-ins for all but the slots."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from lineward.runtime.delivery.slot_state import Slot
from lineward.runtime.delivery.slots import Slots
from lineward.runtime.errors import DeliveryError, EngineError
from lineward.runtime.station.jobs import Job
from lineward.runtime.station.renewal import Renewal
from lineward.runtime.trust import AcceptAny
from tests.runtime.delivery.offers import Desk, bundle
from tests.runtime.station.stand_ins import FedCamera, ObedientInspector, configuration, desk, frame_of, until


class StandIn:
    """A station that takes another bundle if the test lets it."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.takes = True
        self.events: list[tuple[str, str]] = []

    def renew_job(self, job: Job) -> bool:
        if self.takes:
            self.job = job
        return self.takes

    def event(self, name: str, detail: str) -> None:
        self.events.append((name, detail))

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.events]


class Watched:
    """Slots with versions 1 and 2, a station that inspects with 1, and what watches them."""

    def __init__(self, folder: Path) -> None:
        self.desk = Desk(folder)
        self.slots = self.desk.slots
        self.desk.deploy(bundle(1))
        self.fails: Exception | None = None
        self.opened: list[int] = []
        self.station = StandIn(self.open(1, self.slots, self.slots.read().active))
        self.desk.deploy(bundle(2))
        settings = configuration(folder / "state", jobs={1: self.slots.folder})
        self.renewal = Renewal(self.station, settings, {1: self.slots}, self.open, every=0.01)

    def open(self, number: int, slots: Slots, slot: Slot) -> Job:
        self.opened.append(slot.version)
        if self.fails is not None:
            raise self.fails
        made = slots.bundle(slot, AcceptAny())
        return Job(number, made, ObedientInspector(), frame_of(0.1))  # type: ignore[arg-type]

    @property
    def version(self) -> int:
        return self.station.job.bundle.manifest.version


@pytest.fixture
def watched(tmp_path):
    return Watched(tmp_path)


def test_what_is_active_is_taken(watched):
    watched.renewal.look()
    watched.renewal.look()
    assert watched.version == 2
    ((name, detail),) = watched.station.events
    assert (name, detail.partition(";")[0]) == ("bundle_changed", "job 1: version 2 deployed, from offered.lineward")
    assert watched.opened == [1, 2]


def test_another_change_is_under_way(watched):
    watched.station.takes = False
    watched.renewal.look()
    assert watched.version == 1
    assert watched.station.names == []
    watched.station.takes = True
    watched.renewal.look()
    assert watched.version == 2


@pytest.mark.parametrize(
    "error", [EngineError("no memory left", do="add some"), RuntimeError("driver: no memory left")]
)
def test_what_cannot_be_loaded_is_refused_until_it_is_deployed_anew(watched, error):
    watched.fails = error
    for _ in range(3):
        watched.renewal.look()
    assert watched.version == watched.desk.active == 1
    assert watched.station.names == ["bundle_refused"]
    assert "no memory left" in watched.slots.read().refused[0].why
    watched.fails = None
    watched.desk.deploy(bundle(2))
    watched.renewal.look()
    assert watched.version == 2


def test_what_is_damaged_is_refused(watched):
    os.truncate(watched.slots.path(watched.slots.read().active), 1000)
    watched.renewal.look()
    assert watched.version == watched.desk.active == 1
    assert watched.station.names == ["bundle_refused"]


def test_slots_that_cannot_be_written_are_asked_once(watched, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    watched.fails = EngineError("no memory left", do="add some")
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        for _ in range(3):
            watched.renewal.look()
    assert watched.station.names == ["bundle_refused", "slots_not_written"]
    assert watched.version == 1


def test_slots_that_cannot_be_read_are_told_of_once_and_the_line_goes_on(watched):
    for name in ("active", "active.before"):
        (watched.slots.folder / name).write_bytes(b"rot")
    watched.renewal.start()
    until(lambda: watched.station.names == ["slots_unreadable"], "an event")
    time.sleep(0.1)
    watched.renewal.stop()
    assert watched.station.names == ["slots_unreadable"]
    assert watched.version == 1


def test_a_damaged_pointer_changes_nothing_while_the_line_runs(watched):
    watched.renewal.look()
    data = (watched.slots.folder / "active").read_bytes()
    (watched.slots.folder / "active").write_bytes(data[:-1])
    assert watched.desk.active == 1  # a station that starts goes by this
    with pytest.raises(DeliveryError, match="active is missing or damaged"):
        watched.renewal.look()
    assert watched.version == 2


def test_a_job_without_slots_is_left_alone(watched):
    watched.station.job = Job(2, watched.station.job.bundle, ObedientInspector(), frame_of(0.1))
    watched.renewal.look()
    assert watched.opened == [1]


def test_parts_that_were_triggered_keep_their_bundle(tiny, tmp_path):
    """Station.renew_job: between two parts, at once, and not in the middle of another change."""
    with desk(tiny, tmp_path, FedCamera(lambda: frame_of(0.3))) as made:
        held, go = threading.Event(), threading.Event()
        made.inspector.before = lambda: (held.set(), go.wait(5))
        new = Job(1, tiny, ObedientInspector(threshold=0.1), frame_of(0.1))
        assert made.station.trigger(1)
        assert held.wait(5)
        assert made.station.renew_job(new)
        assert made.station.state().offline == 0
        go.set()
        made.finals(1)
        assert made.station.trigger(2)
        assert made.finals(2) == ["within_threshold", "above_threshold"]  # of the new one
        assert new.inspector.inspected == 1
        assert not made.station.renew_job(Job(2, tiny, ObedientInspector(), frame_of(0.1)))
