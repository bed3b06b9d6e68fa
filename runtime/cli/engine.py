"""Build, list and prune the TensorRT plans that this device keeps: one for each bundle, TensorRT and GPU."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from lineward.runtime.bundle import EMBEDDING, read_bundle
from lineward.runtime.cli import PASSED
from lineward.runtime.cli.console import ConsoleProgress, print_table
from lineward.runtime.engines.tensorrt import open_tensorrt
from lineward.runtime.tensorrt.plan_cache import CachedPlan, PlanCache, graph_hash


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    actions = parser.add_subparsers(dest="action", required=True)
    build = actions.add_parser("build", help="build the plan of a bundle, or load it where it is kept already")
    build.add_argument("bundle", type=Path)
    actions.add_parser("list", help="list the plans")
    prune = actions.add_parser("prune", help="delete damaged plans, and all but those of the bundles named")
    prune.add_argument("bundles", type=Path, nargs="*", metavar="bundle")


def run(arguments: argparse.Namespace) -> int:
    """Build, list or prune."""
    cache = PlanCache()
    if arguments.action == "build":
        bundle = read_bundle(arguments.bundle)
        with ConsoleProgress().step("build the plan (minutes)", 1) as advance:
            open_tensorrt(bundle, cache).close()
            advance(1)
        print(f"the plan of {arguments.bundle} is in {cache.directory}")
    elif arguments.action == "list":
        _print(cache.entries())
    else:
        kept = {graph_hash(read_bundle(path).members[EMBEDDING]) for path in arguments.bundles}
        _print(cache.prune(lambda key: key.graph in kept))
    return PASSED


def _print(entries: list[CachedPlan]) -> None:
    rows = [
        (
            entry.key.graph[:12] if entry.key else "damaged",
            f"{entry.key.tensorrt}, compute capability {entry.key.capability}" if entry.key else "",
            f"{entry.size / 1e6:.1f} MB",
            time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.modified)),
            str(entry.path),
        )
        for entry in entries
    ]
    print_table("", ("graph", "built for", "size", "written", "file"), rows)
