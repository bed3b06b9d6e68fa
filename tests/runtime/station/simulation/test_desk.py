from __future__ import annotations

import io
import socket
import time
from contextlib import closing
from itertools import islice

import pytest

pytest.importorskip("pymodbus", reason="pymodbus is not installed (lineward[station])")

from lineward.runtime.errors import StationError
from lineward.runtime.station.configuration import (
    Configuration,
    GpioTrigger,
    ModbusClient,
    ModbusServer,
    PlcTrigger,
    ReplayCamera,
    Seconds,
)
from lineward.runtime.station.logs import EventLog
from lineward.runtime.station.simulation.desk import Plan, at_the_desk, find_rate, render_parts, simulate
from lineward.runtime.station.simulation.line_camera import LineCamera
from lineward.runtime.station.simulation.parts import simulated_parts
from tests.runtime.station.peers import gige_port, require_aravis

PLAN = Plan(parts=60, rate=50.0)


def configuration(tiny_path, folder, **changes) -> Configuration:
    values = {
        "name": "desk",
        "folder": folder,
        "deadline": Seconds(2.0),
        "camera": ReplayCamera(images=()),
        "jobs": {1: tiny_path},
        "plc": ModbusServer(acknowledge_within=Seconds(5.0)),
    }
    return Configuration(**{**values, **changes})


@pytest.fixture
def log():
    with closing(EventLog(io.StringIO())) as log:
        yield log


@pytest.mark.parametrize("changes", [{}, {"trigger": PlcTrigger()}, {"trigger": GpioTrigger(chip="none", line=0)}])
def test_a_simulated_line_reconciles(tiny, tiny_path, tmp_path, log, changes):
    station = at_the_desk(configuration(tiny_path, tmp_path, **changes), tmp_path / "station")
    done = []
    simulation = simulate(station, PLAN, render_parts(tiny, PLAN), log, done.append)
    found = simulation.reconciliation
    assert found.reconciles
    assert found.exposed == found.journal == found.plc == PLAN.parts
    assert found.all_in_time
    assert simulation.planted.good + simulation.planted.planted == PLAN.parts
    assert simulation.planted.good_rejected == 0
    assert done[-1] == PLAN.parts


def test_before_a_gige_vision_camera(tiny, tiny_path, tmp_path, log):
    require_aravis()
    plan = Plan(parts=40, rate=20.0, gige=True)
    with gige_port():
        station = at_the_desk(configuration(tiny_path, tmp_path), tmp_path / "station")
        simulation = simulate(station, plan, render_parts(tiny, plan), log)
    found = simulation.reconciliation
    assert found.reconciles  # also where this machine is too busy for every packet
    assert found.exposed == found.journal == found.plc == plan.parts
    assert found.journal_passed > plan.parts // 2


def test_the_search_for_the_highest_cadence_ends(tiny, tiny_path, tmp_path, log, monkeypatch):
    monkeypatch.setattr("lineward.runtime.station.simulation.desk._TRIAL", 20)
    monkeypatch.setattr("lineward.runtime.station.simulation.desk._STEP", 20.0)
    station = at_the_desk(configuration(tiny_path, tmp_path, frames=2), tmp_path / "station")
    rate = find_rate(station, Plan(parts=20, rate=20.0), render_parts(tiny, PLAN), log)
    assert rate in [pytest.approx(20.0 * 20**power * 0.75) for power in range(6)]


def test_a_deadline_that_nobody_meets(tiny, tiny_path, tmp_path, log, monkeypatch):
    monkeypatch.setattr("lineward.runtime.station.simulation.desk._TRIAL", 20)
    station = at_the_desk(configuration(tiny_path, tmp_path, deadline=Seconds(1e-5)), tmp_path / "station")
    with pytest.raises(StationError, match=r"does not hold 20\.0 parts/s with a deadline of 0\.01 ms"):
        find_rate(station, Plan(parts=20, rate=20.0), render_parts(tiny, PLAN), log)


def test_a_plc_that_is_a_server_cannot_be_simulated(tiny_path, tmp_path):
    with pytest.raises(StationError, match="only a PLC that is a Modbus client"):
        at_the_desk(configuration(tiny_path, tmp_path, plc=ModbusClient(host="10.0.0.1")), tmp_path)


def test_what_is_not_on_a_desk_is_left_out(tiny_path, tmp_path):
    station = at_the_desk(configuration(tiny_path, tmp_path / "real"), tmp_path / "station")
    assert station.folder == tmp_path / "station"
    assert station.plc.host == "127.0.0.1"
    assert station.health.port == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", station.plc.port))


def test_the_line_ends_and_keeps_count(tiny):
    parts = list(islice(simulated_parts(tiny, defects=0.5), 3))
    camera = LineCamera(parts, count=5, rate=200.0)
    camera.start()
    assert camera.capture(0.01) is None  # it does not move yet
    camera.move()
    numbers = []
    end = time.monotonic() + 5
    while not camera.is_over and time.monotonic() < end:
        capture = camera.capture(0.1)
        if capture is not None:
            numbers.append(capture.number)
            assert (capture.pixels == parts[capture.number % 3].frame).all()
    assert numbers == [0, 1, 2, 3, 4]
    assert camera.exposures == 5
    assert camera.capture(0.01) is None
    assert [camera.planted(place) for place in range(3)] == [part.planted for part in parts]
    camera.close()
    camera.close()
