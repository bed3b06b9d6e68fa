"""Runs as tables: in the paper's layout with its figures beneath, further figures, Markdown, and CSV."""

from __future__ import annotations

import csv
import io
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from benchmarks.accuracy import paper
from benchmarks.accuracy.categories import DataSet
from benchmarks.accuracy.runs import Run

_NONE = "–"
_MAIN = ("image_auroc", "pixel_auroc")
_HEADS = {
    "image_auroc": "image AUROC",
    "pixel_auroc": "pixel AUROC",
    "aupro": "AUPRO@0.3",
    "f1_max": "F1max",
    "spro": "sPRO@0.05",
    "by_kind": "",
    "kinds": "",
    "mean": "mean of kinds:",
    "logical_anomalies": "logical:",
    "structural_anomalies": "structural:",
}
"""How the parts of a figure's name are printed; others are printed as they are."""


@dataclass(frozen=True)
class Statistic:
    """A figure over seeds.

    Attributes:
        mean: over seeds.
        spread: sample standard deviation over seeds; None for one seed.
    """

    mean: float
    spread: float | None

    def __str__(self) -> str:
        return f"{self.mean:.3f}" if self.spread is None else f"{self.mean:.3f} ± {self.spread:.3f}"


@dataclass(frozen=True)
class Table:
    """A table of text; a cell may hold several lines."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        """The table in GitHub's Markdown."""
        lines = [" | ".join(cells).replace("\n", "<br>") for cells in (self.columns, *self.rows)]
        lines.insert(1, " | ".join(["---"] * len(self.columns)))
        return f"### {self.title}\n\n" + "".join(f"| {line} |\n" for line in lines)


def statistic(runs: Iterable[Run], figure: str) -> Statistic | None:
    """A system's figure over seeds: of one category, or of the mean over several.

    Returns:
        None if there are no runs, or one of them lacks the figure.
    """
    by_seed = _by_seed(runs, figure)
    return _over_seeds([*by_seed.values()]) if by_seed else None


def loss(before: Iterable[Run], after: Iterable[Run], figure: str) -> Statistic | None:
    """What a figure falls by from some runs to others, seed by seed; below 0 where it rises.

    Returns:
        None if no seed is among both, or a run lacks the figure.
    """
    first, second = _by_seed(before, figure), _by_seed(after, figure)
    falls = [first[seed] - second[seed] for seed in first if seed in second] if first and second else []
    return _over_seeds(falls) if falls else None


def _by_seed(runs: Iterable[Run], figure: str) -> dict[int, float] | None:
    """The mean over categories for each seed; None if a run lacks the figure."""
    by_seed: defaultdict[int, list[float]] = defaultdict(list)
    for run in runs:
        value = run.numbers.get(figure)
        if value is None:
            return None
        by_seed[run.seed].append(value)
    return {seed: statistics.mean(values) for seed, values in by_seed.items()}


def _over_seeds(values: Sequence[float]) -> Statistic:
    return Statistic(statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None)


def main_table(data_set: DataSet, runs: Sequence[Run], systems: Sequence[str]) -> Table:
    """Image and pixel AUROC in the layout of the paper's table, its figures beneath ours."""
    rows = [[c, *(_main_cell(data_set, runs, c, s) for s in systems)] for c in data_set.found]
    rows += [[c, *(_beneath("not found", data_set, c, s) for s in systems)] for c in data_set.missing]
    mean = _mean_name(data_set) + ("\npaper: as printed" if data_set.paper else "")
    rows.append([mean, *(_main_cell(data_set, runs, paper.MEAN, s) for s in systems)])
    title = f"{data_set.name}: image AUROC, pixel AUROC"
    return Table(f"{title} ({data_set.paper.title})" if data_set.paper else title, ["category", *systems], rows)


def further_table(data_set: DataSet, runs: Sequence[Run], systems: Sequence[str]) -> Table:
    """All other figures that there are, and the seconds."""
    figures = [f for f in figure_names(_of(runs, data_set)) if f not in _MAIN]
    rows = [
        [_mean_name(data_set) if category == paper.MEAN else category, system, *(_number(chosen, f) for f in figures)]
        for category in [*data_set.found, paper.MEAN]
        for system in systems
        if (chosen := of_category(data_set, runs, category, system))
    ]
    return Table(f"{data_set.name}: further figures", ["category", "system", *map(_head, figures)], rows)


def figure_names(runs: Iterable[Run]) -> list[str]:
    """The names of all figures that any of the runs has, the seconds last."""
    names = {name: None for run in runs for name, value in run.numbers.items() if value is not None}
    names["seconds"] = names.pop("seconds", None)
    return list(names)


def of_category(data_set: DataSet, runs: Iterable[Run], category: str, system: str) -> list[Run]:
    """A system's runs of a category, or of all found where the category is `paper.MEAN`."""
    wanted = [run for run in _of(runs, data_set) if run.system == system]
    return wanted if category == paper.MEAN else [run for run in wanted if run.category == category]


def to_csv(runs: Sequence[Run]) -> str:
    """One line for each run, with all its figures."""
    figures = figure_names(runs)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["data_set", "category", "system", "seed", *figures])
    for run in runs:
        numbers = [run.numbers.get(figure) for figure in figures]
        cells = ["" if value is None else f"{value:.6g}" for value in numbers]
        writer.writerow([run.data_set, run.category, run.system, run.seed, *cells])
    return text.getvalue()


def _of(runs: Iterable[Run], data_set: DataSet) -> list[Run]:
    return [run for run in runs if run.data_set == data_set.name]


def _main_cell(data_set: DataSet, runs: Sequence[Run], category: str, system: str) -> str:
    chosen = of_category(data_set, runs, category, system)
    ours = ", ".join(str(statistic(chosen, figure) or _NONE) for figure in _MAIN)
    return _beneath(ours, data_set, category, system)


def _beneath(ours: str, data_set: DataSet, category: str, system: str) -> str:
    if data_set.paper is None or system not in paper.SYSTEMS:
        return ours
    return f"{ours}\npaper: {data_set.paper.cell(category, system) or _NONE}"


def _mean_name(data_set: DataSet) -> str:
    return f"mean of the {len(data_set.found)} found"


def _number(runs: Sequence[Run], figure: str) -> str:
    found = statistic(runs, figure)
    if figure == "seconds":
        return f"{found.mean:.1f}" if found else _NONE
    return str(found or _NONE)


def _head(figure: str) -> str:
    return " ".join(filter(None, (_HEADS.get(part, part) for part in figure.split("."))))
