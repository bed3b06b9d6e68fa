from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import f1_score, precision_recall_curve, roc_auc_score

from lineward.calibration.metrics import Confusion, PixelHistograms, confusion_at, f1_max, image_auroc
from lineward.runtime.errors import DataError

NAN, INF = math.nan, math.inf


def floats(*values):
    return np.array(values, dtype=np.float64)


def bools(*values):
    return np.array(values, dtype=bool)


@st.composite
def scored_parts(draw):
    """Scores and labels with both classes present; scores often tied, sometimes far apart."""
    some = st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.floats(-1e6, 1e6, width=32)
    good = draw(st.lists(some, min_size=1, max_size=30))
    defective = draw(st.lists(some, min_size=1, max_size=30))
    order = draw(st.permutations(range(len(good) + len(defective))))
    scores = np.array(good + defective, dtype=draw(st.sampled_from([np.float32, np.float64])))[order]
    labels = bools(*[False] * len(good), *[True] * len(defective))[order]
    return scores, labels


def random_maps(seed, *, levels=None, count=3, size=24):
    """Noise maps, brighter on blobs of defect; `levels` rounds scores to a grid the bins hold exactly."""
    rng = np.random.default_rng(seed)
    pairs = []
    for index in range(count):
        mask = ndimage.uniform_filter(rng.random((size, size)), 3) > 0.62
        if index == 0:
            mask[:] = False  # a good image
        scores = np.clip(rng.random((size, size)) * 1.2 + 0.5 * mask, 0, 1.99)
        if levels:
            scores = np.floor(scores * levels) / levels
        pairs.append((scores.astype(np.float32), mask))
    return pairs


def histograms(pairs):
    result = PixelHistograms()
    for anomaly_map, mask in pairs:
        result.update(anomaly_map, mask)
    return result


def pixels(pairs):
    return np.concatenate([m.ravel() for m, _ in pairs]), np.concatenate([g.ravel() for _, g in pairs])


def reference_aupro(pairs, limit):
    """AUPRO from its definition: every score as a threshold, every region labelled and measured apart."""
    regions = []
    for anomaly_map, mask in pairs:
        labelled, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [anomaly_map[labelled == region] for region in range(1, count + 1)]
    scores, labels = pixels(pairs)
    normal = scores[~labels]
    curve = [(0.0, 0.0)]
    for threshold in sorted(set(scores.tolist()), reverse=True):
        overlap = [float((region >= threshold).mean()) for region in regions]
        curve.append((float((normal >= threshold).mean()), sum(overlap) / len(overlap)))
    area = 0.0
    for (x0, y0), (x1, y1) in pairwise(curve):
        if x0 < limit < x1:
            x1, y1 = limit, y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
        if x1 <= limit:
            area += (x1 - x0) * (y0 + y1) / 2
    return area / limit


class TestImages:
    @given(scored_parts())
    def test_auroc_is_that_of_scikit_learn(self, parts):
        scores, labels = parts
        assert image_auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)

    @given(scored_parts())
    def test_f1_max_is_that_of_scikit_learn_and_its_threshold_reaches_it(self, parts):
        scores, labels = parts
        precision, recall, _ = precision_recall_curve(labels, scores)
        expected = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300))
        f1, threshold = f1_max(scores, labels)
        assert f1 == pytest.approx(expected, abs=1e-12)
        assert confusion_at(scores, labels, threshold).f1 == f1

    def test_by_hand(self):
        scores, labels = floats(0.1, 0.4, 0.4, 0.8), bools(0, 0, 1, 1)
        assert image_auroc(scores, labels) == (1 + 0.5 + 1 + 1) / 4
        assert f1_max(scores, labels) == (4 / 5, 0.1)

    def test_of_equal_thresholds_the_lowest_is_chosen(self):
        # Rejecting only the top part and rejecting the top four both give F1 = 2/3.
        scores, labels = floats(0.1, 0.2, 0.3, 0.4, 0.9), bools(0, 1, 0, 0, 1)
        assert f1_max(scores, labels) == (2 / 3, 0.1)

    def test_rejecting_every_part_can_be_best(self):
        scores, labels = np.array([1.0, 0.0], dtype=np.float32), bools(0, 1)
        f1, threshold = f1_max(scores, labels)
        assert f1 == 2 / 3
        assert threshold < 0.0
        assert np.float32(threshold) == threshold

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    def test_nan_is_rejected_at_every_threshold(self, dtype):
        scores = np.array([NAN, 0.1, 0.9, NAN], dtype=dtype)
        labels = bools(0, 0, 1, 1)
        assert image_auroc(scores, labels) == (0 + 0.5 + 1 + 1) / 4
        f1, threshold = f1_max(scores, labels)
        assert (f1, threshold) == (4 / 5, dtype(0.1))
        assert confusion_at(scores, labels, INF) == Confusion(1, 1, 1, 1)

    def test_all_nan_is_chance_and_its_threshold_is_finite(self):
        scores, labels = floats(NAN, NAN), bools(0, 1)
        assert image_auroc(scores, labels) == 0.5
        f1, threshold = f1_max(scores, labels)
        assert f1 == 2 / 3
        assert math.isfinite(threshold)


