"""The wire to the PLC: the seam, and which one a station file means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from lineward.runtime.errors import MissingExtraError
from lineward.runtime.station.configuration import ModbusClient, ModbusServer, PlcTable
from lineward.runtime.station.plc.handshake import Handshake


class Wire(Protocol):
    """Carries the handshake between station and PLC, in a thread of its own."""

    @property
    def connected(self) -> bool:
        """Whether the PLC was heard lately."""

    def start(self) -> None:
        """Begin.

        Raises:
            StationError: it cannot listen there.
        """

    def close(self) -> None:
        """Tell the PLC what may still be told, and end. May be called twice."""


def open_wire(table: PlcTable, handshake: Handshake, on_event: Callable[[str, str], None]) -> Wire:
    """The wire of a station file.

    Args:
        table: its table [plc].
        handshake: what the wire carries.
        on_event: hears, with a detail in words, "plc_lost" and "plc_back"; never raises.

    Raises:
        StationError: the table cannot be met.
        MissingExtraError: the library for it is not installed.
    """
    try:
        if isinstance(table, ModbusServer):
            from lineward.runtime.station.plc.modbus_server import ModbusServerWire

            return ModbusServerWire(table, handshake, on_event)
        if isinstance(table, ModbusClient):
            from lineward.runtime.station.plc.modbus_client import ModbusClientWire

            return ModbusClientWire(table, handshake, on_event)
        from lineward.runtime.station.plc.opcua_server import OpcuaServerWire

        return OpcuaServerWire(table, handshake, on_event)
    except ModuleNotFoundError as error:
        if (error.name or "lineward").startswith("lineward"):
            raise
        extra = "station" if isinstance(table, ModbusServer | ModbusClient) else "opcua"
        raise MissingExtraError(
            f"the PLC's wire needs {error.name}, which is not installed", do=f"pip install 'lineward[{extra}]'"
        ) from error
