"""Read a station's journal: count, list and export its parts, or ask what another bundle says of the saved images.

Times are UTC. Exit codes of `rescore`: 0 no verdict would change, 1 some would, 2 error.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import math
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from itertools import islice
from pathlib import Path
from typing import IO, Any

from lineward.runtime.cli import FAILED, PASSED, REJECTED, trusted_bundle
from lineward.runtime.cli.console import ConsoleProgress, print_error, print_table
from lineward.runtime.engines import ENGINES, open_engine
from lineward.runtime.errors import DataError, ImageError, MissingExtraError
from lineward.runtime.images import read_image
from lineward.runtime.inspection import Outcome, Reason, decide, outcome_of
from lineward.runtime.inspector import Inspector
from lineward.runtime.station.configuration import read_configuration
from lineward.runtime.station.journal import prune
from lineward.runtime.station.journal_reader import (
    COLUMNS,
    FILE_NAME,
    JournalReader,
    JournalRow,
    SavedImage,
)

FORMATS = ("table", "csv", "jsonl")
PART_COLUMNS = tuple("utc" if column == "utc_ns" else column for column in COLUMNS)
RESCORED_COLUMNS = (
    *("id", "utc", "reason", "score", "threshold", "verdict"),
    *("score_now", "threshold_now", "verdict_now", "file"),
)
EVENT_COLUMNS = ("sequence", "utc", "name", "detail")

_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_BATCH = 10_000
_LAST = 20  # rows of a table, if nothing else is said

Values = dict[str, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("station", type=Path, help="the station file, or the station's folder")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", title="actions (default: summary)")
    actions.add_parser("summary", help="count parts by outcome and reason, and reconcile them with the ids")

    parts = actions.add_parser("parts", help="list parts")
    _add_filters(parts)
    _add_form(parts)

    events = actions.add_parser("events", help="list what happened to the station")
    _add_last(events)
    _add_form(events)

    export = actions.add_parser("export", help="write parts to a file")
    export.add_argument("file", type=Path, help="name.csv, or name.parquet")
    _add_filters(export)

    rescore = actions.add_parser("rescore", help="inspect the saved images with another bundle; list changed verdicts")
    trusted_bundle.add_arguments(rescore)
    _add_times(rescore)
    rescore.add_argument("--engine", choices=ENGINES, default="cpu", help="where to run (default: %(default)s)")
    rescore.add_argument("--threads", type=_positive, help="threads to use (default: every core)")
    rescore.add_argument("--format", choices=FORMATS, default="table", help="csv and jsonl list unchanged ones too")

    pruned = actions.add_parser("prune", help="delete old parts, their images, and old events")
    pruned.add_argument("--before", type=_utc_ns, required=True, metavar="TIME", help="such as 2026-03-31")


def run(arguments: argparse.Namespace) -> int:
    """Do what is asked."""
    path = find_journal(arguments.station)
    if arguments.action == "prune":
        return _prune(path, arguments)
    with closing(JournalReader(path)) as reader:
        return _ACTIONS[arguments.action or "summary"](reader, arguments)


def find_journal(station: Path) -> Path:
    """The journal of a station file, of a station's folder, or the file itself.

    Raises:
        StationError: the station file cannot be read, or is none.
    """
    if station.suffix == ".toml" and not station.is_dir():
        station = read_configuration(station).folder
    return station if station.is_file() else station / FILE_NAME


# What there is.


def _summary(reader: JournalReader, _: argparse.Namespace) -> int:
    s = reader.summary()
    ids = s.last_id - s.first_id + 1 if s.parts else 0
    rows = [("station", reader.station)]
    if s.first_utc_ns is not None and s.last_utc_ns is not None:
        rows += [
            ("first part", f"{s.first_id}, {_utc(s.first_utc_ns)}"),
            ("last part", f"{s.last_id}, {_utc(s.last_utc_ns)}"),
        ]
    rows.append(("parts", str(s.parts)))
    for outcome, count in s.outcomes.items():
        rows.append((f"  {_words(outcome)}", str(count)))
        rows += [(f"    {_words(r)}", str(number)) for r, number in s.reasons.items() if outcome_of(r) is outcome]
    rows.append(("images", f"{s.images}, {s.image_bytes / 1e6:.1f} MB"))
    rows.append(
        ("reconciled", f"{ids} ids = {s.parts} parts + {s.skipped} never given + {s.missing} not accounted for")
    )
    print_table("", ("journal", "found"), rows)
    if s.missing:
        print_error(
            f"{s.missing} ids are not accounted for\n"
            "  -> parts in flight at this moment, or begun just before a power cut: see `events`"
        )
    return PASSED


def _parts(reader: JournalReader, arguments: argparse.Namespace) -> int:
    last = arguments.last or (_LAST if arguments.format == "table" else None)
    rows = _filtered(reader, arguments, last)
    if arguments.format == "table":
        columns = ("id", "utc", "part", "job", "verdict", "reason", "score", "threshold", "decided ms", "told ms")
        print_table("", columns, (_part_cells(row) for row in rows))
    else:
        _print(PART_COLUMNS, map(part_values, rows), arguments.format)
    return PASSED


def _events(reader: JournalReader, arguments: argparse.Namespace) -> int:
    last = arguments.last or (_LAST if arguments.format == "table" else None)
    found = deque(reader.events(), maxlen=last)
    rows = [(event.sequence, _utc(event.utc_ns), event.name, event.detail) for event in found]
    if arguments.format == "table":
        print_table("", EVENT_COLUMNS, ([_cell(value) for value in row] for row in rows))
    else:
        _print(EVENT_COLUMNS, (dict(zip(EVENT_COLUMNS, row, strict=True)) for row in rows), arguments.format)
    return PASSED


def part_values(row: JournalRow) -> Values:
    """The values of `PART_COLUMNS`: as in the journal, but the time as text."""
    values = asdict(row)
    return {name: _utc(row.utc_ns) if name == "utc" else values[name] for name in PART_COLUMNS}


def _part_cells(row: JournalRow) -> list[str]:
    values = (row.id, _utc(row.utc_ns), row.part, row.job, row.verdict, row.reason, row.score, row.threshold)
    times = (None if us is None else us / 1000 for us in (row.decided_us, row.told_us))
    return [*map(_cell, values), *("-" if time is None else f"{time:.1f}" for time in times)]


# Files.


def _export(reader: JournalReader, arguments: argparse.Namespace) -> int:
    path: Path = arguments.file
    writers = {".csv": _write_csv, ".parquet": _write_parquet}
    if path.suffix not in writers:
        raise DataError(f"{path}: neither .csv nor .parquet", do="name a file that ends in one of these")
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        count = writers[path.suffix](partial, _filtered(reader, arguments, arguments.last))
        partial.replace(path)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be written ({error.strerror or error})", do="check the folder and its free space"
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()
    print(f"{count} parts written to {path}", file=sys.stderr)
    return PASSED


def _write_csv(path: Path, rows: Iterable[JournalRow]) -> int:
    with path.open("w", newline="") as file:
        return _print(PART_COLUMNS, map(part_values, rows), "csv", file)


def _write_parquet(path: Path, rows: Iterable[JournalRow]) -> int:
    pa, parquet = _import_pyarrow()
    kinds = {"str": pa.string(), "int": pa.int64(), "int | None": pa.int64(), "float | None": pa.float64()}
    annotations = JournalRow.__annotations__
    fields = [(name, kinds[annotations[name]]) for name in COLUMNS if name != "utc_ns"]
    fields.insert(COLUMNS.index("utc_ns"), ("utc", pa.timestamp("ns", tz="UTC")))
    schema, count, left = pa.schema(fields), 0, iter(rows)
    with parquet.ParquetWriter(path, schema) as writer:
        while batch := [{"utc": row.utc_ns, **asdict(row)} for row in islice(left, _BATCH)]:
            columns = [pa.array([values[name] for values in batch], kind) for name, kind in fields]
            writer.write_batch(pa.record_batch(columns, schema=schema))
            count += len(batch)
    return count


def _import_pyarrow() -> tuple[Any, Any]:
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise MissingExtraError(
            "Parquet files are written by pyarrow, which is not installed", do="pip install 'lineward[parquet]'"
        ) from error


# Another bundle.


@dataclass(frozen=True)
class Rescored:
    """A saved image, and what another bundle says of it; None where it cannot be read.

    Attributes:
        image: with the part.
        then: the verdict by its score at the time, whatever the line was told in the end.
        now: the verdict by its score now.
        score: image score now; NaN when there is none.
    """

    image: SavedImage
    then: str
    now: str | None
    score: float

    @property
    def changed(self) -> bool:
        """Whether the verdict would be another."""
        return self.now not in (None, self.then)


def _rescore(reader: JournalReader, arguments: argparse.Namespace) -> int:
    bundle, _ = trusted_bundle.read(arguments)
    inspector = Inspector(bundle, open_engine(bundle, arguments.engine, arguments.threads))
    images = [image for image in reader.images(arguments.since, arguments.until) if image.row is not None]
    threshold = bundle.manifest.threshold.value
    with ConsoleProgress().step("inspect images", len(images)) as advance:
        rescored = list(inspect_saved(inspector, reader.path.parent, images, advance))
    if arguments.format == "table":
        print_changed(rescored, threshold)
    else:
        _print(RESCORED_COLUMNS, (_rescored_values(r, threshold) for r in rescored), arguments.format)
    print(count_changes(rescored), file=sys.stderr)
    if any(r.now is None for r in rescored):
        return FAILED
    return REJECTED if any(r.changed for r in rescored) else PASSED


def print_changed(rescored: Iterable[Rescored], threshold: float) -> None:
    """Print a table of the verdicts that would change under a threshold, with the ids of their parts."""
    rows = (_rescored_values(r, threshold) for r in rescored if r.changed)
    print_table("", RESCORED_COLUMNS, ([_cell(value) for value in row.values()] for row in rows))


def count_changes(rescored: Sequence[Rescored]) -> str:
    """How many verdicts would change, and how, in words."""
    changes = Counter(f"{r.then} to {r.now}" for r in rescored if r.changed)
    counted = "".join(f", {count} from {change}" for change, count in sorted(changes.items()))
    return f"{len(rescored)} images: {sum(changes.values())} verdicts would change{counted}"


def inspect_saved(
    inspector: Inspector, folder: Path, images: Sequence[SavedImage], advance: Callable[[int], None]
) -> Iterator[Rescored]:
    """Inspect saved images of final parts anew; what cannot be read is told, and has no verdict now.

    Args:
        inspector: what to inspect with.
        folder: of the station; the images' files are relative to it.
        images: of parts that are final.
        advance: told how many are done.

    Raises:
        EngineError: the engine failed.
    """
    for done, image in enumerate(images, 1):
        assert image.row is not None  # images of parts that are not final are left out
        row = image.row
        then = row.verdict if row.score is None else decide(row.score, _or_nan(row.threshold))[0].value
        try:
            inspection = inspector.inspect(read_image(folder / image.file))
        except ImageError as error:
            print_error(str(error))
            yield Rescored(image, then, None, math.nan)
        else:
            yield Rescored(image, then, inspection.verdict.value, inspection.score)
        advance(done)


def _rescored_values(r: Rescored, threshold: float) -> Values:
    row = r.image.row
    assert row is not None
    score = r.score if math.isfinite(r.score) else None
    values = (row.id, _utc(row.utc_ns), row.reason, row.score, row.threshold, r.then, score, threshold, r.now)
    return dict(zip(RESCORED_COLUMNS, (*values, r.image.file), strict=True))


# Less.


def _prune(path: Path, arguments: argparse.Namespace) -> int:
    parts, images = prune(path, arguments.before)
    print(f"{parts} parts and {images} images deleted", file=sys.stderr)
    return PASSED


_ACTIONS = {"summary": _summary, "parts": _parts, "events": _events, "export": _export, "rescore": _rescore}


def _filtered(reader: JournalReader, arguments: argparse.Namespace, last: int | None) -> Iterator[JournalRow]:
    return reader.parts(arguments.since, arguments.until, arguments.outcome, arguments.reason, last=last)


def _print(columns: Sequence[str], rows: Iterable[Values], form: str, file: IO[str] | None = None) -> int:
    """Print rows as csv or jsonl, and return how many."""
    file, count = file or sys.stdout, 0
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    if form == "csv":
        writer.writeheader()
    for row in rows:
        if form == "csv":
            writer.writerow(row)
        else:
            print(json.dumps(row), file=file)
        count += 1
    return count


def _add_times(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--since", type=_utc_ns, metavar="TIME", help="such as 2026-03-31, or 2026-03-31T06:00")
    parser.add_argument("--until", type=_utc_ns, metavar="TIME", help="before this time")


def _add_filters(parser: argparse.ArgumentParser) -> None:
    _add_times(parser)
    parser.add_argument("--outcome", type=Outcome, choices=tuple(Outcome), metavar="OUTCOME", help=_choices(Outcome))
    parser.add_argument("--reason", type=Reason, choices=tuple(Reason), metavar="REASON", help=_choices(Reason))
    _add_last(parser)


def _add_last(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--last", type=_positive, metavar="N", help=f"only the last N (default: {_LAST} in a table)")


def _add_form(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=FORMATS, default="table")


def _choices(kind: type[Outcome] | type[Reason]) -> str:
    return ", ".join(member.value for member in kind)


def _utc_ns(text: str) -> int:
    try:
        time = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no time: say 2026-03-31, or 2026-03-31T06:00 (UTC)") from error
    utc = time if time.tzinfo else time.replace(tzinfo=timezone.utc)
    return (utc - _EPOCH) // timedelta(microseconds=1) * 1000


def _utc(ns: int) -> str:
    time = _EPOCH + timedelta(microseconds=ns // 1000)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _words(member: Outcome | Reason) -> str:
    return str(member.value).replace("_", " ")


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)
