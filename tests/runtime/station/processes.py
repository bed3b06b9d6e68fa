"""A station and a PLC as they run beside a line: `lineward run` in a process of its own, the PLC over Modbus TCP."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Generic, TypeVar

import pytest

from lineward.runtime.errors import StationError
from lineward.runtime.station.journal_reader import JournalReader, JournalRow
from lineward.runtime.station.plc.handshake import Control
from lineward.runtime.station.plc.registers import Reading
from tests.runtime.station.stand_ins import until

pytest.importorskip("pymodbus", reason="pymodbus is not installed (lineward[station])")
pytest.importorskip("prometheus_client", reason="prometheus_client is not installed (lineward[station])")

from lineward.runtime.station.simulation.plc_program import Program, Settings, Wire, run

_RUN = [sys.executable, "-c", "import sys; from lineward.runtime.cli import main; sys.exit(main())", "run"]
REPLAY = 'kind = "replay"\nimages = ["images"]\nrate = "50/s"'
START_WITHIN = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class StationProcess:
    """`lineward run` on a station file in a folder; its state lies in `state` there."""

    def __init__(
        self,
        folder: Path,
        bundle: Path,
        camera: str = REPLAY,
        plc: str = "",
        more: str = "",
        wire: str = "",
        name: str = "faults",
    ) -> None:
        self.folder = folder / "state"
        self.port, self.health = free_port(), free_port()
        wire = wire or f'kind = "modbus-server"\nhost = "127.0.0.1"\nport = {self.port}'
        self.log = folder / "log"
        self.environment: dict[str, str] = {}
        self.under: tuple[str, ...] = ()  # a command that runs the station
        self._file = folder / "station.toml"
        self._process: subprocess.Popen[bytes] | None = None
        self._file.write_text(
            f"""\
name = "{name}"
folder = "{self.folder}"
deadline = "2s"
{more}
[camera]
{camera}
[plc]
{wire}
{plc}
[health]
port = {self.health}
[engine]
threads = 1
[jobs]
1 = "{bundle}"
2 = "{folder / "two.lineward"}"
"""
        )

    def start(self, online: bool = True) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self.under, *_RUN, str(self._file)], stderr=log, stdout=log, env={**os.environ, **self.environment}
            )
        until(lambda: self._answers(online), f"the station up: {self.log.read_text()[-2000:]}", START_WITHIN)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def wait(self) -> int:
        """Until it ends by itself; with which code."""
        assert self._process is not None
        return self._process.wait(30)

    def stop(self) -> None:
        """As systemd does."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        assert self.wait() == 0, self.log.read_text()[-3000:]
        assert "Traceback" not in self.log.read_text()

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()

    def status(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.health}/status", timeout=5) as answer:
            report: dict[str, Any] = json.load(answer)
            return report

    def offline(self, reason: str) -> None:
        until(lambda: self.status()["offline_reason"] == reason, f"offline for {reason!r}", 30)

    def more_parts(self, count: int, outcome: str = "triggered") -> None:
        """Wait for so many more parts."""
        before = self.status()["counts"][outcome]
        until(lambda: self.status()["counts"][outcome] >= before + count, f"{count} more {outcome}", 30)

    def rows(self) -> list[JournalRow]:
        with closing(JournalReader(self.folder)) as reader:
            return sorted(reader.parts(), key=lambda row: row.id)

    def event_names(self) -> list[str]:
        with closing(JournalReader(self.folder)) as reader:
            return [event.name for event in reader.events()]

    def _answers(self, online: bool) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.log.read_text()[-3000:]
        with suppress(urllib.error.URLError, ConnectionError, TimeoutError):
            return not online or self.status()["state"] == "online"
        return False


@contextmanager
def station_process(folder: Path, bundle: Path, **changes: str) -> Iterator[StationProcess]:
    """A station that is ended with the test."""
    station = StationProcess(folder, bundle, **changes)
    try:
        yield station
    finally:
        station.end()


class FaultyWire(Wire):
    """A wire that the test can cut."""

    def __init__(self, port: int) -> None:
        super().__init__("127.0.0.1", port)
        self.cut_when: Callable[[Control, Reading], bool] = lambda _control, _reading: False
        self.cut_until = 0.0
        self.cuts = 0
        self.before: list[Reading] = []

    def scan(self, control: Control) -> Reading:
        if time.monotonic() < self.cut_until:
            raise ConnectionError("cut")
        reading = super().scan(control)
        self.before = [*self.before[-4:], reading]
        if self.cut_when(control, reading):
            self.close()
            self.cuts += 1
            raise ConnectionError("cut")
        return reading


AnyWire = TypeVar("AnyWire", bound=Wire)


class PlcThread(Generic[AnyWire]):
    """The simulated PLC, in a thread of the test."""

    def __init__(self, wire: AnyWire, settings: Settings, program: type[Program] = Program) -> None:
        self.program = program(settings, time.monotonic_ns())
        self.wire = wire
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop as a PLC does: what was not taken is a reject."""
        self.program.stopping = True
        self._thread.join(10)
        self.wire.close()

    @property
    def passed(self) -> set[int]:
        results = list(self.program.books.results.values())  # at once: the PLC goes on adding to them
        return {result.id for result in results if result.fate == "passed"}

    @property
    def seen(self) -> int:
        return len(self.program.books.results)

    def _run(self) -> None:
        with suppress(StationError):
            run(self.program, self.wire, 1_000_000)


@contextmanager
def plc(port: int, program: type[Program] = Program, **settings: Any) -> Iterator[PlcThread[FaultyWire]]:
    """A PLC on the station's Modbus server that is stopped with the test."""
    with plc_on(FaultyWire(port), program, **settings) as thread:
        yield thread


@contextmanager
def plc_on(wire: AnyWire, program: type[Program] = Program, **settings: Any) -> Iterator[PlcThread[AnyWire]]:
    """A PLC on a wire of its own that is stopped with the test."""
    thread = PlcThread(wire, Settings(**settings), program)
    try:
        yield thread
    finally:
        thread.stop()


def check_books(rows: list[JournalRow], plc_passed: set[int], cut: bool = False) -> Mapping[str, int]:
    """Every id once and none left out, no part passed by the PLC that the journal rejects; counts by reason.

    Args:
        rows: the journal.
        plc_passed: at the PLC.
        cut: the PLC may have rejected what the journal passed, because it was cut off or stopped before it knew.
    """
    ids = [row.id for row in rows]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    passed = {row.id for row in rows if row.outcome == "passed"}
    assert plc_passed <= passed, f"escaped: {sorted(plc_passed - passed)}"
    unknown = passed - plc_passed
    assert cut or not unknown, f"passed here, rejected there: {sorted(unknown)}"
    reasons: dict[str, int] = {}
    for row in rows:
        reasons[row.reason] = reasons.get(row.reason, 0) + 1
        assert (row.verdict == "pass") == (row.reason == "within_threshold")
    return reasons
