from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import pytest

from lineward.export.commands.evaluate import add_arguments, run
from lineward.runtime.images import write_png

CONFIG = [
    {"defect_name": "missing", "pixel_value": 255, "saturation_threshold": 40, "relative_saturation": False},
    {"defect_name": "scratch", "pixel_value": 254, "saturation_threshold": 1.0, "relative_saturation": True},
]
KINDS = {"logical_anomalies": 255, "structural_anomalies": 254}


@pytest.fixture
def loco(tmp_path: Path) -> Path:
    """MVTec LOCO AD's layout: two good parts, and one of each kind with a bright patch of 100 pixels."""
    root = tmp_path / "box"
    rng = np.random.default_rng(0)
    for kind, count in {"good": 2, **dict.fromkeys(KINDS, 1)}.items():
        for index in range(count):
            image, mask = rng.integers(80, 120, (64, 64), np.uint8), np.zeros((64, 64), np.uint8)
            path, truth = root / "test" / kind / f"{index}.png", root / "ground_truth" / kind / str(index) / "000.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind in KINDS:
                truth.parent.mkdir(parents=True, exist_ok=True)
                image[20:30, 20:30], mask[20:30, 20:30] = 255, KINDS[kind]
                write_png(truth, mask)
            write_png(path, image)
    return root


def evaluated(bundle: Path, data: Path) -> dict[str, object]:
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = [bundle, data, "--json", data / "figures.json", "--report", data / "report.html"]
    assert run(parser.parse_args([str(word) for word in words])) == 0
    return json.loads((data / "figures.json").read_text())


def test_loco_is_told_by_kind_in_table_json_and_report(loco: Path, tiny_path: Path, capsys):
    (loco / "defects_config.json").write_text(json.dumps(CONFIG))
    by_kind = evaluated(tiny_path, loco)["by_kind"]
    assert list(by_kind["kinds"]) == list(KINDS)
    told = capsys.readouterr().out.splitlines()
    table = told[next(i for i, line in enumerate(told) if "sPRO@0.05" in line) :]
    report = (loco / "report.html").read_text()
    for name, figures in {**by_kind["kinds"], "mean": by_kind["mean"]}.items():
        assert all(0 <= figures[figure] <= 1 for figure in ("image_auroc", "spro"))
        (row,) = (line for line in table if line.startswith(name))
        for value in figures.values():
            assert f"{value:.4f}" in row
            assert f"{value:.4f}" in report
    for figure in by_kind["mean"]:
        assert by_kind["mean"][figure] == pytest.approx(np.mean([k[figure] for k in by_kind["kinds"].values()]))


def test_other_data_is_told_as_ever(loco: Path, tiny_path: Path, capsys):
    figures = evaluated(tiny_path, loco)
    assert "by_kind" not in figures
    assert figures["aupro"] is not None
    assert "sPRO" not in capsys.readouterr().out + (loco / "report.html").read_text()
