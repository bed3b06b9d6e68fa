"""Write a report of a bundle that a quality manager can sign: its promise and the evidence, in one HTML file."""

from __future__ import annotations

import argparse
import platform
import time
from pathlib import Path

from lineward.export.bundle_report import Making, write_bundle_report
from lineward.export.good_parts import GoodParts, score_parts
from lineward.runtime.calibration_file import read_calibration
from lineward.runtime.cli import PASSED, trusted_bundle
from lineward.runtime.cli.console import ConsoleProgress, print_table
from lineward.runtime.cli.promise import describe_calibration, describe_threshold
from lineward.runtime.cuda.similarity import GREATEST_LOSS
from lineward.runtime.engines import ENGINES, TENSORRT, open_engine
from lineward.runtime.images import find_images
from lineward.runtime.inspector import Inspector
from lineward.runtime.station.status import lineward_version


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    trusted_bundle.add_arguments(parser)
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: beside the bundle, .report.html")
    parser.add_argument(
        "--images",
        nargs="+",
        metavar="IMAGES",
        help="good parts that were in no training, to score now: files, folders (searched in depth) or globs",
    )
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="a device's own, by `lineward calibrate`")
    parser.add_argument("--engine", choices=ENGINES, default="cpu", help="where to run (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    """Score the good parts, if there are any, and write the report."""
    bundle, trust = trusted_bundle.read(arguments)
    calibration = read_calibration(arguments.calibration, bundle) if arguments.calibration else None
    inspector = Inspector(bundle, open_engine(bundle, arguments.engine), calibration=calibration)
    good = _score(inspector, arguments.images) if arguments.images else None
    manifest = bundle.manifest
    output: Path = arguments.output or arguments.bundle.with_suffix(".report.html")
    write_bundle_report(
        output,
        inspector,
        Making(
            time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            machine=f"{platform.node()} ({platform.system()}, {platform.machine()})",
            version=lineward_version(),
            engine=arguments.engine,
        ),
        promise=describe_calibration(calibration, manifest) if calibration else describe_threshold(manifest.threshold),
        signatures=trusted_bundle.describe_signatures(bundle, trust),
        good=good,
        slack=GREATEST_LOSS if arguments.engine == TENSORRT else 0.0,
    )
    if good:
        print_table(
            "", ("good parts", "rejected", "copies"), [[str(len(good.parts)), str(good.rejected), str(good.copies)]]
        )
    print(f"report: {output.resolve()}")
    return PASSED


def _score(inspector: Inspector, sources: list[str]) -> GoodParts:
    paths = find_images(sources)
    with ConsoleProgress().step("score good parts", len(paths)) as advance:
        return score_parts(inspector, paths, advance)
