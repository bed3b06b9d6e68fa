"""Candidates timed on the path that inspects, in windows that take turns, so that a busy moment meets them all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from lineward.export.tuning.table import Candidate, Timing
from lineward.runtime.bench.measure import Plan, Say, read_material, run_bench
from lineward.runtime.bench.record import TRIGGER, latencies
from lineward.runtime.bench.statistics import percentile
from lineward.runtime.bench.triggers import Clock
from lineward.runtime.bundle import Bundle
from lineward.runtime.errors import BenchError

WINDOWS = 9
"""The p99 of a tenth like these is the greatest of all ten once in ten times."""
TRIGGERS = 100
"""Of a window; p99 takes 50."""
_PROBES, _PROBE = 3, 20
"""Short runs of each candidate, and their triggers."""
_WARMUP = 10

Bundles = Mapping[Candidate, Callable[[], Bundle]]
"""Makes the bundle of each candidate, when its turn comes."""


def probe(bundles: Bundles, plan: Plan, say: Say, clock: Clock | None = None) -> dict[Candidate, Timing]:
    """The least median of a few short runs of each candidate.

    Args:
        bundles: the candidates.
        plan: engine, threads and whether images are decoded beforehand; the rest is decided here.
        say: is told what begins. No progress bar: its thread would wake in the middle of inspections.
        clock: time; the machine's by default.

    Raises:
        EngineError: the engine cannot be opened, or failed.
    """
    say(f"probe {len(bundles)} candidates")
    medians = [
        {c: _percentile(make(), plan, _PROBE, 0.5, clock) for c, make in bundles.items()} for _ in range(_PROBES)
    ]
    return {c: Timing(min(run[c] for run in medians)) for c in bundles}


def time_in_full(
    bundles: Bundles, probed: Mapping[Candidate, Timing], plan: Plan, say: Say, clock: Clock | None = None
) -> dict[Candidate, Timing]:
    """Add the p99 of each window to candidates that were probed; arguments and errors as `probe`."""
    found: dict[Candidate, list[float]] = {candidate: [] for candidate in bundles}
    for window in range(WINDOWS):
        say(f"window {window + 1} of {WINDOWS}: {TRIGGERS} triggers of each of {len(bundles)} candidates")
        for candidate, make in bundles.items():
            found[candidate].append(_percentile(make(), plan, TRIGGERS, 0.99, clock))
    return {c: replace(probed[c], p99=tuple(windows)) for c, windows in found.items()}


def _percentile(bundle: Bundle, plan: Plan, count: int, share: float, clock: Clock | None) -> float:
    """Of trigger to verdict, back to back, with an engine opened anew, as `lineward bench` opens one."""
    material = read_material(bundle, [])
    record = run_bench(bundle, material, replace(plan, count=count, warmup=_WARMUP), lambda _: None, clock)
    if record.runs[0].interrupted:
        raise KeyboardInterrupt
    value = percentile(latencies(record.runs[0])[TRIGGER], share)
    if value is None:
        raise BenchError(f"{count} triggers are too few for a percentile", do="report this")
    return value
