"""The station as a Modbus TCP client: the PLC holds the registers, and the station reads and writes them there."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from pymodbus.client import ModbusTcpClient
from pymodbus.exceptions import ModbusException
from pymodbus.pdu import ModbusPDU

from lineward.runtime.errors import StationError, first_line
from lineward.runtime.station.configuration import ModbusClient
from lineward.runtime.station.plc.handshake import NOTHING, Control, ControlBit, Handshake
from lineward.runtime.station.plc.presence import Presence
from lineward.runtime.station.plc.registers import (
    CONTROL_LENGTH,
    STATUS_LENGTH,
    beat,
    decode_control,
    encode_status,
)
from lineward.runtime.station.real_time import Role, raise_priority

_PATIENCE = 1.0  # for an answer; seconds
_LEAST_PAUSE, _GREATEST_PAUSE = 0.1, 2.0
_EDGES = ControlBit.TRIGGER | ControlBit.RESULTS_ACK | ControlBit.JOB_CHANGE | ControlBit.CLEAR_ERROR

logging.getLogger("pymodbus").addHandler(logging.NullHandler())  # what matters is told as an event


class ModbusClientWire:
    """See `wire.Wire` and `wire.open_wire`.

    Raises:
        StationError: the two blocks overlap.
    """

    def __init__(self, table: ModbusClient, handshake: Handshake, on_event: Callable[[str, str], None]) -> None:
        if table.control < table.status + STATUS_LENGTH and table.status < table.control + CONTROL_LENGTH:
            raise StationError(
                f"[plc]: control = {table.control} and status = {table.status} overlap",
                do=f"control takes {CONTROL_LENGTH} registers, status {STATUS_LENGTH}: put them apart",
            )
        self._table = table
        self._handshake = handshake
        self._presence = Presence(on_event)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lineward-modbus-client", daemon=True)
        self._pause = _LEAST_PAUSE
        self._control: Control | None = None
        self._stale: ControlBit | None = None  # bits that were up before this station's first word, and still are

    @property
    def connected(self) -> bool:
        """See `wire.Wire`."""
        return self._presence.connected

    def start(self) -> None:
        """See `wire.Wire`."""
        self._thread.start()

    def close(self) -> None:
        """See `wire.Wire`."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        raise_priority(Role.WIRE)
        while not self._closing.is_set():
            client = ModbusTcpClient(self._table.host, port=self._table.port, timeout=_PATIENCE, retries=0)
            try:
                self._converse(client)
            except Exception as error:  # whatever a PLC answers, and whatever the library makes of it
                self._presence.lost(f"{self._table.host}:{self._table.port}: {first_line(error)}")
                self._closing.wait(self._pause)
                self._pause = min(2 * self._pause, _GREATEST_PAUSE)
            finally:
                client.close()  # type: ignore[no-untyped-call]

    def _converse(self, client: ModbusTcpClient) -> None:
        """Speak until the end or an error; what a predecessor or a lost connection left in the PLC goes first."""
        if not client.connect():  # type: ignore[no-untyped-call]
            raise ModbusException("cannot be reached")
        if self._stale is None:
            self._stale = self._ask(client).bits & _EDGES
        written = self._write(client, [])
        self._presence.heard(f"{self._table.host}:{self._table.port}")
        self._pause = _LEAST_PAUSE
        while not self._closing.wait(self._table.poll):
            self._read(client)
            written = self._write(client, written)
        self._write(client, written)

    def _read(self, client: ModbusTcpClient) -> None:
        """Take the PLC's words if they have changed."""
        control = self._ask(client)
        if control != self._control:
            self._control = control
            self._stale = control.bits & (self._stale or NOTHING)
            self._handshake.control(replace(control, bits=control.bits & ~self._stale))

    def _ask(self, client: ModbusTcpClient) -> Control:
        table = self._table
        answer = client.read_holding_registers(table.control, count=CONTROL_LENGTH, device_id=table.unit)
        _check(answer, f"reading registers {table.control} to {table.control + CONTROL_LENGTH - 1}")
        if len(answer.registers) != CONTROL_LENGTH:
            raise ModbusException(f"{len(answer.registers)} registers came where {CONTROL_LENGTH} were asked for")
        return decode_control(answer.registers)

    def _write(self, client: ModbusTcpClient, written: list[int]) -> list[int]:
        """Write the status as it is now, unless the PLC has it already, and return it."""
        words = encode_status(self._handshake.status(), beat(time.monotonic_ns()))
        if words != written:
            table = self._table
            answer = client.write_registers(table.status, words, device_id=table.unit)
            _check(answer, f"writing registers {table.status} to {table.status + STATUS_LENGTH - 1}")
        return words


def _check(answer: ModbusPDU, what: str) -> None:
    if answer.isError():
        raise ModbusException(f"{what}: the PLC answers with Modbus exception {answer.exception_code}")
