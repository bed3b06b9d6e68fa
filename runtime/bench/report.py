"""A record and a comparison in words and rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from lineward.runtime.bench.compare import Change
from lineward.runtime.bench.machine import throttled
from lineward.runtime.bench.record import Record, Run, State, latencies, misses
from lineward.runtime.bench.statistics import summarise

COLUMNS = ("ms", "p50", "p90", "p99", "p99.9", "max", "jitter")
CHANGES = ("run", "stage", "", "A, ms", "B, ms", "B/A", "95 % interval", "B is")


def run_rows(run: Run) -> Iterator[tuple[str, ...]]:
    """Of every stage, then of the whole, in milliseconds; percentiles do not add up."""
    for name, seconds in latencies(run).items():
        found = summarise(seconds * 1e3)
        values = (found.p50, found.p90, found.p99, found.p999, found.greatest, found.jitter)
        yield (name, *("-" if value is None else f"{value:.3f}" for value in values))


def run_remarks(run: Run, deadline: float | None) -> Iterator[str]:
    """What a run's table does not hold: misses, queueing, waking, energy, throttling."""
    count = len(run.samples)
    if run.interrupted:
        yield f"ended early, after {count} triggers"
    if deadline is not None:
        yield f"deadline of {deadline * 1e3:g} ms missed by {misses(run, deadline)} of {count}"
    queued = sum(sample.queued > 0 for sample in run.samples)
    if queued:
        yield f"{queued} of {count} triggers were due while the inspection before them still ran, and waited for it"
    if run.rate is not None:
        waking = summarise(np.array([max(0.0, s.start - s.planned - s.queued) for s in run.samples]) * 1e3)
        yield f"the bench's own waking, in no latency: p50 {waking.p50 or 0:.2f} ms, max {waking.greatest:.2f} ms"
    if run.energy:
        joules = run.energy.joules / count
        yield f"energy {joules * 1e3:.4g} mJ an inspection, idle gaps included ({run.energy.source})"
    if run.tegra:
        yield f"tegrastats: {_tegra(run)}"
    events = throttled(run.before, run.after)
    if events:
        yield f"THROTTLED: {', '.join(events)}"


def machine_rows(record: Record) -> Iterator[tuple[str, str]]:
    """Where and with what a record was made; what the system does not tell is said to be so."""
    machine, images = record.machine, record.images
    yield "bundle", f"{record.product}, sha256 {record.bundle[:12]}, engine {record.engine}"
    yield "images", f"{images.source}" + (", decoded beforehand" if images.decoded else "")
    yield "machine", f"{machine.board or machine.cpu or 'not told'}, {machine.architecture}, {machine.cores} cores"
    yield "system", machine.system
    yield "versions", ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    yield "governor", machine.governor or "not told by this system"
    yield "power mode", machine.power_mode or "not told by this system"
    first, last = record.runs[0].before, record.runs[-1].after
    yield "clocks", _before_and_after(_clocks, first.clocks, last.clocks)
    yield "temperature", _before_and_after(_hottest, first.temperatures, last.temperatures)
    yield "throttling", _throttling(first)
    yield "energy", next((run.energy.source for run in record.runs if run.energy), "no sensor that this user may read")
    stages = ", ".join(f"{name} {seconds * 1e3:.2f}" for name, seconds in record.cold.stages.items())
    whole = sum(record.cold.stages.values())
    yield "cold", f"engine opened in {record.cold.open * 1e3:.1f} ms, first inspection {whole * 1e3:.1f} ms ({stages})"


def change_rows(changes: Sequence[Change]) -> Iterator[tuple[str, ...]]:
    """Rows of `CHANGES`."""
    for change in changes:
        times = (f"{seconds * 1e3:.3f}" for seconds in (change.first, change.second))
        found = change.ratio
        interval = f"{found.low:.3f} to {found.high:.3f}"
        yield change.run, change.stage, change.percentile, *times, f"{found.value:.3f}", interval, change.finding


def _tegra(run: Run) -> str:
    said = run.tegra
    if said is None:
        return ""
    parts = [f"{name} {watts:.2f} W" for name, watts in said.watts.items()]
    parts += [f"CPU {said.cpu_mhz[0]} to {said.cpu_mhz[1]} MHz"] if said.cpu_mhz else []
    parts += [f"GPU {said.gpu_mhz[0]} to {said.gpu_mhz[1]} MHz"] if said.gpu_mhz else []
    parts += [f"at most {max(said.temperatures.values()):.1f} C"] if said.temperatures else []
    return ", ".join(parts)


def _before_and_after(
    words: Callable[[dict[str, float]], str], before: dict[str, float], after: dict[str, float]
) -> str:
    return f"{words(before)} before, {words(after)} after" if before and after else "not told by this system"


def _clocks(clocks: dict[str, float]) -> str:
    """The cores' as a range, the others one by one; limits are in the record alone."""
    cores = [mhz for name, mhz in clocks.items() if name.startswith("cpu ") and not name.endswith((" min", " max"))]
    spread = [f"cores {min(cores):.0f} to {max(cores):.0f} MHz"] if cores else []
    return ", ".join(spread + [f"{name} {mhz:.0f} MHz" for name, mhz in clocks.items() if not name.startswith("cpu ")])


def _hottest(temperatures: dict[str, float]) -> str:
    name = max(temperatures, key=temperatures.__getitem__)
    return f"{temperatures[name]:.1f} C at most ({name})"


def _throttling(state: State) -> str:
    return "watched: " + ", ".join(state.throttling) if state.throttling else "not told by this system"
