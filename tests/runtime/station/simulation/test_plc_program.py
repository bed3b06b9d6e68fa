"""The simulated PLC: the rule of the wire scan by scan, and as a process against a real Modbus server."""

from __future__ import annotations

import math
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from lineward.runtime.inspection import Reason, outcome_of
from lineward.runtime.station.configuration import ModbusServer
from lineward.runtime.station.journal_reader import JournalRow
from lineward.runtime.station.ledger import Counts
from lineward.runtime.station.plc.handshake import Fault, Handshake, LineState, Offline, StatusBit, Terms
from lineward.runtime.station.plc.registers import Reading
from lineward.runtime.station.records import PartRecord, Source, Trigger
from lineward.runtime.station.simulation.plc_books import PlcReport, read_report
from lineward.runtime.station.simulation.plc_program import Program, Settings, main
from lineward.runtime.station.simulation.reconciliation import reconcile

_MS = 1_000_000
VALID, PASS, REJECT = StatusBit.RESULTS_VALID, StatusBit.PASS, StatusBit.REJECT
READY, TRIGGER_ACK = StatusBit.TRIGGER_READY, StatusBit.TRIGGER_ACK
NO_BITS = StatusBit(0)


def reading(bits: StatusBit, id: int = 0, acquisition: int = 0, missed: int = 0) -> Reading:
    return Reading(
        *(bits, 0, Fault.NONE, Offline.NONE, 1, acquisition, id, 0, Reason.WITHIN_THRESHOLD, 0.25, 0.5),
        *(1000, 0, 0, 0, 0, missed, 0),
    )


def scan(program: Program, readings: list[Reading], step_ms: float = 1) -> list[str]:
    """Scan through what the station says, and return the bits that were written before each."""
    written = []
    for number, answer in enumerate(readings):
        now = round(number * step_ms * _MS)
        control = program.control(now)
        written.append("+".join(bit.name or "" for bit in type(control.bits) if control.bits & bit))
        program.scanned(control, answer, now)
    return written


def fates(program: Program) -> dict[int, str]:
    return {result.id: result.fate for result in program.books.results.values()}


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        ([reading(VALID | PASS, 5), reading(PASS, 5)], {5: "passed"}),
        ([reading(VALID | REJECT, 5), reading(REJECT, 5)], {5: "rejected"}),
        ([reading(VALID | PASS, 5), reading(VALID | PASS, 5)], {}),
        ([reading(VALID | PASS, 5), reading(REJECT, 5)], {5: "rejected"}),
        ([reading(PASS, 5), reading(PASS, 5)], {}),
        ([reading(VALID | PASS, 5), reading(PASS, 6)], {5: "rejected", 6: "passed"}),
        (
            [reading(VALID | PASS, 5), reading(PASS, 5), reading(VALID | PASS, 6), reading(PASS, 6)],
            {5: "passed", 6: "passed"},
        ),
        (
            [reading(VALID | PASS, 5), reading(PASS, 5), reading(VALID | PASS, 8), reading(PASS, 8)],
            {5: "passed", 6: "no_result", 7: "no_result", 8: "passed"},
        ),
    ],
    ids=[
        *("acknowledged pass", "acknowledged reject", "not answered yet", "withdrawn while acknowledging"),
        *("never valid", "acknowledged the next one", "one after the other", "two left out"),
    ],
)
def test_what_becomes_of_a_part(readings: list[Reading], expected: dict[int, str]) -> None:
    program = Program(Settings(), 0)
    scan(program, readings)
    assert fates(program) == expected


def test_the_acknowledgement_goes_up_and_comes_down() -> None:
    said = scan(Program(Settings(), 0), [reading(VALID | PASS, 5), reading(PASS, 5), reading(PASS, 5)])
    assert said == ["TRIGGER_ENABLE", "TRIGGER_ENABLE+RESULTS_ACK", "TRIGGER_ENABLE"]


@pytest.mark.parametrize(
    ("last", "expected"),
    [
        (reading(PASS, 5), {5: "rejected"}),  # not acknowledged: no pass, whatever the bits say
        (reading(REJECT, 5), {5: "rejected"}),
        (reading(VALID | PASS, 6), {5: "rejected"}),
        (reading(VALID | PASS, 5), {}),
    ],
)
def test_a_result_that_is_withdrawn_before_its_acknowledgement(last: Reading, expected: dict[int, str]) -> None:
    program = Program(Settings(ack_delay_ns=100 * _MS), 0)
    scan(program, [reading(VALID | PASS, 5), last])
    assert fates(program) == expected


