"""Faults, injected for real: the part is rejected or never triggered, the books agree, and the station recovers."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from lineward.runtime.images import write_png
from lineward.runtime.station.journal_reader import FILE_NAME
from lineward.runtime.station.plc.handshake import Control, ControlBit, StatusBit
from lineward.runtime.station.plc.registers import Reading
from lineward.runtime.station.simulation.plc_program import Program
from tests.runtime.station.broker import Broker, Subscriber, needs_mosquitto
from tests.runtime.station.peers import FAKE_CAMERA_ID, fake_gige_camera
from tests.runtime.station.processes import REPLAY, FaultyWire, StationProcess, check_books, plc, station_process
from tests.runtime.station.stand_ins import damage_journal, until

GIGE = f'kind = "genicam"\nid = "{FAKE_CAMERA_ID}"\npixel_format = "Mono8"\n[trigger]\nsource = "plc"'
FIRED = 'kind = "replay"\nimages = ["images"]\n[trigger]\nsource = "plc"'
JUDGED = ("within_threshold", "above_threshold")
MQTT = 'mqtt = {{ host = "127.0.0.1", port = {port} }}'
MS = 1_000_000


@pytest.fixture
def station(tmp_path, tiny_path, golden_frames) -> Iterator[StationProcess]:
    """A station over recorded images, good and bad in turn, at 50 parts a second."""
    images(tmp_path, golden_frames)
    with station_process(tmp_path, tiny_path, plc='acknowledge_within = "5s"') as process:
        yield process


@pytest.fixture
def unhurried_station(tmp_path, tiny_path, golden_frames) -> Iterator[StationProcess]:
    """The same, at 10 parts a second: a machine that does something else besides has no part too many."""
    images(tmp_path, golden_frames)
    camera = REPLAY.replace("50/s", "10/s")
    with station_process(tmp_path, tiny_path, camera=camera, plc='acknowledge_within = "5s"') as process:
        yield process


@pytest.fixture
def impatient_station(tmp_path, tiny_path, golden_frames) -> Iterator[StationProcess]:
    """The same, with little time for the PLC's acknowledgement."""
    images(tmp_path, golden_frames)
    with station_process(tmp_path, tiny_path, plc='acknowledge_within = "300ms"') as process:
        yield process


def images(folder: Path, frames) -> None:
    """A good part, and one that is none."""
    (folder / "images").mkdir()
    for number, frame in enumerate((frames[0], 255 - frames[0])):
        write_png(folder / "images" / f"{number}.png", frame)


def test_without_a_fault_all_books_agree(station):
    station.start()
    with plc(station.port) as line:
        until(lambda: line.seen >= 100, "100 parts")
        station.stop()
        until(lambda: line.seen >= len(station.rows()), "the last results")
    reasons = check_books(station.rows(), line.passed)
    assert set(reasons) == set(JUDGED)
    assert abs(reasons["within_threshold"] - reasons["above_threshold"]) <= 1


def test_the_camera_is_killed_and_restarted(tmp_path, tiny_path):
    with fake_gige_camera() as camera, station_process(tmp_path, tiny_path, camera=GIGE) as station:
        station.start()
        with plc(station.port, mode="plc", period_ns=30 * MS) as line:
            station.more_parts(20)
            camera.kill()
            station.offline("camera_lost")
            camera.start()
            until(lambda: station.status()["state"] == "online", "the camera back", 20)
            before = line.seen
            until(lambda: line.seen >= before + 20, "20 parts after it")
        station.stop()
    reasons = check_books(station.rows(), line.passed)
    judged = sum(reasons.pop(reason, 0) for reason in JUDGED)
    assert judged >= 30
    assert set(reasons) <= {"camera_lost", "frame_missing", "frame_incomplete", "deadline_missed"}
    assert line.program.books.triggered == len(station.rows())
    assert {"camera_lost", "camera_back"} <= set(station.event_names())


