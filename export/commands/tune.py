"""Find the most accurate bundle whose verdicts come within a budget on this very device, and train it: input sizes and
banks are judged and timed, the whole front is shown. All options of `lineward train` count; a --size or --rows given is
kept. Run it where the bundle will run, with the device otherwise as it will be."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lineward.export.commands import train
from lineward.export.datasets import open_dataset
from lineward.export.tuning.judges import seat
from lineward.export.tuning.picture import draw_table
from lineward.export.tuning.search import BANKS, SIZES, candidates, judge, time_candidates
from lineward.export.tuning.store import open_store
from lineward.export.tuning.table import Row, choose, pareto_front
from lineward.export.tuning.timing import TRIGGERS, WINDOWS
from lineward.runtime.bench.measure import Plan
from lineward.runtime.cli.bench import quantity
from lineward.runtime.cli.console import ConsoleProgress, print_table
from lineward.runtime.engines import ENGINES
from lineward.runtime.errors import BenchError, DataError
from lineward.runtime.images import write_png
from lineward.runtime.quantities import parse_duration

COLUMNS = ("size", "rows", "image AUROC", "pixel AUROC", "score", "p50", "p99 at most", "")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments: those of `lineward train`, and its own."""
    train.add_arguments(parser)
    tune = parser.add_argument_group("search")
    tune.add_argument(
        "--budget",
        type=quantity(parse_duration),
        required=True,
        metavar="TIME",
        help="from trigger to verdict, p99, such as 12ms",
    )
    tune.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="inputs to search (default: %(default)s)")
    tune.add_argument("--banks", type=int, nargs="+", default=BANKS, help="rows to search (default: %(default)s)")
    tune.add_argument("--engine", choices=ENGINES, default="cpu", help="where it will run (default: %(default)s)")
    tune.add_argument("--threads", type=int, help="threads to use (default: every core this process may use)")
    tune.add_argument("--decoded", action="store_true", help="leave decoding out: a camera delivers pixels, not files")
    tune.add_argument("--again", action="store_true", help="time all candidates anew, whatever is kept of before")
    tune.add_argument("--json", type=Path, metavar="FILE", help="write the table here")
    tune.add_argument("--png", type=Path, metavar="FILE", help="draw the table here")


def run(arguments: argparse.Namespace) -> int:
    """Search, show the front, choose, and train what was chosen."""
    for path in (arguments.json, arguments.png, arguments.output):
        if path and not path.absolute().parent.is_dir():
            raise BenchError(f"{path}: no such folder", do="make it, or choose another")
    dataset = open_dataset(arguments.data)
    if not dataset.train:
        raise DataError(f"{arguments.data}: has no train/good", do="put good images there, or name their folder")
    progress, recipe = ConsoleProgress(), train.recipe_of(arguments)
    images = train.check_images(dataset.train, arguments.skip_unreadable, progress)
    panel = seat(dataset, images, recipe.promise)
    sizes = [arguments.size] if arguments.size else arguments.sizes
    banks = [arguments.rows] if arguments.rows else arguments.banks
    wanted = candidates(sizes, banks, len(panel.bank), recipe)
    store = open_store(panel, recipe)
    print(f"accuracy by {panel.evidence}")
    judge(wanted, panel, arguments.product or dataset.name, recipe, store, progress)
    plan = Plan(engine=arguments.engine, threads=arguments.threads, decoded=arguments.decoded)
    table = time_candidates(wanted, store, plan, _say, arguments.again)
    front = pareto_front(table)
    print_table("", COLUMNS, _cells(table, front))
    try:
        chosen = choose(table, arguments.budget)
    finally:
        _write(arguments, table, panel.evidence)
    print(
        f"chosen for {arguments.budget * 1e3:g} ms: {chosen.candidate.size} pixels, {chosen.candidate.rows} rows; "
        f"p99 at most {_milliseconds(chosen.timing.bound)}, the greatest of {WINDOWS} windows of {TRIGGERS} triggers"
    )
    arguments.size, arguments.rows = chosen.candidate.size, chosen.candidate.rows
    return train.run(arguments)


def _cells(table: Sequence[Row], front: Sequence[Row]) -> list[tuple[str, ...]]:
    return [
        (
            str(row.candidate.size),
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
        "size": row.candidate.size,
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
