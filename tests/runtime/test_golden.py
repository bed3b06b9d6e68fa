from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from lineward.runtime.bundle import GOLDEN_TENSOR, decode_bundle, encode_tensor
from lineward.runtime.errors import BundleError
from lineward.runtime.golden import check_golden
from lineward.runtime.images import encode_png
from lineward.runtime.inspector import Inspector

TOLERANCE = 1e-4
GOOD = "golden/good.safetensors"


def shifted(bundle, by):
    """The golden scores of the good part, one patch of them otherwise."""
    scores = bundle.golden_scores(GOOD).copy()
    scores[3, 4] += by
    return encode_tensor(GOLDEN_TENSOR, scores)


def check(data):
    bundle = decode_bundle(data, "here.lineward")
    return check_golden(bundle, Inspector(bundle))


def test_a_sound_bundle(tiny):
    results = check_golden(tiny, Inspector(tiny))
    assert [result.image for result in results] == ["golden/good.png", "golden/defect.png"]
    for result in results:
        assert 0 <= result.deviation <= result.tolerance == tiny.manifest.golden_tolerance


def test_a_bundle_without_golden_images(tiny, rebundle):
    members = {name: None for name in tiny.members if name.startswith("golden/")}
    assert check(rebundle(members, golden=())) == ()


@pytest.mark.parametrize("by", [0.5 * TOLERANCE, -0.5 * TOLERANCE])
def test_a_deviation_within_the_tolerance_is_told(by, tiny, rebundle):
    assert check(rebundle({GOOD: shifted(tiny, by)}))[0].deviation == pytest.approx(abs(by), rel=0.1)


@pytest.mark.parametrize("by", [2 * TOLERANCE, -2 * TOLERANCE, math.nan, math.inf])
def test_scores_that_differ_are_refused(by, tiny, rebundle):
    with pytest.raises(BundleError, match=r"golden/good\.png: patch scores differ by") as caught:
        check(rebundle({GOOD: shifted(tiny, by)}))
    assert "do not inspect" in caught.value.do


def test_pixels_that_differ_by_a_bit_are_refused(rebundle, golden_frames):
    altered = golden_frames[0].copy()
    altered[10, 20, 1] ^= 1
    with pytest.raises(BundleError, match="gives other pixels"):
        check(rebundle({"golden/good.png": encode_png(altered)}))


def test_every_golden_image_counts(tiny, rebundle):
    good, defect = tiny.manifest.golden
    other = msgspec.structs.replace(defect, preprocessed_sha256="0" * 64)
    with pytest.raises(BundleError, match=r"golden/defect\.png"):
        check(rebundle(golden=(good, other)))


def test_scores_of_another_grid_are_refused(rebundle):
    scores = encode_tensor(GOLDEN_TENSOR, np.zeros((8, 1), np.float32))
    with pytest.raises(BundleError, match="should be float32"):
        check(rebundle({GOOD: scores}))