@pytest.mark.parametrize("lost_per_thousand", [10, 200])
def test_packets_are_lost(tmp_path, tiny_path, lost_per_thousand):
    with (
        fake_gige_camera(lost_per_thousand) as _,
        station_process(tmp_path, tiny_path, camera=GIGE, more='frame_within = "400ms"') as station,
    ):
        station.start()
        with plc(station.port, mode="plc", parts=30) as line:
            until(lambda: line.program.ended, "30 parts", 60)
        station.stop()
    reasons = check_books(station.rows(), line.passed)
    assert set(reasons) <= {*JUDGED, "frame_missing", "frame_incomplete", "deadline_missed"}
    assert line.program.books.triggered == len(station.rows()) == 30 - line.program.books.missed


def test_the_plc_is_cut_off_in_the_middle_of_a_handshake(impatient_station):
    impatient_station.start()
    with plc(impatient_station.port) as line:
        until(lambda: line.seen >= 20, "20 parts")

        def valid(_control: Control, reading: Reading) -> bool:
            cut = bool(reading.bits & StatusBit.RESULTS_VALID) and line.wire.cuts < 1
            if cut:
                line.wire.cut_until = time.monotonic() + 1.0
            return cut

        line.wire.cut_when = valid
        until(lambda: line.wire.cuts == 1, "the cut")
        passed = len(line.passed)
        until(lambda: len(line.passed) >= passed + 40, "40 parts passed after it")
        impatient_station.stop()
    rows = impatient_station.rows()
    reasons = check_books(rows, line.passed, cut=True)
    assert reasons["not_acknowledged"] >= 1
    late = [row for row in rows if row.outcome == "passed" and row.id not in line.passed]
    assert len(late) <= 3  # acknowledged without the PLC's knowing, or while it stopped: rejected at its gate
    assert rows[-20].reason in JUDGED


def test_the_plc_acknowledges_too_late(impatient_station):
    impatient_station.start()
    with plc(impatient_station.port) as line:
        until(lambda: line.seen >= 20, "20 parts")
        line.program._settings = replace(line.program._settings, ack_delay_ns=500 * MS)
        until(lambda: "not_acknowledged" in impatient_station.status()["counts"]["reasons"], "results withdrawn")
        impatient_station.more_parts(60, "rejected_without_verdict")
        line.program._settings = replace(line.program._settings, ack_delay_ns=0)
        impatient_station.more_parts(20, "passed")
        impatient_station.stop()
    check_books(impatient_station.rows(), line.passed, cut=True)


def test_parts_come_faster_than_they_can_be_inspected(tmp_path, tiny_path, golden_frames):
    images(tmp_path, golden_frames)
    fast = 'kind = "replay"\nimages = ["images"]\nrate = "20000/s"'
    free = "acknowledge = false"
    with station_process(tmp_path, tiny_path, camera=fast, plc=free, more="frames = 2") as station:
        station.start()
        time.sleep(2.0)
        counts = station.status()["counts"]
        final = counts["passed"] + counts["rejected"] + counts["rejected_without_verdict"]
        assert counts["triggered"] == final + counts["in_flight"]
        station.stop()
    reasons = check_books(station.rows(), set(), cut=True)
    assert reasons["within_threshold"] > 0
    assert reasons.get("too_many_parts", 0) + reasons.get("frame_missing", 0) > 0


class ChangesJob(Program):
    """Asks for a job while parts go by."""

    job = 0

    def control(self, now_ns: int) -> Control:
        control = super().control(now_ns)
        return replace(control, bits=control.bits | ControlBit.JOB_CHANGE, job=self.job) if self.job else control


def test_a_job_changes_while_parts_go_by(station, rebundle, tmp_path):
    (tmp_path / "two.lineward").write_bytes(rebundle(version=2))
    station.start()
    with plc(station.port, ChangesJob) as line:
        until(lambda: line.seen >= 20, "20 parts")
        line.program.job = 2
        until(lambda: any(r.bits & StatusBit.JOB_CHANGE_ACK for r in line.wire.before), "the change")
        line.program.job = 0
        station.more_parts(20, "passed")
        station.stop()
    rows = station.rows()
    check_books(rows, line.passed, cut=True)
    jobs = [row.job for row in rows]
    assert jobs == sorted(jobs)  # one change, between two parts
    assert set(jobs) == {1, 2}
    assert len({(row.job, row.bundle) for row in rows}) == 2
    assert all(row.outcome != "passed" for row in rows if row.reason == "job_changing")


