"""Say what this device can do, what failed, and what could not be checked: a report to paste into an issue."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from lineward.runtime.bundle import read_bundle
from lineward.runtime.cli import FAILED, PASSED
from lineward.runtime.selfcheck import Outcome, selfcheck


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("bundle", type=Path, nargs="?", help="score its golden images through every engine")
    parser.add_argument("--json", action="store_true", help="print one JSON list")


def run(arguments: argparse.Namespace) -> int:
    """Check and print; what could not be checked is no failure."""
    bundle = read_bundle(arguments.bundle) if arguments.bundle else None
    checks = []
    for check in selfcheck(bundle):
        checks.append(check)
        if not arguments.json:
            print(f"{check.outcome.value:<12} {check.subject}: {check.finding}", flush=True)
    if arguments.json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    return FAILED if any(check.outcome is Outcome.FAILED for check in checks) else PASSED
