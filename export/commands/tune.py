"""Find the most accurate bundle whose verdicts come within a budget, and train it: input sizes and banks are judged and
timed, the whole front is shown. All options of `lineward train` count; a --size, --rows, --precision or --dimensions
given is kept. Run it where the bundle will run, with the device otherwise as it will be; or write the candidates with
--bundles, bench them on that device, and choose by its records with --on."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from lineward.export.commands import train
from lineward.export.conversion import FLOAT32, PRECISIONS
from lineward.export.datasets import open_dataset
from lineward.export.tuning.elsewhere import read_records, timed_elsewhere, write_bundles
from lineward.export.tuning.judges import seat
from lineward.export.tuning.picture import draw_table
from lineward.export.tuning.search import BANKS, SIZES, candidates, judge, time_candidates
from lineward.export.tuning.store import Store, open_store
from lineward.export.tuning.table import Candidate, Graph, Row, choose, pareto_front
from lineward.export.tuning.timing import TRIGGERS
from lineward.runtime.bench.measure import Plan
from lineward.runtime.cli import PASSED
from lineward.runtime.cli.bench import quantity
from lineward.runtime.cli.console import ConsoleProgress, print_table
from lineward.runtime.engines import ENGINES
from lineward.runtime.errors import BenchError, DataError
from lineward.runtime.images import write_png
from lineward.runtime.quantities import parse_duration

COLUMNS = ("input", "rows", "image AUROC", "pixel AUROC", "score", "p50", "p99 at most", "")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments: those of `lineward train`, and its own."""
    train.add_arguments(parser)
    tune = parser.add_argument_group("search")
    what = tune.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--budget", type=quantity(parse_duration), metavar="TIME", help="from trigger to verdict, p99, such as 12ms"
    )
    what.add_argument(
        "--bundles",
        type=Path,
        metavar="FOLDER",
        help="write the candidates here, to be measured on another device by `lineward bench`, and end",
    )
    tune.add_argument(
        "--on",
        type=Path,
        nargs="+",
        metavar="RECORD",
        help="choose by these records of that device (`lineward bench --json`), and time nothing here",
    )
    tune.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="inputs to search (default: %(default)s)")
    tune.add_argument("--banks", type=int, nargs="+", default=BANKS, help="rows to search (default: %(default)s)")
    tune.add_argument(
        "--precisions",
        choices=PRECISIONS,
        nargs="+",
        default=[FLOAT32],
        help="of the embedding graph, to search; the others are for GPUs (default: float32)",
    )
    tune.add_argument(
        "--kept",
        type=_kept,
        nargs="+",
        default=[None],
        metavar="DIMENSIONS",
        help="dimensions kept by the whitening, to search: numbers, or all (default: all)",
    )
    tune.add_argument("--engine", choices=ENGINES, default="cpu", help="where it will run (default: %(default)s)")
    tune.add_argument("--threads", type=int, help="threads to use (default: every core this process may use)")
    tune.add_argument("--decoded", action="store_true", help="leave decoding out: a camera delivers pixels, not files")
    tune.add_argument("--again", action="store_true", help="time all candidates anew, whatever is kept of before")
    tune.add_argument("--json", type=Path, metavar="FILE", help="write the table here")
    tune.add_argument("--png", type=Path, metavar="FILE", help="draw the table here")


def run(arguments: argparse.Namespace) -> int:
    """Search, show the front, choose, and train what was chosen; or write the candidates for another device."""
    _check_places(arguments)
    records = read_records(arguments.on) if arguments.on else []
    wanted, store, evidence = _search(arguments)
    if arguments.bundles:
        return _write_bundles(wanted, store, arguments.bundles)
    if records:
        table, windows = timed_elsewhere(wanted, store, records), "of the device's records of it"
    else:
        plan = Plan(engine=arguments.engine, threads=arguments.threads, decoded=arguments.decoded)
        table, windows = (
            time_candidates(wanted, store, plan, _say, arguments.again),
            f"of windows of {TRIGGERS} triggers",
        )
    front = pareto_front(table)
    print_table("", COLUMNS, _cells(table, front))
    try:
        chosen = choose(table, arguments.budget)
    finally:
        _write(arguments, table, evidence)
    print(
        f"chosen for {arguments.budget * 1e3:g} ms: {chosen.candidate.name}; p99 at most "
        f"{_milliseconds(chosen.timing.bound)}, the greatest {windows} ({len(chosen.timing.p99)})"
    )
    graph = chosen.candidate.graph
    arguments.size, arguments.precision, arguments.dimensions = graph.size, graph.precision, graph.dimensions
    arguments.rows = chosen.candidate.rows
    return train.run(arguments)