def test_a_bundle_that_is_damaged_is_refused_while_parts_go_by(station, rebundle, tmp_path):
    (tmp_path / "two.lineward").write_bytes(rebundle(version=2)[:-100])
    station.start()
    with plc(station.port, ChangesJob) as line:
        until(lambda: line.seen >= 20, "20 parts")
        line.program.job = 2
        until(lambda: any(r.bits & StatusBit.JOB_CHANGE_FAILED for r in line.wire.before), "the refusal")
        line.program.job = 0
        station.more_parts(20, "passed")
        station.stop()
    rows = station.rows()
    check_books(rows, line.passed, cut=True)
    assert {row.job for row in rows} == {1}
    assert "job_refused" in station.event_names()


@needs_mosquitto
def test_the_broker_is_killed_under_load_and_nothing_is_lost(tmp_path, tiny_path, golden_frames):
    images(tmp_path, golden_frames)
    (tmp_path / "broker").mkdir()
    broker = Broker(tmp_path / "broker")
    broker.start()
    try:
        subscriber = Subscriber(broker.port)
        broker.save()
        with station_process(tmp_path, tiny_path, more=MQTT.format(port=broker.port)) as station:
            station.start()
            with plc(station.port) as line:
                until(lambda: len(subscriber.ids("lineward/faults/part")) >= 20, "20 parts published")
                broker.end(signal.SIGKILL)
                before = line.seen
                until(lambda: line.seen >= before + 150, "150 parts without a broker")
                broker.start()
                journalled = station.rows()[-1].id
                wanted = set(range(1, journalled + 1))
                until(lambda: wanted <= set(subscriber.ids("lineward/faults/part")), "every part published", 30)
                station.stop()
        check_books(station.rows(), line.passed, cut=True)
    finally:
        broker.end(signal.SIGKILL)


