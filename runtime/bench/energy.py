"""Energy of a run, where a sensor tells: tegrastats on a Jetson, RAPL's counters on an x86."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO

from lineward.runtime.bench.record import Energy, Tegra
from lineward.runtime.bench.tegrastats import module_watts, summarise_lines

_INTERVAL_MS = 200
_PATIENCE = 5.0
"""Seconds that tegrastats has to end when it is asked to."""
_POWERCAP = Path("/sys/class/powercap")


class Meter:
    """Meters what happens within its context.

    tegrastats runs as a process of its own, which writes to a file: this process is not disturbed by it.

    Args:
        powercap: where the kernel shows RAPL's counters, in microjoules.

    Attributes:
        tegra: what tegrastats said; None where there is none.
    """

    def __init__(self, powercap: Path = _POWERCAP) -> None:
        self.tegra: Tegra | None = None
        self._packages = [path for path in sorted(powercap.glob("intel-rapl:*")) if path.name.count(":") == 1]
        self._before: list[int | None] = []
        self._joules: float | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: IO[str] | None = None

    def __enter__(self) -> Meter:
        program = shutil.which("tegrastats")
        if program:
            self._lines = tempfile.TemporaryFile("w+", errors="replace")
            command = [program, "--interval", str(_INTERVAL_MS)]
            self._process = subprocess.Popen(command, stdout=self._lines, stderr=subprocess.DEVNULL)
        self._before = [_count(path / "energy_uj") for path in self._packages]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        after = [_count(path / "energy_uj") for path in self._packages]
        ranges = [_count(path / "max_energy_range_uj") for path in self._packages]
        spent = [spent_microjoules(*counts) for counts in zip(self._before, after, ranges, strict=True)]
        known = [value for value in spent if value is not None]
        self._joules = sum(known) / 1e6 if known and len(known) == len(spent) else None
        if self._process and self._lines:
            self._process.terminate()
            try:
                self._process.wait(timeout=_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._lines.seek(0)
            self.tegra = summarise_lines(self._lines.read().splitlines())
            self._lines.close()

    def energy(self, seconds: float) -> Energy | None:
        """Energy of the `seconds` that were metered; None where no sensor tells."""
        module = module_watts(self.tegra.watts) if self.tegra else None
        if module:
            watts, rails = module
            return Energy(max(0.0, watts * seconds), f"tegrastats, {rails}: the whole module")
        if self._joules is not None:
            return Energy(self._joules, "RAPL: the processor's package alone")
        return None


def spent_microjoules(before: int | None, after: int | None, greatest: int | None) -> int | None:
    """Microjoules between two readings of a RAPL counter, which begins anew at its greatest value; None if unread."""
    if before is None or after is None:
        return None
    if after >= before:
        return after - before
    return None if greatest is None else after + greatest - before


def _count(path: Path) -> int | None:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # most systems let only root read it
        return None
