"""Measure how long an inspection takes on this device, stage by stage and from trigger to verdict, or compare two such
measurements. Exit codes: 0 measured, 1 a deadline was given and missed, 2 error, 130 ended early by Ctrl-C (what was
measured until then is reported)."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from lineward.runtime.bench.compare import compare, machine_differences, work_differences
from lineward.runtime.bench.measure import MOST_IMAGES, Plan, read_material, run_bench
from lineward.runtime.bench.picture import draw_record
from lineward.runtime.bench.record import Record, misses, read_record, write_record
from lineward.runtime.bench.report import CHANGES, COLUMNS, change_rows, machine_rows, run_remarks, run_rows
from lineward.runtime.bundle import read_bundle
from lineward.runtime.cli import PASSED, REJECTED
from lineward.runtime.cli.console import print_table
from lineward.runtime.engines import ENGINES
from lineward.runtime.errors import BenchError
from lineward.runtime.images import write_png
from lineward.runtime.quantities import parse_duration, parse_rate

INTERRUPTED = 130
_PLAN = Plan()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("bundle", type=Path, nargs="?")
    parser.add_argument(
        "--images",
        nargs="+",
        default=[],
        metavar="PATH",
        help=f"files, folders or quoted globs, at most {MOST_IMAGES} of them (default: the bundle's golden images)",
    )
    parser.add_argument("--decoded", action="store_true", help="decode beforehand: a camera delivers pixels, not files")
    parser.add_argument("--rate", type=quantity(parse_rate), help="also at this cadence: 5/s, 300/min or 5 (a second)")
    parser.add_argument(
        "--deadline", type=quantity(parse_duration), metavar="TIME", help="from trigger to verdict, such as 12ms"
    )
    parser.add_argument("--count", type=_whole(1), default=_PLAN.count, help="triggers of a run (default: %(default)s)")
    parser.add_argument(
        "--warmup", type=_whole(0), default=_PLAN.warmup, help="triggers before, not measured (default: %(default)s)"
    )
    parser.add_argument("--engine", choices=ENGINES, default="cpu", help="where to run (default: %(default)s)")
    parser.add_argument("--threads", type=_whole(1), help="threads to use (default: every core this process may use)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample here, to be compared")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw histogram and timeline here")
    parser.add_argument("--compare", type=Path, nargs=2, metavar=("A.json", "B.json"), help="compare B with A instead")
    parser.add_argument("--different-machines", action="store_true", help="compare although the machines differ")


def run(arguments: argparse.Namespace) -> int:
    """Measure, or compare."""
    if (arguments.bundle is None) == (arguments.compare is None):
        raise BenchError(
            "a bench needs either a bundle or two records to compare",
            do="lineward bench BUNDLE, or lineward bench --compare A.json B.json",
        )
    return _compare(arguments) if arguments.compare else _measure(arguments)


def quantity(parse: Callable[[str], float]) -> Callable[[str], float]:
    """The parser of a quantity as a parser of an argument, whose error is shown as it is."""

    def read(text: str) -> float:
        try:
            return parse(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return read


def _measure(arguments: argparse.Namespace) -> int:
    for path in (arguments.json, arguments.png):
        if path and not path.absolute().parent.is_dir():
            raise BenchError(f"{path}: no such folder", do="make it, or choose another")
    plan = Plan(
        arguments.count,
        arguments.warmup,
        arguments.rate,
        arguments.deadline,
        arguments.engine,
        arguments.threads,
        arguments.decoded,
    )
    bundle = read_bundle(arguments.bundle)
    # No progress bar: its thread would wake in the middle of inspections.
    record = run_bench(bundle, read_material(bundle, arguments.images), plan, _say)
    _print(record)
    if arguments.json:
        write_record(arguments.json, record)
    if arguments.png:
        write_png(arguments.png, draw_record(record))
    if any(run.interrupted for run in record.runs) or (plan.rate and len(record.runs) < 2):
        return INTERRUPTED
    missed = plan.deadline is not None and any(misses(run, plan.deadline) for run in record.runs)
    return REJECTED if missed else PASSED


def _compare(arguments: argparse.Namespace) -> int:
    first, second = (read_record(path) for path in arguments.compare)
    changes = compare(first, second, arguments.different_machines)
    for what, differences in (
        ("DIFFERENT MACHINES", machine_differences(first, second)),
        ("different work", work_differences(first, second)),
    ):
        for difference in differences:
            print(f"{what}: {difference}")
    print_table("", CHANGES, change_rows(changes))
    print(
        "The intervals hold what varies within the runs, not what varies between runs: measure A and B again, in turn."
    )
    return PASSED


def _print(record: Record) -> None:
    print_table("", ("", ""), machine_rows(record))
    for run in record.runs:
        print_table(f"\n{run.name}, {len(run.samples)} triggers", COLUMNS, run_rows(run))
        for remark in run_remarks(run, record.deadline):
            print(f"  {remark}")


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


def _whole(least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
        return int(text)

    return parse