def _check_places(arguments: argparse.Namespace) -> None:
    for path in (arguments.json, arguments.png, arguments.output):
        if path and not path.absolute().parent.is_dir():
            raise BenchError(f"{path}: no such folder", do="make it, or choose another")
    if arguments.bundles and arguments.on:
        raise BenchError("--bundles comes before the records of --on", do="say one of them")
    if arguments.bundles and not arguments.bundles.is_dir():
        raise BenchError(f"{arguments.bundles}: no such folder", do="make it, or choose another")


def _search(arguments: argparse.Namespace) -> tuple[list[Candidate], Store, str]:
    """Judge the candidates; returns them, what was found, and in words what judged them."""
    dataset = open_dataset(arguments.data)
    if not dataset.train:
        raise DataError(f"{arguments.data}: has no train/good", do="put good images there, or name their folder")
    progress, recipe = ConsoleProgress(), train.recipe_of(arguments)
    images = train.check_images(dataset.train, arguments.skip_unreadable, progress)
    panel = seat(dataset, images, recipe.promise)
    banks = [arguments.rows] if arguments.rows else arguments.banks
    wanted = candidates(_graphs(arguments), banks, len(panel.bank), recipe)
    store = open_store(panel, recipe)
    print(f"accuracy by {panel.evidence}")
    judge(wanted, panel, arguments.product or dataset.name, recipe, store, progress)
    return wanted, store, panel.evidence


def _write_bundles(wanted: Sequence[Candidate], store: Store, folder: Path) -> int:
    with ConsoleProgress().step("write bundles", len(wanted)) as advance:
        count = write_bundles(wanted, store, folder, advance)
    print(f"wrote {count} bundles to {folder}")
    print("  -> on the device: lineward bench BUNDLE --json RECORD, of each; then here: --budget TIME --on RECORD...")
    return PASSED


def _graphs(arguments: argparse.Namespace) -> Iterator[Graph]:
    """What to search, or what was given."""
    sizes = [arguments.size] if arguments.size else sorted(arguments.sizes)
    precisions = [arguments.precision] if arguments.precision else arguments.precisions
    kept = [arguments.dimensions] if arguments.dimensions else arguments.kept
    return (Graph(*chosen) for chosen in product(sizes, precisions, kept))


def _kept(text: str) -> int | None:
    if text == "all":
        return None
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of dimensions nor all")
    return int(text)


def _cells(table: Sequence[Row], front: Sequence[Row]) -> list[tuple[str, ...]]:
    return [
        (
            row.candidate.graph.name,
            str(row.candidate.rows),
            f"{row.accuracy.image_auroc:.4f}",
            "-" if row.accuracy.pixel_auroc is None else f"{row.accuracy.pixel_auroc:.4f}",
            f"{row.accuracy.score:.4f}",
            _milliseconds(row.timing.p50),
            _milliseconds(row.timing.bound),
            "front" if row in front else "",
        )
        for row in table
    ]


def _write(arguments: argparse.Namespace, table: Sequence[Row], evidence: str) -> None:
    """The table as JSON and as a picture, where they were asked for; also when nothing fits the budget."""
    front = pareto_front(table)
    fitting = [row for row in front if (row.timing.bound or 0.0) <= arguments.budget]
    if arguments.json:
        rows = [{**_figures(row), "front": row in front, "chosen": row in fitting[-1:]} for row in table]
        record = {"accuracy_by": evidence, "budget_seconds": arguments.budget, "candidates": rows}
        arguments.json.write_text(json.dumps(record, indent=2) + "\n")
    if arguments.png:
        title = f"{arguments.product or arguments.data.resolve().name}: accuracy by {evidence}"
        write_png(arguments.png, draw_table(table, fitting[-1] if fitting else None, arguments.budget, title))


def _figures(row: Row) -> dict[str, Any]:
    return {
        "size": row.candidate.graph.size,
        "precision": row.candidate.graph.precision,
        "dimensions": row.candidate.graph.dimensions,
        "rows": row.candidate.rows,
        "image_auroc": row.accuracy.image_auroc,
        "pixel_auroc": row.accuracy.pixel_auroc,
        "score": row.accuracy.score,
        "p50_seconds": row.timing.p50,
        "p99_seconds_by_window": row.timing.p99,
    }


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.1f} ms"


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)
