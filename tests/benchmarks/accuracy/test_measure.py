from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy.material import Setting
from benchmarks.accuracy.measure import Scores, measure
from lineward.export.datasets import Sample, Saturation
from lineward.runtime.errors import DataError
from lineward.runtime.images import write_png

SETTING = Setting(size=64, levels=(8,))
SIDE = SETTING.side
KINDS = ("good", "good", "logical_anomalies", "structural_anomalies")
SCORES = np.array([0.1, 0.3, 0.2, 0.4])
HALF = (Saturation("any", 255, 0.5, True),)
PATCHES = slice(2, 4), slice(3, 6)
PIXELS = slice(32, 64), slice(48, 96)  # the same place in an image of 128 pixels


@pytest.fixture
def samples(tmp_path: Path) -> tuple[Sample, ...]:
    """Two good images and one of each kind, twice as large as the map, with one place for all defects."""
    mask = np.zeros((128, 128), np.uint8)
    mask[PIXELS] = 255
    write_png(tmp_path / "mask.png", mask)
    made = []
    for index, kind in enumerate(KINDS):
        path = tmp_path / f"{index}.png"
        write_png(path, np.zeros((128, 128), np.uint8))
        made.append(Sample(path, kind, () if kind == "good" else (tmp_path / "mask.png",)))
    return tuple(made)


def patches(*found: bool) -> np.ndarray:
    """Patch scores of images, high on the defect where it is found."""
    scores = np.random.default_rng(0).uniform(0, 0.1, (len(found), SIDE, SIDE)).astype(np.float32)
    for image, high in zip(scores, found, strict=True):
        image[PATCHES] += 0.9 * high
    return scores


def test_images_alone(samples):
    figures = measure(Scores(SCORES, None), samples, SETTING)
    assert figures.image_auroc == 3 / 4
    assert figures.f1_max == 4 / 5
    assert (figures.pixel_auroc, figures.aupro, figures.by_kind) == (None, None, None)


def test_maps_are_compared_at_the_images_own_size(samples):
    figures = measure(Scores(SCORES, patches(0, 0, 1, 1)), samples, SETTING)
    assert figures.pixel_auroc > 0.98
    assert figures.aupro > 0.9
    assert figures.by_kind is None


def test_kinds_are_apart_where_the_data_set_gives_saturations(samples):
    known = tuple(replace(sample, saturations=HALF) for sample in samples)
    by_kind = measure(Scores(SCORES, patches(0, 0, 1, 0)), known, SETTING).by_kind
    logical, structural = by_kind.kinds["logical_anomalies"], by_kind.kinds["structural_anomalies"]
    assert (logical.image_auroc, structural.image_auroc, by_kind.mean.image_auroc) == (0.5, 1.0, 0.75)
    assert logical.spro > 0.99
    assert structural.spro < 0.2
    assert by_kind.mean.spro == pytest.approx((logical.spro + structural.spro) / 2)


def test_of_images_alone_kinds_have_no_overlap(samples):
    known = tuple(replace(sample, saturations=HALF) for sample in samples)
    by_kind = measure(Scores(SCORES, None), known, SETTING).by_kind
    assert (by_kind.mean.image_auroc, by_kind.mean.spro) == (0.75, None)


@pytest.mark.parametrize("factor", [1e-6, 0.5, 1e6])
def test_the_unit_of_the_scores_does_not_matter(samples, factor):
    known = tuple(replace(sample, saturations=HALF) for sample in samples)
    found = patches(0, 1, 1, 0)
    scaled = measure(Scores(SCORES * factor, found * np.float32(factor)), known, SETTING)
    figures = measure(Scores(SCORES, found), known, SETTING)
    for one, other in ((scaled, figures), (scaled.by_kind.mean, figures.by_kind.mean)):
        names = [name for name in vars(one) if name != "by_kind"]
        assert [getattr(one, n) for n in names] == pytest.approx([getattr(other, n) for n in names], abs=1e-4)


def test_maps_of_zeros_are_chance(samples):
    figures = measure(Scores(SCORES, np.zeros((4, SIDE, SIDE), np.float32)), samples, SETTING)
    assert figures.pixel_auroc == 0.5


def test_one_class_alone_is_refused(samples):
    with pytest.raises(DataError, match="no defective part"):
        measure(Scores(SCORES[:2], None), samples[:2], SETTING)


def test_maps_and_images_must_be_as_many(samples):
    with pytest.raises(ValueError, match="zip"):
        measure(Scores(SCORES, patches(0, 0, 1)), samples, SETTING)
