"""The search on synthetic parts, with tiny candidates; time where it matters is a fake."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lineward.export.conversion import FLOAT16
from lineward.export.datasets import open_dataset
from lineward.export.planting import KINDS
from lineward.export.training import Recipe, train
from lineward.export.tuning import search
from lineward.export.tuning.judges import Panel, seat
from lineward.export.tuning.judging import draft, judge_banks
from lineward.export.tuning.search import candidates
from lineward.export.tuning.store import open_store
from lineward.export.tuning.table import Candidate, Graph, Timing
from lineward.runtime.bundle import decode_bundle, read_bundle
from lineward.runtime.cli import FAILED, PASSED, main
from lineward.runtime.errors import CalibrationError, TrainingError
from lineward.runtime.inspector import Inspector

RECIPE = Recipe(size=64, rows=64, false_reject_rate=0.2)
WORDS = ["--false-reject-rate", "0.2", "--sizes", "64", "96", "--banks", "64", "256"]


@pytest.fixture(scope="session")
def labelled(parts: Path) -> Panel:
    dataset = open_dataset(parts)
    return seat(dataset, dataset.train, RECIPE.promise)


@pytest.fixture
def times(monkeypatch):
    """Timings that a test decides on, by candidate; how often each was asked for."""
    asked: Counter[Candidate] = Counter()
    seconds = {"of": lambda c: 1e-6 * c.graph.size * c.rows}

    def probe(bundles, *_):
        asked.update(bundles.keys())
        return {c: Timing(seconds["of"](c)) for c in bundles}

    def time_in_full(bundles, probed, *_):
        return {c: replace(probed[c], p99=(seconds["of"](c), 1.5 * seconds["of"](c))) for c in bundles}

    monkeypatch.setattr(search, "probe", probe)
    monkeypatch.setattr(search, "time_in_full", time_in_full)
    return seconds, asked


def test_labelled_images_judge_banks_of_all_that_the_training_learns_from(parts: Path, labelled: Panel):
    dataset = open_dataset(parts)
    assert len(labelled.judges) == len(dataset.test)
    assert "4 good and 6 defective labelled images" in labelled.evidence
    assert not {judge.sample.path for judge in labelled.judges} & set(labelled.bank)


@pytest.mark.parametrize(("rate", "apart"), [(0.2, 4), (0.05, 8)], ids=["held out", "one fold of five"])
def test_without_labels_defects_are_planted_on_good_images_that_no_bank_has_seen(parts: Path, rate: float, apart: int):
    dataset = open_dataset(parts / "train" / "good")
    panel = seat(dataset, dataset.train, replace(RECIPE, false_reject_rate=rate).promise)
    good = [judge for judge in panel.judges if not judge.defective]
    planted = Counter(judge.planted for judge in panel.judges if judge.defective)
    assert len(good) == apart
    assert planted == dict.fromkeys(KINDS, apart)
    assert not set(panel.good) & set(panel.bank)
    assert len(panel.bank) + apart == len(dataset.train)
    assert "SYNTHETIC" in panel.evidence


def test_too_few_images_are_refused_as_by_the_training(good_images: list[Path]):
    with pytest.raises(CalibrationError):
        seat(open_dataset(good_images[0].parent), good_images[:5], Recipe().promise)


@pytest.mark.parametrize(
    "choices",
    [
        {},
        {"region": "0,0 0.7,0 0.7,1 0,1", "tiles": (2, 2), "overlap": 0.25, "position": 0.0},
        {"precision": FLOAT16, "dimensions": 96, "max_drop": 1.0},
    ],
    ids=["whole images", "a region of tiles", "a lower precision, and not all dimensions"],
)
def test_a_bank_that_was_judged_is_the_one_that_the_training_builds(choices, parts: Path, labelled: Panel, quiet):
    recipe = replace(RECIPE, **choices)
    bundle = draft(labelled, "parts", recipe, quiet)
    found = dict(judge_banks(bundle, labelled, recipe, [64, 200, 10**6], quiet))
    assert list(found) == [64, 200]
    images = open_dataset(parts).train
    trained = decode_bundle(train(images, "parts", recipe=replace(recipe, rows=200), progress=quiet), "parts.lineward")
    np.testing.assert_array_equal(found[200].bank, trained.bank)
    inspector = Inspector(trained)
    scores = [inspector.inspect(judge.read()[0]).score for judge in labelled.judges]
    labels = np.array([judge.defective for judge in labelled.judges])
    pairs = [(bad > good) + (bad == good) / 2 for bad in np.array(scores)[labels] for good in np.array(scores)[~labels]]
    assert found[200].accuracy.image_auroc == pytest.approx(np.mean(pairs))
    assert found[200].accuracy.pixel_auroc is not None
    assert found[200].accuracy.pixel_auroc > (0.5 if choices else 0.8)


@pytest.mark.parametrize(
    ("banks", "wanted"),
    [((16, 100, 10**6), [(64, 16), (64, 100), (96, 16), (96, 100)]), ((10**6,), None)],
    ids=["what fits", "nothing fits"],
)
def test_banks_that_the_images_cannot_fill_are_left_out(banks, wanted):
    if wanted is None:
        with pytest.raises(TrainingError, match="have fewer patches"):
            candidates([Graph(64), Graph(96)], banks, 10, RECIPE)
    else:
        assert candidates([Graph(64), Graph(96), Graph(64)], banks, 10, RECIPE) == [
            Candidate(Graph(size), rows) for size, rows in wanted
        ]


def test_the_store_knows_the_images_and_the_recipe(labelled: Panel, monkeypatch, tmp_path: Path):
    monkeypatch.setenv("LINEWARD_CACHE", str(tmp_path))
    one = open_store(labelled, RECIPE)
    assert open_store(labelled, replace(RECIPE, size=320, rows=9)) == one  # both are searched over
    assert open_store(labelled, replace(RECIPE, tau=1.0)) != one
    assert open_store(replace(labelled, bank=labelled.bank[1:]), RECIPE) != one
    assert open_store(replace(labelled, judges=labelled.judges[1:]), RECIPE) != one


def tune(parts: Path, folder: Path, budget: str, *words: str) -> int:
    return main(["tune", str(parts), "--budget", budget, "-o", str(folder / "a.lineward"), *WORDS, *words])


def test_larger_budgets_never_score_worse_and_nothing_is_measured_twice(
    parts: Path, times, monkeypatch, tmp_path: Path, capsys
):
    monkeypatch.setenv("LINEWARD_CACHE", str(tmp_path / "cache"))
    seconds, asked = times
    reached = []
    for budget in ("7ms", "10ms", "1s"):
        assert (
            tune(parts, tmp_path, budget, "--json", str(tmp_path / "a.json"), "--png", str(tmp_path / "a.png"))
            == PASSED
        )
        table = json.loads((tmp_path / "a.json").read_text())
        (chosen,) = [row for row in table["candidates"] if row["chosen"]]
        assert chosen["front"]
        assert max(chosen["p99_seconds_by_window"]) <= table["budget_seconds"]
        reached.append(chosen["score"])
        manifest = read_bundle(tmp_path / "a.lineward").manifest
        assert (manifest.preprocessing.width, manifest.rows) == (chosen["size"], chosen["rows"])
        assert manifest.threshold.false_reject_rate == 0.2
    assert reached == sorted(reached)
    assert set(asked.values()) == {1}
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "chosen for 1000 ms" in capsys.readouterr().out
    seconds["of"] = lambda _: 1.0
    assert tune(parts, tmp_path, "10ms", "--again") == FAILED  # a slower device now
    assert set(asked.values()) == {2}


@pytest.mark.usefixtures("times")
def test_a_budget_that_nothing_fits_writes_the_table_and_no_bundle(parts: Path, monkeypatch, tmp_path: Path, capsys):
    monkeypatch.setenv("LINEWARD_CACHE", str(tmp_path / "cache"))
    assert tune(parts, tmp_path, "1us", "--json", str(tmp_path / "a.json"), "--size", "64", "--rows", "64") == FAILED
    error = capsys.readouterr().err
    assert "the fastest candidate, 64 pixels, 64 rows, takes up to 6.2 ms" in error
    assert "  -> allow 6.2 ms or more" in error
    (row,) = json.loads((tmp_path / "a.json").read_text())["candidates"]
    assert row["front"]
    assert not row["chosen"]
    assert not (tmp_path / "a.lineward").exists()


@pytest.mark.parametrize("words", [["--budget", "12"], ["--budget", "-3ms"], []], ids=["no unit", "negative", "none"])
def test_a_budget_is_a_time(parts: Path, words, capsys):
    with pytest.raises(SystemExit):
        main(["tune", str(parts), *words])
    assert "--budget" in capsys.readouterr().err


def test_a_folder_that_is_not_there_is_told_before_the_search(parts: Path, tmp_path: Path, capsys):
    assert tune(parts, tmp_path, "10ms", "--png", str(tmp_path / "none" / "a.png")) == FAILED
    assert "no such folder" in capsys.readouterr().err
