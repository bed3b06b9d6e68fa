from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.accuracy import grid, material
from lineward.export.synthetic import write_dataset
from lineward.export.training import Recipe

SMALL = replace(Recipe(), size=64, rows=64)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Two tiny categories, and a grid of four points around a small default."""
    for name in ("screw", "transistor"):
        write_dataset(tmp_path / "data" / name, train=6, test_good=2, per_defect=1, size=64)
    monkeypatch.setattr(material, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(grid, "RESULTS", tmp_path)
    monkeypatch.setattr(grid, "DEFAULT", SMALL)
    monkeypatch.setattr("benchmarks.results_file.RESULTS", tmp_path)
    axes = {"rows": [replace(SMALL, rows=32), SMALL], "tau": [replace(SMALL, tau=0.0), SMALL]}
    monkeypatch.setattr(grid, "axes", lambda *_: axes)
    return tmp_path


def test_every_axis_holds_the_default_and_changes_one_choice_alone():
    for axis, points in grid.axes(Path("one.pth"), Path("two.pth")).items():
        assert Recipe() in points
        for point in points:
            assert set(grid._changes(point)) <= {axis}


def test_points_are_measured_once_and_shown_with_the_default_in_bold(
    small: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert grid.main([str(small / "data")]) == 0
    page = (small / "grid.md").read_text()
    assert "| **64** |" in page
    assert "| 32 |" in page
    assert "| **3.0** |" in page
    kept = sorted((small / "cache" / "grid").iterdir())
    assert len(kept) == 3 * 2 * len(grid.SEEDS)
    # What is kept is not measured again.
    monkeypatch.setattr(grid, "measure_point", None)
    assert grid.main([str(small / "data")]) == 0
    assert (small / "grid.md").read_text() == page
    assert capsys.readouterr().out.count("wrote") == 2


def test_a_folder_without_the_categories_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert grid.main([str(tmp_path)]) == 2
    assert "holds none of screw, transistor" in capsys.readouterr().err
