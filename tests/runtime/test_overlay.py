from __future__ import annotations

import math

import numpy as np
import pytest

from lineward.runtime.inspection import Inspection, Reason, decide, rejected_without_score
from lineward.runtime.overlay import draw_overlay

THRESHOLD = 0.2
RED = (255, 0, 0)


def inspected(anomaly_map, threshold=THRESHOLD):
    anomaly_map = np.asarray(anomaly_map, np.float32)
    score = float(np.max(anomaly_map))
    return Inspection(*decide(score, threshold), score, threshold, anomaly_map, 0.0)


def hot_spot(value, at=(16, 16), size=64):
    """A map of zeros but for a square of 16 pixels."""
    anomaly_map = np.zeros((size, size), np.float32)
    anomaly_map[at[0] : at[0] + 16, at[1] : at[1] + 16] = value
    return anomaly_map


def picture(seed=0, size=(64, 64)):
    """Greens and blues alone: no pixel of it is red."""
    pixels = np.random.RandomState(seed).randint(0, 200, (*size, 3)).astype(np.uint8)
    pixels[:, :, 0] = 0
    return pixels


def contour_of(overlay):
    return np.all(overlay == RED, axis=2)


def test_shape_and_type():
    overlay = draw_overlay(picture(size=(90, 120)), inspected(hot_spot(1.0)))
    assert overlay.shape == (90, 120, 3)
    assert overlay.dtype == np.uint8


@pytest.mark.parametrize("level", [0.0, 0.3, 0.49])
def test_a_good_part_is_shown_as_it_is(level):
    frame = picture()
    overlay = draw_overlay(frame, inspected(np.full((64, 64), level * THRESHOLD)))
    np.testing.assert_array_equal(overlay, frame)


@pytest.mark.parametrize(("level", "drawn"), [(0.6, False), (0.99, False), (1.01, True), (3.0, True), (10.0, True)])
def test_a_contour_runs_around_what_is_above_the_threshold(level, drawn):
    overlay = draw_overlay(picture(), inspected(hot_spot(level * THRESHOLD)))
    rows, columns = np.nonzero(contour_of(overlay))
    assert (len(rows) > 0) == drawn
    if drawn:
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (16, 31, 16, 31)


def test_heat_shows_from_half_the_threshold_and_grows_to_twice():
    frame = picture()
    change = [
        np.abs(draw_overlay(frame, inspected(hot_spot(level * THRESHOLD)))[24, 24].astype(int) - frame[24, 24]).sum()
        for level in (0.5, 0.9, 1.4, 2.0, 4.0)
    ]
    assert change[0] == 0
    assert 0 < change[1] < change[2] < change[3]
    assert change[4] == change[3]


def test_the_same_map_gives_the_same_heat_on_any_picture():
    """Where the heat is opaque enough an overlay is 0.4 of the picture and 0.6 of the heat."""
    black, other = np.zeros((64, 64, 3), np.uint8), picture(1)
    inside = (slice(19, 29), slice(19, 29))
    heats = [
        draw_overlay(frame, inspected(hot_spot(1.9 * THRESHOLD)))[inside] - 0.4 * frame[inside]
        for frame in (black, other)
    ]
    np.testing.assert_allclose(heats[1], heats[0], atol=1)
    assert heats[0].max() > 50


def test_the_scale_is_never_the_images():
    """A hotter place elsewhere leaves a warm place as warm as it was."""
    frame = picture()
    warm = hot_spot(0.9 * THRESHOLD)
    alone = draw_overlay(frame, inspected(warm))
    beside = draw_overlay(frame, inspected(np.maximum(warm, hot_spot(2.0, at=(44, 44)))))
    np.testing.assert_array_equal(beside[:38, :38], alone[:38, :38])
    assert not np.array_equal(beside, alone)


def test_the_scale_is_tied_to_the_threshold():
    frame = picture()
    one = draw_overlay(frame, inspected(hot_spot(0.25), threshold=0.25))
    two = draw_overlay(frame, inspected(hot_spot(0.5), threshold=0.5))
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("everywhere", [False, True])
def test_scores_that_are_not_finite_look_as_hot_as_can_be(value, everywhere):
    anomaly_map = np.full((64, 64), value) if everywhere else hot_spot(value)
    overlay = draw_overlay(picture(), inspected(anomaly_map))
    hottest = draw_overlay(picture(), inspected(np.full((64, 64), 2.0) if everywhere else hot_spot(2.0)))
    np.testing.assert_array_equal(overlay, hottest)
    assert contour_of(overlay).any()


def test_without_a_map_the_picture_is_returned():
    frame = picture()
    overlay = draw_overlay(frame, rejected_without_score(Reason.IMAGE_UNREADABLE, THRESHOLD))
    np.testing.assert_array_equal(overlay, frame)
    assert overlay is not frame


def test_a_threshold_of_nought_is_drawn():
    overlay = draw_overlay(picture(), inspected(hot_spot(0.1), threshold=0.0))
    assert contour_of(overlay).any()
    np.testing.assert_array_equal(overlay[40:, 40:], picture()[40:, 40:])


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("colour", [False, True])
def test_gray_and_sixteen_bit_frames(depth, colour):
    eight = picture() if colour else picture()[:, :, 1]
    frame = eight if depth == 8 else eight.astype(np.uint16) << 8 | 77
    before = frame.copy()
    expected = draw_overlay(eight if colour else np.stack([eight] * 3, axis=2), inspected(hot_spot(1.0)))
    np.testing.assert_array_equal(draw_overlay(frame, inspected(hot_spot(1.0))), expected)
    np.testing.assert_array_equal(frame, before)


@pytest.mark.parametrize("size", [(8, 8), (480, 640), (40, 1000)])
def test_any_size_of_frame(size):
    overlay = draw_overlay(picture(size=size), inspected(hot_spot(1.0)))
    assert overlay.shape == (*size, 3)
    assert contour_of(overlay).any()
