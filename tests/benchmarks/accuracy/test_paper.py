from __future__ import annotations

import re
from statistics import mean

import pytest

from benchmarks.accuracy.paper import LOCO, MEAN, MVTEC_AD, SYSTEMS


@pytest.mark.parametrize(
    ("table", "category", "system", "cell"),
    [
        (LOCO, "breakfast_box", "improved PatchCore", "0.83, 0.80"),
        (LOCO, "screw_bag", "PaDiM", "0.60, 0.82"),
        (LOCO, "juice_bottle", "PatchCore", "0.95, 0.92"),
        (LOCO, MEAN, "improved PatchCore", "0.88, 0.86"),
        (LOCO, "pushpins", "CutPaste", "0.68, –"),
        (MVTEC_AD, "bottle", "PaDiM", "0.98, 0.95"),
        (MVTEC_AD, "metal_nut", "CutPaste", "0.93, –"),
        (MVTEC_AD, "transistor", "improved PatchCore", "0.95, 0.93"),
        (MVTEC_AD, "zipper", "PatchCore", "0.99, 0.99"),
        (MVTEC_AD, MEAN, "PaDiM", "0.97, 0.94"),
        (MVTEC_AD, "carpet", "PatchCore", None),
        (MVTEC_AD, "bottle", "Lineward", None),
    ],
)
def test_cells_are_quoted_as_printed(table, category, system, cell):
    assert table.cell(category, system) == cell
    assert table.image_auroc(category, system) == (float(cell[:4]) if cell else None)


@pytest.mark.parametrize(("table", "categories"), [(LOCO, 5), (MVTEC_AD, 12)])
def test_every_row_is_complete(table, categories):
    assert len(table.rows) == categories + 1
    for row in table.rows.values():
        assert len(row) == len(SYSTEMS)
        assert all(re.fullmatch(r"0\.\d\d, (0\.\d\d|–)", cell) for cell in row)


def test_a_printed_mean_need_not_follow_from_its_rows():
    rows = [LOCO.image_auroc(category, "PatchCore") for category in LOCO.rows if category != MEAN]
    assert (mean(rows), LOCO.image_auroc(MEAN, "PatchCore")) == (pytest.approx(0.862), 0.82)
