"""Find this device's own threshold from its own good parts; the bundle stays as it is."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from lineward.runtime.bundle import read_bundle
from lineward.runtime.calibrating import calibrate_device
from lineward.runtime.calibration_file import (
    Calibration,
    default_path,
    former_path,
    path_for,
    read_former,
    remove_calibration,
    restore_calibration,
    write_calibration,
)
from lineward.runtime.calibration_journal import Change, Entry, append, file_sha256, read_journal
from lineward.runtime.cli import PASSED, trusted_bundle
from lineward.runtime.cli.console import ConsoleProgress, print_table
from lineward.runtime.cli.promise import describe_calibration
from lineward.runtime.engines import ENGINES, open_engine
from lineward.runtime.errors import DataError
from lineward.runtime.images import find_images
from lineward.runtime.inspector import Inspector
from lineward.runtime.trust import AcceptAny


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
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="FILE",
        help="default: beside the bundle; in a folder that is there, a file named after the bundle",
    )
    parser.add_argument("--engine", choices=ENGINES, default="cpu", help="that of the line (default: %(default)s)")
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--remove", action="store_true", help="go back to the bundle's own threshold")
    instead.add_argument("--restore", action="store_true", help="bring back the calibration before")
    instead.add_argument("--journal", action="store_true", help="say which calibration replaced which, and when")


def run(arguments: argparse.Namespace) -> int:
    """Calibrate and write the file, take it out of use, bring back the one before, or print what was done so far."""
    path = _path(arguments)
    if arguments.journal:
        return _print_journal(path)
    if arguments.remove:
        return _remove(path)
    if arguments.restore:
        return _restore(path, arguments)
    if not arguments.images:
        raise DataError("no images to calibrate with", do="name images of good parts, or --remove or --restore")
    return _calibrate(path, arguments)


def _path(arguments: argparse.Namespace) -> Path:
    place: Path = arguments.output or default_path(arguments.bundle)
    return path_for(place, read_bundle(arguments.bundle, AcceptAny()).sha256) if place.is_dir() else place


def _calibrate(path: Path, arguments: argparse.Namespace) -> int:
    bundle, _ = trusted_bundle.read(arguments)
    inspector = Inspector(bundle, open_engine(bundle, arguments.engine))
    paths = find_images(arguments.images)
    promise = bundle.manifest.threshold
    rate = promise.false_reject_rate if arguments.false_reject_rate is None else arguments.false_reject_rate
    confidence = promise.confidence if arguments.confidence is None else arguments.confidence
    with ConsoleProgress().step("score good parts", len(paths)) as advance:
        calibration = calibrate_device(inspector, paths, rate, confidence, advance)
    replaces = path.exists()
    append(path, _entry(path, Change.CALIBRATED, calibration))
    write_calibration(path, calibration)
    print_table("", ("", ""), describe_calibration(calibration, bundle.manifest))
    print(f"wrote {path}" + (f" (the former one: {former_path(path)})" if replaces else ""))
    print(f"it applies where it is named: lineward inspect {arguments.bundle} IMAGES --calibration {path},")
    print("or [calibrations] in a station file, from the station's next start on")
    return PASSED


def _remove(path: Path) -> int:
    if not path.exists():
        raise DataError(f"{path}: cannot be removed, it is not there", do="check the path, or name it with --output")
    append(path, _entry(path, Change.REMOVED, None))
    former = remove_calibration(path)
    print(f"removed {path}: the bundle's own threshold applies (kept as {former})")
    print("a station whose file names it does not start without it: take its line out of [calibrations] too")
    return PASSED


def _restore(path: Path, arguments: argparse.Namespace) -> int:
    bundle, _ = trusted_bundle.read(arguments)
    calibration = read_former(path, bundle)
    append(path, _entry(path, Change.RESTORED, calibration))
    restore_calibration(path, bundle)
    print_table("", ("", ""), describe_calibration(calibration, bundle.manifest))
    print(f"restored {path}")
    return PASSED


def _entry(path: Path, change: Change, calibration: Calibration | None) -> Entry:
    """What is about to be done: it is written down first, so that no change is without its entry."""
    threshold = calibration.threshold if calibration else None
    return Entry(
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        change=change,
        calibration=calibration.sha256 if calibration else "",
        replaces=file_sha256(path),
        bundle=calibration.bundle_sha256 if calibration else "",
        threshold=threshold.value if threshold else None,
        images=threshold.sample_size if threshold else 0,
    )


def _print_journal(path: Path) -> int:
    columns = ("time", "change", "calibration", "replaces", "bundle", "threshold", "images")
    print_table("", columns, map(_cells, read_journal(path)))
    return PASSED


def _cells(entry: Entry) -> list[str]:
    names = (entry.calibration[:12] or "the bundle's own", entry.replaces[:12] or "-", entry.bundle[:12] or "-")
    value = "-" if entry.threshold is None else f"{entry.threshold:.4f}"
    return [entry.time, entry.change.value, *names, value, str(entry.images or "-")]
