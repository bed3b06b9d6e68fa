from __future__ import annotations

import os
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

pytest.importorskip("pymodbus", reason="pymodbus is not installed")

from pymodbus.client import ModbusTcpClient

from lineward.runtime.errors import StationError
from lineward.runtime.inspection import Reason
from lineward.runtime.station.configuration import ModbusServer
from lineward.runtime.station.plc.handshake import Control, StatusBit, Terms
from lineward.runtime.station.plc.registers import (
    CONTROL_ADDRESS,
    CONTROL_LENGTH,
    STATUS_ADDRESS,
    STATUS_LENGTH,
    Reading,
    decode_status,
    encode_control,
)
from lineward.runtime.station.plc.wire import Wire, open_wire
from tests.runtime.station.plc.stand_ins import MS, Desk, control, free_port, until

ILLEGAL_FUNCTION, ILLEGAL_ADDRESS = 1, 2
HOST = "127.0.0.1"
PATIENT = Terms(60_000 * MS, acknowledge_within_ns=60_000 * MS)
HASTY = Terms(60_000 * MS, acknowledge_within_ns=50 * MS)


@dataclass
class Served:
    """A wire that serves a desk."""

    desk: Desk
    wire: Wire
    port: int
    events: list[str] = field(default_factory=list)

    def client(self) -> ModbusTcpClient:
        client = ModbusTcpClient(HOST, port=self.port, timeout=10, retries=0)
        assert client.connect()
        return client


def serve(terms: Terms) -> Served:
    port, events, desk = free_port(), list[str](), Desk(terms)
    wire = open_wire(ModbusServer(host=HOST, port=port), desk.handshake, lambda name, _: events.append(name))
    return Served(desk, wire, port, events)


@pytest.fixture
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    served = serve(getattr(request, "param", PATIENT))
    served.wire.start()
    yield served
    served.wire.close()


@pytest.fixture
def plc(served: Served) -> Iterator[ModbusTcpClient]:
    with served.client() as client:
        yield client


def write(plc: ModbusTcpClient, words: Control) -> None:
    assert not plc.write_registers(CONTROL_ADDRESS, encode_control(words)).isError()


def read(plc: ModbusTcpClient) -> Reading:
    return decode_status(plc.read_holding_registers(STATUS_ADDRESS, count=STATUS_LENGTH).registers)


def test_a_confirmed_write_was_taken(served: Served, plc: ModbusTcpClient) -> None:
    write(plc, control("TRIGGER_ENABLE TRIGGER", part=70_000))
    assert served.desk.line.announced[0].part == 70_000
    served.desk.tell(True, served.desk.line.announced[0])
    status = read(plc)
    assert status.bits & StatusBit.RESULTS_VALID
    assert status.bits & StatusBit.TRIGGER_ACK
    assert (status.inspection_id, status.acquisition_id, status.part) == (1, 1, 70_000)
    write(plc, control("RESULTS_ACK"))
    assert served.desk.line.final_reasons == {1: Reason.WITHIN_THRESHOLD}
    status = read(plc)
    assert status.bits & StatusBit.PASS
    assert not status.bits & StatusBit.RESULTS_VALID
    assert status.passed == 1


def test_registers_may_be_written_one_by_one(served: Served, plc: ModbusTcpClient) -> None:
    for address, word in ((2, 1), (3, 4464), (0, 0b11)):
        assert not plc.write_register(CONTROL_ADDRESS + address, word).isError()
    assert served.desk.line.announced[0].part == 70_000
    assert plc.read_holding_registers(CONTROL_ADDRESS, count=CONTROL_LENGTH).registers == [3, 0, 1, 4464, 0]


def test_masked_writes_and_writes_that_read_work(served: Served, plc: ModbusTcpClient) -> None:
    assert not plc.mask_write_register(address=0, and_mask=0xFFFE, or_mask=1).isError()
    assert read(plc).bits & StatusBit.TRIGGER_READY
    answer = plc.readwrite_registers(
        read_address=STATUS_ADDRESS,
        read_count=STATUS_LENGTH,
        address=CONTROL_ADDRESS,
        values=encode_control(control("TRIGGER_ENABLE TRIGGER")),
    )
    status = decode_status(answer.registers)
    assert status.bits & StatusBit.TRIGGER_ACK
    assert status.acquisition_id == served.desk.line.announced[0].id


