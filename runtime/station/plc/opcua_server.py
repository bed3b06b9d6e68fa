"""The station as an OPC UA server: the same words as in the registers, each a node.

A Write request is taken as a whole before it is answered. A status changes between two requests, never within one, and
RESULTS_VALID is the last of its nodes to change.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timezone
from typing import Any
from urllib.parse import urlparse

from asyncua import ua
from asyncua.common.callback import CallbackType, ServerItemCallback
from asyncua.server.server import Server

from lineward.runtime.errors import StationError
from lineward.runtime.station.configuration import OpcuaServer
from lineward.runtime.station.plc.handshake import Control, ControlBit, Handshake, StatusBit
from lineward.runtime.station.plc.loop_thread import LoopThread, check_address
from lineward.runtime.station.plc.presence import Presence
from lineward.runtime.station.plc.registers import MAP_VERSION, NO_RESULT, REASON_CODES, Reading, beat, reading_of

NAMESPACE = "urn:lineward:station"

_PUBLISH_EVERY = 0.005
_BOOL, _UINT16, _UINT32, _FLOAT = (
    ua.VariantType.Boolean,
    ua.VariantType.UInt16,
    ua.VariantType.UInt32,
    ua.VariantType.Float,
)


def camel(bit: ControlBit | StatusBit) -> str:
    """A bit's name as a node's: RESULTS_ACK is ResultsAck."""
    return "".join(word.capitalize() for word in str(bit.name).split("_"))


_CONTROL_TYPES = {camel(bit): _BOOL for bit in ControlBit} | {"Job": _UINT16, "Part": _UINT32, "Heartbeat": _UINT16}
_WORD_TYPES = {
    "Heartbeat": _UINT16,
    "Fault": _UINT16,
    "Offline": _UINT16,
    "Job": _UINT16,
    "MapVersion": _UINT16,
    "AcquisitionId": _UINT32,
    "InspectionId": _UINT32,
    "Part": _UINT32,
    "Reason": _UINT16,
    "Score": _FLOAT,
    "Threshold": _FLOAT,
    "Microseconds": _UINT32,
    "Triggered": _UINT32,
    "Passed": _UINT32,
    "Rejected": _UINT32,
    "RejectedWithoutVerdict": _UINT32,
    "Missed": _UINT32,
    "Late": _UINT32,
}
_RESULTS_VALID = camel(StatusBit.RESULTS_VALID)
_LAST = {_RESULTS_VALID: 1}
_STATUS_TYPES = _WORD_TYPES | {camel(bit): _BOOL for bit in sorted(StatusBit, key=lambda b: _LAST.get(camel(b), 0))}

logging.getLogger("asyncua").addHandler(logging.NullHandler())  # what matters is told as an event


class OpcuaServerWire:
    """See `wire.Wire` and `wire.open_wire`.

    Raises:
        StationError: the endpoint is none.
    """

    def __init__(self, table: OpcuaServer, handshake: Handshake, on_event: Callable[[str, str], None]) -> None:
        self._endpoint = table.endpoint
        self._address = _address(table.endpoint)
        self._handshake = handshake
        self._presence = Presence(on_event)
        self._thread = LoopThread("opcua-server", self._server, self._tend, _PUBLISH_EVERY)
        self._control: dict[str, ua.NodeId] = {}
        self._status: dict[str, ua.NodeId] = {}
        self._shown: dict[str, Any] = {}

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
        await check_address(*self._address)
        server = self._ua = Server()
        await server.init()
        server.set_server_name("Lineward")
        server.set_endpoint(self._endpoint)
        server.set_security_policy([ua.SecurityPolicyType.NoSecurity])
        server.allow_remote_admin(False)  # else whoever calls himself "admin" could write the status
        await self._add_nodes(server)
        server.subscribe_server_callback(CallbackType.PostWrite, self._written)
        async with server:
            yield

    async def _add_nodes(self, server: Server) -> None:
        space = await server.register_namespace(NAMESPACE)
        station = await server.nodes.objects.add_object(_node(space, "Station"), f"{space}:Station")
        for folder, types, nodes in (
            ("Control", _CONTROL_TYPES, self._control),
            ("Status", _STATUS_TYPES, self._status),
        ):
            parent = await station.add_folder(_node(space, folder), f"{space}:{folder}")
            for name, kind in types.items():
                nodes[name] = _node(space, f"{folder}.{name}")
                variable = await parent.add_variable(nodes[name], f"{space}:{name}", _zero(kind), varianttype=kind)
                await variable.set_writable(folder == "Control")

    async def _written(self, event: ServerItemCallback, _: object) -> None:
        """A client's Write request has been carried out: take it as a whole, and show what came of it."""
        if any(item.NodeId in self._control.values() for item in event.request_params.NodesToWrite):
            self._handshake.control(self._taken())
            await self._publish()

    def _taken(self) -> Control:
        """The control nodes as they stand; one that a client has emptied is 0."""
        words = {}
        for name, node in self._control.items():
            value = self._ua.read_attribute_value(node).Value
            words[name] = int(value.Value or 0) if value is not None else 0
        bits = sum((bit for bit in ControlBit if words[camel(bit)]), ControlBit(0))
        return Control(ControlBit(bits), words["Job"], words["Part"], words["Heartbeat"])

    async def _tend(self) -> None:
        if self._ua.bserver is not None and self._ua.bserver.clients:
            self._presence.heard("it is connected again")
        else:
            self._presence.look()
        await self._publish()

    async def _publish(self) -> None:
        """Change the status nodes that differ. asyncua's writes do not wait, so that no request comes between."""
        words = _words(reading_of(self._handshake.status(), beat(time.monotonic_ns())))
        shown, self._shown = self._shown, words
        for name, kind in _STATUS_TYPES.items():
            if name not in shown or words[name] != shown[name]:
                value = ua.DataValue(ua.Variant(words[name], kind), SourceTimestamp=ua.DateTime.now(timezone.utc))
                await self._ua.write_attribute_value(self._status[name], value)


def _words(reading: Reading) -> dict[str, Any]:
    r = reading
    return {camel(bit): bool(r.bits & bit) for bit in StatusBit} | {
        "Heartbeat": r.heartbeat,
        "Fault": int(r.fault),
        "Offline": int(r.offline),
        "Job": r.job,
        "MapVersion": MAP_VERSION,
        "AcquisitionId": r.acquisition_id,
        "InspectionId": r.inspection_id,
        "Part": r.part,
        "Reason": NO_RESULT if r.reason is None else REASON_CODES[r.reason],
        "Score": r.score,
        "Threshold": r.threshold,
        "Microseconds": r.microseconds,
        "Triggered": r.triggered,
        "Passed": r.passed,
        "Rejected": r.rejected,
        "RejectedWithoutVerdict": r.rejected_without_verdict,
        "Missed": r.missed,
        "Late": r.late,
    }


def _node(space: int, name: str) -> ua.NodeId:
    return ua.NodeId.from_string(f"ns={space};s={name}")


def _zero(kind: ua.VariantType) -> bool | int | float:
    return {_BOOL: False, _FLOAT: 0.0}.get(kind, 0)


def _address(endpoint: str) -> tuple[str, int]:
    try:
        url = urlparse(endpoint)
        host, port = url.hostname, url.port
    except ValueError:
        host = port = None
    if not host or not port or url.scheme != "opc.tcp":
        raise StationError(
            f"[plc]: endpoint {endpoint!r} is none", do='write it like "opc.tcp://0.0.0.0:4840/lineward"'
        )
    return host, port