def test_a_wire_that_breaks_makes_a_reject() -> None:
    program = Program(Settings(), 0)
    scan(program, [reading(VALID | PASS, 5)])
    program.disconnected()
    assert fates(program) == {5: "rejected"}
    assert scan(program, [reading(NO_BITS)]) == ["TRIGGER_ENABLE"]


def test_a_triggered_part_and_its_result() -> None:
    program = Program(Settings(mode="plc", parts=1), 0)
    said = scan(
        program,
        [
            reading(NO_BITS),
            reading(READY),
            reading(TRIGGER_ACK, acquisition=9),
            reading(VALID | PASS, 9, 9),
            reading(PASS, 9, 9),
            reading(READY | PASS, 9, 9),
        ],
    )
    assert said[2:5] == ["TRIGGER_ENABLE+TRIGGER", "TRIGGER_ENABLE", "TRIGGER_ENABLE+RESULTS_ACK"]
    assert fates(program) == {9: "passed"}
    assert program.books.results[9].took_us == 3000
    assert (program.books.triggered, program.books.missed, program.ended) == (1, 0, True)


def test_no_result_in_time_is_a_reject_for_good() -> None:
    program = Program(Settings(mode="plc", parts=1, result_within_ns=5 * _MS), 0)
    begin = [reading(READY), reading(TRIGGER_ACK, acquisition=9)]
    scan(program, [*begin, *[reading(NO_BITS, acquisition=9)] * 8])
    assert fates(program) == {9: "no_result"}
    assert program.ended
    scan(program, [reading(VALID | PASS, 9, 9), reading(PASS, 9, 9)])
    assert fates(program) == {9: "no_result"}
    assert program.books.after_reject == 1


def test_a_trigger_that_is_missed_is_counted() -> None:
    program = Program(Settings(mode="plc", parts=1), 0)
    scan(program, [reading(READY), reading(StatusBit.MISSED_ACQUISITION, missed=1), reading(NO_BITS, missed=1)])
    assert (program.books.triggered, program.books.missed, program.ended) == (0, 1, True)


# As a process, against a station's real wire.


class Station:
    """A handshake with parts made up: what it told and what was final is known."""

    def __init__(self, terms: Terms) -> None:
        self.lock = threading.RLock()
        self.handshake = Handshake(self, terms, self.lock)
        self.final_records: dict[int, PartRecord] = {}
        self.asked: list[Trigger] = []
        self.plc_is_there = lambda: False
        self._ended = threading.Event()
        self._random = random.Random(1)

    def state(self) -> LineState:
        return LineState(True, False, Offline.NONE, 1, Counts())

    def trigger(self, part: int) -> int:
        self.asked.append(self._new(len(self.asked) + 1, Source.PLC, part))
        return self.asked[-1].id

    def final(self, record: PartRecord) -> None:
        assert record.trigger.id not in self.final_records
        self.final_records[record.trigger.id] = record

    def change_job(self, job: int) -> bool:
        raise AssertionError(f"job {job} was not asked for")

    def plc_silent(self, silent: bool) -> None:
        raise AssertionError(f"no heartbeat is asked for: {silent}")

    def tell(self, trigger: Trigger) -> None:
        passes = self._random.random() < 0.7
        reason = Reason.WITHIN_THRESHOLD if passes else Reason.ABOVE_THRESHOLD
        score = self._random.uniform(0, 0.5) if passes else self._random.uniform(0.5, 2)
        at = trigger.monotonic_ns
        record = PartRecord(trigger, reason, 0.5, "ab", 1, score, at + _MS, at + _MS, at + 3 * _MS)
        self.handshake.tell(record)

    def make(self, parts: int, every: float) -> None:
        """Parts of a camera that triggers itself, once there is a PLC."""
        until = time.monotonic() + 30
        while not self.plc_is_there():
            assert time.monotonic() < until, "the PLC does not come"
            time.sleep(0.01)
        for id in range(1, parts + 1):
            self.tell(self._new(id, Source.CAMERA, 0))
            self._ended.wait(every)

    def answer(self) -> None:
        """Verdicts on the parts that the PLC triggers."""
        told = 0
        while not self._ended.wait(0.001):
            while told < len(self.asked):
                self.tell(self.asked[told])
                told += 1

    def keep_time(self) -> None:
        while not self._ended.wait(0.005):
            self.handshake.tick()

    def end(self) -> None:
        self._ended.set()

    def rows(self) -> list[JournalRow]:
        return [_row(sequence, record) for sequence, record in enumerate(self.final_records.values())]

    @staticmethod
    def _new(id: int, source: Source, part: int) -> Trigger:
        return Trigger(id, source, time.monotonic_ns(), time.time_ns(), part)