def test_input_registers_are_the_same(served: Served, plc: ModbusTcpClient) -> None:
    served.desk.tell(False)
    words = plc.read_input_registers(STATUS_ADDRESS, count=STATUS_LENGTH).registers
    assert decode_status(words).reason is Reason.ABOVE_THRESHOLD
    score = plc.read_input_registers(STATUS_ADDRESS + 14, count=2).registers
    assert struct.unpack(">f", struct.pack(">2H", *score)) == (0.25,)


@pytest.mark.parametrize(
    ("address", "count"),
    [(STATUS_ADDRESS, 1), (STATUS_ADDRESS + STATUS_LENGTH - 1, 1), (5, 1), (3, 3), (99, 1), (200, 1), (65535, 1)],
)
def test_writes_elsewhere_are_refused(served: Served, plc: ModbusTcpClient, address: int, count: int) -> None:
    answer = plc.write_registers(address, [0xFFFF] * count)
    assert answer.exception_code == ILLEGAL_ADDRESS
    assert plc.read_holding_registers(CONTROL_ADDRESS, count=CONTROL_LENGTH).registers == [0] * CONTROL_LENGTH
    assert served.desk.line.announced == []


@pytest.mark.parametrize(("address", "count"), [(5, 1), (0, 6), (99, 2), (130, 3), (132, 1), (0, 125), (65535, 1)])
def test_reads_elsewhere_are_refused(plc: ModbusTcpClient, address: int, count: int) -> None:
    assert plc.read_holding_registers(address, count=count).exception_code == ILLEGAL_ADDRESS


def test_coils_are_refused(served: Served, plc: ModbusTcpClient) -> None:
    assert plc.write_coil(0, True).exception_code == ILLEGAL_FUNCTION
    assert plc.read_coils(0, count=8).exception_code == ILLEGAL_FUNCTION
    assert plc.write_coils(0, [True] * 3).exception_code == ILLEGAL_FUNCTION
    assert plc.read_discrete_inputs(0, count=8).exception_code == ILLEGAL_FUNCTION
    assert served.desk.handshake.status().missed == 0


@pytest.mark.parametrize("unit", [0, 1, 2, 17, 255])
def test_any_unit_answers(plc: ModbusTcpClient, unit: int) -> None:
    answer = plc.read_holding_registers(STATUS_ADDRESS, count=STATUS_LENGTH, device_id=unit)
    assert answer.dev_id == unit
    assert decode_status(answer.registers).job == 1


def test_several_plcs_may_read_and_the_last_writer_wins(served: Served, plc: ModbusTcpClient) -> None:
    with served.client() as other:
        write(plc, control("TRIGGER_ENABLE", job=3))
        assert read(other).bits & StatusBit.TRIGGER_READY
        write(other, control("", job=4))
        assert not read(plc).bits & StatusBit.TRIGGER_READY
        assert plc.read_holding_registers(CONTROL_ADDRESS, count=2).registers == [0, 4]


def test_a_plc_that_vanishes_goes_on_after_it_is_back(served: Served, plc: ModbusTcpClient) -> None:
    served.desk.tell(True)
    assert read(plc).bits & StatusBit.RESULTS_VALID
    linger = struct.pack("ii", 1, 0)
    plc.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)  # reset, not closed, as by a pulled plug
    plc.close()
    with served.client() as back:
        assert read(back).bits & StatusBit.RESULTS_VALID
        write(back, control("RESULTS_ACK"))
        back.close()
    with served.client() as back:
        status = read(back)
        assert status.bits & StatusBit.PASS
        assert not status.bits & StatusBit.RESULTS_VALID
        served.desk.tell(False)
        assert not read(back).bits & StatusBit.RESULTS_VALID  # its acknowledgement is still up
        write(back, control())
        assert read(back).bits & StatusBit.RESULTS_VALID
    assert served.desk.line.final_reasons == {1: Reason.WITHIN_THRESHOLD}


@pytest.mark.parametrize("served", [HASTY], indirect=True)
def test_a_result_that_is_acknowledged_too_late_reads_as_reject(served: Served, plc: ModbusTcpClient) -> None:
    served.desk.tell(True)
    time.sleep(0.1)
    write(plc, control("RESULTS_ACK"))
    status = read(plc)
    assert status.bits & (StatusBit.RESULTS_VALID | StatusBit.PASS | StatusBit.REJECT) == StatusBit.REJECT
    assert (status.inspection_id, status.reason) == (1, Reason.NOT_ACKNOWLEDGED)
    assert served.desk.line.final_reasons == {1: Reason.NOT_ACKNOWLEDGED}


