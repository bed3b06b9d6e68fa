from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import results_file
from benchmarks.accuracy import logical, material
from benchmarks.accuracy.logical import (
    COMPOSED,
    Counts,
    MeanFeatures,
    combine,
    compare,
    displaced,
    duplicated,
    leave_one_out,
    write_parts,
)
from benchmarks.accuracy.material import Images, Material, Setting
from lineward.export.datasets import Sample, open_dataset
from lineward.export.statistics import FeatureStatistics
from lineward.export.synthetic import DEFECTS, render_part, write_dataset
from lineward.export.training import Recipe
from lineward.runtime.cli.console import NoProgress
from lineward.runtime.images import write_png

SEEDS = st.integers(0, 2**32 - 1)
VARIANTS = [
    "position 0", "position 1", "position 3", "global alone", "position 1 + global", "counts alone",
    "position 1 + counts",
]  # fmt: skip
SETTING = Setting(size=64, levels=(8,))
PATCHES, CHANNELS = SETTING.side**2, 24


def unit_rows(rng: np.random.Generator, count: int, dimensions: int = 6) -> np.ndarray:
    rows = rng.normal(size=(count, dimensions)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


# ---- Levels --------------------------------------------------------------------------------------------


@given(SEEDS)
def test_leave_one_out_is_the_score_with_a_bank_of_the_others(seed: int):
    vectors = unit_rows(np.random.default_rng(seed), 5)
    scores = leave_one_out(vectors)
    for i, score in enumerate(scores):
        assert score == pytest.approx(1 - max(np.delete(vectors, i, 0) @ vectors[i]), abs=1e-6)


def test_leave_one_out_finds_twins_alike():
    np.testing.assert_allclose(leave_one_out(np.eye(4, dtype=np.float32)[[0, 1, 1, 2]]), [1, 0, 0, 1])


@pytest.mark.parametrize(
    ("patch", "level", "combined"),
    [
        (5, 100, 0),  # both like good ones
        (9, 100, 4),  # deviations of the patches': 1
        (5, 130, 3),  # of the other level's: 10
        (9, 130, 4),
        (3, 80, -2),
    ],
)
def test_the_greater_deviation_counts(patch, level, combined):
    scores = combine(np.array([patch]), np.array([4.0, 6.0]), np.array([level]), np.array([90.0, 110.0]))
    assert scores.tolist() == [combined]


@given(SEEDS, st.floats(0.01, 100), st.floats(-10, 10))
def test_the_unit_of_a_level_does_not_matter(seed, factor, offset):
    patch, patch_good, level, level_good = np.random.default_rng(seed).random((4, 8))
    scaled = combine(patch, patch_good, level * factor + offset, level_good * factor + offset)
    np.testing.assert_allclose(scaled, combine(patch, patch_good, level, level_good), rtol=1e-6, atol=1e-6)


@given(SEEDS)
def test_counts_are_a_unit_vector_that_ignores_the_order(seed: int):
    rng = np.random.default_rng(seed)
    embeddings, describe = unit_rows(rng, 50), Counts(unit_rows(rng, 7))
    counts = describe(embeddings, embeddings)
    assert np.linalg.norm(counts) == pytest.approx(1, abs=1e-6)
    np.testing.assert_array_equal(describe(embeddings, rng.permutation(embeddings)), counts)


def test_counts_are_root_shares_of_the_nearest_centroids():
    centroids = np.eye(3, dtype=np.float32)
    embeddings = centroids[[0, 2, 2, 2]]
    np.testing.assert_allclose(Counts(centroids)(embeddings, embeddings) ** 2, [0.25, 0, 0.75])


def test_the_global_vector_is_the_mean_of_whitened_patches_lifted():
    train = good_images(np.random.default_rng(0), 6)
    gathered = FeatureStatistics()
    for features in train.features:
        gathered.update(features)
    whitening = gathered.whitening(1.0)
    describe = MeanFeatures(whitening, train)
    means = np.stack([whitening.apply(features).mean(0) for features in train.features])
    constant = 3 * np.median(np.linalg.norm(means, axis=1))
    for features, mean in zip(train.features, means, strict=True):
        vector = describe(features, features)
        assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
        np.testing.assert_allclose(vector[:-1] / vector[-1] * constant, mean, rtol=1e-3, atol=1e-4)


# ---- Comparison ----------------------------------------------------------------------------------------


def good_images(rng: np.random.Generator, count: int) -> Images:
    """Images that each show the same thing at a place, but for noise."""
    looks = np.random.default_rng(9).normal(size=(PATCHES, CHANNELS))
    features = looks + rng.normal(size=(count, PATCHES, CHANNELS)) * 0.2
    samples = tuple(Sample(Path("good.png"), "good") for _ in range(count))
    return Images(samples, np.zeros((count, 1), np.uint8), features.astype(np.float32))


def planted(rng: np.random.Generator, count: int, kind: str, path: Path) -> Images:
    images = good_images(rng, count)
    features = images.features
    if kind == "exchanged":  # each patch looks normal, and there are as many of each
        features[:, [0, -1]] = features[:, [-1, 0]]
    elif kind == "too many":  # each looks normal
        features[:, 1:13] = features[:, :1]
    elif kind == "mark":
        features[:, 5] += 3
    return Images(tuple(Sample(path, kind) for _ in range(count)), images.pixels, features)


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, logical.Row]:
    """What is found of planted anomalies, by variant."""
    path = tmp_path_factory.mktemp("data") / "0.png"
    write_png(path, np.zeros((64, 64), np.uint8))
    rng = np.random.default_rng(0)
    test = [planted(rng, 12, kind, path) for kind in ("good", "exchanged", "too many", "mark")]
    loaded = Material("made", SETTING, good_images(rng, 40), test[0] + test[1] + test[2] + test[3])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logical, "RECIPE", Recipe(rows=256))
        return {row.variant: row for row in compare(loaded, ("exchanged", "too many"), 0, NoProgress())}


