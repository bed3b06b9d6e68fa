"""Defects slipped into the training set: how much each system loses when not all of its good images are good.

    python -m benchmarks.accuracy.outliers DATA

Runs that finished are kept in the cache of `benchmarks.accuracy.material`: after an interruption the same command goes
on where it stopped. Writes outliers.json, outliers.md, outliers.png and outliers.svg under `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.accuracy import material, paper
from benchmarks.accuracy.admission import WithSupport
from benchmarks.accuracy.categories import DataSet, find_data_sets
from benchmarks.accuracy.material import Material, Setting, load_material
from benchmarks.accuracy.plot import plot_by_share
from benchmarks.accuracy.runs import Run, fingerprint, read_run, run, run_path, write_run
from benchmarks.accuracy.systems import System
from benchmarks.accuracy.systems.improved_patchcore import ImprovedPatchCore
from benchmarks.accuracy.systems.lineward import Lineward
from benchmarks.accuracy.systems.padim import PaDiM
from benchmarks.accuracy.systems.patchcore import PatchCore
from benchmarks.accuracy.tabulate import Statistic, Table, loss, of_category, statistic
from benchmarks.results_file import write_results
from lineward.export.datasets import Dataset
from lineward.runtime.cli.console import ConsoleProgress, print_error, print_table
from lineward.runtime.errors import LinewardError

Rows = NDArray[np.float32]
ByShare = Mapping[float, Sequence[Run]]


@dataclass(frozen=True)
class Plan:
    """What a system is run with.

    Attributes:
        system: the system.
        shares: defective, of the training images; 0 and 0.05, of which the loss is taken, among them.
        seeds: each chooses the images that are slipped in and is the system's too.
    """

    system: System
    shares: tuple[float, ...] = (0.0, 0.02, 0.05, 0.1)
    seeds: tuple[int, ...] = (0,)


SETTING = Setting()
STUDY: Mapping[str, Plan] = {
    "PatchCore": Plan(PatchCore()),
    "improved PatchCore": Plan(ImprovedPatchCore()),
    "PaDiM": Plan(PaDiM()),
    "Lineward": Plan(Lineward()),
    "Lineward, support asked for": Plan(WithSupport(), shares=(0.0, 0.05)),
}
"""In the order in which they run. CutPaste, which trains for a minute or two a run, is left to `make tables`."""

LOSS = (0.0, 0.05)
"""Loss is what a figure falls by from the first share to the second."""
FIGURES = ("image_auroc", "pixel_auroc")

_READING = """\
- By its seed, half of the defective test images may be slipped into the training set; the other half is scored, with
  all good test images, at every share, so that a row can be compared from left to right. A greater share holds the
  images of a smaller one. Slipped-in and scored defects are drawn from the same kinds.
- Beneath a share stand the images that were slipped in, and those of the training set with them. Where half of the
  defective images is fewer than a share needs, that half is all that is slipped in.
- The spread over seeds is that of the systems and of which defects are slipped in and which are scored. The loss is
  taken seed by seed; below 0 it is a gain. Systems that were run with other seeds were scored on other defects.
- Lineward holds out a tenth of its training images, or as many as its
  false-reject rate needs, for its threshold. Slipped-in ones are among them, so its bank sees fewer of the defects than
  other systems do. AUROC does not depend on the threshold, which may rise where defective images are held out.
- Support asked for: a rule that the product has not. The farthest-point half of the bank takes only what at least two
  training images show, while such patches last (`benchmarks/accuracy/admission.py`).
- Lineward's settings were chosen by its figures on test images of bottle, screw and transistor, so they
  are a little too good there.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run everything that is not kept already, and write the study; the exit code is 2 after an error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy.outliers", description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="a folder of categories, or of such folders, laid out as MVTec AD")
    root = parser.parse_args(argv).data
    try:
        data_sets = find_data_sets(root)
        runs = _run_all(data_sets)
        for data_set in data_sets:
            for table in share_tables(data_set, runs):
                print_table(table.title, table.columns, table.rows)
                print()
        _write(root, data_sets, runs)
    except LinewardError as error:
        print_error(str(error))
        return 2
    except KeyboardInterrupt:
        print_error("interrupted\n  -> the same command goes on where it stopped")
        return 130
    return 0


