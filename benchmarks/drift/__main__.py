"""Drift detection: false alarms in 10,000 frames in control, frames to the alarm for planted drifts, and its cost.

LINEWARD_DATA=<folder with mvtec_ad_384/> python -m benchmarks.drift
"""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.drift.rivals import cusum, simple_jumper
from benchmarks.drift.streams import PLANS, Plan, Pool, Vectors, build_pool, measured
from benchmarks.results_file import RESULTS, write_results
from lineward.export.presets import PRESETS
from lineward.export.synthetic import render_part
from lineward.export.training import train
from lineward.runtime.bundle import decode_bundle
from lineward.runtime.cli.console import ConsoleProgress
from lineward.runtime.conformal import split_conformal
from lineward.runtime.drift import FRAMES_BETWEEN_FALSE_ALARMS, STATISTICS, DriftMonitor, Measurement, measure
from lineward.runtime.drift.measurements import Look
from lineward.runtime.drift.monitor import RANGES
from lineward.runtime.drift.sequential_test import RankHistory
from lineward.runtime.images import find_images, read_image, write_png
from lineward.runtime.inspection import Inspection, Reason, Verdict
from lineward.runtime.inspector import Inspector
from lineward.runtime.manifest import DriftReference

CATEGORIES = ("bottle", "screw", "transistor")
FRAMES = 10_000
SEEDS = 50  # runs in control, of each source
RUNS = 40  # of each drift
BEFORE = (0, 1000)  # frames in control before the drift
PATIENCE = 3000  # frames that a drift is given
HELD_OUT, GOOD = 20, 200  # images behind scores, and behind what a frame looks like
RATE = 0.05
POOL = 80
PARTS, PART_SIZE = 200, 128
BAD_SHARES = (0.01, 0.05)
BAD_RUNS = 20


def main() -> None:
    """Measure everything."""
    with tempfile.TemporaryDirectory() as scratch:
        sources = {"synthetic parts": _synthetic(Path(scratch))}
    sources |= {category: _category(category) for category in CATEGORIES if _root(category)}
    figures = {
        "frames_between_false_alarms": FRAMES_BETWEEN_FALSE_ALARMS,
        "frames": FRAMES,
        "reference": {"scores": HELD_OUT, "looks": GOOD},
        "sources": sources,
        "cost_us": _cost(),
    }
    write_results("drift", "python -m benchmarks.drift", figures)
    (RESULTS / "drift.md").write_text(_document(figures))


def _root(category: str) -> Path | None:
    root = Path(os.environ.get("LINEWARD_DATA") or "../shared/data") / "mvtec_ad_384" / category
    if root.is_dir():
        return root
    print(f"SKIPPED: {category}: {root} is missing (LINEWARD_DATA names the folder of mvtec_ad_384)", flush=True)
    return None


# Sources.