def test_every_variant_finds_what_it_can(rows: dict[str, logical.Row]):
    assert [*rows] == VARIANTS
    kinds = {variant: row.kinds for variant, row in rows.items()}
    assert all(kinds[variant]["mark"] == 1 for variant in VARIANTS if variant.startswith("position"))
    # Without a place an exchange is not seen; with one the more, the heavier it is.
    assert kinds["position 0"]["exchanged"] < 0.8
    assert kinds["position 0"]["exchanged"] < kinds["position 3"]["exchanged"] == 1
    assert kinds["global alone"]["exchanged"] < 0.8
    for level in ("global", "counts"):
        assert kinds[f"{level} alone"]["too many"] == 1
        assert kinds[f"position 1 + {level}"]["too many"] == 1


def test_groups_are_of_their_kinds(rows: dict[str, logical.Row]):
    for row in rows.values():
        assert row.structural == row.kinds["mark"]
        assert row.logical == pytest.approx((row.kinds["exchanged"] + row.kinds["too many"]) / 2)
        assert row.seconds > 0
    assert rows["position 1"].seconds == 1
    assert rows["position 1 + counts"].seconds == pytest.approx(1 + rows["counts alone"].seconds)


# ---- Data ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_a_duplicated_component_is_a_good_one_elsewhere(seed: int):
    part, good, swapped = duplicated(seed, 128), render_part(seed, size=128), render_part(seed, "swapped", 128)
    taken = (part.image != good.image).any(2)
    assert taken.any()
    assert not (taken & ~part.mask).any()
    assert (part.image[part.mask] == swapped.image[part.mask]).all()
    assert 0.3 < part.mask.sum() / swapped.mask.sum() < 0.7


def test_a_displaced_part_is_a_good_one_elsewhere():
    for seed, (down, right) in enumerate([(0, 6), (6, 0), (0, -6), (-6, 0)]):
        part, good = displaced(seed, 128).image, render_part(seed, size=128).image
        np.testing.assert_array_equal(part[10:-10, 10:-10], np.roll(good, (down, right), (0, 1))[10:-10, 10:-10])
        assert part.shape == good.shape


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Few small parts; results and cache in a scratch folder."""
    for module, values in {
        material: {"CACHE": tmp_path / "cache"},
        results_file: {"RESULTS": tmp_path / "results"},
        logical: {"SETTING": Setting(size=64), "RECIPE": Recipe(size=64, rows=64, false_reject_rate=0.3),
                  "TRAIN": 8, "TEST_GOOD": 2, "PER_KIND": 1, "CLUSTERS": 8},
    }.items():  # fmt: skip
        for name, value in values.items():
            monkeypatch.setattr(module, name, value)
    return tmp_path


def test_parts_are_written_once(small: Path, monkeypatch: pytest.MonkeyPatch):
    root = write_parts(NoProgress())
    dataset = open_dataset(root)
    assert len(dataset.train) == 8
    assert sorted(sample.kind for sample in dataset.test) == sorted(["good", "good", *DEFECTS, *COMPOSED])
    masks = {sample.kind: len(sample.masks) for sample in dataset.test}
    assert masks == {**dict.fromkeys(DEFECTS, 1), "duplicated": 1, "displaced": 0, "good": 0}
    monkeypatch.setattr(logical, "write_dataset", None)
    assert write_parts(NoProgress()) == root
    assert small in root.parents
    monkeypatch.setattr(logical, "PER_KIND", 2)
    with pytest.raises(TypeError):  # other parts are wanted
        write_parts(NoProgress())


def test_from_parts_to_results(small: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    transistor = small / "data" / "mvtec_ad_384" / "transistor"
    write_dataset(transistor, train=8, test_good=2, per_defect=1, size=64, kinds=("stain", "swapped"))
    for folder in ("test", "ground_truth"):
        (transistor / folder / "swapped").rename(transistor / folder / "misplaced")
    monkeypatch.setenv("LINEWARD_DATA", str(small / "data"))
    logical.main()
    figures = json.loads((small / "results" / "logical.json").read_text())["figures"]
    assert len(figures["runs"]) == 2 * 2 * len(VARIANTS)
    assert {run["data"]: run["kinds"].keys() for run in figures["runs"]} == {
        "synthetic parts": {*DEFECTS, *COMPOSED},
        "transistor": {"stain", "misplaced"},
    }
    for run in figures["runs"]:
        assert all(0 <= value <= 1 for value in (run["logical"], run["structural"]))
        assert (run["pixel_auroc"] is None) == run["variant"].endswith("alone")
    for summary in figures["summary"].values():
        assert [*summary] == VARIANTS
        assert summary["position 1"]["relative seconds"] == {"mean": 1, "spread": 0}
        assert summary["counts alone"]["pixel AUROC"] is None
    out = capsys.readouterr().out
    assert "SKIPPED" not in out
    assert all(variant in out for variant in VARIANTS)


def test_absent_evaluation_data_is_named(small: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    monkeypatch.setenv("LINEWARD_DATA", str(small / "nowhere"))
    monkeypatch.setattr(logical, "SEEDS", (0,))
    logical.main()
    assert f"SKIPPED: transistor: {small / 'nowhere'}" in capsys.readouterr().out
    figures = json.loads((small / "results" / "logical.json").read_text())["figures"]
    assert {run["data"] for run in figures["runs"]} == {"synthetic parts"}
