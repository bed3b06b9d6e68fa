"""Make the bundle before the active one active again, although it is older. A running station takes it between two
parts."""

from __future__ import annotations

import argparse
from pathlib import Path

from lineward.runtime.cli import PASSED
from lineward.runtime.cli.console import print_error
from lineward.runtime.cli.station_slots import job_slots
from lineward.runtime.delivery.slot_state import Slot
from lineward.runtime.errors import BundleError, DeliveryError
from lineward.runtime.station.configuration import read_configuration
from lineward.runtime.trust import open_trust


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("station", type=Path, metavar="STATION_FILE")
    parser.add_argument("--job", type=int, metavar="N", help="of the station file (default: its first)")
    parser.add_argument("--why", default="", metavar="TEXT", help="for the history")


def run(arguments: argparse.Namespace) -> int:
    """Go back to the latest that is whole and trusted."""
    configuration = read_configuration(arguments.station)
    number, slots = job_slots(configuration, arguments.job)
    trust = open_trust(configuration.keys)

    def is_good(slot: Slot) -> bool:
        try:
            slots.bundle(slot, trust)
        except BundleError as error:
            print_error(f"passed over: {error}")
            return False
        return True

    state = slots.go_back(arguments.why or "`lineward rollback`", is_good)
    if state.active is None:
        raise DeliveryError(f"{slots.folder}: nothing is active", do="deploy a bundle")
    print(f"job {number}: {state.product} {state.active.version} is active again")
    return PASSED
