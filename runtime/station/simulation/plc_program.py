"""A PLC in software, a process of its own: a Modbus TCP client that scans as a PLC does and keeps its own books.

In each scan it writes its words and reads the station's, in one request. It follows the rule of the wire to the letter:
*pass* is taken only when RESULTS_VALID is down and PASS up after the result's acknowledgement; all else is a reject.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Literal

from lineward.runtime.atomic_write import replace_file
from lineward.runtime.cli import FAILED, PASSED
from lineward.runtime.cli.console import print_error
from lineward.runtime.errors import LinewardError, MissingExtraError, StationError
from lineward.runtime.quantities import parse_duration, parse_rate
from lineward.runtime.station.plc.handshake import Control, ControlBit, StatusBit
from lineward.runtime.station.plc.registers import (
    CONTROL_ADDRESS,
    STATUS_ADDRESS,
    STATUS_LENGTH,
    Reading,
    decode_status,
    encode_control,
)
from lineward.runtime.station.simulation.plc_books import Books, PlcReport, PlcResult, encode_report

if TYPE_CHECKING:
    from pymodbus.client import ModbusTcpClient

Mode = Literal["camera", "plc"]

_NS = 1_000_000_000
_UNIT = 1
_REQUEST_WITHIN = 1.0
_RECONNECT_AFTER = 0.05
_PATIENCE = 20.0  # seconds without a station, or without any progress, until the program gives up
_BEAT_NS = 100_000_000


@dataclass(frozen=True)
class Settings:
    """How the program behaves. Times in nanoseconds.

    Attributes:
        mode: who triggers: the camera by itself, or the PLC.
        parts: parts until it ends; None: when told to.
        period_ns: from one trigger of the PLC to the next, at least; 0: as soon as the station is ready.
        ack_delay_ns: from seeing a result to acknowledging it.
        result_within_ns: from the PLC's trigger to its result; later, the part is a reject without result.
    """

    mode: Mode = "camera"
    parts: int | None = None
    period_ns: int = 0
    ack_delay_ns: int = 0
    result_within_ns: int = 2 * _NS


@dataclass(frozen=True)
class _Shown:
    """A result that was seen valid and is not taken yet."""

    reading: Reading
    seen_ns: int


@dataclass(frozen=True)
class _Triggered:
    """A part that the PLC triggered, until its fate is sealed; `id` is 0 until the trigger was acknowledged."""

    part: int
    raised_ns: int
    id: int = 0


class Program:
    """The logic between two scans: knows neither wire nor clock.

    Args:
        settings: how it behaves.
        now_ns: the time, monotonic.
    """

    def __init__(self, settings: Settings, now_ns: int) -> None:
        self.books = Books()
        self._settings = settings
        self._shown: _Shown | None = None
        self._raised: _Triggered | None = None  # TRIGGER is up for it
        self._waiting: dict[int, _Triggered] = {}
        self._trigger_at_ns = now_ns
        self._parts = 0  # triggers raised, and the number of the last part
        self._missed_before = 0
        self._last_id = 0
        self.stopping = False

    @property
    def ended(self) -> bool:
        """Whether every part has its fate and no more are to come."""
        if self._shown or self._raised or self._waiting:
            return False
        wanted = self._settings.parts
        made = self._parts if self._settings.mode == "plc" else len(self.books.results)
        return self.stopping or (wanted is not None and made >= wanted)

    def control(self, now_ns: int) -> Control:
        """What to write in the next scan."""
        bits = ControlBit.TRIGGER_ENABLE
        if self._raised is not None:
            bits |= ControlBit.TRIGGER
        if self._acknowledges(now_ns):
            bits |= ControlBit.RESULTS_ACK
        part = self._raised.part if self._raised else 0
        return Control(bits, 0, part, now_ns // _BEAT_NS & 0xFFFF)

    def scanned(self, control: Control, reading: Reading, now_ns: int) -> None:
        """Act upon what was read after `control` was written."""
        self._look_at_results(control, reading, now_ns)
        if self._settings.mode == "plc":
            self._look_at_trigger(control, reading, now_ns)
            self._give_up(now_ns)

    def disconnected(self) -> None:
        """The wire is gone: a result that was not taken is a reject, and so is a part without acknowledged trigger."""
        if self._shown is not None:
            self._seal(self._shown.reading, passed=False, now_ns=None)
            self._shown = None
        if self._raised is not None:
            self.books.missed += 1
            self._raised = None

    def _acknowledges(self, now_ns: int) -> bool:
        return self._shown is not None and now_ns >= self._shown.seen_ns + self._settings.ack_delay_ns

    def _look_at_results(self, control: Control, reading: Reading, now_ns: int) -> None:
        valid = bool(reading.bits & StatusBit.RESULTS_VALID)
        acknowledged = bool(control.bits & ControlBit.RESULTS_ACK)
        if self._shown is not None and not acknowledged:
            if valid and reading.inspection_id == self._shown.reading.inspection_id:
                return  # it waits to be acknowledged
            self._seal(self._shown.reading, passed=False, now_ns=now_ns)  # the station has withdrawn it
            self._shown = None
        if valid and not acknowledged:
            self._shown = _Shown(reading, now_ns)
        elif self._shown is not None and not valid:
            self._take(self._shown.reading, reading, now_ns)
            self._shown = None

    def _take(self, shown: Reading, reading: Reading, now_ns: int) -> None:
        """The acknowledgement was heard. It may have met the next result, if the shown one was withdrawn just before:
        then that one is acknowledged."""
        if reading.inspection_id != shown.inspection_id:
            self._seal(shown, passed=False, now_ns=now_ns)
        self._seal(reading, passed=bool(reading.bits & StatusBit.PASS), now_ns=now_ns)

    def _seal(self, reading: Reading, passed: bool, now_ns: int | None) -> None:
        triggered = self._waiting.pop(reading.inspection_id, None)
        self._fill_gap(reading.inspection_id)
        self.books.seal(
            PlcResult(
                id=reading.inspection_id,
                part=reading.part,
                fate="passed" if passed else "rejected",
                reason=reading.reason,
                score=reading.score if math.isfinite(reading.score) else None,
                told_us=reading.microseconds,
                took_us=(now_ns - triggered.raised_ns) // 1000 if triggered and now_ns else None,
            )
        )

    def _fill_gap(self, id: int) -> None:
        """Results come in the order of triggers: the ids left out will have none."""
        if self._settings.mode == "camera" and self._last_id:
            for skipped in range(self._last_id + 1, id):
                self.books.seal(PlcResult(skipped, 0, "no_result"))
        self._last_id = max(self._last_id, id)

    def _look_at_trigger(self, control: Control, reading: Reading, now_ns: int) -> None:
        if self._raised is None or not control.bits & ControlBit.TRIGGER:
            self._raise_next(reading, now_ns)
        elif reading.bits & StatusBit.TRIGGER_ACK:
            self.books.triggered += 1
            if reading.acquisition_id not in self.books.results:  # its result may have come in the very same scan
                self._waiting[reading.acquisition_id] = self._raised
            self._raised = None
        elif reading.missed != self._missed_before or now_ns > self._raised.raised_ns + self._settings.result_within_ns:
            self.books.missed += 1
            self._raised = None
        self._missed_before = reading.missed

    def _raise_next(self, reading: Reading, now_ns: int) -> None:
        wanted = self._settings.parts
        if self.stopping or self._raised is not None or (wanted is not None and self._parts >= wanted):
            return
        free = reading.bits & StatusBit.TRIGGER_READY and not reading.bits & StatusBit.TRIGGER_ACK
        if free and now_ns >= self._trigger_at_ns:
            self._parts += 1
            self._raised = _Triggered(self._parts, now_ns)
            self._trigger_at_ns = max(self._trigger_at_ns + self._settings.period_ns, now_ns)

    def _give_up(self, now_ns: int) -> None:
        within = self._settings.result_within_ns
        for id, triggered in list(self._waiting.items()):
            if now_ns > triggered.raised_ns + within:
                del self._waiting[id]
                self.books.seal(PlcResult(id, triggered.part, "no_result"))


class Wire:
    """A Modbus TCP client whose one request is a scan.

    Args:
        host: of the station.
        port: of its server.

    Raises:
        MissingExtraError: pymodbus is not installed.
    """

    def __init__(self, host: str, port: int) -> None:
        try:
            from pymodbus import ModbusException
            from pymodbus.client import ModbusTcpClient
        except ImportError as error:
            raise MissingExtraError(
                "the simulated PLC speaks through pymodbus, which is not installed",
                do="pip install 'lineward[station]'",
            ) from error
        logging.getLogger("pymodbus").addHandler(logging.NullHandler())
        self._error = ModbusException
        self._client: ModbusTcpClient = ModbusTcpClient(host, port=port, timeout=_REQUEST_WITHIN, retries=0)
        self.connections = 0

    def scan(self, control: Control) -> Reading:
        """Write the control block, then read the status block; connects first where it is not connected.

        Raises:
            ConnectionError: there was no answer.
            ValueError: the station's map is of another version.
        """
        try:
            if not self._client.connected:
                self._connect()
            answer = self._client.readwrite_registers(
                read_address=STATUS_ADDRESS,
                read_count=STATUS_LENGTH,
                address=CONTROL_ADDRESS,
                values=encode_control(control),
                device_id=_UNIT,
            )
        except self._error as error:
            self._client.close()  # type: ignore[no-untyped-call]
            raise ConnectionError("no answer") from error
        if answer.isError():
            self._client.close()  # type: ignore[no-untyped-call]
            raise ConnectionError(f"refused: {answer}")
        return decode_status(answer.registers)

    def close(self) -> None:
        """Hang up."""
        self._client.close()  # type: ignore[no-untyped-call]

    def _connect(self) -> None:
        if not self._client.connect():  # type: ignore[no-untyped-call]
            raise ConnectionError("no connection")
        self.connections += 1


def run(program: Program, wire: Wire, scan_ns: int) -> list[int]:
    """Scan until the program has ended.

    Args:
        program: the logic.
        wire: to the station.
        scan_ns: from one scan to the next, at least, nanoseconds.

    Returns:
        What each scan took, nanoseconds.

    Raises:
        StationError: the station does not answer for long, or speaks another version of the map.
    """
    took: list[int] = []
    heard_ns = time.monotonic_ns()
    while not program.ended:
        began_ns = time.monotonic_ns()
        control = program.control(began_ns)
        try:
            reading = wire.scan(control)
        except ConnectionError as error:
            program.disconnected()
            if time.monotonic_ns() > heard_ns + _PATIENCE * _NS or program.stopping:
                raise StationError(f"the station gives {error}", do="check that it runs, host and port") from error
            time.sleep(_RECONNECT_AFTER)
            continue
        except ValueError as error:
            raise StationError(f"the station speaks a {error}", do="use station and PLC of one version") from error
        heard_ns = time.monotonic_ns()
        took.append(heard_ns - began_ns)
        program.scanned(control, reading, heard_ns)
        if (left_ns := began_ns + scan_ns - time.monotonic_ns()) > 0:
            time.sleep(left_ns / _NS)
    _let_go(wire)
    return took


def _let_go(wire: Wire) -> None:
    """Take every bit back, as a PLC that is switched to stop does."""
    with contextlib.suppress(ConnectionError):  # the station may have gone first
        wire.scan(Control())


def report_of(program: Program, wire: Wire, took_ns: list[int]) -> PlcReport:
    """What is left behind."""
    books = program.books
    ordered = sorted(took_ns) or [0]
    p50, p99, greatest = (ordered[min(len(ordered) - 1, int(len(ordered) * share))] / 1e3 for share in (0.5, 0.99, 1))
    return PlcReport(
        results=tuple(books.results.values()),
        triggered=books.triggered,
        missed=books.missed,
        after_reject=books.after_reject,
        connections=wire.connections,
        scans=len(took_ns),
        scan_us_p50=p50,
        scan_us_p99=p99,
        scan_us_max=greatest,
    )


def main(argv: list[str] | None = None) -> int:
    """Run a PLC until its parts are done, or until SIGTERM, and write its report; returns the exit code."""
    arguments = _parser().parse_args(argv)
    settings = Settings(
        mode=arguments.mode,
        parts=arguments.parts,
        period_ns=round(_NS / arguments.rate) if arguments.rate else 0,
        ack_delay_ns=round(arguments.ack_delay * _NS),
        result_within_ns=round(arguments.result_within * _NS),
    )
    program = Program(settings, time.monotonic_ns())

    def stop(_number: int, _frame: FrameType | None) -> None:
        program.stopping = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        wire = Wire(arguments.host, arguments.port)
        took: list[int] = []
        try:
            took = run(program, wire, round(arguments.scan * _NS))
        finally:
            wire.close()
            replace_file(arguments.report, encode_report(report_of(program, wire, took)))
    except LinewardError as error:
        print_error(str(error))
        return FAILED
    return PASSED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="plc_program", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="of the station (default: %(default)s)")
    parser.add_argument("--port", type=int, default=502, help="of its Modbus server (default: %(default)s)")
    parser.add_argument("--mode", choices=("camera", "plc"), default="camera", help="who triggers")
    parser.add_argument("--parts", type=int, help="end after so many (default: when told to)")
    parser.add_argument("--rate", type=parse_rate, help="triggers a second at most (default: as the station is ready)")
    parser.add_argument(
        "--ack-delay", type=parse_duration, default=0.0, help="from seeing a result to acknowledging it"
    )
    parser.add_argument("--result-within", type=parse_duration, default=2.0, help="from trigger to result, or reject")
    parser.add_argument("--scan", type=parse_duration, default=0.001, help="from one scan to the next (default: 1ms)")
    parser.add_argument("--report", type=Path, required=True, help="file to write, JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
