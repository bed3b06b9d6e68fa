"""A region of interest, from training to the verdict: through every step of the workstation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lineward.export.adaptation import adapt
from lineward.export.datasets import Sample
from lineward.export.evaluation import evaluate
from lineward.export.synthetic import render_part
from lineward.export.training import Progress, Recipe, train
from lineward.runtime.bundle import BANK, EMBEDDING, REGION, Bundle, decode_bundle
from lineward.runtime.calibrating import calibrate_device
from lineward.runtime.engines.onnxruntime import EmbeddingSession
from lineward.runtime.errors import DataError, ImageError, TrainingError
from lineward.runtime.golden import check_golden
from lineward.runtime.images import read_image, write_png
from lineward.runtime.inspection import Verdict
from lineward.runtime.inspector import Inspector
from lineward.runtime.overlay import draw_overlay

RECIPE = Recipe(size=64, rows=64, false_reject_rate=0.2, threshold_method="split", region="0,0 0.5,0 0.5,1 0,1")
Draw = Callable[[np.ndarray], None]


def write(folder: Path, seeds: range, draw: Draw = lambda _: None) -> list[Path]:
    folder.mkdir()
    paths = [folder / f"{seed:03d}.png" for seed in seeds]
    for seed, path in zip(seeds, paths, strict=True):
        image = render_part(seed, size=64).image
        draw(image)
        write_png(path, image)
    return paths


def noise(columns: slice) -> Draw:
    random = np.random.RandomState(0)

    def draw(image: np.ndarray) -> None:
        image[24:40, columns] = random.randint(0, 256, image[24:40, columns].shape)

    return draw


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write(tmp_path_factory.mktemp("region") / "good", range(24))


@pytest.fixture(scope="module")
def data(good: list[Path], quiet: Progress) -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SOURCE_DATE_EPOCH", "1700000000")
        return train(good, "part", recipe=RECIPE, progress=quiet)


@pytest.fixture(scope="module")
def bundle(data: bytes) -> Bundle:
    return decode_bundle(data, "left.lineward")


def test_the_bundle_knows_its_region(bundle: Bundle):
    assert REGION in bundle.manifest.members
    assert bundle.region is not None
    assert bundle.region[:, :32].all()
    assert not bundle.region[:, 32:].any()
    check_golden(bundle, Inspector(bundle))


def test_a_defect_inside_is_rejected_and_one_outside_passes(bundle: Bundle, tmp_path: Path, good: list[Path]):
    inspector = Inspector(bundle)
    inside = write(tmp_path / "inside", range(24), noise(slice(8, 24)))
    outside = write(tmp_path / "outside", range(24), noise(slice(42, 58)))
    for one, defect, elsewhere in zip(good, inside, outside, strict=True):
        assert inspector.inspect(read_image(defect)).verdict is Verdict.REJECT
        assert inspector.inspect(read_image(elsewhere)).score == inspector.inspect(read_image(one)).score


def test_the_overlay_shows_nothing_outside(bundle: Bundle, good: list[Path]):
    frame = 255 - read_image(good[0])
    inspection = Inspector(bundle).inspect(frame)
    assert inspection.verdict is Verdict.REJECT
    overlay = draw_overlay(frame, inspection)
    assert (overlay != frame)[:, :28].any()
    np.testing.assert_array_equal(overlay[:, 36:], frame[:, 36:])


def test_nothing_outside_enters_the_bank(bundle: Bundle, good: list[Path]):
    """The farthest-point half of the bank are patches as they are: each is one that counts."""
    session = EmbeddingSession(bundle.members[EMBEDDING], bundle.manifest.grid)
    patches = session.embed(np.concatenate([bundle.view.pixels(read_image(path)) for path in good]))
    (counts,) = bundle.view.counts
    inside, outside = (
        patches[:, counts].reshape(-1, patches.shape[2]),
        patches[:, ~counts].reshape(-1, patches.shape[2]),
    )
    rows = bundle.bank[len(bundle.bank) // 2 :]
    assert counts.sum() == 32
    assert (rows @ inside.T).max(axis=1).min() > 1 - 1e-5
    assert (rows @ outside.T).max() < 1 - 1e-4


def test_calibrating_evaluating_and_adapting_go_by_it(tmp_path: Path, bundle: Bundle, quiet: Progress):
    beside = write(tmp_path / "beside", range(50, 70), noise(slice(42, 58)))
    threshold = calibrate_device(Inspector(bundle), beside, 0.2).threshold.value
    clean = write(tmp_path / "clean", range(50, 70))
    assert threshold == calibrate_device(Inspector(bundle), clean, 0.2).threshold.value
    result = evaluate(Inspector(bundle), [Sample(path, "good") for path in beside])
    assert result.confusion.false_reject < 10
    adapted = adapt(bundle, beside, progress=quiet)
    assert adapted.bundle.members[REGION] == bundle.members[REGION]
    check_golden(adapted.bundle, Inspector(adapted.bundle))
    same = adapt(bundle, clean, progress=quiet)
    assert adapted.own.sample_size == same.own.sample_size


def test_the_defect_among_the_golden_images_is_planted_where_it_counts(good: list[Path], quiet: Progress):
    corner = replace(RECIPE, region="0.7,0.7 1,0.7 1,1 0.7,1", rows=32)
    manifest = decode_bundle(train(good, "part", recipe=corner, progress=quiet), "corner").manifest
    fine, defect = manifest.golden
    assert fine.image_score <= manifest.threshold.value < defect.image_score


@pytest.mark.parametrize(
    ("choices", "error", "message"),
    [
        ({"region": "missing.png"}, ImageError, "region missing.png"),
        ({"region": "0,0 1,1 0,0"}, DataError, "nothing of the image counts"),
        ({"region": "0,0 100,0 0,100"}, DataError, "leaves the image"),
        ({"region": "0,0 0.1,0 0.1,0.1 0,0.1", "rows": 600}, TrainingError, "cannot be chosen from"),
    ],
)
def test_a_region_that_does_not_serve(choices, error, message, good: list[Path], quiet: Progress):
    with pytest.raises(error, match=message):
        train(good, "part", recipe=replace(RECIPE, **choices), progress=quiet)


def test_images_must_be_alike(tmp_path: Path, good: list[Path], quiet: Progress):
    other = tmp_path / "other.png"
    write_png(other, render_part(99, size=128).image)
    with pytest.raises(ImageError, match="128x128 pixels"):
        train([*good, other], "part", recipe=RECIPE, progress=quiet)


def test_the_same_images_and_region_give_the_same_bytes(monkeypatch, good: list[Path], data: bytes, quiet: Progress):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert train(good[::-1], "part", recipe=RECIPE, progress=quiet) == data


def test_another_region_gives_another_bank(good: list[Path], bundle: Bundle, quiet: Progress):
    right = replace(RECIPE, region="0.5,0 1,0 1,1 0.5,1")
    other = decode_bundle(train(good, "part", recipe=right, progress=quiet), "right.lineward")
    assert other.members[BANK] != bundle.members[BANK]
    assert other.members[EMBEDDING] != bundle.members[EMBEDDING]
