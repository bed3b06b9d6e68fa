from __future__ import annotations

import sys

import pytest

from lineward.runtime.errors import MissingExtraError
from lineward.runtime.station.configuration import ModbusClient, ModbusServer, OpcuaServer, PlcTable
from lineward.runtime.station.plc.handshake import Terms
from lineward.runtime.station.plc.wire import open_wire
from tests.runtime.station.plc.stand_ins import Desk


@pytest.mark.parametrize(
    ("table", "module", "library", "extra"),
    [
        (ModbusServer(), "modbus_server", "pymodbus", "station"),
        (ModbusClient(host="127.0.0.1"), "modbus_client", "pymodbus", "station"),
        (OpcuaServer(), "opcua_server", "asyncua", "opcua"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(
    table: PlcTable, module: str, library: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, f"lineward.runtime.station.plc.{module}", raising=False)
    for name in [name for name in sys.modules if name.split(".")[0] == library]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(MissingExtraError, match=library) as caught:
        open_wire(table, Desk(Terms(1)).handshake, lambda *_: None)
    assert caught.value.do == f"pip install 'lineward[{extra}]'"
