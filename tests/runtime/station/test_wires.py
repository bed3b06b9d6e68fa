"""A station and a PLC on the wires besides Modbus server, each in a process of its own: the books agree."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pymodbus", reason="pymodbus is not installed (lineward[station])")
pytest.importorskip("asyncua", reason="asyncua is not installed (lineward[opcua])")

from asyncua import ua
from asyncua.sync import Client
from pymodbus.client import ModbusTcpClient

from lineward.runtime.images import write_png
from lineward.runtime.station.plc.handshake import Control, ControlBit, Fault, Offline, StatusBit
from lineward.runtime.station.plc.opcua_server import NAMESPACE, camel
from lineward.runtime.station.plc.registers import (
    CONTROL_ADDRESS,
    STATUS_ADDRESS,
    STATUS_LENGTH,
    Reading,
    decode_status,
    encode_control,
)
from lineward.runtime.station.simulation.plc_program import Wire
from tests.runtime.station.processes import StationProcess, check_books, free_port, plc_on, station_process
from tests.runtime.station.stand_ins import until

HOST = "127.0.0.1"
JUDGED = {"within_threshold", "above_threshold"}
WORDS = (
    *("Heartbeat", "Fault", "Offline", "Job", "AcquisitionId", "InspectionId", "Part", "Score", "Threshold"),
    *("Microseconds", "Triggered", "Passed", "Rejected", "RejectedWithoutVerdict", "Missed", "Late"),
)


class Nodes(Wire):
    """The PLC is an OPC UA client: two requests a scan."""

    def __init__(self, port: int) -> None:
        self._client = Client(f"opc.tcp://{HOST}:{port}/lineward", timeout=20)
        self._client.connect()
        space = self._client.get_namespace_index(NAMESPACE)
        self._bits = [self._client.get_node(f"ns={space};s=Status.{camel(bit)}") for bit in StatusBit]
        self._words = [self._client.get_node(f"ns={space};s=Status.{word}") for word in WORDS]
        self._control = [self._client.get_node(f"ns={space};s=Control.{camel(bit)}") for bit in ControlBit]

    def scan(self, control: Control) -> Reading:
        bits = [ua.Variant(bool(control.bits & bit), ua.VariantType.Boolean) for bit in ControlBit]
        self._client.write_values(self._control, [ua.DataValue(bit) for bit in bits])
        read = self._client.read_values(self._bits + self._words)
        up = StatusBit(sum(bit for bit, value in zip(StatusBit, read, strict=False) if value))
        heartbeat, fault, offline, job, acquisition, inspection, part, *rest = read[len(self._bits) :]
        score, threshold, *counts = rest
        return Reading(
            up, heartbeat, Fault(fault), Offline(offline), job, acquisition, inspection, part, None, score, threshold,
            *counts,
        )  # fmt: skip

    def close(self) -> None:
        self._client.disconnect()


class Registers(Wire):
    """The PLC is a Modbus TCP server, and its program sees its own registers: the station comes when it pleases."""

    def __init__(self, port: int) -> None:
        self._registers = ModbusTcpClient(HOST, port=port, timeout=20, retries=0)

    def scan(self, control: Control) -> Reading:
        assert not self._registers.write_registers(CONTROL_ADDRESS, encode_control(control)).isError()
        words = self._registers.read_holding_registers(STATUS_ADDRESS, count=STATUS_LENGTH).registers
        return decode_status(words or [0] * STATUS_LENGTH)

    def close(self) -> None:
        self._registers.close()


@contextmanager
def plc_process(port: int) -> Iterator[None]:
    script = Path(__file__).parent / "plc" / "plc_process.py"
    process = subprocess.Popen([sys.executable, str(script), str(port), "150"], stdout=subprocess.DEVNULL)
    try:
        until(lambda: _listens(port), "the PLC's server", 30)
        yield
    finally:
        process.kill()
        process.wait()


def _listens(port: int) -> bool:
    with suppress(OSError), socket.create_connection((HOST, port)):
        return True
    return False


@pytest.fixture
def images(tmp_path: Path, golden_frames: Any) -> None:
    """A good part, and one that is none."""
    (tmp_path / "images").mkdir()
    for number, frame in enumerate((golden_frames[0], 255 - golden_frames[0])):
        write_png(tmp_path / "images" / f"{number}.png", frame)


@pytest.mark.usefixtures("images")
def test_the_plc_is_an_opc_ua_client(tmp_path: Path, tiny_path: Path) -> None:
    port = free_port()
    wire = f'kind = "opcua-server"\nendpoint = "opc.tcp://{HOST}:{port}/lineward"'
    with station_process(tmp_path, tiny_path, wire=wire, plc='acknowledge_within = "5s"') as station:
        station.start()
        _run_and_compare(station, Nodes(port))


@pytest.mark.usefixtures("images")
def test_the_plc_is_a_modbus_server(tmp_path: Path, tiny_path: Path) -> None:
    port = free_port()
    wire = f'kind = "modbus-client"\nhost = "{HOST}"\nport = {port}\npoll = "2ms"'
    with (
        plc_process(port),
        station_process(tmp_path, tiny_path, wire=wire, plc='acknowledge_within = "5s"') as station,
    ):
        station.start()
        _run_and_compare(station, Registers(port))


def _run_and_compare(station: StationProcess, wire: Wire) -> None:
    with plc_on(wire) as line:
        until(lambda: line.seen >= 60, "60 parts", 60)
        station.stop()
        until(lambda: line.seen >= len(station.rows()), "the last results", 30)
    reasons = check_books(station.rows(), line.passed, cut=True)
    assert set(reasons) <= {*JUDGED, "not_acknowledged", "deadline_missed"}
    assert len(line.passed) >= 25
