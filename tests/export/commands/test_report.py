from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from lineward.runtime.cli import FAILED, PASSED, main
from lineward.runtime.images import write_png
from tests.html_page import Page


@pytest.fixture
def bundle(tmp_path: Path, tiny_path: Path) -> Path:
    return Path(shutil.copy(tiny_path, tmp_path / "part.lineward"))


@pytest.fixture
def good(tmp_path: Path, golden_frames) -> Path:
    """Enough good parts to calibrate with."""
    folder = tmp_path / "good"
    folder.mkdir()
    for number in range(24):
        write_png(folder / f"{number:02}.png", np.clip(golden_frames[0].astype(int) + number, 0, 255).astype(np.uint8))
    return folder


def test_the_report_lies_beside_the_bundle(bundle, capsys):
    assert main(["report", str(bundle)]) == PASSED
    path = bundle.with_name("part.report.html")
    assert f"report: {path}" in capsys.readouterr().out
    page = Page(path.read_text("utf-8"))
    assert "at most 20 % of good parts rejected" in page.text
    assert "Not shown: no images of good parts were given" in page.text
    assert "signature none" in page.text


def test_good_parts_and_a_calibration_of_the_device(bundle, good, tmp_path, capsys):
    calibration, output = tmp_path / "own.json", tmp_path / "own.html"
    assert main(["calibrate", str(bundle), str(good), "-o", str(calibration)]) == PASSED
    arguments = ["report", str(bundle), "-o", str(output), "--images", str(good), "--calibration", str(calibration)]
    assert main(arguments) == PASSED
    told = capsys.readouterr()
    page = Page(output.read_text("utf-8"))
    assert "score good parts: 24" in told.err
    assert "calibrated on this device" in page.text
    assert "24 good parts" in page.text
    assert "the very images that the threshold was found with" in page.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--images", "missing"], "missing"),
        (["--calibration", "missing.json"], "missing.json"),
        (["-o", "no/r.html"], "r.html"),
    ],
)
def test_what_is_missing_is_an_error(arguments, said, bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report", str(bundle), *arguments]) == FAILED
    assert said in capsys.readouterr().err
