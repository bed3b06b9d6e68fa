"""The paper's Tab. 2 and Tab. 3 with the categories that a folder holds, the paper's figures beside ours.

    python -m benchmarks.accuracy.tables DATA

Runs that finished are kept in the cache of `benchmarks.accuracy.material`: after an interruption the same command goes
on where it stopped. Writes tables.json, tables.md, tables.csv, tables.png and tables.svg under `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.accuracy import material, paper
from benchmarks.accuracy.categories import DataSet, find_data_sets
from benchmarks.accuracy.document import write_document
from benchmarks.accuracy.material import Setting, load_material
from benchmarks.accuracy.plot import plot_image_auroc
from benchmarks.accuracy.runs import Run, fingerprint, read_run, run, run_path, write_run
from benchmarks.accuracy.systems import System
from benchmarks.accuracy.systems.cutpaste import CutPaste
from benchmarks.accuracy.systems.improved_patchcore import ImprovedPatchCore
from benchmarks.accuracy.systems.lineward import Lineward
from benchmarks.accuracy.systems.padim import PaDiM
from benchmarks.accuracy.systems.patchcore import PatchCore
from benchmarks.accuracy.tabulate import figure_names, further_table, main_table, of_category, statistic, to_csv
from benchmarks.results_file import write_results
from lineward.export.datasets import Dataset
from lineward.runtime.cli.console import ConsoleProgress, print_error, print_table
from lineward.runtime.errors import LinewardError

SETTING = Setting()
SEEDS = (0, 1, 2)
SYSTEMS: Mapping[str, System] = {
    "PatchCore": PatchCore(),
    "improved PatchCore": ImprovedPatchCore(),
    "PaDiM": PaDiM(),
    "CutPaste": CutPaste(),
    "Lineward": Lineward(),
}
"""By the names of the paper's columns, and ours."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run everything that is not kept already, and write the tables; the exit code is 2 after an error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy.tables", description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="a folder of categories, or of such folders, laid out as MVTec AD")
    root = parser.parse_args(argv).data
    try:
        data_sets = find_data_sets(root)
        runs = _run_all(data_sets)
        _print(data_sets, runs)
        _write(root, data_sets, runs)
    except LinewardError as error:
        print_error(str(error))
        return 2
    except KeyboardInterrupt:
        print_error("interrupted\n  -> the same command goes on where it stopped")
        return 130
    return 0


def _run_all(data_sets: Sequence[DataSet]) -> list[Run]:
    for data_set in data_sets:
        print(f"{data_set.name}: {', '.join(data_set.found)}{_missing(data_set)}", flush=True)
    # All keys before any run: code that is edited meanwhile must not pass for the code that runs.
    keyed = [(ds, dataset, fingerprint(dataset, SETTING)) for ds in data_sets for dataset in ds.found.values()]
    return [run for each in keyed for run in _category(*each)]


def _category(data_set: DataSet, dataset: Dataset, key: str) -> list[Run]:
    """All runs of a category, those that finished before from the disk."""
    wanted = [(name, system, seed) for name, system in SYSTEMS.items() for seed in SEEDS]
    paths = [run_path(material.CACHE / "runs", key, data_set.name, dataset.name, *each) for each in wanted]
    todo = [(path, *each) for path, each in zip(paths, wanted, strict=True) if not path.exists()]
    print(f"{dataset.name}: {len(wanted) - len(todo)} of {len(wanted)} runs kept from before", flush=True)
    if todo:
        loaded = load_material(dataset, SETTING, ConsoleProgress())
        for number, (path, name, system, seed) in enumerate(todo, 1):
            print(f"{dataset.name}, {number} of {len(todo)}: {name}, seed {seed}", file=sys.stderr, flush=True)
            done = run(data_set.name, name, system, loaded, seed, ConsoleProgress())
            write_run(path, done)
            print(f"{dataset.name}: {name}, seed {seed}: image AUROC {done.figures.image_auroc:.3f}", flush=True)
    return [read_run(path) for path in paths]


def _print(data_sets: Sequence[DataSet], runs: Sequence[Run]) -> None:
    for data_set in data_sets:
        for table in (main_table(data_set, runs, [*SYSTEMS]), further_table(data_set, runs, [*SYSTEMS])):
            print_table(table.title, table.columns, table.rows)
            print()


def _write(root: Path, data_sets: Sequence[DataSet], runs: Sequence[Run]) -> None:
    figures = {
        "setting": repr(SETTING),
        "systems": {name: repr(system) for name, system in SYSTEMS.items()},
        "data_sets": {data_set.name: _summary(data_set, runs) for data_set in data_sets},
        "runs": [asdict(r) for r in runs],
    }
    path = write_results("tables", f"make tables DATA=<folder>/{root.resolve().name}", figures)
    write_document(path.with_suffix(".md"), data_sets, runs, SETTING, SYSTEMS)
    path.with_suffix(".csv").write_text(to_csv(runs))
    for suffix in (".png", ".svg"):
        plot_image_auroc(path.with_suffix(suffix), data_sets, runs, [*SYSTEMS])


def _summary(data_set: DataSet, runs: Sequence[Run]) -> dict[str, Any]:
    """What is missing; and of what was found, and its mean, the figures over seeds beside the paper's cell."""
    cells = {c: {s: _cell(data_set, runs, c, s) for s in SYSTEMS} for c in (*data_set.found, paper.MEAN)}
    return {"missing": data_set.missing, "categories": cells}


def _cell(data_set: DataSet, runs: Sequence[Run], category: str, system: str) -> dict[str, Any]:
    chosen = of_category(data_set, runs, category, system)
    ours = {name: asdict(found) for name in figure_names(chosen) if (found := statistic(chosen, name))}
    return {**ours, "paper": data_set.paper.cell(category, system) if data_set.paper else None}


def _missing(data_set: DataSet) -> str:
    return f"; NOT FOUND: {', '.join(data_set.missing)}" if data_set.missing else ""


if __name__ == "__main__":
    sys.exit(main())
