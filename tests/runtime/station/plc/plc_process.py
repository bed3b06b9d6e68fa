"""A PLC that is a Modbus TCP server, as a process: holding registers 0 to LAST, each request reported on stdout."""

from __future__ import annotations

import asyncio
import sys

from pymodbus.constants import ExcCodes
from pymodbus.server import ModbusTcpServer
from pymodbus.simulator import DataType, SimData, SimDevice


async def report(function: int, _first: int, address: int, count: int, *_: object) -> ExcCodes | None:
    print(function, address, count, flush=True)


async def main(port: int, last: int) -> None:
    device = SimDevice(0, SimData(0, count=last + 1, datatype=DataType.REGISTERS), action=report)
    server = ModbusTcpServer(device, address=("127.0.0.1", port))
    await server.serve_forever(background=True)
    print("ready", flush=True)
    await server.serving


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