@dataclass(frozen=True)
class _Job:
    """A run to make, and the file that keeps it."""

    data_set: DataSet
    dataset: Dataset
    name: str
    share: float
    seed: int
    path: Path

    def __str__(self) -> str:
        return f"{self.dataset.name}: {self.name}, {_percent(self.share)} slipped in, seed {self.seed}"


def _run_all(data_sets: Sequence[DataSet]) -> ByShare:
    jobs = _jobs(data_sets)
    todo = [job for job in jobs if not job.path.exists()]
    print(f"{len(jobs) - len(todo)} of {len(jobs)} runs kept from before", flush=True)
    loaded: dict[str, Material] = {}
    for number, job in enumerate(todo, 1):
        print(f"{number} of {len(todo)}: {job}", file=sys.stderr, flush=True)
        if job.dataset.name not in loaded:
            loaded[job.dataset.name] = load_material(job.dataset, SETTING, ConsoleProgress())
        slipped = loaded[job.dataset.name].slip_in(job.share, job.seed)
        done = run(job.data_set.name, job.name, STUDY[job.name].system, slipped, job.seed, ConsoleProgress())
        write_run(job.path, done)
        print(f"{job}: image AUROC {done.figures.image_auroc:.3f}", flush=True)
    shares = sorted({job.share for job in jobs})
    return {share: [read_run(job.path) for job in jobs if job.share == share] for share in shares}


def _jobs(data_sets: Sequence[DataSet]) -> list[_Job]:
    # All keys before any run: code that is edited meanwhile must not pass for the code that runs.
    keyed = [(ds, dataset, fingerprint(dataset, SETTING)) for ds in data_sets for dataset in ds.found.values()]
    return [
        _Job(data_set, dataset, name, share, seed, _path(key, data_set, dataset, name, share, seed))
        for name, plan in STUDY.items()
        for data_set, dataset, key in keyed
        for share in plan.shares
        for seed in plan.seeds
    ]


def _path(key: str, data_set: DataSet, dataset: Dataset, name: str, share: float, seed: int) -> Path:
    system = STUDY[name].system
    # The fingerprint has the code of `benchmarks.accuracy.systems` alone; one system is written here.
    key = repr((key, share, inspect.getsource(type(system))))
    return run_path(material.CACHE / "runs", key, data_set.name, dataset.name, name, system, seed)


def share_tables(data_set: DataSet, runs: ByShare) -> list[Table]:
    """Systems by shares for each category, and for their mean where there are several."""
    several = len(data_set.found) > 1
    return [_share_table(data_set, runs, c) for c in (*data_set.found, *([paper.MEAN] if several else []))]


def _share_table(data_set: DataSet, runs: ByShare, category: str) -> Table:
    name = f"mean of the {len(data_set.found)} found" if category == paper.MEAN else category
    heads = [_head(data_set, runs, category, share) for share in runs]
    columns = ["system", *heads, f"loss from {' to '.join(map(_percent, LOSS))}"]
    rows = [_row(data_set, runs, category, system) for system in STUDY]
    return Table(f"{name}: image AUROC, beneath it pixel AUROC", columns, rows)


def _head(data_set: DataSet, runs: ByShare, category: str, share: float) -> str:
    """A share, and the images that it comes to."""
    if category == paper.MEAN:
        return _percent(share)
    slipped = next(run.slipped for run in runs[share] if (run.data_set, run.category) == (data_set.name, category))
    return f"{_percent(share)}\n{slipped} of {len(data_set.found[category].train) + slipped}"


def _row(data_set: DataSet, runs: ByShare, category: str, system: str) -> list[str]:
    by_share = _of_system(data_set, runs, category, system)
    cells = [_lines(statistic(chosen, f) for f in FIGURES) if chosen else "not run" for chosen in by_share.values()]
    return [system, *cells, _lines(_loss(by_share, figure) for figure in FIGURES)]