def _row(sequence: int, record: PartRecord) -> JournalRow:
    trigger = record.trigger

    def since(ns: int) -> int | None:
        return (ns - trigger.monotonic_ns) // 1000 if ns else None

    score = None if math.isnan(record.score) else record.score
    return JournalRow(
        *(sequence, trigger.id, trigger.source.value, trigger.part, trigger.utc_ns, record.job, record.bundle),
        *(record.verdict.value, record.reason.value, outcome_of(record.reason).value, score, record.threshold),
        *(since(record.captured_ns), since(record.started_ns), since(record.decided_ns)),
        *(since(record.told_ns), since(record.acknowledged_ns)),
    )


@contextmanager
def a_station(terms: Terms) -> Iterator[tuple[Station, int]]:
    pytest.importorskip("pymodbus", reason="needs pymodbus")
    from lineward.runtime.station.plc.modbus_server import ModbusServerWire

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    station = Station(terms)
    wire = ModbusServerWire(ModbusServer(host="127.0.0.1", port=port), station.handshake, lambda *_: None)
    station.plc_is_there = lambda: wire.connected
    wire.start()
    ticking = threading.Thread(target=station.keep_time)
    ticking.start()
    try:
        yield station, port
    finally:
        station.end()
        ticking.join()
        wire.close()


@contextmanager
def a_plc(port: int, report: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "lineward.runtime.station.simulation.plc_program"]
    process = subprocess.Popen([*command, "--port", str(port), "--report", str(report), *arguments])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


TERMS = Terms(deadline_ns=5_000 * _MS, acknowledge_within_ns=5_000 * _MS, waiting_results=64)


def test_a_camera_s_parts_are_booked_alike_on_both_sides(tmp_path: Path) -> None:
    report = tmp_path / "plc.json"
    with a_station(TERMS) as (station, port), a_plc(port, report, "--parts", "150") as plc:
        station.make(150, every=0.005)
        assert plc.wait(10) == 0
        found = reconcile(150, read_report(report), station.rows(), 5.0)
    assert found.mismatches == ()
    assert found.reconciles
    assert found.all_in_time
    assert 0 < found.plc_passed < found.plc == 150


def test_the_plc_s_own_parts_are_booked_alike_on_both_sides(tmp_path: Path) -> None:
    report = tmp_path / "plc.json"
    with a_station(TERMS) as (station, port), a_plc(port, report, "--mode", "plc", "--parts", "100") as plc:
        answering = threading.Thread(target=station.answer)
        answering.start()
        assert plc.wait(30) == 0
        station.end()
        answering.join()
        found = reconcile(len(station.asked), read_report(report), station.rows(), 5.0)
    assert found.reconciles, found.mismatches
    results = read_report(report).results
    assert sorted(result.part for result in results) == list(range(1, 101))
    assert read_report(report).triggered == 100


def test_a_slow_plc_never_passes_what_was_withdrawn(tmp_path: Path) -> None:
    report = tmp_path / "plc.json"
    terms = replace(TERMS, acknowledge_within_ns=20 * _MS, deadline_ns=500 * _MS, waiting_results=2)
    arguments = ("--ack-delay", "19ms", "--scan", "2ms")
    with a_station(terms) as (station, port), a_plc(port, report, *arguments) as plc:
        station.make(60, every=0.02)
        plc.send_signal(signal.SIGTERM)
        assert plc.wait(30) == 0
        station.handshake.withdraw()
        rows, results = station.rows(), read_report(report)
    passed = {row.id for row in rows if row.verdict == "pass"}
    assert {result.id for result in results.results if result.fate == "passed"} <= passed
    assert len(rows) == 60


def test_a_plc_without_a_station_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pymodbus", reason="needs pymodbus")
    monkeypatch.setattr("lineward.runtime.station.simulation.plc_program._PATIENCE", 0.2)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    report = tmp_path / "plc.json"
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert main(["--port", str(closed.getsockname()[1]), "--report", str(report)]) == 2
    assert "check that it runs" in capsys.readouterr().err
    assert isinstance(read_report(report), PlcReport)
