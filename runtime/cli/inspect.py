"""Pass or reject images: one row an image, and on request pictures with heat map and contour."""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lineward.runtime.bundle import Bundle
from lineward.runtime.calibration_file import Calibration, read_calibration
from lineward.runtime.cli import FAILED, PASSED, REJECTED, trusted_bundle
from lineward.runtime.cli.console import ConsoleProgress, NoProgress, print_error, print_table
from lineward.runtime.engines import ENGINES, open_engine
from lineward.runtime.errors import DataError, ImageError
from lineward.runtime.images import find_images, read_image, write_png
from lineward.runtime.inspection import Inspection, Reason, Verdict, rejected_without_score
from lineward.runtime.inspector import Inspector
from lineward.runtime.overlay import draw_overlay
from lineward.runtime.pipeline import in_order

COLUMNS = ("path", "score", "threshold", "verdict", "reason", "milliseconds", "area")


@dataclass(frozen=True)
class Row:
    """An image and its result."""

    path: Path
    inspection: Inspection

    def values(self) -> dict[str, str | float | None]:
        """The values of `COLUMNS`; a score that is not finite is None."""
        i = self.inspection
        score = i.score if math.isfinite(i.score) else None
        area = i.area if math.isfinite(i.pixel_threshold) else None
        values = (str(self.path), score, i.threshold, i.verdict.value, i.reason.value, round(i.seconds * 1e3, 3), area)
        return dict(zip(COLUMNS, values, strict=True))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    trusted_bundle.add_arguments(parser)
    parser.add_argument("images", nargs="+", help="files, folders (searched in depth) or quoted globs")
    parser.add_argument("--format", choices=("table", "jsonl", "csv"), default="table")
    parser.add_argument("--overlays", type=Path, metavar="FOLDER", help="write pictures with heat map and contour here")
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="this device's own, by `lineward calibrate`")
    parser.add_argument("--engine", choices=ENGINES, default="cpu", help="where to run (default: %(default)s)")
    parser.add_argument(
        "--jobs", type=_positive, help="images at a time (default: one a core; 1: each image as fast as can be)"
    )
    parser.add_argument("--threads", type=_positive, help="threads of each job (default: its share of the cores)")


def run(arguments: argparse.Namespace) -> int:
    """Inspect and print; an unreadable image is a rejected part, and makes the exit code 2."""
    bundle, _ = trusted_bundle.read(arguments)
    calibration = read_calibration(arguments.calibration, bundle) if arguments.calibration else None
    paths = find_images(arguments.images)
    inspectors = _open_inspectors(arguments, bundle, calibration, len(paths))
    overlays = _plan_overlays(paths, arguments.overlays) if arguments.overlays else {}
    with _progress(arguments.format).step("inspect images", len(paths)) as advance:
        rows = inspect_files(inspectors, paths, overlays, advance)
        tally = _tally(_WRITERS[arguments.format](rows))
    passed, rejected, unreadable = tally
    if calibration:
        applied, own = inspectors[0].threshold.value, bundle.manifest.threshold.value
        print(f"threshold {applied:.4f} by {arguments.calibration} (the bundle's own: {own:.4f})", file=sys.stderr)
    print(f"{passed} passed, {rejected} rejected, {unreadable} of these unreadable", file=sys.stderr)
    return FAILED if unreadable else REJECTED if rejected else PASSED


def inspect_files(
    inspectors: Sequence[Inspector],
    paths: Sequence[Path],
    overlays: Mapping[Path, Path],
    advance: Callable[[int], None],
) -> Iterator[Row]:
    """Inspect files, several at a time where there are several inspectors; the rows come in the order of the files.

    Args:
        inspectors: of the same bundle.
        paths: the files.
        overlays: where the overlay of a file goes, for those that get one.
        advance: told the files done.
    """
    for done, (row, error) in enumerate(in_order(inspectors, lambda i, path: _inspect(i, path, overlays), paths), 1):
        if error is not None:
            named = str(row.path) in error.what
            print_error(str(error) if named else f"{row.path}: {error}")
        yield row
        advance(done)


