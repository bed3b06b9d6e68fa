"""20,000 hostile bundles, each read and opened as a device with keys does, and what became of them, kind by kind.

python -m benchmarks.hostile [BUNDLES]
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.hostile.attacks import ATTACKS
from benchmarks.hostile.campaign import ALLOWED_MEMORY, EXTRA_MEMORY, LONGEST, run
from benchmarks.results_file import write_results
from lineward.runtime.cli.console import ConsoleProgress


def main() -> int:
    """Run all kinds; ends with 1 when anything was found."""
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 20_000
    each = -(-wanted // len(ATTACKS))
    kinds: dict[str, Any] = {}
    total, found, began = Counter[str](), [], time.monotonic()
    with tempfile.TemporaryDirectory() as scratch, ConsoleProgress().step("hostile bundles", len(ATTACKS)) as advance:
        for done, (kind, tally) in enumerate(run(Path(scratch), range(each)), 1):
            kinds[kind] = {
                "expected": ATTACKS[kind].expected.value,
                "distinct": len(tally.distinct),
                "outcomes": dict(sorted(tally.outcomes.items())),
                "longest_seconds": round(tally.seconds, 2),
                "memory_mib": round(tally.memory / 2**20, 1),
            }
            total += tally.outcomes
            found += [f"{kind}: {finding}" for finding in tally.findings]
            advance(done)
    for finding in found:
        print(finding)
    figures = {
        "bundles": sum(total.values()),
        "distinct": sum(kind["distinct"] for kind in kinds.values()),
        "findings": len(found),
        "first_findings": found[:20],
        "outcomes": dict(sorted(total.items())),
        "longest_seconds": max(kind["longest_seconds"] for kind in kinds.values()),
        "memory_mib": max(kind["memory_mib"] for kind in kinds.values()),
        "limits": {
            "address_space_mib": EXTRA_MEMORY >> 20,
            "memory_mib": ALLOWED_MEMORY >> 20,
            "seconds": LONGEST,
        },
        "run_seconds": round(time.monotonic() - began),
        "kinds": kinds,
    }
    write_results("hostile", "python -m benchmarks.hostile", figures)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