class TestConfusion:
    def test_a_score_at_the_threshold_passes(self):
        scores, labels = floats(0.5, 0.5, 0.6, 0.6, 0.6), bools(0, 1, 0, 1, 1)
        counts = confusion_at(scores, labels, 0.5)
        assert counts == Confusion(true_pass=1, false_reject=1, escape=1, true_reject=2)
        assert counts.false_reject_rate == 1 / 2
        assert counts.escape_rate == 1 / 3
        assert counts.precision == counts.recall == counts.f1 == 2 / 3

    def test_a_float32_score_is_not_rounded_onto_the_threshold(self):
        # The float32 nearest to 0.1 is above 0.1.
        assert confusion_at(np.array([0.1], dtype=np.float32), bools(0), 0.1).false_reject == 1

    def test_a_threshold_of_nan_passes_nothing(self):
        assert confusion_at(floats(0.0, 1.0), bools(0, 1), NAN) == Confusion(0, 1, 0, 1)

    @given(scored_parts(), st.floats(-2, 2))
    def test_f1_is_that_of_scikit_learn(self, parts, threshold):
        scores, labels = parts
        rejected = ~(scores.astype(np.float64) <= threshold)
        expected = f1_score(labels, rejected, zero_division=0.0)
        assert confusion_at(scores, labels, threshold).f1 == pytest.approx(expected)

    @pytest.mark.parametrize(
        ("counts", "rate", "says"),
        [
            (Confusion(0, 0, 1, 1), "false_reject_rate", "no good parts"),
            (Confusion(1, 1, 0, 0), "escape_rate", "no defective parts"),
            (Confusion(1, 1, 0, 0), "recall", "no defective parts"),
            (Confusion(1, 0, 1, 0), "precision", "no part was rejected"),
            (Confusion(1, 0, 0, 0), "f1", "none was rejected"),
        ],
    )
    def test_an_unknown_rate_is_an_error(self, counts, rate, says):
        with pytest.raises(DataError, match=says):
            getattr(counts, rate)