def _inspect(inspector: Inspector, path: Path, overlays: Mapping[Path, Path]) -> tuple[Row, ImageError | None]:
    """The row of a file, and why it has no score."""
    try:
        frame = read_image(path)
        inspection = inspector.inspect(frame)
    except ImageError as error:
        return Row(path, rejected_without_score(Reason.IMAGE_UNREADABLE, inspector.threshold.value)), error
    if path in overlays:
        _make_folder(overlays[path].parent)
        write_png(overlays[path], draw_overlay(frame, inspection))
    # A hundred thousand rows must not keep a hundred thousand maps and frames.
    return Row(path, dataclasses.replace(inspection, anomaly_map=None, pixels=None)), None


def _open_inspectors(
    arguments: argparse.Namespace, bundle: Bundle, calibration: Calibration | None, images: int
) -> list[Inspector]:
    """One for each job, each with its share of the cores; a single one where a device other than the CPU scores."""
    cores = len(os.sched_getaffinity(0))
    jobs = arguments.jobs or (cores // (arguments.threads or 1) if arguments.engine == "cpu" else 1)
    jobs = max(1, min(jobs, images))
    threads = arguments.threads or (max(1, cores // jobs) if jobs > 1 else None)
    engines = (open_engine(bundle, arguments.engine, threads) for _ in range(jobs))
    return [Inspector(bundle, engine, calibration=calibration) for engine in engines]


def _plan_overlays(paths: Sequence[Path], folder: Path) -> dict[Path, Path]:
    """Where the overlay of each image goes: under the folder, laid out as the images are.

    Raises:
        DataError: one would be written over an image to inspect.
    """
    root = Path(os.path.commonpath([path.absolute().parent for path in paths]))
    plan = {}
    for path in paths:
        relative = path.absolute().relative_to(root)
        plan[path] = folder / relative.with_name(f"{relative.name}.overlay.png")
    images = {path.resolve() for path in paths}
    for target in plan.values():
        if target.resolve() in images:
            raise DataError(f"{target}: an overlay would be written over this image", do="choose another folder")
    return plan


def _progress(form: str) -> ConsoleProgress | NoProgress:
    """Rows that appear on a terminal one by one are their own progress, and a bar would be drawn across them."""
    return NoProgress() if form != "table" and sys.stdout.isatty() else ConsoleProgress()


def _write_table(rows: Iterable[Row]) -> Iterator[Row]:
    """Print the rows as a table once all are there, and pass them on."""
    kept = list(rows)
    cells = [
        (
            *(v["path"], _number(v["score"]), _number(v["threshold"]), v["verdict"], v["reason"]),
            *(f"{v['milliseconds']:.1f}", "-" if v["area"] is None else v["area"]),
        )
        for v in (row.values() for row in kept)
    ]
    print_table("", COLUMNS, [[str(cell) for cell in row] for row in cells])
    yield from kept


def _write_jsonl(rows: Iterable[Row]) -> Iterator[Row]:
    for row in rows:
        print(json.dumps(row.values()), flush=True)
        yield row


def _write_csv(rows: Iterable[Row]) -> Iterator[Row]:
    writer = csv.DictWriter(sys.stdout, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow(row.values())
        yield row


_WRITERS = {"table": _write_table, "jsonl": _write_jsonl, "csv": _write_csv}


def _tally(rows: Iterable[Row]) -> tuple[int, int, int]:
    passed = rejected = unreadable = 0
    for row in rows:
        passed += row.inspection.verdict is Verdict.PASS
        rejected += row.inspection.verdict is not Verdict.PASS
        unreadable += row.inspection.reason is Reason.IMAGE_UNREADABLE
    return passed, rejected, unreadable


def _number(value: str | float | None) -> str:
    return f"{value:.4f}" if isinstance(value, float) else "-"


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{folder}: cannot be made ({error.strerror})", do="choose another folder") from error


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)
