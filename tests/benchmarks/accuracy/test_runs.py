from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy import runs
from benchmarks.accuracy.material import Setting
from benchmarks.accuracy.measure import Figures
from benchmarks.accuracy.runs import Run, fingerprint, read_run, run_path, write_run
from lineward.export.datasets import Dataset, Sample, Saturation
from lineward.export.evaluation import ByKind, KindFigures
from lineward.runtime.images import write_png

BY_KIND = ByKind({"logical_anomalies": KindFigures(0.7, None)}, KindFigures(0.75, 0.5))
FIGURES = [Figures(1 / 3, 0.9, None, None), Figures(0.8, 0.9, 0.7, 0.6, BY_KIND)]


@pytest.mark.parametrize("figures", FIGURES, ids=["without places", "by kind"])
def test_a_kept_run_is_read_back_exactly(figures: Figures, tmp_path: Path):
    run = Run("MVTec AD", "bottle", "PaDiM", 2, 1.25, figures)
    write_run(tmp_path / "new" / "run.json", run)
    assert read_run(tmp_path / "new" / "run.json") == run


def test_numbers_are_flat():
    numbers = Run("MVTec LOCO AD", "pushpins", "PaDiM", 0, 1.25, FIGURES[1]).numbers
    assert list(numbers.items())[:2] == [("image_auroc", 0.8), ("f1_max", 0.9)]
    assert numbers["by_kind.kinds.logical_anomalies.image_auroc"] == 0.7
    assert numbers["by_kind.kinds.logical_anomalies.spro"] is None
    assert list(numbers.items())[-2:] == [("by_kind.mean.spro", 0.5), ("seconds", 1.25)]


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    names = [tmp_path / f"{index}.png" for index in range(4)]
    for index, path in enumerate(names):
        write_png(path, np.full((8, 8), index, np.uint8))
    test = (Sample(names[1], "good"), Sample(names[2], "bad", (names[3],)))
    return Dataset("parts", (names[0],), (), test)


CHANGES = {
    "training image": lambda d, _: write_png(d.train[0], np.full((8, 8), 9, np.uint8)),
    "test image": lambda d, _: write_png(d.test[0].path, np.full((8, 8), 9, np.uint8)),
    "mask": lambda d, _: write_png(d.test[1].masks[0], np.full((8, 8), 9, np.uint8)),
    "label": lambda d, _: replace(d, test=(replace(d.test[0], kind="bad"), d.test[1])),
    "saturations": lambda d, _: replace(
        d, test=(d.test[0], replace(d.test[1], saturations=(Saturation("bad", 255, 1.0, True),)))
    ),
    "code": lambda _d, patch: patch.setattr(runs, "_CODE", runs._CODE[1:]),
    "versions": lambda _d, patch: patch.setattr(runs, "machine", lambda: {"versions": {"torch": "0"}}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_no_kept_run_outlives_a_change(change, dataset: Dataset, monkeypatch: pytest.MonkeyPatch):
    before = fingerprint(dataset, Setting())
    assert fingerprint(dataset, Setting()) == before
    changed = change(dataset, monkeypatch) or dataset
    assert fingerprint(changed, Setting()) != before


def test_the_setting_counts(dataset: Dataset):
    assert fingerprint(dataset, Setting(size=64)) != fingerprint(dataset, Setting(size=128))


def test_every_run_has_a_file_of_its_own(tmp_path: Path):
    asked = [("key", "MVTec AD", "bottle", "PaDiM", KindFigures(0, None), 0)]
    other = ("yek", "other data", "screw", "PatchCore", KindFigures(1, None), 1)
    asked += [(*asked[0][:i], other[i], *asked[0][i + 1 :]) for i in range(len(other))]
    paths = {run_path(tmp_path, *each) for each in asked}
    assert len(paths) == len(asked)
    assert run_path(tmp_path, *asked[0]) in paths