class TestPixels:
    @pytest.mark.parametrize("seed", range(4))
    @pytest.mark.parametrize(("levels", "tolerance"), [(16, 1e-12), (None, 1e-4)])
    @pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
    def test_aupro_is_that_of_its_definition(self, seed, levels, tolerance, limit):
        pairs = random_maps(seed, levels=levels)
        expected = reference_aupro(pairs, limit)
        assert histograms(pairs).aupro(limit) == pytest.approx(expected, abs=tolerance)

    @settings(max_examples=30)
    @given(st.integers(0, 2**32 - 1), st.sampled_from([1, 8, 256]))
    def test_auroc_and_f1_are_those_of_scikit_learn(self, seed, levels):
        pairs = random_maps(seed, levels=levels)
        scores, labels = pixels(pairs)
        counted = histograms(pairs)
        assert counted.auroc() == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
        precision, recall, _ = precision_recall_curve(labels, scores)
        expected = np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300))
        f1, threshold = counted.f1_max()
        assert f1 == pytest.approx(expected, abs=1e-12)
        assert f1_score(labels, scores > np.float32(threshold)) == pytest.approx(f1, abs=1e-12)

    def test_scores_within_a_bin_are_tied(self):
        width = 2.0 / 65_536
        above = np.array([[1.0, 1.0 + 0.9 * width]], dtype=np.float32)
        assert histograms([(above, bools(0, 1)[None])]).auroc() == 0.5
        above[0, 1] = 1.0 + width
        assert histograms([(above, bools(0, 1)[None])]).auroc() == 1.0

    def test_aupro_by_hand(self):
        # A region of one pixel (0.9), one of two (0.8, 0.2), and ten normal pixels (0.85, 0.5, eight of 0).
        scores = np.zeros((1, 13), dtype=np.float32)
        mask = np.zeros((1, 13), dtype=bool)
        scores[0, 0], mask[0, 0] = 0.9, True
        scores[0, 2:4], mask[0, 2:4] = (0.8, 0.2), True
        scores[0, 5], scores[0, 6] = 0.85, 0.5
        counted = histograms([(scores, mask)])
        assert counted.regions == 2
        # Overlap 1/2 up to a rate of 0.1, then 3/4 up to 0.2, then 1.
        assert counted.aupro(0.3) == pytest.approx((0.1 * 0.5 + 0.1 * 0.75 + 0.1) / 0.3, abs=1e-12)
        assert counted.aupro(0.2) == pytest.approx((0.1 * 0.5 + 0.1 * 0.75) / 0.2, abs=1e-12)
        assert counted.aupro(0.05) == pytest.approx(0.5, abs=1e-12)

    def test_the_limit_cuts_a_segment_where_it_falls(self):
        # The region is tied with six of ten normal pixels: a straight line from (0, 0) to (0.6, 1).
        scores = np.array([[0.5] * 7 + [0.0] * 4], dtype=np.float32)
        mask = np.array([[True] + [False] * 10])
        assert histograms([(scores, mask)]).aupro(0.3) == pytest.approx(0.25, abs=1e-12)

    def test_regions_weigh_the_same_whatever_their_size_and_touch_at_corners(self):
        mask = np.zeros((9, 9), dtype=bool)
        mask[0, 0] = mask[1, 1] = mask[2, 0] = True  # one region, by its corners
        mask[4:8, 4:8] = True
        found_small = np.where(mask, 0.0, 0.1).astype(np.float32)
        found_small[:3, :2][mask[:3, :2]] = 1.0
        counted = histograms([(found_small, mask)])
        assert counted.regions == 2
        assert counted.aupro(0.3) == pytest.approx(0.5, abs=1e-12)

    def test_regions_of_different_images_stay_apart(self):
        mask = bools(1, 0)[None]
        one = np.array([[1.0, 0.0]], dtype=np.float32)
        assert histograms([(one, mask), (one, mask)]).regions == 2

    def test_the_order_of_the_maps_does_not_matter(self):
        pairs = random_maps(7, count=6)
        one, other = histograms(pairs), histograms(pairs[::-1])
        assert one.auroc() == other.auroc()
        assert one.f1_max() == other.f1_max()
        assert one.regions == other.regions
        assert one.aupro() == pytest.approx(other.aupro(), abs=1e-13)

    def test_a_perfect_detector(self):
        pairs = [(np.where(mask, 1.5, 0.5).astype(np.float32), mask) for _, mask in random_maps(1)]
        counted = histograms(pairs)
        assert counted.auroc() == 1.0
        assert counted.aupro() == 1.0
        f1, threshold = counted.f1_max()
        assert f1 == 1.0
        assert 0.5 < threshold < 1.5

    @pytest.mark.parametrize("value", [0.0, 0.7, 2.0])
    def test_a_constant_map_is_chance(self, value):
        pairs = [(np.full_like(scores, value), mask) for scores, mask in random_maps(1)]
        counted = histograms(pairs)
        assert counted.auroc() == 0.5
        assert counted.aupro(0.3) == pytest.approx(0.15, abs=1e-15)

    @pytest.mark.parametrize("broken", [NAN, INF, 2.0, 3e38])
    def test_nan_and_scores_above_the_range_are_flagged_first(self, broken):
        scores = np.array([[broken, 1.9, 0.1, 0.1]], dtype=np.float32)
        counted = histograms([(scores, bools(0, 1, 0, 0)[None])])
        assert counted.auroc() == pytest.approx(2 / 3)
        assert counted.f1_max()[0] == 2 / 3

    @pytest.mark.parametrize("broken", [-INF, -3e38, -0.5, 0.0])
    def test_scores_below_the_range_are_flagged_last(self, broken):
        scores = np.array([[broken, 1.9, 0.1]], dtype=np.float32)
        assert histograms([(scores, bools(0, 1, 0)[None])]).auroc() == 1.0

    def test_a_refused_map_counts_nothing(self):
        pairs = random_maps(3)
        counted = histograms(pairs)
        with pytest.raises(DataError):
            counted.update(pairs[0][0], pairs[0][1][:-1])
        assert counted.auroc() == histograms(pairs).auroc()


