"""Say which bundles a station's jobs have, which is active, and what was active when and why."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from lineward.runtime.cli import PASSED
from lineward.runtime.cli.console import print_error, print_table
from lineward.runtime.cli.station_slots import job_slots
from lineward.runtime.delivery.slot_state import SlotState
from lineward.runtime.delivery.slots import Slots, is_slots
from lineward.runtime.errors import BundleError, StationError
from lineward.runtime.station.configuration import Configuration, read_configuration
from lineward.runtime.trust import Trust, open_trust

_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("station", type=Path, metavar="STATION_FILE")
    parser.add_argument("--job", type=int, metavar="N", help="this one alone")
    parser.add_argument("--history", action="store_true", help=f"all of it, not the last {_SHOWN} entries")
    parser.add_argument(
        "--mend", action="store_true", help="rebuild damaged slots from what is whole; then deploy a bundle"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the slots of each job that has them."""
    configuration = read_configuration(arguments.station)
    trust = open_trust(configuration.keys)
    for number, slots in _named(configuration, arguments.job):
        state = slots.mend(trust) if arguments.mend else slots.read()
        if slots.damage is not None:
            print_error(f"WARNING: {slots.damage}\n  -> deploy the bundle that you want: that writes it anew")
        print(f"job {number}: {state.product or 'nothing deployed yet'}", flush=True)
        if rows := list(_rows(slots, state, trust)):
            print_table("", _COLUMNS, rows)
        if entries := state.history if arguments.history else state.history[-_SHOWN:]:
            changes = [(e.time, e.change, f"{e.version}-{e.sha256[:12]}", e.why) for e in reversed(entries)]
            print_table("", ("when", "what", "bundle", "why"), changes)
    return PASSED


_COLUMNS = ("bundle", "is", "found")


def _named(configuration: Configuration, job: int | None) -> list[tuple[int, Slots]]:
    if job is not None:
        return [job_slots(configuration, job)]
    found = [(number, Slots(path)) for number, path in sorted(configuration.jobs.items()) if is_slots(path)]
    if not found:
        raise StationError(
            "no job of this station has slots: each names the file of a bundle",
            do='name a folder in the station file, such as 1 = "slots/bottle"; see docs/delivery.md',
        )
    return found


def _rows(slots: Slots, state: SlotState, trust: Trust) -> Iterator[tuple[str, str, str]]:
    for slot in state.kept:
        role = "active" if slot == state.active else "before"
        try:
            slots.bundle(slot, trust)
            found = "whole, trusted" if slot.proven else "whole, trusted; not yet proven on the line"
        except BundleError as error:
            found = error.what
        yield slot.file.partition(".")[0], role, found
    for refused in state.refused:
        yield f"{refused.version}-{refused.sha256[:12]}", "refused", f"{refused.time}: {refused.why}"
    for newest in state.newest:
        key = f"key {newest.key[:16]}" if newest.key else "any key"
        yield f"{newest.version}-{newest.sha256[:12]}", "newest ever", f"{key}: nothing older is deployed"
