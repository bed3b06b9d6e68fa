"""Whether `lineward tune` keeps to its budget: a bundle for each, and then ten benches of each, in turn.

    python -m benchmarks.budgets DATA FOLDER

A quarter of an hour on two cores for labelled bottles of MVTec AD; leave the machine alone meanwhile. Tables, bundles
and records are kept in FOLDER, and what is there is not measured again. Decoding is left out of both: a camera delivers
pixels.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.processes import LINEWARD
from benchmarks.results_file import write_results
from lineward.runtime.bench.record import TRIGGER, latencies, read_record
from lineward.runtime.bench.statistics import percentile

BUDGETS = (60, 30, 15)
"""Milliseconds."""
BENCHES = 10


def main() -> None:
    """Tune, bench, and write how many benches were within their budget."""
    data, folder = sys.argv[1], Path(sys.argv[2])
    folder.mkdir(parents=True, exist_ok=True)
    for budget in BUDGETS:
        table = folder / f"{budget}ms.json"
        if not table.exists():
            words = ["tune", data, "--decoded", "--budget", f"{budget}ms", "--json", str(table)]
            _lineward(*words, "-o", str(_bundle(folder, budget)))  # ends with 2 where nothing fits
    for number in range(1, BENCHES + 1):
        for budget in BUDGETS:
            record = _record(folder, budget, number)
            if _bundle(folder, budget).exists() and not record.exists():
                _lineward("bench", str(_bundle(folder, budget)), "--decoded", "--json", str(record))
    figures = {f"{budget} ms": _kept(folder, budget) for budget in BUDGETS}
    write_results("budgets", "python -m benchmarks.budgets DATA FOLDER", {"data": Path(data).name, "budgets": figures})


def _kept(folder: Path, budget: int) -> dict[str, Any]:
    """What was chosen for a budget, and what became of it."""
    table = json.loads((folder / f"{budget}ms.json").read_text())
    timed = [candidate for candidate in table["candidates"] if candidate["p99_seconds_by_window"]]
    chosen = [candidate for candidate in timed if candidate["chosen"]]
    if not chosen:
        least = min(max(candidate["p99_seconds_by_window"]) for candidate in timed)
        return {"chosen": None, "least_greatest_p99_ms": round(1e3 * least, 1)}
    (found,) = chosen
    records = [read_record(_record(folder, budget, number)) for number in range(1, BENCHES + 1)]
    p99 = [1e3 * (percentile(latencies(record.runs[0])[TRIGGER], 0.99) or math.nan) for record in records]
    return {
        "chosen": {"size": found["size"], "rows": found["rows"]},
        "score": round(found["score"], 4),
        "p50_ms": round(1e3 * found["p50_seconds"], 1),
        "greatest_p99_ms_of_the_windows": round(1e3 * max(found["p99_seconds_by_window"]), 1),
        "p99_ms_of_the_benches": [round(value, 1) for value in p99],
        "benches_within": sum(value <= budget for value in p99),
    }


def _bundle(folder: Path, budget: int) -> Path:
    return folder / f"{budget}ms.lineward"


def _record(folder: Path, budget: int, number: int) -> Path:
    return folder / f"bench-{budget}ms-{number}.json"


def _lineward(*words: str) -> None:
    print("lineward", *words, flush=True)
    subprocess.run([*LINEWARD, *words])


if __name__ == "__main__":
    main()