MAP = np.zeros((2, 2), dtype=np.float32)
GOOD = np.zeros((2, 2), dtype=bool)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: image_auroc(floats(), bools()), "no scores"),
        (lambda: f1_max(floats(), bools()), "no scores"),
        (lambda: confusion_at(floats(), bools(), 0.5), "no scores"),
        (lambda: image_auroc(floats(1, 2), bools(0, 0)), "no defective part"),
        (lambda: image_auroc(floats(1, 2), bools(1, 1)), "no good part"),
        (lambda: f1_max(floats(1, 2), bools(0, 0)), "no defective part"),
        (lambda: f1_max(floats(1, 2), bools(1, 1)), "no good part"),
        (lambda: f1_max(floats(1, -INF), bools(0, 1)), "minus infinity"),
        (lambda: image_auroc(floats(1, 2), bools(0)), r"shape \(2,\) with labels of shape \(1,\)"),
        (lambda: confusion_at(floats(1)[None], bools(0)[None], 1), "1-D"),
        (lambda: confusion_at(floats(1), np.array([1]), 1), "labels of int64"),
        (lambda: confusion_at(np.array(["1"]), bools(0), 1), "scores of <U1"),
        (lambda: PixelHistograms().auroc(), "no normal pixel"),
        (lambda: PixelHistograms().aupro(), "no normal pixel"),
        (lambda: PixelHistograms().f1_max(), "no normal pixel"),
        (lambda: histograms([(MAP, ~GOOD)]).aupro(), "no normal pixel"),
        (lambda: histograms([(MAP, GOOD)]).auroc(), "no anomalous pixel"),
        (lambda: histograms([(MAP, GOOD)]).aupro(), "no region"),
        (lambda: histograms([(MAP, GOOD)]).f1_max(), "no anomalous pixel"),
        (lambda: histograms([(MAP, ~GOOD)]).aupro(0.0), "limit of 0.0"),
        (lambda: histograms([(MAP, ~GOOD)]).aupro(1.5), "limit of 1.5"),
        (lambda: histograms([(MAP, ~GOOD)]).aupro(NAN), "limit of nan"),
        (lambda: histograms([(MAP, GOOD[:1])]), r"mask of shape \(1, 2\)"),
        (lambda: histograms([(MAP[0], GOOD[0])]), r"\[H, W\]"),
        (lambda: histograms([(MAP.astype(np.float64), GOOD)]), "map of float64"),
        (lambda: histograms([(MAP, GOOD.astype(np.uint8))]), "mask of uint8"),
    ],
)
def test_what_cannot_be_evaluated_is_an_error_that_says_so(call, says):
    with pytest.raises(DataError, match=says) as caught:
        call()
    assert caught.value.do
