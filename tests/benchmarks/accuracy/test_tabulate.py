from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.accuracy.categories import DataSet
from benchmarks.accuracy.measure import Figures
from benchmarks.accuracy.paper import LOCO, MVTEC_AD
from benchmarks.accuracy.runs import Run
from benchmarks.accuracy.tabulate import further_table, loss, main_table, statistic, to_csv
from lineward.export.datasets import Dataset
from lineward.export.evaluation import ByKind, KindFigures

SYSTEMS = ("PatchCore", "CutPaste", "Lineward")


def data_set(name: str, found: tuple[str, ...], missing: tuple[str, ...] = (), paper=None) -> DataSet:
    return DataSet(name, {category: Dataset(category, (), (), ()) for category in found}, missing, paper)


def two_seeds(place: DataSet, category: str, by_kind: ByKind | None = None) -> list[Run]:
    """PatchCore at 0.8 and 0.9, CutPaste without places, Lineward the same with each seed."""
    made = []
    for seed in (0, 1):
        figures = {
            "PatchCore": Figures(0.8 + seed / 10, 0.7, 0.6, 0.5, by_kind),
            "CutPaste": Figures(0.55, 0.7, None, None, by_kind),
            "Lineward": Figures(1.0, 1.0, 0.98, 0.93, by_kind),
        }
        made += [Run(place.name, category, name, seed, 2.0 + seed, f) for name, f in figures.items()]
    return made


AD = data_set("MVTec AD", ("bottle", "carpet"), ("cable",), MVTEC_AD)
RUNS = [*two_seeds(AD, "bottle"), *two_seeds(AD, "carpet")]


def test_the_main_table_has_the_layout_of_the_papers():
    table = main_table(AD, RUNS, SYSTEMS)
    patchcore, cutpaste, lineward = "0.850 ± 0.071, 0.600 ± 0.000", "0.550 ± 0.000, –", "1.000 ± 0.000, 0.980 ± 0.000"
    assert table.markdown() == (
        "### MVTec AD: image AUROC, pixel AUROC (Tab. 3, MVTec AD)\n\n"
        "| category | PatchCore | CutPaste | Lineward |\n"
        "| --- | --- | --- | --- |\n"
        f"| bottle | {patchcore}<br>paper: 0.98, 0.98 | {cutpaste}<br>paper: 0.98, – | {lineward} |\n"
        f"| carpet | {patchcore}<br>paper: – | {cutpaste}<br>paper: – | {lineward} |\n"
        "| cable | not found<br>paper: 0.98, 0.97 | not found<br>paper: 0.91, – | not found |\n"
        "| mean of the 2 found<br>paper: as printed "
        f"| {patchcore}<br>paper: 0.98, 0.97 | {cutpaste}<br>paper: 0.96, – | {lineward} |\n"
    )


def test_a_data_set_without_a_paper_has_our_figures_alone():
    mine = data_set("other data", ("mine",))
    table = main_table(mine, two_seeds(mine, "mine"), SYSTEMS)
    assert [row[0] for row in table.rows] == ["mine", "mean of the 1 found"]
    assert table.rows[0][1] == "0.850 ± 0.071, 0.600 ± 0.000"
    assert "paper" not in table.markdown()


def test_further_figures_are_those_that_there_are():
    table = further_table(AD, RUNS, SYSTEMS)
    assert table.columns == ["category", "system", "F1max", "AUPRO@0.3", "seconds"]
    assert table.rows[:2] == [
        ["bottle", "PatchCore", "0.700 ± 0.000", "0.500 ± 0.000", "2.5"],
        ["bottle", "CutPaste", "0.700 ± 0.000", "–", "2.5"],
    ]
    assert [row[0] for row in table.rows[-3:]] == ["mean of the 2 found"] * 3


def test_loco_figures_are_named_by_kind():
    loco = data_set("MVTec LOCO AD", ("pushpins",), paper=LOCO)
    kinds = {"logical_anomalies": KindFigures(0.61, 0.41), "structural_anomalies": KindFigures(0.81, None)}
    runs = two_seeds(loco, "pushpins", ByKind(kinds, KindFigures(0.71, None)))
    table = further_table(loco, runs, SYSTEMS)
    assert table.columns == [
        *("category", "system", "F1max", "AUPRO@0.3"),
        *("logical: image AUROC", "logical: sPRO@0.05", "structural: image AUROC", "mean of kinds: image AUROC"),
        "seconds",
    ]
    assert [cell[:5] for cell in table.rows[0][4:]] == ["0.610", "0.410", "0.810", "0.710", "2.5"]


def test_csv_has_a_line_for_each_run_and_every_figure_of_any():
    loco = data_set("MVTec LOCO AD", ("pushpins",), paper=LOCO)
    runs = [*RUNS, *two_seeds(loco, "pushpins", ByKind({}, KindFigures(0.71, 0.5)))]
    rows = list(csv.DictReader(io.StringIO(to_csv(runs))))
    assert len(rows) == len(runs)
    assert rows[1] == {
        **{"data_set": "MVTec AD", "category": "bottle", "system": "CutPaste", "seed": "0"},
        **{"image_auroc": "0.55", "f1_max": "0.7", "pixel_auroc": "", "aupro": ""},
        **{"by_kind.mean.image_auroc": "", "by_kind.mean.spro": "", "seconds": "2"},
    }
    assert rows[-1]["by_kind.mean.spro"] == "0.5"


@given(st.lists(st.lists(st.floats(0, 1), min_size=2, max_size=2), min_size=1, max_size=5))
def test_the_spread_is_that_over_seeds_not_over_categories(by_seed):
    runs = [
        Run("d", f"c{place}", "s", seed, 0.0, Figures(value, 0.0, None, None))
        for seed, values in enumerate(by_seed)
        for place, value in enumerate(values)
    ]
    found = statistic(runs, "image_auroc")
    assert found.mean == pytest.approx(sum(map(sum, by_seed)) / len(by_seed) / 2)
    if len(by_seed) == 1:
        assert (found.spread, "±" in str(found)) == (None, False)
    else:
        means = [sum(values) / 2 for values in by_seed]
        assert min(means) <= found.mean + 1e-9
        assert found.spread == pytest.approx(
            (sum((m - found.mean) ** 2 for m in means) / (len(means) - 1)) ** 0.5, abs=1e-7
        )


def test_a_figure_that_any_run_lacks_has_no_mean():
    assert statistic([], "image_auroc") is None
    assert statistic([RUNS[0], RUNS[1]], "pixel_auroc") is None


def seeds(values: dict[int, float]) -> list[Run]:
    return [Run("d", "c", "s", seed, 0.0, Figures(value, 0.0, None, None)) for seed, value in values.items()]


@given(st.dictionaries(st.integers(0, 5), st.floats(0, 1)), st.dictionaries(st.integers(0, 5), st.floats(0, 1)))
def test_a_loss_is_taken_seed_by_seed(before, after):
    found = loss(seeds(before), seeds(after), "image_auroc")
    both = sorted(before.keys() & after.keys())
    if not both:
        assert found is None
        return
    fall = statistic(seeds({seed: before[seed] - after[seed] for seed in both}), "image_auroc")
    assert (found.mean, found.spread) == pytest.approx((fall.mean, fall.spread))


def test_a_constant_loss_has_no_spread_however_much_seeds_differ():
    found = loss(seeds({0: 0.75, 1: 0.5}), seeds({1: 0.25, 0: 0.5}), "image_auroc")
    assert (found.mean, found.spread) == (0.25, 0)
    assert loss(seeds({0: 0.75}), seeds({0: 0.5}), "aupro") is None
