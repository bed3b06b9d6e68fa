"""The `lineward` command in a process of its own, and the memory that it takes."""

from __future__ import annotations

import sys
from pathlib import Path

LINEWARD = (sys.executable, "-c", "import sys; from lineward.runtime.cli import main; sys.exit(main())")
"""What its words are put behind."""


def memory_of(pid: int) -> dict[str, float]:
    """Memory of a running process now, in MiB: resident, and what of it is no file's."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    names = {"resident_mib": "VmRSS", "anonymous_mib": "RssAnon"}
    return {name: round(int(status[field].split()[0]) / 1024, 1) for name, field in names.items()}
