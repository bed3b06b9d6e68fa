"""A whole station at the desk: simulated parts, the real loop, a PLC in a process of its own over real Modbus TCP."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path

import msgspec

from lineward.runtime.bundle import Bundle
from lineward.runtime.errors import StationError
from lineward.runtime.station.configuration import (
    CameraTrigger,
    Configuration,
    Health,
    ModbusServer,
    PlcTrigger,
    ReplayCamera,
)
from lineward.runtime.station.jobs import active_bundle
from lineward.runtime.station.journal_reader import FILE_NAME, JournalReader
from lineward.runtime.station.logs import EventLog
from lineward.runtime.station.running import Running, run_station
from lineward.runtime.station.simulation.gige_line import GigeLine
from lineward.runtime.station.simulation.line_camera import LineCamera
from lineward.runtime.station.simulation.parts import SimulatedPart, simulated_parts
from lineward.runtime.station.simulation.plc_books import read_report
from lineward.runtime.station.simulation.reconciliation import Reconciliation, reconcile

_LEAST_PARTS, _MOST_PARTS = 16, 256
_MOST_BYTES = 256 * 10**6
_LOOK_UP = 0.05
_PLC_WITHIN = 30.0
_TRIAL = 200
_STEP = 1.15
_MARGIN = 0.75  # room to catch up after a stall that the short trials did not see


@dataclass(frozen=True)
class Plan:
    """What the simulated line does.

    Attributes:
        parts: how many go by.
        rate: a second.
        jitter: greatest deviation from the cadence, as a share of its period.
        defects: share of parts with a planted defect.
        seed: of parts and jitter.
        ack_delay: seconds from the PLC's seeing a result to its acknowledging it.
        gige: before a GigE Vision camera in software, through Aravis; else images are handed over as they are.
    """

    parts: int
    rate: float
    jitter: float = 0.1
    defects: float = 0.1
    seed: int = 0
    ack_delay: float = 0.0
    gige: bool = False


@dataclass(frozen=True)
class Planted:
    """What became of the parts, by whether they had a defect.

    Attributes:
        good: parts without one.
        good_rejected: of these, rejected.
        planted: parts with one.
        planted_passed: of these, passed: escapes.
    """

    good: int
    good_rejected: int
    planted: int
    planted_passed: int


@dataclass(frozen=True)
class Simulation:
    """What a simulated line gave.

    Attributes:
        plan: what was simulated.
        reconciliation: of camera, PLC and journal.
        planted: good and bad parts.
        missing_real_time: what the system did not grant.
    """

    plan: Plan
    reconciliation: Reconciliation
    planted: Planted
    missing_real_time: tuple[str, ...]


def render_parts(bundle: Bundle, plan: Plan) -> list[SimulatedPart]:
    """The parts that go by, over and over: rendered beforehand, so that rendering takes nothing from the station."""
    parts = simulated_parts(bundle, plan.seed, plan.defects)
    first = next(parts)
    fitting = _MOST_BYTES // first.frame.nbytes
    return [first, *islice(parts, min(max(fitting, _LEAST_PARTS), _MOST_PARTS) - 1)]


def simulate(
    configuration: Configuration,
    plan: Plan,
    parts: list[SimulatedPart],
    log: EventLog,
    advance: Callable[[int], None] = lambda _: None,
) -> Simulation:
    """Run the station file's station, its camera and PLC simulated, until all parts have gone by and were reconciled.

    Args:
        configuration: see `at_the_desk`.
        plan: what the line does.
        parts: what goes by; see `render_parts`.
        log: where the station's events go.
        advance: called with the parts that are final.

    Raises:
        LinewardError: the station or the PLC cannot run.
    """
    fired = not isinstance(configuration.trigger, CameraTrigger)
    with closing(_line(configuration, plan, parts, None if fired else plan.rate)) as line:
        return _simulate(configuration, plan, line, fired, log, advance)


def _line(
    configuration: Configuration, plan: Plan, parts: list[SimulatedPart], rate: float | None
) -> LineCamera | GigeLine:
    if plan.gige:
        return GigeLine(parts, plan.parts, rate, configuration.trigger, plan.jitter, plan.seed)
    return LineCamera(parts, plan.parts, rate, plan.jitter, plan.seed)


def _simulate(
    configuration: Configuration,
    plan: Plan,
    line: LineCamera | GigeLine,
    fired: bool,
    log: EventLog,
    advance: Callable[[int], None],
) -> Simulation:
    report = configuration.folder / "plc.json"
    if fired:
        line.move()  # whenever it is fired
    with run_station(configuration, log, line.open) as running:
        first_id = running.first_id
        with _plc_program(configuration, plan, fired, report) as plc:
            _wait_for_plc(running, plc)
            if not fired:
                line.move()
            _wait_for_parts(running, plc, line, fired, advance)
    journal = JournalReader(configuration.folder / FILE_NAME)
    try:
        rows = list(journal.parts())
    finally:
        journal.close()
    passed = {row.id for row in rows if row.outcome == "passed"}
    defective = {row.id for row in rows if line.planted(row.id - first_id)}
    good = {row.id for row in rows} - defective
    return Simulation(
        plan,
        reconcile(line.exposures, read_report(report), rows, configuration.deadline),
        Planted(len(good), len(good - passed), len(defective), len(defective & passed)),
        running.real_time.missing,
    )


def find_rate(configuration: Configuration, plan: Plan, parts: list[SimulatedPart], log: EventLog) -> float:
    """The highest cadence that this machine holds, by trials with more and more parts a second.

    A trial holds if every part has its verdict in time; three quarters of the last that held are returned.

    Raises:
        StationError: not even the first trial held.
    """
    rate, held = plan.rate, 0.0
    for number in count():
        trial = _apart(configuration, f"trial-{number}")
        result = simulate(trial, replace(plan, parts=_TRIAL, rate=rate), parts, log)
        if not result.reconciliation.all_in_time:
            break
        held, rate = rate, rate * _STEP
    if not held:
        raise StationError(
            f"this machine does not hold {rate:.1f} parts/s with a deadline of {configuration.deadline * 1e3:g} ms",
            do="give a --rate, or a longer deadline",
        )
    return held * _MARGIN


def at_the_desk(configuration: Configuration, folder: Path) -> Configuration:
    """The station file's station without what is not on a desk: its state in another folder, a free port for the PLC,
    no outputs, no broker, no health server; what its trigger is stays, with a PLC in place of GPIO and messages.

    Raises:
        StationError: its PLC is no Modbus client.
        DeliveryError: nothing is active in the slots of a job.
    """
    plc = configuration.plc or ModbusServer()
    if not isinstance(plc, ModbusServer):
        raise StationError(
            "only a PLC that is a Modbus client can be simulated", do='set kind = "modbus-server" in [plc] for a trial'
        )
    fired = not isinstance(configuration.trigger, CameraTrigger)
    return _apart(
        msgspec.structs.replace(
            configuration,
            folder=folder,
            jobs={number: active_bundle(number, path) for number, path in configuration.jobs.items()},
            camera=ReplayCamera(images=()),
            trigger=PlcTrigger() if fired else configuration.trigger,
            plc=plc,
            outputs=(),
            mqtt=None,
            health=Health(port=0),
        ),
        "station",
    )


def _apart(configuration: Configuration, name: str) -> Configuration:
    """A folder and a port of its own, for another run of the same station."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    assert isinstance(configuration.plc, ModbusServer)  # `at_the_desk` sees to it
    plc = msgspec.structs.replace(configuration.plc, host="127.0.0.1", port=port)
    return msgspec.structs.replace(configuration, folder=configuration.folder.parent / name, plc=plc)


