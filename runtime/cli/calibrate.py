"""Find this device's own threshold from its own good parts; the bundle stays as it is."""

from __future__ import annotations

import argparse
from pathlib import Path

from lineward.runtime.calibrating import calibrate_device
from lineward.runtime.calibration_file import default_path, former_path, remove_calibration, write_calibration
from lineward.runtime.cli import PASSED, trusted_bundle
from lineward.runtime.cli.console import ConsoleProgress, print_table
from lineward.runtime.cli.promise import describe_calibration
from lineward.runtime.engines import ENGINES, open_engine
from lineward.runtime.errors import DataError
from lineward.runtime.images import find_images
from lineward.runtime.inspector import Inspector


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    trusted_bundle.add_arguments(parser)
    parser.add_argument(
        "images", nargs="*", help="good parts of this line: files, folders (searched in depth) or globs"
    )
    parser.add_argument(
        "--false-reject-rate",
        type=float,
        metavar="RATE",
        help="promised share of good parts rejected, at most (default: the bundle's)",
    )
    parser.add_argument("--confidence", type=float, help="keep that rate with this confidence (default: the bundle's)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: beside the bundle")
    parser.add_argument("--engine", choices=ENGINES, default="cpu", help="that of the line (default: %(default)s)")
    parser.add_argument("--remove", action="store_true", help="go back to the bundle's own threshold")


def run(arguments: argparse.Namespace) -> int:
    """Calibrate and write the file, or take it out of use."""
    path: Path = arguments.output or default_path(arguments.bundle)
    if arguments.remove:
        former = remove_calibration(path)
        print(f"removed {path}: the bundle's own threshold applies (kept as {former})")
        return PASSED
    if not arguments.images:
        raise DataError("no images to calibrate with", do="name images of good parts, or --remove")
    bundle, _ = trusted_bundle.read(arguments)
    inspector = Inspector(bundle, open_engine(bundle, arguments.engine))
    paths = find_images(arguments.images)
    promise = bundle.manifest.threshold
    rate = promise.false_reject_rate if arguments.false_reject_rate is None else arguments.false_reject_rate
    confidence = promise.confidence if arguments.confidence is None else arguments.confidence
    with ConsoleProgress().step("score good parts", len(paths)) as advance:
        calibration = calibrate_device(inspector, paths, rate, confidence, advance)
    replaces = path.exists()
    write_calibration(path, calibration)
    print_table("", ("", ""), describe_calibration(calibration, bundle.manifest))
    print(f"wrote {path}" + (f" (the former one: {former_path(path)})" if replaces else ""))
    print(f"it applies where it is named: lineward inspect {arguments.bundle} IMAGES --calibration {path}")
    return PASSED