def _category(category: str) -> dict[str, Any]:
    """Half of the good images build the bank; the others are what streams are drawn from."""
    root = _root(category)
    assert root is not None
    paths = find_images([root / "train" / "good"])
    order = [paths[i] for i in np.random.default_rng(0).permutation(len(paths))]
    bank, rest = order[: len(order) // 2], order[len(order) // 2 :]
    data = train(bank, category, held_out=rest, recipe=PRESETS["fast"], progress=ConsoleProgress())
    inspector = Inspector(decode_bundle(data, category))
    pool = build_pool(inspector, [read_image(path) for path in rest[:POOL]])
    print(f"{category}: {len(rest)} images apart", flush=True)
    return {
        "bank_images": len(bank),
        "pool_images": min(len(rest), POOL),
        "in_control": _in_control([_drawn(pool, seed) for seed in range(SEEDS)]),
        "drifts": {plan.name: _drift(plan, pool) for plan in PLANS},
        "bad_parts": _bad_parts(pool, np.array([measured(inspector, read_image(path)) for path in _defects(root)])),
    }


def _defects(root: Path) -> list[Path]:
    return [path for path in find_images([root / "test"]) if path.parent.name != "good"]


def _synthetic(folder: Path) -> dict[str, Any]:
    """10,000 new parts against a bundle and its own reference, in their order and in others."""
    paths = [folder / f"{seed:04d}.png" for seed in range(PARTS)]
    for seed, path in enumerate(paths):
        write_png(path, render_part(seed, size=PART_SIZE).image)
    data = train(paths, "parts", recipe=PRESETS["fast"], progress=ConsoleProgress())
    bundle = decode_bundle(data, "parts")
    inspector = Inspector(bundle)
    frames = np.array([measured(inspector, render_part(PARTS + i, size=PART_SIZE).image) for i in range(FRAMES)])
    print("synthetic parts inspected", flush=True)
    reference = bundle.manifest.drift
    assert reference is not None
    threshold = bundle.manifest.threshold.value
    orders = [np.arange(FRAMES), *(np.random.default_rng(seed).permutation(FRAMES) for seed in range(1, SEEDS))]
    runs = [_Run(reference, threshold, frames[order], seed) for seed, order in enumerate(orders)]
    return {"bank_images": PARTS - len(reference.score), "in_control": _in_control(runs)}


# Runs.


@dataclass(frozen=True, eq=False)
class _Run:
    """A station's life: what it compares with, and the frames it sees."""

    reference: DriftReference
    threshold: float
    frames: Vectors
    seed: int

    def alarms(self, passed_alone: bool = True) -> Iterator[tuple[int, str]]:
        monitor = DriftMonitor(self.reference, self.threshold, seed=self.seed * len(STATISTICS))
        for number, vector in enumerate(self.frames):
            score, distance, *look = vector.tolist()
            passed = score <= self.threshold or not passed_alone
            alarms = monitor.update(number, Measurement(score, distance, Look(*look)), passed)
            yield from ((number, f"{alarm.statistic.value} {alarm.direction.value}") for alarm in alarms)

    def table(self) -> Vectors:
        """The reference as [n, statistics], NaN where a statistic has fewer values."""
        columns = [getattr(self.reference, statistic.value) for statistic in STATISTICS]
        table = np.full((max(map(len, columns)), len(columns)), np.nan)
        for number, values in enumerate(columns):
            table[: len(values), number] = values
        return table

    def p_values(self) -> Vectors:
        found = np.empty_like(self.frames)
        for number, (statistic, values) in enumerate(zip(STATISTICS, self.table().T, strict=True)):
            history = RankHistory(*RANGES[statistic], self.seed)
            for value in values[np.isfinite(values)]:
                history.add(value)
            for frame, value in enumerate(self.frames[:, number]):
                found[frame, number] = history.p_value(value)
                history.add(value)
        return found


def _drawn(pool: Pool, seed: int, frames: Vectors | None = None) -> _Run:
    """A run whose reference is drawn as its frames are."""
    random = np.random.default_rng((1, seed))
    held_out, good = pool.in_control(HELD_OUT, random), pool.in_control(GOOD, random)
    columns = [held_out[:, 0], held_out[:, 1], *good[:, 2:].T]
    reference = DriftReference(*(tuple(sorted(values.tolist())) for values in columns))
    threshold = split_conformal(held_out[:, 0].tolist(), RATE)
    return _Run(reference, threshold, pool.in_control(FRAMES, random) if frames is None else frames, seed)


def _in_control(runs: list[_Run]) -> dict[str, Any]:
    alarms = [list(run.alarms()) for run in runs]
    some = runs[:20]
    return {
        "runs": len(runs),
        "frames": sum(len(run.frames) for run in runs),
        "alarms": sum(map(len, alarms)),
        "runs_with_alarm": sum(map(bool, alarms)),
        "statistics": dict(Counter(name for found in alarms for _, name in found)),
        "cusum": {"runs": len(some), "runs_with_alarm": sum(cusum(r.table(), r.frames) is not None for r in some)},
        "martingale": {
            "runs": len(some),
            "runs_with_alarm": sum(simple_jumper(r.p_values()) is not None for r in some),
        },
    }


def _drift(plan: Plan, pool: Pool) -> dict[str, Any]:
    return {f"after {before} frames": _drift_after(plan, pool, before) for before in BEFORE}


def _drift_after(plan: Plan, pool: Pool, before: int) -> dict[str, Any]:
    delays, names, rejected, rivals = [], [], [], {"cusum": [], "martingale": []}  # type: ignore[var-annotated]
    for seed in range(RUNS):
        random = np.random.default_rng((2, seed, before))
        frames = np.concatenate([pool.in_control(before, random), pool.drifting(plan, PATIENCE, random)])
        run = _drawn(pool, 1000 + seed, frames)
        first = next((alarm for alarm in run.alarms() if alarm[0] >= before), None)
        if first is not None:
            delays.append(first[0] - before + 1)
            names.append(first[1])
            seen = frames[before : first[0] + 1, 0]
            rejected.append(float(np.mean(seen > run.threshold)))
        if seed < RUNS // 2:
            until = before + PATIENCE if plan.share < 1 else before + 1500
            for name, found in (
                ("cusum", cusum(run.table(), frames[:until])),
                ("martingale", simple_jumper(run.p_values()[:until])),
            ):
                rivals[name].append(None if found is None or found < before else found - before + 1)
    return {
        "runs": RUNS,
        "found": len(delays),
        "median": float(np.median(delays)) if delays else None,
        "p95": float(np.quantile(delays, 0.95, method="higher")) if delays else None,
        "greatest": max(delays) if delays else None,
        "first_statistic": dict(Counter(names)),
        "rejected_before_the_alarm": round(float(np.mean(rejected)), 4) if rejected else None,
        "rivals": {
            name: {
                "runs": len(found),
                "found": sum(d is not None for d in found),
                "median": float(np.median([d for d in found if d is not None])) if any(found) else None,
            }
            for name, found in rivals.items()
        },
    }


def _bad_parts(pool: Pool, bad: Vectors) -> dict[str, Any]:
    """Runs with an alarm where nothing drifts, but a share of the parts becomes bad."""
    found: dict[str, Any] = {"images": len(bad), "frames": PATIENCE, "runs": BAD_RUNS}
    for share in BAD_SHARES:
        runs = []
        for seed in range(BAD_RUNS):
            random = np.random.default_rng((3, seed))
            frames = np.concatenate([pool.in_control(BEFORE[-1], random), pool.in_control(PATIENCE, random)])
            is_bad = random.random(len(frames)) < share
            is_bad[: BEFORE[-1]] = False
            frames[is_bad] = bad[random.integers(len(bad), size=is_bad.sum())]
            runs.append(_drawn(pool, 2000 + seed, frames))
        for rule, passed_alone in (("passed", True), ("all", False)):
            names = [[name for _, name in run.alarms(passed_alone)] for run in runs]
            alarmed = sum(any(name.startswith("score") for name in run) for run in names)
            others = sum(any(not name.startswith("score") for name in run) for run in names)
            found[f"{share:.0%}, scores of {rule}"] = {"score": alarmed, "others": others}
    return found


def _cost() -> dict[str, float]:
    """Microseconds a frame of 320x320, median of 2,000."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (320, 320, 3)).astype(np.uint8)
    anomaly_map = random.random((320, 320), np.float32)
    inspection = Inspection(Verdict.PASS, Reason.WITHIN_THRESHOLD, 0.3, 0.5, anomaly_map, 0.0, pixels)
    values = tuple(sorted(random.random(256).tolist()))
    monitor = DriftMonitor(DriftReference(*[values] * len(STATISTICS)), 0.5)
    measuring, testing = [], []
    for part in range(2000):
        start = time.perf_counter()
        measurement = measure(inspection)
        measuring.append(time.perf_counter() - start)
        assert measurement is not None
        start = time.perf_counter()
        monitor.update(part, measurement, passed=True)
        testing.append(time.perf_counter() - start)
    return {
        "measuring": round(float(np.median(measuring)) * 1e6, 1),
        "testing": round(float(np.median(testing)) * 1e6, 1),
    }


# The document.


def _document(figures: dict[str, Any]) -> str:
    lines = [
        "# Drift detection",
        "",
        f"`python -m benchmarks.drift`. Stated: one false alarm in {figures['frames_between_false_alarms']:,} frames "
        f"at most, so in {figures['frames'] / figures['frames_between_false_alarms']:.0%} of runs of "
        f"{figures['frames']:,}.",
        "",
        "## In control",
        "",
        f"Of synthetic parts, {figures['frames']:,} different ones in {SEEDS} orders, against the reference of their "
        "bundle; else reference and frames drawn from inspections of good images that did not build the bank.",
        "",
        "| source | runs | frames | runs with an alarm | CUSUM against the reference | plain martingale |",
        "|---|---|---|---|---|---|",
    ]
    for source, found in figures["sources"].items():
        control = found["in_control"]
        rivals = " | ".join(f"{control[r]['runs_with_alarm']} of {control[r]['runs']}" for r in ("cusum", "martingale"))
        lines.append(
            f"| {source} | {control['runs']} | {control['frames']:,} | {control['runs_with_alarm']} | {rivals} |"
        )
    lines += [
        "",
        "## Frames from the beginning of a drift to the alarm",
        "",
        "| source | drift | frames before it | found | median | 95 % within | told first by | rejected before the alarm"
        " | plain martingale, median | CUSUM, median |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for source, found in figures["sources"].items():
        for name, by_start in found.get("drifts", {}).items():
            lines += [_row(source, name, start, drift) for start, drift in by_start.items()]
    lines += [
        "",
        f"## A share of bad parts from frame {BEFORE[-1]:,} on, nothing else",
        "",
        "| source | bad parts, and whose scores are tested | runs | alarm of the score | of another statistic |",
        "|---|---|---|---|---|",
    ]
    for source, found in figures["sources"].items():
        bad = found.get("bad_parts", {})
        for name, alarms in bad.items():
            if isinstance(alarms, dict):
                lines.append(f"| {source} | {name} | {bad['runs']} | {alarms['score']} | {alarms['others']} |")
    cost = figures["cost_us"]
    lines += [
        "",
        f"Cost: {cost['measuring']:.0f} µs to measure a frame of 320x320, {cost['testing']:.0f} µs to test it, after "
        "its verdict.",
    ]
    return "\n".join(lines) + "\n"


def _row(source: str, name: str, start: str, drift: dict[str, Any]) -> str:
    first = max(drift["first_statistic"], key=drift["first_statistic"].get, default="–")
    rivals = [drift["rivals"][r] for r in ("martingale", "cusum")]
    cells = [
        source,
        name,
        start.split()[1],
        f"{drift['found']} of {drift['runs']}",
        _number(drift["median"]),
        _number(drift["p95"]) if drift["found"] == drift["runs"] else "–",
        first,
        "–" if drift["rejected_before_the_alarm"] is None else f"{drift['rejected_before_the_alarm']:.1%}",
        *(f"{_number(r['median'])} ({r['found']} of {r['runs']})" for r in rivals),
    ]
    return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


if __name__ == "__main__":
    main()
