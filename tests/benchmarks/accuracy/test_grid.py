from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.accuracy import grid, material
from benchmarks.accuracy.grid import Point
from benchmarks.accuracy.material import Setting
from benchmarks.accuracy.mobilenet import MobileNetV2
from lineward.export.bank import build_bank
from lineward.export.datasets import open_dataset
from lineward.export.synthetic import write_dataset

SMALL = Point(size=64, rows=64)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Two tiny categories, and a grid of a few points around a small default."""
    for name in ("screw", "transistor"):
        write_dataset(tmp_path / "data" / name, train=6, test_good=2, per_defect=1, size=64)
    monkeypatch.setattr(material, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(grid, "RESULTS", tmp_path)
    monkeypatch.setattr(grid, "DEFAULT", SMALL)
    monkeypatch.setattr("benchmarks.results_file.RESULTS", tmp_path)

    def axes(further: dict[str, Path]) -> dict[str, list[Point]]:
        backbones = [replace(SMALL, backbone=name, weights=path) for name, path in further.items()]
        return {
            "rows": [replace(SMALL, rows=32), SMALL],
            "upsampling": [SMALL, replace(SMALL, upsampling="nearest")],
            "backbone": [SMALL, *backbones],
        }

    monkeypatch.setattr(grid, "axes", axes)
    return tmp_path


def test_every_axis_holds_the_default_and_changes_one_choice_alone():
    for axis, points in grid.axes({"one": Path("one.pth"), "two": Path("two.pth")}).items():
        assert Point() in points
        for point in points:
            assert set(grid._changes(point)) <= {axis}


def test_points_are_measured_once_and_shown_with_the_default_in_bold(
    small: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    torch.save(MobileNetV2().state_dict(), small / "mobilenet.pt")
    command = [str(small / "data"), "--mobilenet", str(small / "mobilenet.pt")]
    assert grid.main(command) == 0
    page = (small / "grid.md").read_text()
    for name in ("**64**", "32", "**bilinear**", "nearest", "**efficientnet_lite0**", "mobilenet_v2"):
        assert f"\n| {name} | " in page
    kept = sorted((small / "cache" / "grid").iterdir())
    assert len(kept) == 4 * 2 * len(grid.SEEDS)
    # What is kept is not measured again.
    monkeypatch.setattr(grid, "measure_point", None)
    assert grid.main(command) == 0
    assert (small / "grid.md").read_text() == page
    assert capsys.readouterr().out.count("wrote") == 2


def test_a_folder_without_the_categories_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert grid.main([str(tmp_path)]) == 2
    assert "holds none of screw, transistor" in capsys.readouterr().err


def test_nearest_upsampling_repeats_the_patches_of_the_coarser_level(small: Path):
    dataset = open_dataset(small / "data" / "screw")
    setting = Setting(size=64)
    fused = grid._material(dataset, setting, "nearest").test.features
    smooth = grid._material(dataset, setting, "bilinear").test.features
    assert fused.shape == smooth.shape
    squares = fused.reshape(len(fused), 8, 8, -1)
    for row, column in ((0, 1), (1, 0), (1, 1)):
        np.testing.assert_array_equal(squares[:, row::2, column::2, 40:], squares[:, ::2, ::2, 40:])
    np.testing.assert_allclose(fused[..., :40], smooth[..., :40], atol=1e-5)
    # Bilinear weights are positive and sum to one: inside, the mean over the map stays about the same.
    np.testing.assert_allclose(fused[..., 40:].mean(), smooth[..., 40:].mean(), atol=0.01)


@pytest.mark.parametrize(("share", "method"), [(0.0, "k-centre"), (0.5, "two-halves"), (1.0, "k-means")])
def test_shares_of_centroids_that_the_product_knows_give_its_banks(share: float, method: str):
    train = unit_rows(10, 30, 6)
    expected = build_bank(lambda: iter(train), 10, 30, 64, method, seed=1)
    np.testing.assert_array_equal(grid._bank(train, Point(rows=64, centroids=share), 1), expected)


@pytest.mark.parametrize("share", [0.25, 0.75])
def test_a_share_of_the_bank_is_centroids_and_the_rest_are_patches(share: float):
    train = unit_rows(10, 30, 6)
    bank = grid._bank(train, Point(rows=64, centroids=share), 1)
    patches = {tuple(row) for row in train.reshape(-1, 6)}
    assert len(bank) == 64
    assert [tuple(row) in patches for row in bank[round(64 * share) :]] == [True] * round(64 * (1 - share))
    assert not all(tuple(row) in patches for row in bank[: round(64 * share)])


def unit_rows(*shape: int) -> grid.Rows:
    rows = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)
