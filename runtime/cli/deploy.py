"""Prove a bundle on this device, and only then make it the active one of a station's job; a running station takes it
between two parts, on trial. Exit codes: 0 active, 2 refused: then the old one stays active."""

from __future__ import annotations

import argparse
from pathlib import Path

from lineward.runtime.cli import PASSED, trusted_bundle
from lineward.runtime.cli.console import print_table
from lineward.runtime.cli.station_slots import Proof, job_slots
from lineward.runtime.delivery.deployment import Target, deploy
from lineward.runtime.station.configuration import read_configuration
from lineward.runtime.trust import AcceptAny, open_trust


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("station", type=Path, metavar="STATION_FILE", help="its job names a folder of slots")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--job", type=int, metavar="N", help="of the station file (default: its first)")
    parser.add_argument(
        "--permit", type=Path, metavar="FILE", help="to an older version: `lineward sign --permit-downgrade` made it"
    )


def run(arguments: argparse.Namespace) -> int:
    """Deploy, and print what was proven."""
    configuration = read_configuration(arguments.station)
    number, slots = job_slots(configuration, arguments.job)
    trust = open_trust(configuration.keys)
    if isinstance(trust, AcceptAny):
        trusted_bundle.warn_of_any()
    proof = Proof(configuration, number)
    state = deploy(Target(slots, configuration.name, trust), arguments.bundle, proof, arguments.permit)
    latency = proof.latency
    assert latency is not None
    assert state.active is not None
    rows = [
        (f"job {number}", f"{state.product} {state.active.version}, active"),
        ("engine", f"{configuration.engine.name}, golden images as packed"),
        (
            "inspection",
            f"p50 {latency.p50 * 1e3:.1f} ms, p99 {latency.p99 * 1e3:.1f} of {latency.allowed * 1e3:.1f} ms",
        ),
        ("before it", ", ".join(str(slot.version) for slot in state.before) or "none"),
    ]
    print_table("", ("deployed", "found"), rows)
    return PASSED
