"""The station as a Modbus TCP server: the PLC reads and writes the station's own registers.

A write is taken before it is confirmed, and each read shows one state of the station, whole.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import cast

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice

from lineward.runtime.station.configuration import ModbusServer
from lineward.runtime.station.plc.handshake import Handshake
from lineward.runtime.station.plc.loop_thread import LoopThread, check_address
from lineward.runtime.station.plc.presence import Presence
from lineward.runtime.station.plc.registers import (
    CONTROL_ADDRESS,
    CONTROL_LENGTH,
    STATUS_ADDRESS,
    STATUS_LENGTH,
    beat,
    decode_control,
    encode_status,
)

_REGISTER_FUNCTIONS = {3, 4, 6, 16, 22, 23}  # read holding, read input, write one, several, masked, write and read
_LOOK_EVERY = 0.05
_ANY_UNIT = 0
_KEEPALIVE = {  # accepted connections inherit it: one whose other end lost its power is closed within half a minute
    socket.SO_KEEPALIVE: (socket.SOL_SOCKET, 1),
    socket.TCP_KEEPIDLE: (socket.IPPROTO_TCP, 10),
    socket.TCP_KEEPINTVL: (socket.IPPROTO_TCP, 5),
    socket.TCP_KEEPCNT: (socket.IPPROTO_TCP, 4),
}

logging.getLogger("pymodbus").addHandler(logging.NullHandler())  # what matters is told as an event


class ModbusServerWire:
    """See `wire.Wire` and `wire.open_wire`."""

    def __init__(self, table: ModbusServer, handshake: Handshake, on_event: Callable[[str, str], None]) -> None:
        self._table = table
        self._handshake = handshake
        self._presence = Presence(on_event)
        self._thread = LoopThread("modbus-server", self._server, self._look, _LOOK_EVERY)

    @property
    def connected(self) -> bool:
        """See `wire.Wire`."""
        return self._presence.connected

    def start(self) -> None:
        """See `wire.Wire`."""
        self._thread.start()

    def close(self) -> None:
        """See `wire.Wire`."""
        self._thread.close()

    @asynccontextmanager
    async def _server(self) -> AsyncIterator[None]:
        host, port = self._table.host, self._table.port
        await check_address(host, port)
        registers = SimData(0, count=STATUS_ADDRESS + STATUS_LENGTH, datatype=DataType.REGISTERS)
        device = SimDevice(_ANY_UNIT, registers, action=self._access)
        server = ModbusTcpServer(device, address=(host, port))
        await server.serve_forever(background=True)
        for listening in cast(asyncio.Server, server.transport).sockets:
            for option, (level, value) in _KEEPALIVE.items():
                listening.setsockopt(level, option, value)
        try:
            yield
        finally:
            await server.shutdown()  # type: ignore[no-untyped-call]
            await asyncio.sleep(0.05)  # for the connections to be closed by the loop

    async def _look(self) -> None:
        self._presence.look()

    async def _access(
        self,
        function: int,
        _first: int,
        address: int,
        count: int,
        registers: list[int],
        values: list[int] | list[bool] | None,
    ) -> ExcCodes | None:
        """Called for each request; what is returned or left in the registers is answered with nothing in between."""
        if function not in _REGISTER_FUNCTIONS:
            return ExcCodes.ILLEGAL_FUNCTION
        in_control = address >= CONTROL_ADDRESS and address + count <= CONTROL_ADDRESS + CONTROL_LENGTH
        in_status = address >= STATUS_ADDRESS and address + count <= STATUS_ADDRESS + STATUS_LENGTH
        if not (in_control or (in_status and values is None)):
            return ExcCodes.ILLEGAL_ADDRESS
        self._presence.heard("it speaks again")
        if in_status:
            status = encode_status(self._handshake.status(), beat(time.monotonic_ns()))
            registers[STATUS_ADDRESS : STATUS_ADDRESS + STATUS_LENGTH] = status
        elif values is not None:
            words = list(registers)
            words[address : address + count] = values
            self._handshake.control(decode_control(words[CONTROL_ADDRESS : CONTROL_ADDRESS + CONTROL_LENGTH]))
        return None
