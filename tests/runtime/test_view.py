from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineward.runtime.anomaly_map import MapMaker
from lineward.runtime.bundle import REGION, decode_bundle
from lineward.runtime.drift import measure
from lineward.runtime.inspection import Reason, Verdict
from lineward.runtime.inspector import Inspector
from lineward.runtime.manifest import Grid, Score
from lineward.runtime.preprocessing import preprocess
from lineward.runtime.region import encode_region

LEFT = np.zeros((64, 64), np.bool_)
LEFT[:, :30] = True  # three patches and most of a fourth


@pytest.fixture(scope="module")
def masked(rebundle):
    """The tiny bundle, of whose image the left half counts."""
    return decode_bundle(rebundle({REGION: encode_region(LEFT)}), "masked.lineward")


def test_without_a_region_the_input_is_the_preprocessed_frame(tiny, golden_frames):
    for frame in (golden_frames[0], np.zeros((100, 80), np.uint16)):
        (pixels,) = tiny.view.pixels(frame)
        np.testing.assert_array_equal(pixels, preprocess(frame, tiny.manifest.preprocessing))


def test_what_does_not_count_is_gray_to_whole_patches(masked, golden_frames):
    frame = golden_frames[0].copy()
    (pixels,) = masked.view.pixels(frame)
    np.testing.assert_array_equal(pixels[:, :32], frame[:, :32])
    assert (pixels[:, 32:] == 127).all()
    np.testing.assert_array_equal(frame, golden_frames[0])  # which may be lent by the camera


@pytest.mark.parametrize("seed", range(3))
def test_nothing_outside_the_region_changes_anything(seed, masked, golden_frames):
    inspector = Inspector(masked)
    changed = golden_frames[0].copy()
    changed[:, 32:] = np.random.default_rng(seed).integers(0, 256, changed[:, 32:].shape)
    one, other = inspector.inspect(golden_frames[0]), inspector.inspect(changed)
    assert one.score == other.score
    np.testing.assert_array_equal(one.anomaly_map, other.anomaly_map)
    assert measure(one) == measure(other)


def test_a_defect_inside_is_seen_and_one_outside_is_not(tiny, masked, golden_frames):
    good, defect = golden_frames  # its noise is left of the middle
    inspector, all_of_it = Inspector(masked), Inspector(tiny)
    usual = inspector.inspect(good).score
    assert inspector.inspect(defect).score > usual
    outside = good.copy()
    outside[16:32, 40:56] = defect[16:32, 16:32]
    assert all_of_it.inspect(outside).score > all_of_it.inspect(good).score
    assert inspector.inspect(outside).score == usual


def test_the_map_is_zero_outside(masked, golden_frames):
    anomaly_map = Inspector(masked).inspect(golden_frames[1]).anomaly_map
    assert (anomaly_map[~LEFT] == 0).all()
    assert (anomaly_map[LEFT] > 0).all()


@pytest.mark.parametrize("place", [(3, 1), (3, 7)])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_score_that_is_none_rejects_wherever_it_is(value, place, masked, golden_frames):
    class Broken:
        def score(self, images):
            scores = np.full((len(images), 8, 8), 0.1, np.float32)
            scores[(slice(None), *place)] = value
            return scores

    inspection = Inspector(masked, Broken()).inspect(golden_frames[0])
    assert (inspection.verdict, inspection.reason) == (Verdict.REJECT, Reason.SCORE_INVALID)


def test_drift_is_measured_where_the_image_counts(masked, golden_frames):
    inspection = Inspector(masked).inspect(golden_frames[0])
    measured = measure(inspection)
    samples = inspection.anomaly_map[4::8, 4:30:8]
    assert measured.distance == float(np.median(samples)) > 0
    whole = dataclasses.replace(inspection, anomaly_map=np.where(LEFT, inspection.anomaly_map, 1).astype(np.float32))
    assert measure(whole).distance > measured.distance


regions = st.integers(0, 2**32 - 1).map(lambda seed: np.random.default_rng(seed).random((24, 40)) < 0.05)


@given(regions.filter(np.any), st.floats(0, 2, width=32))
def test_a_constant_stays_one_up_to_the_edge_of_the_region(region, value):
    maps = MapMaker(Grid(3, 5, 1), Score(24, 40, 2.0), region)
    anomaly_map = maps.anomaly_map(np.full((3, 5), value, np.float32))
    np.testing.assert_allclose(anomaly_map[region], value, rtol=1e-5, atol=1e-6)
    assert (anomaly_map[~region] == 0).all()


@given(regions.filter(np.any), st.integers(0, 2**32 - 1))
def test_the_map_lies_between_the_scores_of_patches_that_count(region, seed):
    counts = region.reshape(3, 8, 5, 8).any((1, 3))
    scores = np.random.default_rng(seed).random((3, 5)).astype(np.float32)
    inside = MapMaker(Grid(3, 5, 1), Score(24, 40, 2.0), region).anomaly_map(scores)[region]
    assert scores[counts].min() - 1e-5 <= inside.min()
    assert inside.max() <= scores[counts].max() + 1e-5
