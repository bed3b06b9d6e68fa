from __future__ import annotations

import os
import select
import signal
import socket
import socketserver
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

pytest.importorskip("pymodbus", reason="pymodbus is not installed")

from pymodbus.client import ModbusTcpClient

from lineward.runtime.errors import StationError
from lineward.runtime.inspection import Reason
from lineward.runtime.station.configuration import ModbusClient, Seconds
from lineward.runtime.station.plc.handshake import Control, Offline, StatusBit, Terms
from lineward.runtime.station.plc.registers import STATUS_LENGTH, Reading, decode_status, encode_control
from lineward.runtime.station.plc.wire import Wire, open_wire
from tests.runtime.station.plc.stand_ins import MS, PATIENCE, Desk, control, free_port, until

HOST = "127.0.0.1"
STATUS = 100
PATIENT = Terms(60_000 * MS, acknowledge_within_ns=60_000 * MS)
HASTY = Terms(60_000 * MS, acknowledge_within_ns=50 * MS)
VERDICT = StatusBit.RESULTS_VALID | StatusBit.PASS | StatusBit.REJECT


class Plc:
    """A PLC in a process of its own, and its program, which sees its registers."""

    def __init__(self, last: int = 150) -> None:
        self.port = free_port()
        self.last = last
        self.requests: list[str] = []
        self.start()

    def start(self) -> None:
        script = str(Path(__file__).with_name("plc_process.py"))
        command = [sys.executable, script, str(self.port), str(self.last)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"
        self._listener = threading.Thread(target=self._listen, args=(self.process.stdout,))
        self._listener.start()
        self.registers = ModbusTcpClient(HOST, port=self.port, timeout=PATIENCE, retries=0)

    def kill(self) -> None:
        self.registers.close()
        self.process.kill()
        self.process.wait()
        self._listener.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def write(self, words: Control) -> None:
        assert not self.registers.write_registers(0, encode_control(words)).isError()

    def put_status(self, words: list[int]) -> None:
        assert not self.registers.write_registers(STATUS, words).isError()

    @property
    def words(self) -> list[int]:
        words: list[int] = self.registers.read_holding_registers(STATUS, count=STATUS_LENGTH).registers
        return words

    @property
    def status(self) -> Reading:
        return decode_status(self.words)

    @property
    def verdict(self) -> StatusBit:
        """RESULTS_VALID, PASS and REJECT, as the PLC sees them."""
        return StatusBit(self.words[0]) & VERDICT

    def _listen(self, lines: Iterator[str]) -> None:
        self.requests.extend(line.strip() for line in lines)


class Cable:
    """Forwards one connection at a time to a PLC, and can be cut."""

    def __init__(self, to: int) -> None:
        self._to = to
        self._listening = socket.create_server((HOST, 0))
        self.port: int = self._listening.getsockname()[1]
        self._ends: list[socket.socket] = []
        self._whole = threading.Event()
        self._whole.set()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def cut(self) -> None:
        self._whole.clear()
        for end in list(self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        self._whole.set()

    def close(self) -> None:
        self._to = 0
        self.mend()
        self.cut()
        with suppress(OSError):
            socket.create_connection((HOST, self.port)).close()
        self._thread.join()
        self._listening.close()

    def _run(self) -> None:
        while self._to:
            near = self._listening.accept()[0]
            if not self._whole.is_set():
                near.close()
                continue
            if self._to:
                with near, socket.create_connection((HOST, self._to)) as far:
                    self._ends = [near, far]
                    self._forward(near, far)
        near.close()

    def _forward(self, near: socket.socket, far: socket.socket) -> None:
        with suppress(OSError):
            while True:
                for ready in select.select([near, far], [], [])[0]:
                    data = ready.recv(4096)
                    if not data:
                        return
                    (far if ready is near else near).sendall(data)


class Side:
    """The station's side: a desk and its wire."""

    def __init__(self, port: int, terms: Terms = PATIENT) -> None:
        self.desk = Desk(terms)
        self.events: list[tuple[str, str]] = []
        table = ModbusClient(host=HOST, port=port, poll=Seconds(0.002))
        self.wire: Wire = open_wire(table, self.desk.handshake, lambda name, detail: self.events.append((name, detail)))

    @property
    def event_names(self) -> list[str]:
        return [name for name, _ in self.events]


@contextmanager
def side(port: int, terms: Terms = PATIENT) -> Iterator[Side]:
    side = Side(port, terms)
    side.wire.start()
    try:
        yield side
    finally:
        side.wire.close()


@pytest.fixture
def plc() -> Iterator[Plc]:
    plc = Plc()
    yield plc
    plc.kill()


@pytest.fixture
def cable(plc: Plc) -> Iterator[Cable]:
    cable = Cable(plc.port)
    yield cable
    cable.close()


def seen(plc: Plc, verdict: StatusBit) -> Callable[[], bool]:
    return lambda: plc.verdict == verdict


VALID, PASS, REJECT = StatusBit.RESULTS_VALID, StatusBit.PASS, StatusBit.REJECT


def test_trigger_result_and_acknowledgement(plc: Plc) -> None:
    with side(plc.port) as station:
        until(lambda: plc.words[5])
        plc.write(control("TRIGGER_ENABLE"))
        until(lambda: plc.status.bits & StatusBit.TRIGGER_READY)
        plc.write(control("TRIGGER_ENABLE TRIGGER", part=70_000))
        until(lambda: plc.status.bits & StatusBit.TRIGGER_ACK)
        plc.write(control("TRIGGER_ENABLE"))
        station.desk.tell(True, station.desk.line.announced[0])
        until(seen(plc, VALID | PASS))
        assert (plc.status.part, plc.status.inspection_id) == (70_000, plc.status.acquisition_id)
        plc.write(control("TRIGGER_ENABLE RESULTS_ACK"))
        until(seen(plc, PASS))
        assert station.desk.line.final_reasons == {1: Reason.WITHIN_THRESHOLD}
        assert station.wire.connected
    assert station.events == []


def test_the_status_goes_first_and_always_whole(plc: Plc) -> None:
    with side(plc.port) as station:
        until(lambda: plc.words[5])
        plc.write(control("TRIGGER_ENABLE"))
        station.desk.tell(True)
        until(seen(plc, VALID | PASS))
    plc.kill()
    asked, told = "3 0 5", f"16 {STATUS} {STATUS_LENGTH}"
    wires = [request for request in plc.requests if request in (asked, told)]  # and not the test's own
    assert wires[:3] == [asked, told, asked]  # first of all, which of the PLC's bits are older than the station
    assert {request for request in plc.requests if request.startswith("16")} == {told, "16 0 5"}
    plc.start()


def test_what_a_killed_predecessor_left_in_the_plc_is_gone_before_anything_is_taken(plc: Plc) -> None:
    stale = [(1 | VALID | PASS), *[7] * (STATUS_LENGTH - 1)]
    plc.put_status(stale)
    plc.write(control("TRIGGER_ENABLE TRIGGER RESULTS_ACK JOB_CHANGE", job=2, part=9))
    with side(plc.port) as station:
        until(lambda: plc.verdict == StatusBit(0))
        until(lambda: plc.status.bits & StatusBit.TRIGGER_READY)  # its words were read
        station.desk.tell(True)
        until(seen(plc, VALID | PASS))
        time.sleep(0.05)
        assert plc.verdict == VALID | PASS  # an acknowledgement that is older than the result is none
        assert station.desk.line.finals == []
        assert len(station.desk.line.announced) == 1  # nor was the old trigger taken
        assert station.desk.line.changes == []
        plc.write(control("TRIGGER_ENABLE"))
        until(lambda: plc.status.bits & StatusBit.TRIGGER_READY)
        time.sleep(0.05)
        plc.write(control("TRIGGER_ENABLE TRIGGER RESULTS_ACK"))
        until(seen(plc, PASS))
        assert len(station.desk.line.announced) == 2


def test_a_cable_is_cut_between_result_and_acknowledgement(plc: Plc, cable: Cable) -> None:
    with side(cable.port) as station:
        station.desk.tell(True)
        until(seen(plc, VALID | PASS))
        cable.cut()
        until(lambda: not station.wire.connected)
        plc.write(control("RESULTS_ACK"))
        time.sleep(0.05)
        assert plc.verdict == VALID | PASS
        assert station.desk.line.finals == []
        cable.mend()
        until(seen(plc, PASS))
        assert station.desk.line.final_reasons == {1: Reason.WITHIN_THRESHOLD}
        assert station.event_names == ["plc_lost", "plc_back"]
        assert str(cable.port) in station.events[0][1]


def test_a_result_is_withdrawn_while_the_cable_is_cut(plc: Plc, cable: Cable) -> None:
    with side(cable.port, HASTY) as station:
        until(lambda: station.wire.connected)
        cable.cut()
        until(lambda: not station.wire.connected)
        station.desk.tell(True)
        plc.write(control("RESULTS_ACK"))
        time.sleep(0.1)
        station.desk.handshake.tick()
        cable.mend()
        until(seen(plc, REJECT))
        assert (plc.status.inspection_id, plc.status.reason) == (1, Reason.NOT_ACKNOWLEDGED)


def test_a_plc_loses_its_power_and_is_told_everything_anew(plc: Plc) -> None:
    with side(plc.port) as station:
        plc.write(control("TRIGGER_ENABLE"))
        station.desk.tell(False)
        until(seen(plc, VALID | REJECT))
        plc.kill()
        until(lambda: not station.wire.connected)
        plc.start()
        until(seen(plc, VALID | REJECT))
        plc.write(control("RESULTS_ACK"))
        until(seen(plc, REJECT))
        assert station.event_names == ["plc_lost", "plc_back"]


def test_a_plc_that_answers_nothing_hears_the_newest_status_when_it_is_back(plc: Plc) -> None:
    with side(plc.port) as station:
        until(lambda: station.wire.connected)
        os.kill(plc.process.pid, signal.SIGSTOP)
        try:
            station.desk.tell(True)
            until(lambda: not station.wire.connected)
            station.desk.handshake.control(control("RESULTS_ACK"))
            station.desk.handshake.control(control())
            station.desk.tell(False)
        finally:
            os.kill(plc.process.pid, signal.SIGCONT)
        until(lambda: plc.verdict == VALID | REJECT and plc.status.inspection_id == 2)
        until(lambda: station.event_names == ["plc_lost", "plc_back"])


def test_a_plc_that_is_not_there_yet(plc: Plc) -> None:
    plc.kill()
    with side(plc.port) as station:
        until(lambda: station.event_names == ["plc_lost"])
        plc.start()
        until(lambda: station.wire.connected)
        assert station.event_names == ["plc_lost", "plc_back"]


def test_a_plc_without_these_registers_is_told_of() -> None:
    plc = Plc(last=120)
    try:
        with side(plc.port) as station:
            until(lambda: station.events)
            name, detail = station.events[0]
            assert name == "plc_lost"
            assert "registers 100 to 131" in detail
            assert "Modbus exception 2" in detail
    finally:
        plc.kill()


@pytest.mark.parametrize("answer", [b"\x03\x02\x00\x01", b"\x03\x0b\x00", b"\x83\x04", b"\x2b"])
def test_a_plc_that_answers_nonsense_is_told_of_and_asked_again(answer: bytes) -> None:
    """The answers are what follows the unit in an answer to a read of five registers."""
    asked = threading.Semaphore(0)

    class Nonsense(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            while head := self.request.recv(12):
                asked.release()
                self.request.sendall(head[:4] + struct.pack(">HB", 1 + len(answer), head[6]) + answer)

    with socketserver.ThreadingTCPServer((HOST, 0), Nonsense) as server:
        server.daemon_threads = True
        serving = threading.Thread(target=server.serve_forever, args=(0.01,))
        serving.start()
        try:
            with side(server.server_address[1]) as station:
                for _ in range(2):
                    assert asked.acquire(timeout=PATIENCE)
                until(lambda: station.event_names == ["plc_lost"])
                assert not station.wire.connected
        finally:
            server.shutdown()
            serving.join()


def test_the_heartbeat_counts_up_while_nothing_happens(plc: Plc) -> None:
    with side(plc.port):
        until(lambda: plc.words[5])
        first = plc.status.heartbeat
        until(lambda: (plc.status.heartbeat - first) & 0xFFFF >= 3)


def test_the_last_word_is_written_at_the_end(plc: Plc) -> None:
    with side(plc.port) as station:
        station.desk.tell(True)
        until(seen(plc, VALID | PASS))
        station.desk.line.offline = Offline.STOPPING
        station.desk.handshake.withdraw()
    assert plc.verdict == REJECT
    assert plc.status.offline is Offline.STOPPING
    station.wire.close()


def test_every_read_shows_one_state_while_results_are_told(plc: Plc) -> None:
    with side(plc.port, Terms(60_000 * MS, acknowledge=False)) as station:
        until(lambda: plc.words[5])
        over = threading.Event()

        def tell() -> None:
            for number in range(1, 301):
                station.desk.tell(number % 3 == 0, score=number / 300)
                time.sleep(0.002)
            over.set()

        teller = threading.Thread(target=tell)
        teller.start()
        numbers = set[int]()
        try:
            while not over.is_set() or plc.status.inspection_id != 300:
                status = plc.status
                number = status.inspection_id
                if number:
                    numbers.add(number)
                    assert bool(status.bits & PASS) is (number % 3 == 0)
                    assert status.score == pytest.approx(number / 300)
        finally:
            teller.join()
        assert len(numbers) > 10


@pytest.mark.parametrize(
    ("first", "second", "meet"), [(0, 4, True), (0, 5, False), (131, 100, True), (132, 100, False)]
)
def test_blocks_that_overlap_are_refused(first: int, second: int, meet: bool) -> None:
    table = ModbusClient(host=HOST, port=5020, control=first, status=second)
    if meet:
        with pytest.raises(StationError, match="overlap"):
            open_wire(table, Desk(PATIENT).handshake, lambda *_: None)
    else:
        open_wire(table, Desk(PATIENT).handshake, lambda *_: None)