def test_the_heartbeat_counts_up(plc: ModbusTcpClient) -> None:
    first = read(plc).heartbeat
    until(lambda: (read(plc).heartbeat - first) & 0xFFFF >= 2)


def test_every_read_shows_one_state_while_results_are_told() -> None:
    results = 2000
    served = serve(Terms(60_000 * MS, acknowledge=False))
    served.wire.start()
    over = threading.Event()

    def tell() -> None:
        for number in range(1, results + 1):
            served.desk.tell(number % 3 == 0, score=number / results)
            if number % 20 == 0:
                time.sleep(0.002)
        over.set()

    teller = threading.Thread(target=tell)
    seen = set[int]()
    try:
        with served.client() as plc:
            read(plc)
            teller.start()
            while True:
                last = over.is_set()
                status = read(plc)
                number = status.inspection_id
                if number:
                    seen.add(number)
                    good = number % 3 == 0
                    assert bool(status.bits & StatusBit.PASS) is good
                    assert bool(status.bits & StatusBit.REJECT) is not good
                    assert status.reason is (Reason.WITHIN_THRESHOLD if good else Reason.ABOVE_THRESHOLD)
                    assert status.score == pytest.approx(number / results)
                    assert status.triggered - number in (0, 1)  # the part behind it may be announced already
                    assert status.passed + status.rejected == number
                if last:
                    break
    finally:
        teller.join()
        served.wire.close()
    assert max(seen) == results
    assert len(seen) > 10


def test_a_request_that_comes_in_pieces_is_one(served: Served) -> None:
    with socket.create_connection((HOST, served.port)) as raw:
        raw.settimeout(10)
        for byte in struct.pack(">HHHBBHH", 9, 0, 6, 1, 3, STATUS_ADDRESS, STATUS_LENGTH):
            raw.send(bytes([byte]))
            time.sleep(0.002)
        answer = raw.recv(1000)
    assert answer[:9] == struct.pack(">HHHBBB", 9, 0, 3 + 2 * STATUS_LENGTH, 1, 3, 2 * STATUS_LENGTH)


@pytest.mark.parametrize("noise", [b"\xff" * 40, b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 2000])
def test_noise_harms_nobody(served: Served, noise: bytes) -> None:
    with socket.create_connection((HOST, served.port)) as raw:
        raw.sendall(noise)
        with served.client() as plc:
            assert read(plc).job == 1
    assert served.desk.line.announced == []


def test_connections_come_and_go_without_a_trace(served: Served, plc: ModbusTcpClient) -> None:
    def visit() -> None:
        with served.client() as visitor:
            read(visitor)

    visit()
    files = lambda: len(os.listdir("/proc/self/fd"))  # noqa: E731, PTH208
    before = files()
    for _ in range(200):
        visit()
    until(lambda: files() <= before)
    assert read(plc).job == 1


def test_a_plc_is_missed_when_it_falls_silent(served: Served, plc: ModbusTcpClient) -> None:
    assert not served.wire.connected
    read(plc)
    assert served.wire.connected
    until(lambda: not served.wire.connected)
    assert served.events == ["plc_lost"]
    read(plc)
    assert served.wire.connected
    assert served.events == ["plc_lost", "plc_back"]


def test_a_port_that_is_taken_is_an_error_that_says_so() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        wire = open_wire(ModbusServer(host=HOST, port=port), Desk(PATIENT).handshake, lambda *_: None)
        with pytest.raises(StationError, match=f"cannot listen on {HOST}:{port}"):
            wire.start()
        wire.close()


def test_an_address_that_is_not_ours_is_an_error() -> None:
    wire = open_wire(ModbusServer(host="192.0.2.1", port=5020), Desk(PATIENT).handshake, lambda *_: None)
    with pytest.raises(StationError, match=r"cannot listen on 192\.0\.2\.1"):
        wire.start()


def test_closed_twice_it_serves_nobody_and_frees_its_port(served: Served, plc: ModbusTcpClient) -> None:
    read(plc)
    served.wire.close()
    served.wire.close()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((HOST, served.port)).close()
    socket.create_server((HOST, served.port)).close()


def test_closed_before_its_start_nothing_happens() -> None:
    serve(PATIENT).wire.close()
