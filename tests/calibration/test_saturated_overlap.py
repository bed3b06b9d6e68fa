from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from lineward.calibration.metrics import PixelHistograms
from lineward.calibration.saturated_overlap import Region, SaturatedOverlap, saturation_area
from lineward.runtime.errors import DataError

# Ten normal pixels: flagging the first is a false-positive rate of 0.1, the second too is 0.2, all is 1.
NORMAL = [0.85, 0.5, *[0.0] * 8]


def image(scores, *regions):
    """A map of one row, and its regions, each given by the places of its pixels and its saturation area."""
    anomaly_map = np.array([scores], dtype=np.float32)
    places = np.arange(len(scores))[None]
    return anomaly_map, [Region(np.isin(places, chosen), saturation) for chosen, saturation in regions]


def overlap(*images):
    result = SaturatedOverlap()
    for anomaly_map, regions in images:
        result.update(anomaly_map, regions)
    return result


@st.composite
def annotated_images(draw):
    """A good image and some with regions, which may overlap; scores often tied, on levels the bins hold exactly."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([2, 8, 64]))
    images = []
    for count in [0, *draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))]:
        anomaly_map = (rng.integers(0, levels, (6, 7)) / levels).astype(np.float32)
        regions = []
        for _ in range(count):
            pixels = rng.random((6, 7)) < rng.uniform(0.02, 0.4)
            pixels[rng.integers(6), rng.integers(7)] = True
            area = int(pixels.sum())
            regions.append(Region(pixels, draw(st.floats(0.01, 1.0)) * area))
        images.append((anomaly_map, regions))
    return images


def reference_spro(images, limit):
    """sPRO from its definition: every score as a threshold, every region measured apart."""
    normal = np.concatenate(
        [m[~np.any([np.zeros(m.shape, bool), *(r.pixels for r in regions)], axis=0)] for m, regions in images]
    )
    curve = [(0.0, 0.0)]
    for threshold in sorted({float(score) for m, _ in images for score in m.ravel()}, reverse=True):
        shares = [
            min(float(np.sum(m[r.pixels] >= threshold)) / r.saturation, 1.0) for m, regions in images for r in regions
        ]
        curve.append((float(np.mean(normal >= threshold)), sum(shares) / len(shares)))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x0 < limit < x1:
            x1, y1 = limit, y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        if x1 <= limit:
            area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


@pytest.mark.parametrize(
    ("area", "threshold", "relative", "expected"),
    [
        (100, 1.0, True, 100),
        (100, 0.5, True, 50),
        (7, 0.5, True, 3),  # whole pixels
        (1, 0.5, True, 1),  # at least one
        (100, 30, False, 30),
        (20, 20, False, 20),
        (20, 30, False, 20),  # at most all of it
    ],
)
def test_the_saturation_area(area, threshold, relative, expected):
    assert saturation_area(area, threshold, relative=relative) == expected


FOUR = [0.9, 0.8, 0.1, 0.0]
CASES = {
    # Both pixels that must be found are: half at once, all of it once the first normal pixel is flagged.
    "half of it must be found": ([image(FOUR + NORMAL, ([0, 1, 2, 3], 2))], (0.1 * 0.5 + 0.1 * 1) / 0.2),
    "all of it must be found": ([image(FOUR + NORMAL, ([0, 1, 2, 3], 4))], (0.1 * 0.25 + 0.1 * 0.5) / 0.2),
    "more than saturates earns nothing": ([image(FOUR + NORMAL, ([0, 1, 2, 3], 1))], 1.0),
    "regions weigh the same": (
        [image(FOUR + NORMAL, ([0], 1), ([1, 2, 3], 3))],
        (0.1 * (1 + 0) / 2 + 0.1 * (1 + 1 / 3) / 2) / 0.2,
    ),
    "regions of different images weigh the same": (
        [image([0.9, *NORMAL], ([0], 1)), image([0.1, 0.1, *NORMAL], ([0, 1], 1))],
        0.5,
    ),
    "pieces far apart are one region": ([image([0.9, *NORMAL, 0.0], ([0, 11], 2))], 0.5),
    # The pixels of 0.85 and 0.5 are on defects here: both defects are found before a normal pixel is flagged.
    "regions overlap, and no pixel of any is normal": ([image([0.9, *NORMAL], ([0, 1], 2), ([1, 2], 1))], 1.0),
    # A straight line from (0, 0) to (0.8, 1), cut at 0.2, though the region saturates at half its pixels.
    "tied scores are flagged together": ([image([0.5] * 4 + [0.5] * 8 + [0.0] * 2, ([0, 1, 2, 3], 2))], 0.125),
    "a good image adds normal pixels": (
        [image([0.8, *NORMAL], ([0], 1)), image([0.0] * 10)],
        (0.2 - 0.05) / 0.2,
    ),
    "a saturation area need not be whole": ([image([0.9, 0.0, *NORMAL], ([0, 1], 1.6))], 1 / 1.6),
}


@pytest.mark.parametrize("case", CASES)
def test_by_hand(case):
    images, expected = CASES[case]
    assert overlap(*images).spro(0.2) == pytest.approx(expected, abs=1e-12)


@settings(max_examples=60, deadline=None)
@given(annotated_images(), st.sampled_from([0.05, 0.3, 1.0]))
def test_is_that_of_its_definition(images, limit):
    assert overlap(*images).spro(limit) == pytest.approx(reference_spro(images, limit), abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(annotated_images())
def test_sets_of_images_add_up_in_any_order(images):
    whole, parts = overlap(*images), overlap(*images[1:]) + overlap(images[0])
    assert parts.regions == whole.regions
    assert parts.spro() == pytest.approx(whole.spro(), abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(annotated_images(), st.floats(0.1, 1.0))
def test_asking_for_less_of_each_defect_never_finds_less(images, share):
    less = [(m, [Region(r.pixels, r.saturation * share) for r in regions]) for m, regions in images]
    assert overlap(*less).spro(0.3) >= overlap(*images).spro(0.3) - 1e-12


@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
def test_where_all_of_connected_regions_must_be_found_it_is_aupro(limit):
    rng = np.random.default_rng(5)
    counted, saturated = PixelHistograms(), SaturatedOverlap()
    for _ in range(3):
        mask = ndimage.uniform_filter(rng.random((24, 24)), 3) > 0.6
        anomaly_map = np.clip(rng.random((24, 24)) + 0.4 * mask, 0, 2).astype(np.float32)
        labelled, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions = [labelled == region for region in range(1, count + 1)]
        counted.update(anomaly_map, mask)
        saturated.update(anomaly_map, [Region(pixels, pixels.sum()) for pixels in regions])
    assert counted.regions == saturated.regions > 3
    assert saturated.spro(limit) == pytest.approx(counted.aupro(limit), abs=1e-12)


def test_the_limit_of_the_benchmark_is_the_default():
    # The defect is found at a rate of 1/20, and the curve is cut there.
    images = CASES["a good image adds normal pixels"][0]
    assert overlap(*images).spro() == pytest.approx(0.0, abs=1e-12)
    assert overlap(*images, image([0.0] * 5)).spro() == pytest.approx((0.05 - 1 / 25) / 0.05, abs=1e-12)


def test_a_pixel_without_a_score_is_flagged_first():
    assert overlap(image([math.nan, 0.0, *NORMAL], ([0, 1], 1))).spro() == 1.0


def test_what_is_refused_counts_nothing():
    counted = overlap(image(FOUR + NORMAL, ([0], 1)))
    expected = counted.spro()
    with pytest.raises(DataError):
        counted.update(*image(FOUR + NORMAL, ([0], 1), ([3], 2)))
    assert (counted.regions, counted.spro()) == (1, expected)


MAP = np.zeros((2, 2), dtype=np.float32)
ALL = np.ones((2, 2), dtype=bool)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: SaturatedOverlap().spro(), "no annotated defect"),
        (lambda: overlap((MAP, [])).spro(), "no annotated defect"),
        (lambda: overlap((MAP, [Region(ALL, 4)])).spro(), "no normal pixel"),
        (lambda: overlap((MAP, [Region(ALL, 4)])).spro(0.0), "limit of 0.0"),
        (lambda: overlap((MAP, [Region(ALL, 4)])).spro(math.nan), "limit of nan"),
        (lambda: overlap((MAP, [Region(~ALL, 1)])), "region of 0 pixels"),
        (lambda: overlap((MAP, [Region(ALL, 0)])), "saturation area of 0"),
        (lambda: overlap((MAP, [Region(ALL, 5)])), "region of 4 pixels with a saturation area of 5"),
        (lambda: overlap((MAP, [Region(ALL, math.nan)])), "saturation area of nan"),
        (lambda: overlap((MAP, [Region(ALL[:1], 1)])), r"mask of shape \(1, 2\)"),
        (lambda: overlap((MAP, [Region(ALL.astype(np.uint8), 1)])), "mask of uint8"),
        (lambda: overlap((MAP.astype(np.float64), [])), "map of float64"),
        (lambda: overlap((MAP[0], [])), r"\[H, W\]"),
    ],
)
def test_what_cannot_be_evaluated_is_an_error_that_says_so(call, says):
    with pytest.raises(DataError, match=says) as caught:
        call()
    assert caught.value.do
