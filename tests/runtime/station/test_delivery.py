"""A running station takes what was deployed, and goes back by itself: `lineward run` and `lineward deploy` as
processes, parts going by, the PLC over Modbus TCP."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import urllib.request
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from lineward.runtime.delivery.slots import Slots
from lineward.runtime.images import write_png
from lineward.runtime.manifest import Threshold
from lineward.runtime.station.journal_reader import JournalReader, JournalRow
from lineward.runtime.trust import AcceptAny
from tests.runtime.station.processes import StationProcess, check_books, plc, station_process
from tests.runtime.station.stand_ins import until

_COMMAND = [sys.executable, "-c", "import sys; from lineward.runtime.cli import main; sys.exit(main())"]
TRIAL = "\n[trial]\nparts = 60"
CAMERA = 'kind = "replay"\nimages = ["images"]\nrate = "100/s"'


def command(*words: object, fails: bool = False) -> str:
    done = subprocess.run([*_COMMAND, *map(str, words)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == (2 if fails else 0), done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr if fails else done.stdout


@pytest.fixture
def station(tmp_path, tiny_path, golden_frames):
    """A station with slots, version 1 active, over good and bad parts in turn."""
    (tmp_path / "images").mkdir()
    for number, frame in enumerate((golden_frames[0], 255 - golden_frames[0])):
        write_png(tmp_path / "images" / f"{number}.png", frame)
    plc_table = 'acknowledge_within = "5s"\nwaiting_results = 64' + TRIAL
    with station_process(
        tmp_path, tmp_path / "slots" / "tiny", camera=CAMERA, plc=plc_table, more="frames = 64"
    ) as process:
        command("deploy", tmp_path / "station.toml", tiny_path)
        yield process


class Line:
    """What a test does beside the running station."""

    def __init__(self, folder: Path, station: StationProcess, rebundle) -> None:
        self.file = folder / "station.toml"
        self.folder = folder
        self.station = station
        self.rebundle = rebundle
        self.slots = Slots(folder / "slots" / "tiny")

    def deploy(self, version: int, fails: bool = False, **fields) -> str:
        path = self.folder / f"{version}.lineward"
        path.write_bytes(self.rebundle(version=version, **fields))
        return command("deploy", self.file, path, fails=fails)

    def wait_for(self, event: str, count: int = 1) -> None:
        until(lambda: self.station.event_names().count(event) >= count, f"{count} {event}", 60)

    def detail(self, event: str) -> str:
        with closing(JournalReader(self.station.folder)) as reader:
            return next(e.detail for e in reader.events() if e.name == event)

    @property
    def active(self) -> int:
        state = self.slots.read()
        return self.slots.bundle(state.active, AcceptAny()).manifest.version


@pytest.fixture
def line(tmp_path, station, rebundle):
    return Line(tmp_path, station, rebundle)


def check_no_missed_trigger(rows: list[JournalRow], passed: set[int]) -> None:
    """Every part was inspected, and in time: none lost, none rejected for the change, no gap in the ids.

    What the simulated PLC on a busy machine was too slow to acknowledge is another matter.
    """
    reasons = check_books(rows, passed, cut=True)
    assert set(reasons) <= {"within_threshold", "above_threshold", "not_acknowledged"}
    assert all(row.started_us is not None and row.score is not None for row in rows)


def test_a_bundle_is_deployed_and_rolled_back_while_parts_go_by(line, station, tiny_path):
    station.start()
    with plc(station.port) as wire:
        until(lambda: wire.seen >= 60, "60 parts")
        line.deploy(2)
        line.wait_for("bundle_changed")
        line.wait_for("bundle_proven")
        assert line.slots.read().active.proven
        assert "version 1 is older than 2" in command("deploy", line.file, tiny_path, fails=True)
        command("rollback", line.file, "--why", "to see")
        line.wait_for("bundle_changed", 2)
        station.more_parts(20)
        assert station.status()["counts"]["missed"] == 0
        assert station.status()["counts"]["frames_lost"] == 0
        station.stop()
    rows = station.rows()
    check_no_missed_trigger(rows, wire.passed)
    changes = [
        row.bundle
        for row, after in zip(rows, [*rows[1:], None], strict=True)
        if after is None or row.bundle != after.bundle
    ]
    one, two = line.slots.read().active.sha256, next(b for b in changes if b != changes[0])
    assert changes == [one, two, one]  # each change between two parts
    assert line.active == 1
    listed = command("slots", line.file)
    assert "rolled back" in listed
    assert "to see" in listed


def test_a_bundle_that_rejects_too_much_is_taken_back(line, station):
    station.start()
    with plc(station.port) as wire:
        until(lambda: wire.seen >= 100, "100 parts")
        strict = Threshold(0.0, 0.01, "split-conformal", 100, 1)
        line.deploy(2, threshold=strict)
        line.wait_for("bundle_rolled_back")
        station.more_parts(20, "passed")
        assert line.active == 1
        (refused,) = line.slots.read().refused
        assert refused.version == 2
        assert "parts rejected; the bundle before rejected" in refused.why
        assert "parts rejected" in line.detail("bundle_rolled_back")
        line.deploy(2, threshold=strict)  # by hand, it is tried again
        line.wait_for("bundle_rolled_back", 2)
        station.stop()
    rows = station.rows()
    check_no_missed_trigger(rows, wire.passed)
    assert rows[-1].bundle == rows[0].bundle == line.slots.read().active.sha256
    assert "bundle_proven" not in station.event_names()


def test_killed_on_trial_and_started_again(line, station):
    station.start()
    with plc(station.port) as wire:
        until(lambda: wire.seen >= 100, "100 parts")
        line.deploy(2, threshold=Threshold(0.0, 0.01, "split-conformal", 100, 1))
        line.wait_for("bundle_changed")
        station.kill()
    station.start()  # with the bundle on trial, whose trial begins anew
    with plc(station.port):
        line.wait_for("bundle_rolled_back")
        station.more_parts(20, "passed")
        station.stop()
    assert line.active == 1


def test_a_bundle_is_damaged_while_no_station_runs(line, station):
    one = line.slots.read().active.sha256
    line.deploy(2)
    os.truncate(line.slots.path(line.slots.read().active), 1000)
    station.start()
    assert station.status()["bundle"] == one
    line.wait_for("bundle_rolled_back")
    assert "going back to version 1" in line.detail("bundle_rolled_back")
    assert line.active == 1


def test_the_device_s_own_threshold_from_start_to_deploy(tmp_path, tiny_path, golden_frames, rebundle):
    """Journal, status and metrics name the calibration; a bundle without one of its own is not deployed."""
    (tmp_path / "images").mkdir()
    write_png(tmp_path / "images" / "0.png", golden_frames[0])
    good, own = tmp_path / "good", tmp_path / "own"
    for folder in (good, own):
        folder.mkdir()
    for number in range(12):
        write_png(good / f"{number}.png", np.clip(golden_frames[0].astype(int) + number, 0, 255).astype(np.uint8))
    slots = tmp_path / "slots" / "tiny"
    with station_process(tmp_path, slots, camera=CAMERA, plc="acknowledge = false", more="frames = 64") as process:
        file = tmp_path / "station.toml"
        file.write_text(file.read_text() + f'\n[calibrations]\n1 = "{own}"\n')
        assert "calibration.json: cannot be read" in command("deploy", file, tiny_path, fails=True)
        command("calibrate", tiny_path, good, "-o", own)
        (calibration,) = own.glob("*.json")
        sha256 = hashlib.sha256(calibration.read_bytes()).hexdigest()
        value = json.loads(calibration.read_text())["threshold"]["value"]
        command("deploy", file, tiny_path)
        line = Line(tmp_path, process, rebundle)
        process.start()
        process.more_parts(5)

        status = process.status()
        assert (status["threshold"], status["calibration"]) == (value, sha256)
        assert f"{value:.4f}, this device's calibration {sha256[:12]}" in command("status", file)
        with urllib.request.urlopen(f"http://127.0.0.1:{process.health}/metrics", timeout=5) as answer:
            assert f'calibration="{sha256}"' in answer.read().decode()
        assert {(row.threshold, row.calibration) for row in process.rows()} == {(value, sha256)}

        assert "calibration.json: cannot be read" in line.deploy(2, fails=True)
        assert line.active == 1
        command("calibrate", tmp_path / "2.lineward", good, "-o", own)
        line.deploy(2)
        line.wait_for("bundle_changed")
        process.more_parts(5)
        process.stop()
        assert len({(row.bundle, row.calibration) for row in process.rows()}) == 2
        assert all(row.calibration for row in process.rows())
