"""What a station adds to an inspection, and whether it stays as it is: 10,000 parts at the highest cadence that this
machine holds and at half of it, and memory, files and threads over 100,000 parts.

    python -m benchmarks.station

Leave the machine alone meanwhile: line, station and PLC share it as it is.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TextIO

from msgspec.structs import replace as replace_struct

from benchmarks.processes import LINEWARD, memory_of
from benchmarks.results_file import RESULTS, write_results
from lineward.export.presets import PRESETS
from lineward.export.synthetic import write_dataset
from lineward.export.training import train
from lineward.runtime.bundle import read_bundle, write_bundle
from lineward.runtime.cli.console import ConsoleProgress
from lineward.runtime.images import find_images, write_png
from lineward.runtime.station.configuration import Configuration, ReplayCamera, Seconds
from lineward.runtime.station.jobs import load_job
from lineward.runtime.station.logs import EventLog
from lineward.runtime.station.simulation.desk import Plan, at_the_desk, find_rate, render_parts, simulate
from lineward.runtime.station.simulation.parts import good_images
from lineward.runtime.station.simulation.reconciliation import print_reconciliation
from lineward.runtime.trust import AcceptAny

PARTS = 10_000
DEADLINE = Seconds(0.2)
FRAME = 512
MARKS = (1_000, 10_000, 50_000, 100_000)
LONG_RATE = 800
TINY = Path(__file__).parent.parent / "tests" / "runtime" / "data" / "tiny.lineward"

_SLOWEST = 0.4
_SAMPLES = 100
_PATIENCE = 600.0


def main() -> None:
    """Train, simulate, and watch a long run."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.station", description=(__doc__ or "").split(":")[0])
    parser.add_argument("--parts", type=int, default=PARTS, help="parts of a simulation (default: %(default)s)")
    parser.add_argument("--presets", nargs="+", choices=PRESETS, default=["fast", "balanced"])
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, (Path(scratch) / "log").open("w") as log:
        folder = Path(scratch)
        write_dataset(folder / "data", train=100, test_good=0, per_defect=0, size=FRAME)
        figures = {
            "deadline_ms": DEADLINE * 1e3,
            "frame": f"{FRAME}x{FRAME} RGB",
            "simulations": [
                figures for name in arguments.presets for figures in _simulate(name, folder, arguments.parts, log)
            ],
            "long_run": _long_run(folder),
        }
    command = f"python -m benchmarks.station --parts {arguments.parts} --presets {' '.join(arguments.presets)}"
    write_results("station", command, figures)
    (RESULTS / "station.md").write_text(_table(figures))


