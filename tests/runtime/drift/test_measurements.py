from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from lineward.runtime.drift import STATISTICS, Statistic, measure
from lineward.runtime.drift.measurements import look
from lineward.runtime.inspection import Inspection, decide

SIZE = 64


def plain(*colour: int) -> np.ndarray:
    return np.full((SIZE, SIZE, 3), colour, np.uint8)


def texture(seed: int = 0, low: int = 60, high: int = 180) -> np.ndarray:
    grey = np.random.RandomState(seed).randint(low, high, (SIZE, SIZE, 1)).astype(np.uint8)
    return np.repeat(grey, 3, axis=2)


def inspected(pixels, anomaly_map, score=0.3) -> Inspection:
    return Inspection(*decide(score, 0.5), score, 0.5, anomaly_map, 0.0, pixels)


def test_a_plain_frame():
    seen = look(plain(90, 90, 90))
    assert (seen.brightness, seen.contrast, seen.colour, seen.sharpness) == (90, 0, 0, 0)


def test_a_checked_frame():
    """A chequered field of 0 and 200: half the pixels each, and a Laplacian of ±800 inside."""
    cells = (np.indices((SIZE, SIZE)).sum(axis=0) % 2 * 200).astype(np.uint8)
    seen = look(np.repeat(cells[:, :, np.newaxis], 3, axis=2))
    assert seen.brightness == seen.contrast == 100
    assert seen.sharpness == pytest.approx(math.log2(1 + 800**2), abs=0.01)


@pytest.mark.parametrize(
    ("change", "statistic", "sign"),
    [
        (lambda p: (p * 0.95).astype(np.uint8), "brightness", -1),
        (lambda p: p + 5, "brightness", 1),
        (lambda p: (p // 2 + 60).astype(np.uint8), "contrast", -1),
        (lambda p: cv2.GaussianBlur(p, (0, 0), 0.7), "sharpness", -1),
        (lambda p: p + np.array([9, 0, 0], np.uint8), "colour", 1),
        (lambda p: p + np.array([0, 0, 9], np.uint8), "colour", -1),
    ],
)
def test_each_statistic_shows_its_drift(change, statistic, sign):
    before, after = (getattr(look(pixels), statistic) for pixels in (texture(), change(texture())))
    assert (after - before) * sign > 0.1


def test_a_shift_of_brightness_leaves_contrast_colour_and_sharpness():
    before, after = look(texture()), look(texture() + 20)
    assert after.brightness - before.brightness == pytest.approx(20)
    for name in ("contrast", "colour", "sharpness"):
        assert getattr(after, name) == pytest.approx(getattr(before, name))


def test_a_defect_hardly_moves_the_distance():
    anomaly_map = np.random.default_rng(0).random((SIZE, SIZE), np.float32) * 0.1
    good = measure(inspected(texture(), anomaly_map))
    anomaly_map[:16, :16] = 2
    bad = measure(inspected(texture(), anomaly_map))
    assert bad.distance == pytest.approx(good.distance, abs=0.02)
    anomaly_map[:, :48] = 1
    assert measure(inspected(texture(), anomaly_map)).distance == 1


@pytest.mark.parametrize(
    ("pixels", "anomaly_map", "score"),
    [
        (None, np.zeros((8, 8), np.float32), 0.3),
        (texture(), None, 0.3),
        (texture(), np.zeros((8, 8), np.float32), math.nan),
        (texture(), np.zeros((8, 8), np.float32), math.inf),
    ],
)
def test_what_cannot_be_measured(pixels, anomaly_map, score):
    assert measure(inspected(pixels, anomaly_map, score)) is None


def test_a_map_smaller_than_two_cells_has_a_distance():
    assert measure(inspected(texture(), np.full((8, 8), 0.25, np.float32))).distance == 0.25


def test_every_statistic_is_finite_on_the_tiny_bundle(tiny, golden_frames):
    from lineward.runtime.inspector import Inspector

    for frame in golden_frames:
        measurement = measure(Inspector(tiny).inspect(frame))
        values = {statistic: measurement.of(statistic) for statistic in STATISTICS}
        assert all(map(math.isfinite, values.values()))
        assert values[Statistic.SCORE] == measurement.score
        assert values[Statistic.CONTRAST] == measurement.look.contrast