def _lines(found: Iterable[Statistic | None]) -> str:
    return "\n".join(str(each or "–") for each in found)


def _of_system(data_set: DataSet, runs: ByShare, category: str, system: str) -> ByShare:
    return {share: of_category(data_set, of_share, category, system) for share, of_share in runs.items()}


def _loss(by_share: ByShare, figure: str) -> Statistic | None:
    before, after = (by_share[share] for share in LOSS)
    return loss(before, after, figure)


def _write(root: Path, data_sets: Sequence[DataSet], runs: ByShare) -> None:
    figures = {
        "setting": repr(SETTING),
        "systems": {name: {**vars(plan), "system": repr(plan.system)} for name, plan in STUDY.items()},
        "loss_between_shares": LOSS,
        "data_sets": {data_set.name: _summary(data_set, runs) for data_set in data_sets},
        "runs": [{"share": share, **asdict(run)} for share, of_share in runs.items() for run in of_share],
    }
    path = write_results("outliers", f"make outliers DATA=<folder>/{root.resolve().name}", figures)
    path.with_suffix(".md").write_text(_document(path.stem, data_sets, runs))
    for suffix in (".png", ".svg"):
        plot_by_share(path.with_suffix(suffix), data_sets, runs, [*STUDY])


def _summary(data_set: DataSet, runs: ByShare) -> dict[str, Any]:
    """What is missing; and of what was found, and its mean, the figures over seeds by system and share, and losses."""
    categories = (*data_set.found, paper.MEAN)
    cells = {c: {name: _figures(data_set, runs, c, name) for name in STUDY} for c in categories}
    return {"missing": data_set.missing, "categories": cells}


def _figures(data_set: DataSet, runs: ByShare, category: str, system: str) -> dict[str, Any]:
    by_share = _of_system(data_set, runs, category, system)
    shares = {
        f"{share:g}": {figure: asdict(each) for figure in FIGURES if (each := statistic(chosen, figure))}
        for share, chosen in by_share.items()
        if chosen
    }
    losses = {figure: asdict(each) for figure in FIGURES if (each := _loss(by_share, figure))}
    return {"shares": shares, "loss": losses}


def _document(stem: str, data_sets: Sequence[DataSet], runs: ByShare) -> str:
    """The page: what was run, the plot, the tables of each data set, and what to know when reading them."""
    parts = [
        "# Defects slipped into the training set\n",
        "Each system learns from training sets of which a growing share is defective, and taken to be good. Shown is "
        "how well it then tells good images from defective ones, and good pixels from defective ones: mean ± sample "
        f"standard deviation over seeds. Machine, versions, date and every run: `{stem}.json`.\n",
        *[f"- {name}: {_extent(plan)}; `{plan.system!r}`" for name, plan in STUDY.items()],
        f"\n![Image AUROC by share of defects, one panel a category]({stem}.svg)\n",
        "The line goes through the means, the band shows the spread.\n",
    ]
    for data_set in data_sets:
        parts += [f"## {data_set.name}\n", _provenance(data_set)]
        parts += [table.markdown() for table in share_tables(data_set, runs)]
    return "\n".join([*parts, "## How to read them\n", _READING])


def _extent(plan: Plan) -> str:
    shares, seeds = (", ".join(map(str, each)) for each in (map(_percent, plan.shares), plan.seeds))
    return f"shares {shares}, {'seeds' if len(plan.seeds) > 1 else 'seed'} {seeds}"


def _provenance(data_set: DataSet) -> str:
    owner = f"{data_set.name}: MVTec Software GmbH, CC BY-NC-SA 4.0. " if data_set.name.startswith("MVTec") else ""
    missing = f" **Not found: {', '.join(data_set.missing)}.**" if data_set.missing else ""
    return f"{owner}Found: {', '.join(data_set.found)}.{missing}\n"


def _percent(share: float) -> str:
    return f"{share * 100:g} %"


if __name__ == "__main__":
    sys.exit(main())