def test_the_journal_is_locked_by_another_program(station):
    station.start()
    with plc(station.port) as line:
        until(lambda: line.seen >= 20, "20 parts")
        with closing(sqlite3.connect(station.folder / FILE_NAME, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            before = line.seen
            until(lambda: line.seen >= before + 100, "100 parts meanwhile")
            until(lambda: station.status()["journal_backlog"] > 50, "a backlog")
            other.execute("ROLLBACK")
        until(lambda: station.status()["journal_backlog"] < 20, "the backlog written")
        station.stop()
    check_books(station.rows(), line.passed, cut=True)


def test_the_journal_is_damaged_while_parts_go_by(station):
    station.start()
    with plc(station.port) as line:
        until(lambda: line.seen >= 20, "20 parts")
        damage_journal(station.folder)
        until(lambda: list(station.folder.glob(f"{FILE_NAME}.damaged-*")) != [], "it was moved aside", 30)
        before = line.seen
        until(lambda: line.seen >= before + 20, "20 parts after it")
        station.stop()
    rows = station.rows()
    ids = [row.id for row in rows]
    assert ids == list(range(ids[0], ids[-1] + 1))  # the new one has no gap
    assert {row.id for row in rows if row.outcome == "passed"} >= {i for i in line.passed if i >= ids[0]}


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    mounting = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounting.returncode:
        pytest.skip(f"no tmpfs may be mounted here: {mounting.stderr.decode().strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(filler: Path) -> None:
    """Take what the disk has left."""
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)) == 4096:
            pass
    assert shutil.disk_usage(filler.parent).free == 0


def test_the_disk_is_full(station):
    with small_disk(station.folder, 40):
        station.start()
        filler = station.folder / "filler"
        with plc(station.port) as line:
            until(lambda: line.seen >= 20, "20 parts")
            fill(filler)
            before = line.seen
            until(lambda: line.seen >= before + 100, "100 parts with a full disk")
            filler.unlink()
            until(lambda: station.status()["state"] == "online", "online", 30)
            until(lambda: station.status()["journal_backlog"] < 20, "the backlog written", 30)
            station.stop()
        check_books(station.rows(), line.passed, cut=True)
        station.end()


def test_killed_and_restarted(impatient_station):
    for _ in range(3):
        impatient_station.start()
        with plc(impatient_station.port) as line:
            until(lambda: line.seen >= 30, "30 parts")
            impatient_station.kill()
            passed = set(line.passed)
        with closing(sqlite3.connect(impatient_station.folder / FILE_NAME)) as journal:
            assert journal.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        before = impatient_station.rows()[-1].id if impatient_station.rows() else 0
        impatient_station.start()
        try:
            rows = {row.id: row for row in impatient_station.rows()}
            assert all(rows[number].outcome == "passed" for number in passed)
            assert any(row.reason == "station_killed" for row in rows.values()) or before
        finally:
            impatient_station.stop()
    ids = [row.id for row in impatient_station.rows()]
    assert len(ids) == len(set(ids))


def test_the_journals_index_is_cut_short(impatient_station):
    """As by a copy over it: SQLite has it mapped, so that the kernel ends the process; the next accounts for all."""
    impatient_station.start()
    with plc(impatient_station.port) as line:
        until(lambda: line.seen >= 20, "20 parts")
        os.truncate(impatient_station.folder / f"{FILE_NAME}-shm", 0)
        assert impatient_station.wait() == -signal.SIGBUS
        passed = set(line.passed)
    impatient_station.start()
    impatient_station.stop()
    rows = {row.id: row for row in impatient_station.rows()}
    assert "station_killed" in impatient_station.event_names()
    assert len(passed) >= 5
    assert all(rows[number].outcome == "passed" for number in passed)


def test_no_stale_verdict_after_a_kill(tmp_path, tiny_path, golden_frames):
    images(tmp_path, golden_frames)
    with station_process(tmp_path, tiny_path, camera=FIRED) as station:
        station.start()
        with plc(station.port, mode="plc", parts=5) as line:
            until(lambda: line.program.ended, "5 parts")
        station.kill()
        station.start()
        with closing(FaultyWire(station.port)) as wire:
            reading = wire.scan(Control())
        assert not reading.bits & (StatusBit.RESULTS_VALID | StatusBit.PASS | StatusBit.REJECT)
        assert reading.inspection_id == 0
        with plc(station.port, mode="plc", parts=5) as line:
            until(lambda: line.program.ended, "5 more parts")
        station.stop()
    assert min(line.program.books.results) > 5


FAKETIME = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")


@pytest.mark.skipif(not FAKETIME.exists(), reason="libfaketime is not installed (faketime)")
def test_the_wall_clock_jumps_a_day_and_back(unhurried_station, tmp_path):
    station, offset = unhurried_station, tmp_path / "offset"
    offset.write_text("+0")
    if os.geteuid() == 0:  # libfaketime's own locks stall threads of real-time priority
        station.under = ("setpriv", "--bounding-set=-sys_nice", "--inh-caps=-sys_nice")
    station.environment = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_CACHE_DURATION": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    station.start()
    with plc(station.port) as line:
        for jump in ("+0", "+1d", "-1d", "+0"):
            offset.write_text(jump)
            before = line.seen
            until(lambda before=before: line.seen >= before + 50, f"50 parts at {jump}")
        station.stop()
    rows = station.rows()
    reasons = check_books(rows, line.passed, cut=True)
    assert set(reasons) <= {*JUDGED, "not_acknowledged"}  # a PLC on a busy machine is late, whatever the clock says
    assert sum(reasons.get(reason, 0) for reason in JUDGED) > 100
    day = 86_400 * 10**9
    span = max(row.utc_ns for row in rows) - min(row.utc_ns for row in rows)
    assert 1.9 * day < span < 2.1 * day  # it did jump
    never_told = [row.reason for row in rows if row.told_us is None]  # it waited for the late PLC's acknowledgement
    assert set(never_told) <= {"not_acknowledged"}
    assert all(0 < row.told_us < 500_000 for row in rows if row.told_us is not None)
