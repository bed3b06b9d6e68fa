"""The study from a folder to its files, on synthetic parts and with systems that take no time; and a rule taken out."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import results_file
from benchmarks.accuracy import material, outliers
from benchmarks.accuracy.material import Setting
from benchmarks.accuracy.measure import Scores
from benchmarks.accuracy.outliers import LOSS, STUDY, Plan
from lineward.export.synthetic import write_dataset

SHARES = (0.0, 0.05, 0.2)
TRAIN = 19


@dataclass(frozen=True)
class Blinded:
    """Finds every defect but one for each that was slipped in, and remembers its runs; may be interrupted at one."""

    places: bool = True
    done: list[tuple[str, int, int]] = field(default_factory=list, repr=False)
    fails_at: tuple[str, int, int] = field(default=("", 0, 0), repr=False)
    scored: dict[tuple[str, int], list[Path]] = field(default_factory=dict, repr=False)

    def __call__(self, material, seed, progress):
        slipped = int(material.train.defective.sum())
        assert len(material.train.samples) == TRAIN + slipped
        this = (material.name, slipped, seed)
        if this == self.fails_at:
            raise KeyboardInterrupt
        self.done.append(this)
        assert self.scored.setdefault((material.name, seed), material.test.paths) == material.test.paths
        images = material.test.defective.astype(float)
        images[np.flatnonzero(material.test.defective)[:slipped]] = 0
        side, count = material.setting.side, len(images)
        with progress.step("score", count) as advance:
            advance(count)
        return Scores(images, np.zeros((count, side, side), np.float32) if self.places else None)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two categories, each with 2 defective images that may be slipped in and 2 that are scored."""
    root = tmp_path_factory.mktemp("data")
    for seed, category in enumerate(("bottle", "mine")):
        counts = {"train": TRAIN, "test_good": 2, "per_defect": 2}
        write_dataset(root / category, **counts, size=64, seed=seed, kinds=("stain", "chip"))
    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of the categories are computed once; a test's own systems make its runs its own."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def results(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results in a scratch folder, and small inputs."""
    monkeypatch.setattr(results_file, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(material, "CACHE", cache)
    monkeypatch.setattr(outliers, "SETTING", Setting(size=64))
    return tmp_path / "results"


def test_from_a_folder_to_the_study(data: Path, results: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    study = {"PaDiM": Plan(Blinded(), SHARES, (0, 1)), "CutPaste": Plan(Blinded(places=False), LOSS, (0,))}
    monkeypatch.setattr(outliers, "STUDY", study)
    assert outliers.main([str(data)]) == 0
    padim, cutpaste = (plan.system.scored for plan in study.values())
    assert padim["mine", 0] == cutpaste["mine", 0] != padim["mine", 1]
    assert {path.name for path in results.iterdir()} == {
        f"outliers.{suffix}" for suffix in ("json", "md", "png", "svg")
    }

    page = (results / "outliers.md").read_text()
    row = "PaDiM | 1.000 ± 0.000<br>0.500 ± 0.000 | 0.750 ± 0.000<br>0.500 ± 0.000 | 0.500 ± 0.000<br>0.500 ± 0.000"
    heads = "0 %<br>0 of 19 | 5 %<br>1 of 20 | 20 %<br>2 of 21"  # half of the defective images is 2
    assert page.count(f"| system | {heads} | loss from 0 % to 5 % |") == 2
    assert page.count(f"| {row} | 0.250 ± 0.000<br>0.000 ± 0.000 |") == 2
    assert page.count("| CutPaste | 1.000<br>– | 0.750<br>– | not run | 0.250<br>– |") == 2
    assert "- CutPaste: shares 0 %, 5 %, seed 0; `Blinded(places=False)`" in page
    assert "CC BY-NC-SA 4.0. Found: bottle. **Not found: cable, capsule" in page
    assert "## other data\n\nFound: mine.\n" in page
    assert "mean of" not in page  # of one category each
    assert "bottle: image AUROC, beneath it pixel AUROC" in capsys.readouterr().out

    figures = json.loads((results / "outliers.json").read_text())["figures"]
    assert len(figures["runs"]) == 2 * (3 * 2 + 2 * 1)
    given = {(r["share"], r["slipped"], r["figures"]["image_auroc"]) for r in figures["runs"]}
    assert given == {(0.0, 0, 1.0), (0.05, 1, 0.75), (0.2, 2, 0.5)}
    cutpaste = figures["data_sets"]["other data"]["categories"]["mine"]["CutPaste"]
    assert cutpaste["loss"] == {"image_auroc": {"mean": 0.25, "spread": None}}
    assert cutpaste["shares"].keys() == {"0", "0.05"}
    svg = (results / "outliers.svg").read_text()
    assert all(f">{said}<" in svg for said in ("MVTec AD: bottle", "other data: mine", "PaDiM", "CutPaste"))


def test_categories_of_a_data_set_have_a_mean(data: Path, results: Path, tmp_path: Path, monkeypatch):
    for name in ("one", "two"):
        shutil.copytree(data / "mine", tmp_path / name)
    monkeypatch.setattr(outliers, "STUDY", {"PaDiM": Plan(Blinded(), LOSS, (5,))})
    assert outliers.main([str(tmp_path)]) == 0
    page = (results / "outliers.md").read_text()
    assert "### mean of the 2 found: image AUROC" in page
    assert "| system | 0 % | 5 % | loss from 0 % to 5 % |" in page


def test_an_interrupted_study_goes_on_where_it_stopped(data: Path, results: Path, monkeypatch, capsys):
    plan = {"shares": LOSS, "seeds": (7, 8)}
    quick, slow = Blinded(), Blinded(False, fails_at=("bottle", 1, 8))
    monkeypatch.setattr(outliers, "STUDY", {"quick": Plan(quick, **plan), "slow": Plan(slow, **plan)})
    assert outliers.main([str(data)]) == 130
    assert "goes on where it stopped" in capsys.readouterr().err
    assert not results.exists()
    everything = [(category, slipped, seed) for category in ("bottle", "mine") for slipped in (0, 1) for seed in (7, 8)]
    assert (quick.done, slow.done) == (everything, everything[:3])  # the quick one is through with all categories
    again = {"quick": Plan(replace(quick, done=[]), **plan), "slow": Plan(Blinded(False), **plan)}
    monkeypatch.setattr(outliers, "STUDY", again)
    assert outliers.main([str(data)]) == 0
    assert (again["quick"].system.done, again["slow"].system.done) == ([], everything[3:])
    page = (results / "outliers.md").read_text()
    monkeypatch.setattr(outliers, "load_material", None)  # no longer needed
    assert outliers.main([str(data)]) == 0
    assert (results / "outliers.md").read_text() == page


@pytest.mark.usefixtures("results")
def test_every_run_has_a_file_of_its_own_for_the_code_as_it_is(data: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        outliers, "STUDY", {"one": Plan(Blinded(), SHARES, (0, 1)), "two": Plan(Blinded(False), SHARES, (0, 1))}
    )
    data_sets = outliers.find_data_sets(data)
    paths = {job.path for job in outliers._jobs(data_sets)}
    assert len(paths) == 2 * 2 * 3 * 2
    assert {job.path for job in outliers._jobs(data_sets)} == paths
    monkeypatch.setattr(outliers.inspect, "getsource", lambda _: "edited")
    assert not paths & {job.path for job in outliers._jobs(data_sets)}


@pytest.mark.parametrize(("folder", "said"), [("nowhere", "no such folder"), (".", "holds no category")])
def test_a_folder_without_categories_is_an_error_without_traceback(folder, said, tmp_path: Path, results: Path, capsys):
    assert outliers.main([str(tmp_path / folder)]) == 2
    out, err = capsys.readouterr()
    assert (out, said in err, "->" in err, "Traceback" in err) == ("", True, True, False)
    assert not results.exists()


def test_every_system_has_a_loss():
    assert all(set(plan.shares) >= set(LOSS) for plan in STUDY.values())
