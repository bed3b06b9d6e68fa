"""The command from a folder to its files, on synthetic parts and with systems that take no time."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from benchmarks import results_file
from benchmarks.accuracy import material, tables
from benchmarks.accuracy.material import Setting
from benchmarks.accuracy.measure import Scores
from lineward.export.synthetic import write_dataset


@dataclass(frozen=True)
class Guess:
    """Scores at random, and remembers the runs; the seed `fails_at` is interrupted."""

    places: bool
    fails_at: int = -1
    done: list[tuple[str, int]] = field(default_factory=list, repr=False)

    def __call__(self, material, seed, progress):
        if seed == self.fails_at:
            raise KeyboardInterrupt
        self.done.append((material.name, seed))
        side, count = material.setting.side, len(material.test.samples)
        rng = np.random.default_rng(seed)
        patches = rng.random((count, side, side), np.float32) if self.places else None
        with progress.step("guess", count) as advance:
            advance(count)
        return Scores(rng.random(count), patches)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for index, category in enumerate(("bottle", "mine")):
        write_dataset(root / category, train=2, test_good=2, per_defect=1, size=64, seed=index, kinds=("stain", "chip"))
    return root


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results and cache in a scratch folder, and small inputs."""
    monkeypatch.setattr(results_file, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(material, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(tables, "SETTING", Setting(size=64))
    return tmp_path / "results"


def test_from_a_folder_to_tables(data: Path, results: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setattr(tables, "SYSTEMS", {"PaDiM": Guess(True), "CutPaste": Guess(False)})
    assert tables.main([str(data)]) == 0
    names = {"tables.json", "tables.md", "tables.csv", "tables.png", "tables.svg"}
    assert {path.name for path in results.iterdir()} == names
    figures = json.loads((results / "tables.json").read_text())["figures"]
    assert len(figures["runs"]) == len((results / "tables.csv").read_text().splitlines()) - 1 == 2 * 2 * 3
    bottle, mine = (
        figures["data_sets"][d]["categories"][c] for d, c in (("MVTec AD", "bottle"), ("other data", "mine"))
    )
    assert (bottle["CutPaste"]["paper"], mine["CutPaste"]["paper"]) == ("0.98, –", None)
    assert bottle["PaDiM"].keys() == {"image_auroc", "pixel_auroc", "aupro", "f1_max", "seconds", "paper"}
    assert mine["CutPaste"].keys() == {"image_auroc", "f1_max", "seconds", "paper"}
    page, out = (results / "tables.md").read_text(), capsys.readouterr().out
    for said in ("CC BY-NC-SA 4.0", "64×64 pixels, copies resized", "Not found: cable, capsule", "read by OCR"):
        assert said in page
    assert "1 of 15 categories" in (results / "tables.svg").read_text()
    assert "NOT FOUND: cable, capsule" in out
    assert "mean of the 1 found" in out


def test_an_interrupted_run_goes_on_where_it_stopped(
    data: Path, results: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    # Both have the same repr: to the cache they are one system.
    first, second = Guess(False), Guess(False)
    object.__setattr__(first, "fails_at", 2)
    monkeypatch.setattr(Guess, "__repr__", lambda _: "Guess()")
    monkeypatch.setattr(tables, "SYSTEMS", {"CutPaste": first})
    assert tables.main([str(data)]) == 130
    assert "goes on where it stopped" in capsys.readouterr().err
    assert not results.exists()
    monkeypatch.setattr(tables, "SYSTEMS", {"CutPaste": second})
    assert tables.main([str(data)]) == 0
    assert first.done == [("bottle", 0), ("bottle", 1)]
    assert second.done == [("bottle", 2), ("mine", 0), ("mine", 1), ("mine", 2)]
    csv = (results / "tables.csv").read_text()
    monkeypatch.setattr(tables, "load_material", None)  # no longer needed
    assert tables.main([str(data)]) == 0
    assert (results / "tables.csv").read_text() == csv


@pytest.mark.parametrize(("folder", "said"), [("nowhere", "no such folder"), (".", "holds no category")])
def test_a_folder_without_categories_is_an_error_without_traceback(folder, said, tmp_path: Path, results: Path, capsys):
    assert tables.main([str(tmp_path / folder)]) == 2
    out, err = capsys.readouterr()
    assert (out, said in err, "->" in err, "Traceback" in err) == ("", True, True, False)
    assert not results.exists()