@contextmanager
def _plc_program(
    configuration: Configuration, plan: Plan, fired: bool, report: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """The PLC, until the context ends: then it has written its report."""
    assert isinstance(configuration.plc, ModbusServer)  # `at_the_desk` sees to it
    words = ["--port", str(configuration.plc.port), "--report", str(report), "--result-within", "5s"]
    if fired:
        words += ["--mode", "plc", "--parts", str(plan.parts), "--rate", f"{plan.rate:.6f}"]
    if plan.ack_delay:
        words += ["--ack-delay", f"{plan.ack_delay * 1e3:.6f}ms"]
    module = "lineward.runtime.station.simulation.plc_program"
    process = subprocess.Popen([sys.executable, "-m", module, *words], stdin=subprocess.DEVNULL)
    try:
        yield process
        if process.poll() is None:
            process.terminate()
        if process.wait(_PLC_WITHIN) != 0:
            raise StationError("the simulated PLC failed", do="see its message above")
    finally:
        process.kill()
        process.wait()


def _wait_for_plc(running: Running, plc: subprocess.Popen[bytes]) -> None:
    """A part that comes before PLC and camera are there has nobody to see it, or to be told of it."""
    until = time.monotonic() + _PLC_WITHIN
    while not (running.status().wire_connected and running.station.camera):
        if plc.poll() is not None or time.monotonic() > until:
            raise StationError("the simulated PLC does not come", do="see its message above")
        time.sleep(_LOOK_UP)


def _wait_for_parts(
    running: Running,
    plc: subprocess.Popen[bytes],
    line: LineCamera | GigeLine,
    fired: bool,
    advance: Callable[[int], None],
) -> None:
    while running.station.failure is None:
        counts = running.station.counts()
        advance(counts.triggered - counts.in_flight)
        ended = plc.poll() is not None
        if ended or (not fired and line.is_over and not counts.in_flight and counts.triggered >= line.exposures):
            return
        time.sleep(_LOOK_UP)
    raise running.station.failure