def _simulate(preset: str, folder: Path, count: int, log: TextIO) -> Iterator[dict[str, Any]]:
    """At the highest cadence, and at half of it, where parts seldom wait for each other."""
    path = folder / f"{preset}.lineward"
    images = find_images([folder / "data" / "train"])
    write_bundle(path, train(images, preset, recipe=PRESETS[preset], progress=ConsoleProgress()))
    configuration = Configuration(
        name=preset, folder=folder, deadline=DEADLINE, camera=ReplayCamera(images=()), jobs={1: path}
    )
    configuration = at_the_desk(configuration, folder / preset / "station")
    job = load_job(1, path, configuration.engine, AcceptAny())
    parts = render_parts(job.bundle, Plan(count, 1.0))
    bare = sorted(job.inspector.inspect(part.frame).seconds * 1e3 for part in (parts * _SAMPLES)[:_SAMPLES])
    with closing(EventLog(log)) as events:
        slowest = Plan(count, _SLOWEST * 1e3 / bare[_SAMPLES // 2])
        highest = find_rate(configuration, slowest, parts, events)
        for plan in (Plan(count, highest), Plan(count // 5, highest / 2)):
            station = replace_struct(configuration, folder=folder / preset / f"{plan.rate:.1f}" / "station")
            with ConsoleProgress().step(f"{preset}: {plan.rate:.0f} parts/s", plan.parts) as advance:
                simulation = simulate(station, plan, parts, events, advance)
            print_reconciliation(simulation.reconciliation)
            found = asdict(simulation.reconciliation)
            yield {
                "preset": preset,
                "rate_per_second": round(plan.rate, 1),
                "bare_inspection_ms": {
                    "p50": round(bare[_SAMPLES // 2], 2),
                    "p99": round(bare[_SAMPLES * 99 // 100], 2),
                },
                "reconciles": simulation.reconciliation.reconciles,
                **{**found, "mismatches": len(found["mismatches"])},
                "planted": asdict(simulation.planted),
                "not_granted_by_the_system": simulation.missing_real_time,
            }


def _long_run(folder: Path) -> dict[str, Any]:
    """A station in a process of its own, looked at from outside, over a small bundle that inspects fast enough."""
    (folder / "images").mkdir()
    write_png(folder / "images" / "part.png", good_images(read_bundle(TINY, AcceptAny()))[0].astype("uint8"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    file = folder / "station.toml"
    file.write_text(
        f'name = "long-run"\nfolder = "long-run"\ndeadline = "200ms"\n[jobs]\n1 = "{TINY}"\n[camera]\nkind = "replay"\n'
        f'images = ["images"]\nrate = "{LONG_RATE}/s"\n[health]\nport = {port}\n[engine]\nthreads = 1\n'
    )
    with (folder / "long-run.log").open("w") as log:
        process = subprocess.Popen([*LINEWARD, "run", str(file)], stdout=log, stderr=log)
    marks = []
    try:
        with ConsoleProgress().step("long run", MARKS[-1]) as advance:
            for mark in MARKS:
                counts = _wait_until(port, mark, advance)
                marks.append({"parts": mark, **_resources(process.pid), "rejected": counts["rejected_without_verdict"]})
    finally:
        process.terminate()
        process.wait(30)
    return {"parts_per_second": LONG_RATE, "marks": marks, "exit_code": process.returncode}


def _wait_until(port: int, parts: int, advance: Any) -> dict[str, int]:
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        with suppress(urllib.error.URLError, ConnectionError):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=5) as answer:
                counts: dict[str, int] = json.load(answer)["counts"]
            advance(counts["triggered"])
            if counts["triggered"] >= parts:
                return counts
        time.sleep(0.1)
    raise SystemExit(f"the station did not reach {parts} parts")


def _resources(pid: int) -> dict[str, float]:
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        **memory_of(pid),
        "threads": int(status["Threads"]),
        "files": len(list(Path(f"/proc/{pid}/fd").iterdir())),
    }


def _table(figures: dict[str, Any]) -> str:
    lines = [
        "# A station at the desk",
        f"\n{figures['frame']} frames, deadline {figures['deadline_ms']:.0f} ms, 10 % jitter, 10 % planted defects; "
        "line, station and PLC (Modbus TCP, a process of its own) on one machine: `station.json` says which.\n",
        "| preset | parts | parts/s | mismatches | without verdict | trigger to verdict told, p50 / p99 / max | "
        "of which waiting for the parts before | the loop around the inspection |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for s in figures["simulations"]:
        told, waiting, overhead = (
            " / ".join(f"{s[key][at] / 1e3:.2f}" for at in ("p50", "p99", "greatest"))
            for key in ("told", "waiting", "overhead")
        )
        lines.append(
            f"| {s['preset']} | {s['journal']} | {s['rate_per_second']} | {s['mismatches']} | {s['without_verdict']} "
            f"| {told} ms | {waiting} ms | {overhead} ms |"
        )
    lines += ["\n| parts | resident | of which anonymous | threads | files |", "|---|---|---|---|---|"]
    for m in figures["long_run"]["marks"]:
        lines.append(
            f"| {m['parts']} | {m['resident_mib']} MiB | {m['anonymous_mib']} MiB | {m['threads']} | {m['files']} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
